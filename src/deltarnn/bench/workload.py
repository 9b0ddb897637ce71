"""What the engine's benchmark runs: lively layers, signals that change at random, thresholds for a wanted sparsity."""

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from deltarnn.engine import Engine
from deltarnn.engine.compilation import Precision
from deltarnn.nn import DeltaGRU, DeltaLSTM

Sizes = tuple[int, int, int]
"""Input size, hidden size, layers."""

SMALLEST_CHANGE = 2.0**-8
"""Threshold of the first layer's inputs, which hold still or change by more; on the grid of the int8 engine's Q8.8."""


def size_name(sizes: Sizes) -> str:
    """Such as 40→2×768."""
    inputs, hidden, layers = sizes
    return f"{inputs}→{hidden}" if layers == 1 else f"{inputs}→{layers}×{hidden}"


def lively_layer(cell: str, sizes: Sizes, seed: int = 0) -> nn.RNNBase:
    """A dense layer with weights of twice the usual size, so that its hidden state moves as a trained one's does."""
    torch.manual_seed(seed)
    layer = (nn.GRU if cell == "GRU" else nn.LSTM)(*sizes)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(2)
    return layer


def random_changes(steps: int, features: int, sparsity: float, seed: int = 0) -> NDArray[np.float32]:
    """(T, I): at each step each feature takes a new value with probability 1 − sparsity, else holds; on the Q8.8 grid.

    Which columns fire is spread at random, so that no cache holds just the right ones.
    """
    rng = np.random.default_rng(seed)
    fresh = np.rint(rng.normal(size=(steps, features)) * 256) / 256
    moves = rng.random((steps, features)) >= sparsity
    moves[0] = True
    last = np.maximum.accumulate(np.where(moves, np.arange(steps)[:, None], 0), axis=0)
    return np.take_along_axis(fresh, last, axis=0).astype(np.float32)


WEIGHT_BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}


def calibrated_engine(dense: nn.RNNBase, frames: NDArray[np.float32], sparsity: float, precision: Precision) -> Engine:
    """An engine of `dense` in which each layer's hidden deltas, and the inputs of later layers, reach `sparsity`.

    The thresholds are found by bisection over runs of `frames`, all at once. At sparsity 0 they are 0: nothing is held.
    """
    layers = dense.num_layers
    if sparsity == 0:
        return _engine(dense, [0.0] * layers, [0.0] * layers, precision)
    low, high = np.full(2 * layers, 1e-4), np.full(2 * layers, 2.0)
    for _ in range(12):
        middle = np.sqrt(low * high)
        thx, thh = [SMALLEST_CHANGE, *middle[1:layers]], list(middle[layers:])
        engine = _engine(dense, thx, thh, precision)
        engine.run(frames)
        reached = [layer.sparsity_x for layer in engine.activity.per_layer]
        reached += [layer.sparsity_h for layer in engine.activity.per_layer]
        enough = np.array(reached) >= sparsity
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    engine.reset()
    return engine


def fired_bytes(engine: Engine) -> float:
    """Bytes of the weight columns that the steps so far fetched, per step."""
    weight = WEIGHT_BYTES[engine.precision]
    layers = engine.activity.per_layer
    fired = sum(
        (layer.numel_x - layer.zeros_x + layer.numel_h - layer.zeros_h) * layer.gate_rows / layer.steps
        for layer in layers
    )
    return float(fired * weight)


def _engine(dense: nn.RNNBase, thx: list[float], thh: list[float], precision: Precision) -> Engine:
    if precision == "int8":  # on the grid of Q8.8 and at least one step, or 0
        thx, thh = ([np.ceil(value * 256) / 256 for value in values] for values in (thx, thh))
    delta = DeltaGRU if isinstance(dense, nn.GRU) else DeltaLSTM
    layer = delta(dense.input_size, dense.hidden_size, dense.num_layers, thx=thx, thh=thh)
    layer.load_state_dict(dense.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return Engine.compile(layer.eval(), precision)
