"""What the tests of DeltaCore share: random networks, and a simulation held against deltarnn.fixed and the model."""

import shutil

import numpy as np
import pytest

from deltarnn import QFormat, Quantization
from deltarnn.fixed import IntegerNetwork
from deltarnn.fixed.parameters import DenseWeights, NetworkParameters, RecurrentWeights
from deltarnn.hardware.compilers import MissingToolError
from deltarnn.hardware.delta_core import CoreClocks, core_fired, step_clocks
from deltarnn.hardware.export_rtl import RtlDesign
from deltarnn.hardware.simulation import Simulation
from deltarnn.hardware.verilator import find_cpp, find_verilator
from deltarnn.prune import column_balanced_dropout

Q35 = Quantization()
Q88_FLOOR = Quantization(QFormat(8, 8), QFormat(1, 7), QFormat(2, 6), rounding="floor")


def needs_simulator() -> None:
    """Skip, saying why, where Verilator or a C++ compiler is not there."""
    try:
        find_verilator()
        find_cpp()
    except MissingToolError as error:
        pytest.skip(str(error))
    if shutil.which("perl") is None:
        pytest.skip("Verilator is started by perl, which is not there")


def random_network(
    cell: str,
    input_size: int,
    hidden: tuple[int, ...],
    head: tuple[int, ...] = (),
    q: Quantization = Q35,
    thresholds: tuple[int, int] = (2, 3),
    seed: int = 0,
    gamma: float = 0.0,
) -> IntegerNetwork:
    """Weights over all of their format, pruned to `gamma` over four elements; thresholds in stored integers."""
    rng, gates = np.random.default_rng(seed), {"GRU": 3, "LSTM": 4}[cell]
    thx, thh = (theta * q.activation.step for theta in thresholds)

    def draw(*shape: int) -> np.ndarray:
        drawn = q.weight.quantize(rng.uniform(q.weight.min, q.weight.max, shape))
        return column_balanced_dropout(drawn, gamma, 4) if gamma and len(shape) == 2 else drawn

    layers, inputs = [], input_size
    for size in hidden:
        rows = gates * size
        layers.append(RecurrentWeights(draw(rows, inputs), draw(rows, size), draw(rows) / 2, draw(rows) / 2, thx, thh))
        inputs = size
    dense = []
    for index, size in enumerate(head):
        last = index == len(head) - 1
        weight, bias = rng.normal(size=(size, inputs)), rng.normal(size=size)
        weight[-1], bias[-1] = weight[0], bias[0]  # equal scores: the class is the first
        dense.append(DenseWeights(weight, bias, None if last else "relu"))
        inputs = size
    return IntegerNetwork.convert(NetworkParameters(cell, tuple(layers), tuple(dense), quantization=q))


def random_frames(network: IntegerNetwork, steps: int, seed: int = 0, extreme: bool = False) -> np.ndarray:
    """(T, I) a random walk; extreme: between the ends of the format, so that everything saturates."""
    rng, shape = np.random.default_rng(seed), (steps, network.input_size)
    if extreme:
        return rng.choice([-1e6, 1e6, 0.0], size=shape)
    return rng.normal(size=shape).cumsum(axis=0) * 0.3


def stored(network: IntegerNetwork, frames: np.ndarray) -> np.ndarray:
    """Frames as the core takes them."""
    return network.quantization.activation.to_int(frames, network.quantization.rounding)


def check(network: IntegerNetwork, design: RtlDesign, frames: np.ndarray, simulation: Simulation) -> None:
    """Scores, class, hidden states, events and clocks of every step equal."""
    run = network.run(frames)
    np.testing.assert_array_equal(simulation.scores, run.output[:, 0])
    np.testing.assert_array_equal(simulation.classes, run.output[:, 0].argmax(axis=1))
    for index, layer in enumerate(run.layers):
        np.testing.assert_array_equal(simulation.hidden[index], layer.y[:, 0])
        np.testing.assert_array_equal(simulation.fired_x[index], layer.fired_x[:, 0])
        np.testing.assert_array_equal(simulation.fired_h[index], layer.fired_h[:, 0])
    clocks = modelled(network, design, simulation)
    np.testing.assert_array_equal(simulation.cycles, [c.cycles for c in clocks])
    np.testing.assert_array_equal(simulation.product_cycles, [c.products for c in clocks])
    np.testing.assert_array_equal(simulation.busy_cycles, [c.busy for c in clocks])


def modelled(network: IntegerNetwork, design: RtlDesign, simulation: Simulation) -> list[CoreClocks]:
    """DeltaCore's clocks of the steps of a simulation."""
    signal, dense = simulation.hidden[-1], []
    for layer in network.head:
        dense.append(np.diff(signal, axis=0, prepend=0) != 0)
        signal = layer(signal)
    layout = design.layout
    per_part = [
        core_fired(layout, index, simulation.fired_x, simulation.fired_h, dense) for index in range(len(layout.parts))
    ]
    return [step_clocks(layout, [fired[step] for fired in per_part]) for step in range(len(simulation.cycles))]
