"""The engine's interface: arguments, errors, streams, threads, files, independence from torch."""

import copy
import os
import pickle
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.engine.cases import ISAS, compiled, eager, isa, signal
from torch import nn

from deltarnn import DeltaGRU, DeltaLSTM, QFormat, Quantization, convert
from deltarnn.engine import Engine, ModelFileError, UnsupportedModelError, load_model
from deltarnn.fixed.network import IntegerNetwork
from deltarnn.nn import quantize

FORMATS = Quantization(QFormat(8, 8), QFormat(1, 7), QFormat(2, 6))


class Classifier(nn.Module):
    def __init__(self, rnn: nn.Module, *head: nn.Module) -> None:
        super().__init__()
        self.rnn, self.head = rnn, nn.Sequential(*head)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0])


def gru(**options: Any) -> DeltaGRU:
    torch.manual_seed(0)
    return DeltaGRU(7, 20, thx=0.25, thh=0.125, backend="eager", **options).eval()


def test_out_is_filled_and_returned() -> None:
    engine, frames = compiled(gru()), signal(2, 7, 0)
    expected = eager(gru(), frames)
    out = np.empty(20, np.float32)
    assert engine.step(frames[0], out=out) is out
    np.testing.assert_allclose(out, expected[0], atol=1e-6)
    fresh = engine.step(frames[1])
    assert fresh is not out
    assert fresh.dtype == np.float32
    np.testing.assert_allclose(fresh, expected[1], atol=1e-6)
    engine.reset()
    out = np.empty((2, 20), np.float32)
    assert engine.run(frames, out) is out
    np.testing.assert_allclose(out, expected, atol=1e-6)


def test_out_may_be_the_input_but_not_overlap_it() -> None:
    """Results of one chunk of frames would be read as the next chunk's input."""
    engine, frames = Engine.compile(DeltaGRU(20, 20, thx=0.1)), signal(301, 20, 0)
    expected = engine.run(frames)
    engine.reset()
    np.testing.assert_array_equal(engine.run(frames, frames), expected)
    for inputs, out in ((frames[:-1], frames[1:]), (frames[1:], frames[:-1])):
        with pytest.raises(ValueError, match="out overlaps the input: give an array of its own"):
            engine.run(inputs, out)


@pytest.mark.parametrize(
    "convert_frame",
    [
        lambda f: f.astype(np.float64),
        lambda f: f.tolist(),
        lambda f: torch.from_numpy(f),
        lambda f: np.repeat(f, 2)[::2],
        lambda f: f.astype(">f4"),
    ],
    ids=["float64", "list", "torch", "strided", "big-endian"],
)
def test_other_frames_are_converted(convert_frame: Any) -> None:
    frames = signal(3, 7, 0)
    expected = compiled(gru()).run(frames)
    engine = compiled(gru())
    np.testing.assert_array_equal([engine.step(convert_frame(frame)) for frame in frames], expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: e.step(np.zeros(6)), r"input has shape \(6,\): must be \(7,\)"),
        (lambda e: e.step(np.zeros((1, 7))), r"shape \(1, 7\).*for several frames there is run"),
        (lambda e: e.step(None), r"must be \(7,\)"),
        (lambda e: e.run(None), r"must be \(T, 7\)"),
        (lambda e: e.run(np.zeros(7)), r"shape \(7,\): must be \(T, 7\); for one frame there is step"),
        (
            lambda e: e.step(np.zeros(7), np.zeros(20)),
            r"out must be a writable C-contiguous float32 array of shape \(20,\)",
        ),
        (lambda e: e.step(np.zeros(7), np.zeros(19, np.float32)), "out must be"),
        (lambda e: e.run(np.zeros((3, 7)), np.zeros((2, 20), np.float32)), r"shape \(3, 20\)"),
        (lambda e: e.step(np.zeros(7), np.zeros(40, np.float32)[::2]), "C-contiguous"),
    ],
)
def test_wrong_shapes_are_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(compiled(gru()))


