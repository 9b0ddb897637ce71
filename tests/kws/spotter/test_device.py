"""The integer twin of the exported C library against the spotters in floating point, and against itself in pieces."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kws.spotter.conftest import FORMATS, LABELS, noise, save_random_model

from deltarnn.engine import load_model, save_model
from deltarnn.fixed.parameters import UnsupportedModelError
from deltarnn.kws.spotter import Detection, DeviceSpotter, Spotter
from deltarnn.kws.spotter.rule import StreamRule


@pytest.mark.parametrize("cell", ["GRU", "LSTM"])
def test_scores_are_those_of_the_model_in_fixed_point(tmp_path, cell):
    """Where features are equal, so are scores; most are, and those that are not are off by one step."""
    save_random_model(tmp_path / "m.safetensors", FORMATS, cell)
    device, exact = (kind.load(tmp_path / "m.safetensors", threshold=0.0) for kind in (DeviceSpotter, Spotter))
    audio = noise(1, 40_000)
    scores, expected = device.scores(audio), exact.scores(audio)
    assert (scores.dtype, scores.shape) == (np.float32, expected.shape)
    assert np.corrcoef(scores.ravel(), expected.ravel())[0, 1] > 0.99
    found = device.accept_waveform(audio)
    peaks = device.rule.peaks(scores, device.frame_stride)
    assert len(found) > 1
    assert found == [Detection(LABELS[p.keyword + 2], (p.frame + 1) * 262 / 16000, p.score) for p in peaks]
    assert abs(device.activity.sparsity - _activity(exact, audio).sparsity) < 0.02
    assert device.activity.per_layer[0].steps == len(scores)


def _activity(spotter, audio):
    spotter.accept_waveform(audio)
    return spotter.activity


def test_class_scores_of_clips_are_those_of_the_torch_model_on_the_same_features(tmp_path):
    model = save_random_model(tmp_path / "m.safetensors", FORMATS)
    integers = DeviceSpotter.load(tmp_path / "m.safetensors", threshold=0.5).integers
    clips = np.stack([noise(seed, 5000) for seed in range(3)])
    scores, runs = integers.clip_scores(clips, 18)
    from deltarnn.fixed.front_end import clip_features

    features = clip_features(integers.front_end, clips, 18) / 256
    with torch.no_grad():
        hidden, _ = model.rnn(torch.from_numpy(np.moveaxis(features, 0, 1).astype(np.float32)))
    np.testing.assert_array_equal(runs[-1].y / 256, hidden.numpy())
    assert scores.shape == (18, 3, 5)


@settings(max_examples=8, deadline=None)
@given(cuts=st.lists(st.integers(0, 12_000), max_size=20), seed=st.integers(0, 99))
def test_pieces_of_any_size_give_what_the_whole_gives(model_path, cuts, seed):
    spotter, audio = DeviceSpotter.load(model_path, threshold=0.0), noise(seed, 12_000)
    whole, activity, scores = spotter.accept_waveform(audio), spotter.activity, spotter.scores(audio)
    spotter.reset()
    found = [d for piece in np.split(audio, sorted(cuts)) for d in spotter.accept_waveform(piece)]
    assert (found, spotter.activity) == (whole, activity)
    np.testing.assert_array_equal(spotter.scores(audio), scores)  # the stream leaves them alone


def test_copies_go_on_by_themselves(model_path):
    spotter, audio = DeviceSpotter.load(model_path, threshold=0.0), noise(7, 12_000)
    expected = spotter.accept_waveform(audio)
    spotter.reset()
    found = spotter.accept_waveform(audio[:5000])
    twin = copy.copy(spotter)
    assert found + spotter.accept_waveform(audio[5000:]) == expected == found + twin.accept_waveform(audio[5000:])


def test_what_the_device_cannot_compute_is_named(tmp_path, model_path):
    for options, named in (({"gradient": True}, "--gradient"), ({"nfft": 1000}, "nfft=1000")):
        save_random_model(tmp_path / "m.safetensors", **options)
        with pytest.raises(UnsupportedModelError, match=named):
            DeviceSpotter.load(tmp_path / "m.safetensors", threshold=0.5)
    tensors, header = load_model(model_path)
    grid = {"mode": 1, "format": [4, 4]}
    save_model(tmp_path / "m.safetensors", tensors, {**header, "class_quantization": {"score": grid, "weight": grid}})
    with pytest.raises(UnsupportedModelError, match="train without --qc"):
        DeviceSpotter.load(tmp_path / "m.safetensors", threshold=0.5)
    slow = vars(StreamRule(smoothing=10_000))
    save_model(tmp_path / "m.safetensors", tensors, {**header, "stream": slow})
    with pytest.raises(UnsupportedModelError, match="their sum must be below 2"):
        DeviceSpotter.load(tmp_path / "m.safetensors", threshold=0.5)
    with pytest.raises(ValueError, match="needs int16"):
        DeviceSpotter.load(model_path, threshold=0.5).accept_waveform(np.zeros(9))
