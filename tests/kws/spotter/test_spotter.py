"""The spotter against the torch model and the decision rule, and against itself on the same stream in pieces."""

import copy
import dataclasses
import pickle
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kws.spotter.conftest import FORMATS, LABELS, noise, save_random_model

from deltarnn import QFormat, Quantization
from deltarnn.engine import Engine, ModelFileError, load_model, save_model
from deltarnn.engine.description import Description
from deltarnn.kws.features.pipeline import FeaturePipeline
from deltarnn.kws.spotter import Detection, Spotter
from deltarnn.kws.spotter.calibration import calibrate, store
from deltarnn.kws.spotter.rule import StreamRule


def by_torch(model, pipeline: FeaturePipeline, rule: StreamRule, audio: np.ndarray) -> np.ndarray:
    """Scores (T, keywords) by the front end in float64, the torch model and the rule."""
    features = pipeline.normalise(pipeline(audio[None]))[0]
    with torch.no_grad():
        logits, _ = model(torch.from_numpy(features)[:, None])
    return rule.scores(logits[:, 0].numpy())


@pytest.mark.parametrize("cell", ["GRU", "LSTM"])
@pytest.mark.parametrize("quantization", [None, FORMATS], ids=["float32", "int8"])
def test_scores_are_those_of_the_torch_model_and_the_rule(tmp_path, cell, quantization):
    model = save_random_model(tmp_path / "m.safetensors", quantization, cell)
    spotter = Spotter.load(tmp_path / "m.safetensors", threshold=0.0)
    audio = noise(1, 40_000)
    expected = by_torch(model, FeaturePipeline.from_dict(load_model(tmp_path / "m.safetensors")[1]["features"]),
                        spotter.rule, audio)  # fmt: skip
    scores = spotter.scores(audio)
    assert scores.dtype == np.float32
    assert scores.shape == (152, 3)
    # A margin is rounded to 1/256; float32 rounds differently in torch by less than one such step.
    np.testing.assert_allclose(scores, expected[: len(scores)], rtol=0, atol=0 if quantization else 1 / 256)
    detections = spotter.accept_waveform(audio)
    peaks = spotter.rule.peaks(scores, spotter.frame_stride)
    assert len(detections) > 1
    assert detections == [Detection(LABELS[p.keyword + 2], (p.frame + 1) * 262 / 16000, p.score) for p in peaks]


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, 30_000), max_size=40), fixed=st.booleans(), seed=st.integers(0, 99))
def test_pieces_of_any_size_give_what_the_whole_gives(model_path, fixed_path, cuts, fixed, seed):
    spotter = Spotter.load(fixed_path if fixed else model_path, threshold=0.5)
    audio = noise(seed, 30_000)
    whole, activity = spotter.accept_waveform(audio), spotter.activity
    spotter.reset()
    found = [d for piece in np.split(audio, sorted(cuts)) for d in spotter.accept_waveform(piece)]
    assert found == whole
    assert spotter.activity == activity


def test_sample_by_sample(model_path):
    spotter, audio = Spotter.load(model_path, threshold=0.0), noise(3, 6000)
    singly = [d for sample in audio for d in spotter.accept_waveform([sample])]
    spotter.reset()
    assert spotter.accept_waveform(audio) == singly


def test_scores_leave_the_stream_alone(model_path):
    spotter, audio = Spotter.load(model_path, threshold=0.5), noise(4, 30_000)
    undisturbed = spotter.accept_waveform(audio)
    spotter.reset()
    found = spotter.accept_waveform(audio[:9999])
    first = spotter.scores(audio)
    found += spotter.accept_waveform(audio[9999:])
    assert found == undisturbed
    np.testing.assert_array_equal(spotter.scores(audio), first)


@pytest.mark.parametrize(
    "features", [{"feat_type": "iir", "freq_high": 6500.0}, {"gradient": True}, {"gain_ctrl": True}]
)
def test_front_ends_without_a_native_twin(tmp_path, features):
    model = save_random_model(tmp_path / "m.safetensors", **features)
    spotter, audio = Spotter.load(tmp_path / "m.safetensors", threshold=0.5), noise(5, 30_000)
    pipeline = FeaturePipeline.from_dict(load_model(tmp_path / "m.safetensors")[1]["features"])
    scores = spotter.scores(audio)
    np.testing.assert_allclose(scores, by_torch(model, pipeline, spotter.rule, audio)[: len(scores)], atol=1 / 256)
    assert len(scores) >= 109


def test_the_threshold_of_a_calibrated_file_is_taken(tmp_path, model_path):
    path = tmp_path / "model.safetensors"
    shutil.copy(model_path, path)
    with pytest.warns(UserWarning, match="stores no threshold"):
        spotter = Spotter.load(path)
    rule = StreamRule(smoothing=7, refractory=0.5)
    store(path, calibrate([spotter.scores(noise(s, 160_000)) for s in range(8)], rule, spotter.frame_stride, 400.0))
    loaded = Spotter.load(path).rule
    assert dataclasses.replace(loaded, threshold=0.0) == rule
    assert Spotter.load(path, threshold=2.5).rule.threshold == 2.5


def test_int8_of_a_float_model_is_that_of_the_weights_own_format(model_path):
    spotter, exact = (Spotter.load(model_path, threshold=0.5, precision=p) for p in ("int8", "float32"))
    assert spotter.engine.quantization == Quantization(QFormat(8, 8), QFormat(2, 6), QFormat(2, 6))
    with pytest.raises(ValueError, match="precision='int4'"):
        Spotter.load(model_path, threshold=0.5, precision="int4")
    error = np.abs(spotter.scores(noise(1, 30_000)) - exact.scores(noise(1, 30_000)))
    assert 0 < error.mean() < 0.5