def test_a_gru_of_another_form_comes_back_from_its_file(tmp_path: Path) -> None:
    for form in ({"reset_after": False}, {"candidate": "relu"}, {"reset_after": False, "candidate": "relu"}):
        engine, frames = Engine.compile(gru(**form)), signal(20, 7, 0)
        expected = engine.run(frames)
        engine.save(tmp_path / "model.safetensors")
        assert set(load_model(tmp_path / "model.safetensors")[1]["architecture"]) >= form.keys()
        np.testing.assert_array_equal(Engine.load(tmp_path / "model.safetensors").run(frames), expected)
    assert not Engine.compile(gru()).header["architecture"].keys() & {"reset_after", "candidate"}


def test_an_empty_run_does_nothing() -> None:
    engine = compiled(gru())
    assert engine.run(np.zeros((0, 7), np.float32)).shape == (0, 20)
    with pytest.raises(RuntimeError, match="no step"):
        engine.activity.sparsity_x  # noqa: B018


def test_nan_shows_in_float_and_is_refused_in_int8() -> None:
    frames = signal(20, 7, 0)
    broken = frames.copy()
    broken[13, 4] = np.nan
    assert np.isnan(compiled(gru()).run(broken)[13:]).any()
    layer = gru(quantization=FORMATS)
    engine, expected = compiled(layer), eager(layer, frames)
    with pytest.raises(ValueError, match="frame 13 holds NaN"):
        engine.run(broken)
    np.testing.assert_array_equal(engine.run(frames[13:]), expected[13:])  # the 13 frames before it have run
    with pytest.raises(ValueError, match="the frame holds NaN"):
        engine.step(broken[13])


def test_infinities_saturate_in_int8() -> None:
    layer = gru(quantization=FORMATS)
    frames = signal(6, 7, 0)
    frames[2, 1], frames[4, 2] = np.inf, -np.inf
    np.testing.assert_array_equal(compiled(layer).run(frames), eager(layer, frames))


def test_streams_are_independent_and_threads_do_not_disturb_each_other() -> None:
    """Weights of more than 256 KiB: steps release the GIL, so the threads do run at once."""
    torch.manual_seed(0)
    layer = DeltaGRU(64, 160, thx=0.25, thh=0.05, backend="eager").eval()
    engine = compiled(layer)
    signals = [signal(300, 64, seed) for seed in range(4)]

    def run(stream: Engine, frames: np.ndarray) -> np.ndarray:
        return np.stack([stream.step(frame) for frame in frames])

    expected = [run(engine.stream(), frames) for frames in signals]
    streams = [engine.stream() for _ in signals]
    outputs: list[Any] = [None] * len(signals)

    def work(index: int) -> None:
        outputs[index] = run(streams[index], signals[index])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(signals))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for output, wanted in zip(outputs, expected, strict=True):
        np.testing.assert_array_equal(output, wanted)
    assert engine.activity.per_layer[0].steps == 0


def test_one_stream_in_two_threads_is_refused_or_serial() -> None:
    torch.manual_seed(0)
    engine = compiled(DeltaGRU(64, 256).eval())
    frames, refused = signal(3000, 64, 0), []
    thread = threading.Thread(target=engine.run, args=(frames,))
    thread.start()
    while thread.is_alive() and not refused:
        try:
            engine.step(frames[0])
        except RuntimeError as error:
            refused.append(str(error))
    thread.join()
    assert refused
    assert "engine.stream()" in refused[0]


