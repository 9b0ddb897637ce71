"""int8 with formats from calibration data: bit for bit the integer cells, close to float32, in 32 bits."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engine.cases import ISAS, isa, signal

from deltarnn import DeltaGRU, DeltaLSTM, Quantization
from deltarnn.engine import Engine, ModelFileError, UnsupportedModelError, load_model, save_model
from deltarnn.fixed.cells import IntegerLayer, IntegerRun, run_layers
from deltarnn.fixed.formats import LayerFormats
from deltarnn.fixed.qformat import QFormat


def layer(cell: Any, inputs: int, hidden: int, layers: int, gain: float = 1.0, **options: Any) -> Any:
    torch.manual_seed(0)
    made = cell(inputs, hidden, layers, **options).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            parameter.mul_(gain if "hh" in name else 1 / gain)
    return made


def smooth(steps: int, features: int, scale: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(1)
    frames = rng.normal(size=(steps, features))
    for t in range(1, steps):
        frames[t] = 0.9 * frames[t - 1] + 0.44 * frames[t]
    return (scale * frames).astype(np.float32)


def by_integer_cells(module: Any, engine: Engine, frames: np.ndarray) -> list[IntegerRun]:
    assert engine.formats is not None
    layers = []
    for index, formats in enumerate(engine.formats):
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        weights = [getattr(module, f"{name}_l{index}").detach().numpy() for name in names]
        thresholds = engine.thx[index], engine.thh[index]
        layers.append(IntegerLayer.quantize(module.mode, *weights, *thresholds, formats, module.hard_activations))
    return run_layers(layers, frames[:, None])


@pytest.mark.filterwarnings("ignore:th. of layer")
@settings(max_examples=20, deadline=None)
@given(
    cell=st.sampled_from([DeltaGRU, DeltaLSTM]),
    sizes=st.tuples(st.integers(1, 40), st.sampled_from([1, 3, 16, 33, 65]), st.integers(1, 3)),
    gain=st.sampled_from([0.1, 1.0, 3.0]),
    scale=st.sampled_from([0.01, 1.0, 30.0]),
    hard=st.booleans(),
    name=st.sampled_from(ISAS),
)
def test_it_is_the_integer_cells_bit_for_bit(
    cell: Any, sizes: tuple[int, int, int], gain: float, scale: float, hard: bool, name: str
) -> None:
    thx = [0.1 * scale, 0.05, 0.02][: sizes[2]]
    module = layer(cell, *sizes, gain, thx=thx, thh=0.05, hard_activations=hard)
    frames = signal(40, sizes[0], 0, scale)
    with isa(name):
        engine = Engine.compile(module, "int8", calibration=frames / 3)  # so that some values saturate
    runs = by_integer_cells(module, engine, frames)
    output = engine.run(frames)
    assert engine.formats is not None
    np.testing.assert_array_equal(output, engine.formats[-1].hidden.to_float(runs[-1].y[:, 0]).astype(np.float32))
    for index, (run, state, formats) in enumerate(zip(runs, engine.state, engine.formats, strict=True)):
        assert not engine._model.wide(index)
        bits = {"x_hat": formats.input.fraction_bits, "m": formats.memory_fraction_bits}
        bits |= {"c": formats.cell.fraction_bits}
        for part, values in state.items():
            scaled = values * 2.0 ** bits.get(part, formats.hidden.fraction_bits)
            np.testing.assert_array_equal(scaled, getattr(run.state, part)[0])
    engine.reset()
    np.testing.assert_array_equal(np.stack([engine.step(frame) for frame in frames]), output)


@pytest.mark.parametrize("cell", [DeltaGRU, DeltaLSTM])
@pytest.mark.parametrize(("gain", "scale"), [(1.0, 1.0), (2.0, 1.0), (1.0, 20.0)])
def test_it_stays_close_to_float32_in_32_bits(cell: Any, gain: float, scale: float) -> None:
    module, frames = layer(cell, 40, 384, 2, gain), smooth(150, 40, scale)
    expected = Engine.compile(module).run(frames)
    engine = Engine.compile(module, "int8", calibration=frames)
    error = float(((engine.run(frames) - expected) ** 2).sum() / (expected**2).sum())
    assert error < 1e-3
    assert not any(engine._model.wide(index) for index in range(2))


def test_thresholds_cost_no_accuracy_of_their_own() -> None:
    module, frames = layer(DeltaGRU, 40, 384, 2, thx=0.1, thh=0.02), smooth(200, 40)
    expected = Engine.compile(module).run(frames)
    engine = Engine.compile(module, "int8", calibration=[frames[:100], frames[100:]])
    error = float(((engine.run(frames) - expected) ** 2).sum() / (expected**2).sum())
    assert error < 0.01


def test_a_wide_layer_gives_up_activation_bits_not_32_bit_sums() -> None:
    module, frames = layer(DeltaGRU, 700, 16, 1), smooth(20, 700)
    with torch.no_grad():
        module.weight_ih_l0.copy_(0.98 * module.weight_ih_l0.sign())
    engine = Engine.compile(module, "int8", calibration=frames)
    assert engine.formats is not None
    assert engine.formats[0].input.bits < 16
    assert not engine._model.wide(0)
    rows = np.abs(np.rint(module.weight_ih_l0.detach().numpy() * 2.0 ** engine.formats[0].weight_ih.fraction_bits))
    assert rows.sum(axis=1).max() * 2 ** (engine.formats[0].input.bits - 1) < 2**31


def test_formats_come_back_from_the_file(tmp_path: Path) -> None:
    module, frames = layer(DeltaLSTM, 5, 20, 2, thx=0.1, thh=0.05), smooth(50, 5)
    engine = Engine.compile(module, "int8", calibration=frames)
    engine.save(tmp_path / "model.safetensors")
    loaded = Engine.load(tmp_path / "model.safetensors")
    assert (loaded.precision, loaded.formats, loaded.thx) == ("int8", engine.formats, engine.thx)
    assert "automatic formats" in repr(loaded)
    np.testing.assert_array_equal(loaded.run(frames), engine.run(frames))
    wide = Engine.load(tmp_path / "model.safetensors", "float32")
    assert wide.formats is None
    wide.save(tmp_path / "wide.safetensors")
    assert Engine.load(tmp_path / "wide.safetensors").precision == "float32"  # as it was saved: formats that are used

    tensors, header = load_model(tmp_path / "model.safetensors")
    for broken, message in [
        (header["formats"][:1], "formats must be a list of 2 objects"),
        ([{**entry, "input": [1]} for entry in header["formats"]], "formats: "),
        ([{**entry, "input": [1, 2]} for entry in header["formats"]], "the memories need one number"),
    ]:
        with pytest.raises(ModelFileError, match=message):
            save_model(tmp_path / "broken.safetensors", tensors, {**header, "formats": broken})


def test_dense_states_go_in_and_out_in_their_own_formats() -> None:
    module, frames = layer(DeltaLSTM, 5, 20, 2, 2.0), smooth(50, 5, 3.0)
    engine = Engine.compile(module, "int8", calibration=frames)
    assert engine.formats is not None
    assert engine.formats[0].cell.fraction_bits != engine.formats[0].hidden.fraction_bits
    engine.run(frames)
    h, c = np.empty((2, 2, 20), np.float32)
    engine.hidden(h, c)
    for index, state in enumerate(engine.state):
        np.testing.assert_array_equal(h[index], state["h"])
        np.testing.assert_array_equal(c[index], state["c"])
    other = engine.stream()
    assert not other.enter(h, c)
    for mine, theirs in zip(engine.state, other.state, strict=True):
        np.testing.assert_array_equal(mine["c"], theirs["c"])
    assert other.enter(h, c)


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (DeltaGRU(3, 4), {"calibration": np.zeros((9, 2))}, r"calibration has shape \(9, 2\): must be \(T, 3\)"),
        (DeltaGRU(3, 4), {"calibration": []}, "calibration is empty"),
        (DeltaGRU(3, 4), {"calibration": np.full((9, 3), np.nan)}, "calibration holds NaN"),
        (DeltaGRU(3, 4), {"calibration": np.full((9, 3), 1e6)}, "layer 0: x reaches 2e[+]06"),
        (DeltaGRU(3, 4), {"calibration": np.zeros((9, 3)), "precision": "float32"}, "would ignore: it is for 'int8'"),
        (DeltaGRU(3, 4), {"calibration": np.zeros((9, 3)), "quantization": Quantization()}, "leave out one of them"),
        (DeltaGRU(3, 4, quantization=Quantization()), {"calibration": np.zeros((9, 3))}, "leave out one of them"),
        (DeltaLSTM(3, 4, proj_size=2), {"calibration": np.zeros((9, 3))}, "does not combine with proj_size"),
        (DeltaGRU(3, 4, reset_after=False), {"calibration": np.zeros((9, 3))}, "does not combine with reset_after"),
    ],
)
def test_what_does_not_fit_is_named(module: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Engine.compile(module, **{"precision": "int8", **options})


def test_weights_of_any_size_find_a_format_or_an_error() -> None:
    for gain in (1e-8, 1e-3, 50.0, 1e3):
        module = layer(DeltaGRU, 3, 4, 1)
        with torch.no_grad():
            module.weight_ih_l0.mul_(gain)
        try:
            engine = Engine.compile(module, "int8", calibration=smooth(20, 3))
        except UnsupportedModelError as error:
            assert gain == 1e3, error  # noqa: PT017
        else:
            assert not engine._model.wide(0)


def test_formats_that_do_not_fit_each_other_are_refused() -> None:
    uniform = LayerFormats.uniform(Quantization())
    with pytest.raises(ValueError, match=r"Q3\.6 and Q1\.7 make 13 fraction bits, Q3\.5 and Q1\.7 12"):
        dataclasses.replace(uniform, input=QFormat(3, 6))
    with pytest.raises(ValueError, match=r"address format Q1\.13: no more than the memories' 12 bits"):
        dataclasses.replace(uniform, address=QFormat(1, 13))