def test_formats_tensor_by_tensor_are_the_files_own(tmp_path, model_path):
    path, float32 = tmp_path / "model.safetensors", Description(*load_model(model_path))
    features = float32.architecture["input_size"]
    calibrated = Engine.from_description(
        float32, "int8", calibration=np.random.default_rng(0).normal(size=(99, features))
    )
    calibrated.save(path)
    for precision in (None, "int8"):
        engine = Spotter.load(path, threshold=0.5, precision=precision).engine
        assert (engine.precision, engine.formats) == ("int8", calibrated.formats)
    assert Spotter.load(path, threshold=0.5, precision="float32").engine.formats is None


def test_that_format_holds_biases_as_they_enter(tmp_path, model_path):
    """Two halves of the bias that weights alone would hold, and their sum that they would not."""
    tensors, header = load_model(model_path)
    for name in ("rnn.bias_ih_l0", "rnn.bias_hh_l0"):
        tensors[name][0] = 1.9
    path = tmp_path / "model.safetensors"
    save_model(path, tensors, header)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spotter = Spotter.load(path, threshold=0.5, precision="int8")
    assert spotter.engine.quantization == Quantization(QFormat(8, 8), QFormat(3, 5), QFormat(2, 6))


@pytest.mark.parametrize("features", [{}, {"feat_type": "logmel"}, {"gradient": True}], ids=["native", "mel", "python"])
def test_copies_and_pickles_begin_a_stream_of_their_own(tmp_path, features):
    save_random_model(tmp_path / "m.safetensors", **features)
    spotter, audio = Spotter.load(tmp_path / "m.safetensors", threshold=0.0), noise(6, 30_000)
    twins = [copy.copy(spotter), copy.deepcopy(spotter), pickle.loads(pickle.dumps(spotter))]
    expected = spotter.accept_waveform(audio)
    assert expected
    assert [twin.accept_waveform(audio) for twin in twins] == [expected] * 3
    for begun in (audio, audio[:1]):
        spotter.reset()
        spotter.accept_waveform(begun)
        for make in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match=r"in the middle of a stream.*reset\(\) it first"):
                make(spotter)
    spotter.reset()
    assert copy.copy(spotter).accept_waveform(audio) == expected


def test_a_threshold_that_nothing_reaches_is_told(model_path):
    with pytest.warns(UserWarning, match="threshold 8: no score is above 8, so nothing will be heard"):
        Spotter.load(model_path, threshold=8.0)
    with pytest.raises(ValueError, match=r"threshold=1e\+300: must be finite"):
        Spotter.load(model_path, threshold=1e300)


def test_torch_is_never_imported(model_path):
    code = (
        "import sys, numpy\nfrom deltarnn.kws.spotter import Spotter\n"
        f"s = Spotter.load({str(model_path)!r}, threshold=0.5)\n"
        "s.accept_waveform(numpy.ones(9000, numpy.int16))\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_class_scores_beyond_float32_are_no_detections(tmp_path, model_path):
    tensors, header = load_model(model_path)
    tensors["head.0.weight"] = np.sign(tensors["head.0.weight"]) * np.float32(3e38)
    save_model(tmp_path / "m.safetensors", tensors, header)
    spotter = Spotter.load(tmp_path / "m.safetensors", threshold=0.5)
    assert np.abs(spotter.scores(noise(1, 30_000))).max() <= spotter.rule.limit


def test_what_is_wrong_is_named(tmp_path, model_path):
    spotter = Spotter.load(model_path, threshold=0.5)
    with pytest.raises(
        ValueError, match=r"type float64 and shape \(9,\): needs int16 of shape \(S,\); for floating-point"
    ):
        spotter.accept_waveform(np.zeros(9))
    with pytest.raises(ValueError, match="needs int16"):
        spotter.accept_waveform(None)
    with pytest.raises(ValueError, match=r"shape \(2, 9\): needs int16 of shape \(S,\); one channel"):
        spotter.scores(np.zeros((2, 9), np.int16))
    with pytest.raises(ValueError, match="threshold=nan"):
        Spotter.load(model_path, threshold=float("nan"))
    tensors, header = load_model(model_path)
    stream = {"smoothing": 3, "limit": 8.0, "refractory": 0.75, "hold": 0.05, "threshold": 1.0}
    for damage in ({"smoothing": 10**9}, {"smoothing": 2.5}, {"refractory": 1e300}, {"hold": None}):
        save_model(tmp_path / "damaged.safetensors", tensors, {**header, "stream": {**stream, **damage}})
        with pytest.raises(ModelFileError, match="'stream' is no decision rule"):
            Spotter.load(tmp_path / "damaged.safetensors")
    save_random_model(tmp_path / "mfcc.safetensors", mfcc=True, n_filt=40)
    with pytest.raises(ValueError, match="mfcc subtracts a mean over the whole clip"):
        Spotter.load(tmp_path / "mfcc.safetensors", threshold=0.5)
    del header["labels"]
    save_model(tmp_path / "bare.safetensors", tensors, header)
    with pytest.raises(ModelFileError, match="labels"):
        Spotter.load(tmp_path / "bare.safetensors")