@pytest.mark.parametrize("quantization", [None, FORMATS], ids=["float32", "int8"])
def test_a_whole_model_gives_its_class_scores(quantization: Quantization | None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    rnn = gru(quantization=quantization)
    model = Classifier(rnn, nn.Linear(20, 33), nn.ReLU(), nn.Dropout(0.5), nn.Linear(33, 12, bias=False)).eval()
    frames = signal(30, 7, 0)
    with torch.no_grad():
        expected = model(torch.from_numpy(frames)[:, None])[:, 0].numpy()
    engine = Engine.compile(model, "float32" if quantization is None else "int8")
    assert engine.output_size == 12
    np.testing.assert_allclose(engine.run(frames), expected, rtol=0, atol=1e-5)
    engine.save(tmp_path / "model.safetensors")
    loaded = Engine.load(tmp_path / "model.safetensors")
    assert loaded.precision == engine.precision
    engine.reset()
    np.testing.assert_array_equal(loaded.run(frames), engine.run(frames))


def test_int8_by_default_uses_wide_formats_and_rounds_thresholds(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer = DeltaGRU(7, 20, thx=0.1, thh=0.125).eval()
    with pytest.warns(UserWarning, match="thx of layer 0 rounded from 0.1 to 0.101562, on the grid of Q8.8"):
        engine = Engine.compile(layer, "int8")
    assert engine.thx == (26 / 256,)
    assert engine.quantization == FORMATS
    assert layer.thx == (0.1,)
    frames = signal(50, 7, 0)
    expected = IntegerNetwork.convert(layer, FORMATS)
    np.testing.assert_array_equal(engine.run(frames), expected.to_float(expected.run(frames).output)[:, 0])
    engine.save(tmp_path / "model.safetensors")
    assert load_model(tmp_path / "model.safetensors")[1]["thx"] == [26 / 256]
    engine.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = Engine.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded.run(frames), engine.run(frames))


@pytest.mark.parametrize(
    ("make", "options", "error", "message"),
    [
        (lambda: gru(bidirectional=True), {}, UnsupportedModelError, "bidirectional.*future"),
        (lambda: nn.GRU(3, 4), {}, UnsupportedModelError, r"GRU has no thresholds: convert it first"),
        (lambda: nn.Sequential(nn.GRU(3, 4)), {}, UnsupportedModelError, r"its 0 has no thresholds; convert it first"),
        (
            lambda: convert(nn.Sequential(nn.GRUCell(3, 4))),
            {},
            UnsupportedModelError,
            r"its 0 is a delta cell, .*\.as_layer",
        ),
        (lambda: nn.Linear(3, 4), {}, UnsupportedModelError, "Linear is not a delta layer"),
        (gru, {"precision": "int4"}, ValueError, "precision='int4': must be one of 'float32', 'bfloat16', 'int8'"),
        (gru, {"quantization": FORMATS}, ValueError, "float32' would ignore"),
        (lambda: gru(quantization=FORMATS), {}, ValueError, "the model has fixed-point formats"),
        (gru, {"precision": "int8", "quantization": Quantization(weight=QFormat(1, 8))}, ValueError, "9 bits"),
        (gru, {"precision": "int8", "quantization": Quantization(activation=QFormat(8, 9))}, ValueError, "17 bits"),
        (gru, {"precision": "int8", "quantization": Quantization(activation=QFormat(8, 0))}, ValueError, "rounds to 0"),
    ],
)
def test_what_cannot_be_compiled_is_refused(make: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Engine.compile(make(), **options)


def test_weights_that_int8_clips_are_named_and_clipped_as_the_layer_clips_them() -> None:
    layer, formats = gru(), Quantization(activation=QFormat(8, 8))
    with torch.no_grad():
        layer.weight_hh_l0[3, 4] = 1.5
    with pytest.warns(UserWarning, match=r"weight_hh of layer 0 reaches 1.5: Q1.7 holds -1 to 0.992188 and clips it"):
        engine = Engine.compile(layer, "int8", formats)
    quantize(layer, formats)
    frames = np.random.default_rng(0).normal(size=(20, layer.input_size)).astype(np.float32)
    expected = layer(torch.from_numpy(frames))[0].detach().numpy()
    np.testing.assert_array_equal(engine.run(frames), expected)


def test_layers_with_64_bit_sums_are_told_with_the_formats_that_avoid_them() -> None:
    wide = Quantization(QFormat(3, 13), QFormat(1, 7), QFormat(2, 14))  # 14 fraction bits of the gates need more
    engine = compiled(gru(quantization=wide))
    assert engine.accumulator_bits == (64,)
    assert "64-bit sums in layer 0 (32 with Q3.13 activations and Q2.13 gates)" in repr(engine)
    narrower = compiled(gru(quantization=Quantization(QFormat(3, 13), QFormat(1, 7), QFormat(2, 13))))
    assert narrower.accumulator_bits == (32,)
    assert "bit sums" not in repr(narrower)
    assert compiled(gru()).accumulator_bits == ()

    torch.manual_seed(0)
    layer = DeltaGRU(600, 5, 2, quantization=FORMATS).eval()  # sums of 600 weights of almost 1
    with torch.no_grad():
        layer.weight_ih_l0.fill_(1)
    engine = compiled(layer)
    assert engine.accumulator_bits == (64, 32)
    assert "64-bit sums in layer 0 (32 with Q8.7 activations and Q2.6 gates)" in repr(engine)


@pytest.mark.parametrize("quantization", [None, FORMATS], ids=["float32", "int8"])
def test_copies_and_pickles_start_a_stream_of_their_own(quantization: Quantization | None) -> None:
    model = Classifier(gru(quantization=quantization), nn.Linear(20, 3)).eval()
    engine, frames = Engine.compile(model, "float32" if quantization is None else "int8"), signal(9, 7, 0)
    copies = [copy.copy(engine), copy.deepcopy(engine), pickle.loads(pickle.dumps(engine))]
    expected = engine.run(frames)
    for other in copies:
        assert (other.precision, other.quantization, other.thx) == (engine.precision, engine.quantization, engine.thx)
        np.testing.assert_array_equal(other.run(frames), expected)
    for make in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match=r"in the middle of a stream.*engine\.stream\(\), or reset\(\) it first"):
            make(engine)
    np.testing.assert_array_equal(copy.deepcopy(engine.stream()).run(frames), expected)


def test_an_unknown_instruction_set_is_refused() -> None:
    with isa("avx9000"), pytest.raises(RuntimeError, match=f"avx9000: not an instruction set.*{', '.join(ISAS)}"):
        Engine.compile(gru())


def test_a_missing_file_and_another_safetensors_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such model file"):
        Engine.load(tmp_path / "none.safetensors")
    with pytest.raises(ModelFileError, match="a folder, not a model file"):
        Engine.load(tmp_path)
    with pytest.raises(ModelFileError, match="not a model file"):
        Engine.load(Path(__file__))


def test_projection_and_half_precision_weights() -> None:
    torch.manual_seed(0)
    layer = DeltaLSTM(5, 12, proj_size=7, thx=0.25, dtype=torch.bfloat16).eval()
    same = DeltaLSTM(5, 12, proj_size=7, thx=0.25, backend="eager").eval()
    same.load_state_dict(layer.state_dict())
    frames = signal(9, 5, 0)
    engine = compiled(layer)
    assert engine.output_size == 7
    np.testing.assert_allclose(engine.run(frames), eager(same, frames), rtol=0, atol=1e-6)


def test_a_converted_dense_layer_runs() -> None:
    torch.manual_seed(0)
    dense = nn.LSTM(5, 12).eval()
    frames = signal(9, 5, 0)
    with torch.no_grad():
        expected = dense(torch.from_numpy(frames))[0].numpy()
    np.testing.assert_allclose(compiled(convert(dense)).run(frames), expected, rtol=0, atol=1e-6)


def test_the_engine_runs_without_torch(tmp_path: Path) -> None:
    engine = Engine.compile(Classifier(gru(quantization=FORMATS), nn.Linear(20, 3)), "int8")
    engine.save(tmp_path / "model.safetensors")
    np.save(tmp_path / "expected.npy", engine.run(signal(5, 7, 0)))
    np.save(tmp_path / "frames.npy", signal(5, 7, 0))
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy as np; from deltarnn.engine import Engine\n"
        f"folder = {str(tmp_path)!r}\n"
        "y = Engine.load(folder + '/model.safetensors').run(np.load(folder + '/frames.npy'))\n"
        "np.testing.assert_array_equal(y, np.load(folder + '/expected.npy'))\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, "PYTHONWARNINGS": "error"})


def test_without_the_native_core_the_layers_run_and_say_so_once() -> None:
    program = (
        "import sys, warnings; sys.modules['deltarnn._native'] = None\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    import torch; from deltarnn import DeltaGRU; from deltarnn.engine import Engine\n"
        "    layer = DeltaGRU(3, 4)\n"
        "    layer(torch.zeros(2, 1, 3)); layer(torch.zeros(2, 1, 3))\n"
        "    try: Engine.compile(layer)\n"
        "    except ImportError as error: print(error)\n"
        "    print(len([w for w in caught if 'without its native core' in str(w.message)]), layer.backend_used)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    error, once = result.stdout.strip().splitlines()
    assert "no C++20 compiler" in error
    assert "pip install" in error
    assert once.startswith("1 ")
    assert "eager" in once
