"""The log-mel front end against a direct computation, Kaldi's, and its own stream."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kws.spotter.conftest import noise, save_random_model
from tests.kws.spotter.test_spotter import by_torch

from deltarnn.engine import load_model
from deltarnn.kws import LogMelFilterBank
from deltarnn.kws.config.options_data import FeatureConfig
from deltarnn.kws.features import filtering
from deltarnn.kws.features.log_mel import LogScale
from deltarnn.kws.features.pipeline import FeaturePipeline
from deltarnn.kws.spotter import Spotter

POOLED = {"pool_bands": 2, "pool_frames": 2}


def directly(audio, size=480, hop=160, points=512, bands=40, low=0.0, high=4000.0, rate=16000):
    """Powers (T, bands) of samples (N,), one after another."""
    window = [0.5 - 0.5 * math.cos(2 * math.pi * n / size) for n in range(size)]
    mel = lambda f: 1127 * math.log(1 + f / 700)  # noqa: E731
    corners = [mel(low) + (mel(high) - mel(low)) * j / (bands + 1) for j in range(bands + 2)]
    rows = []
    for start in range(0, len(audio) - size + 1, hop):
        power = np.abs(np.fft.rfft(audio[start : start + size].astype(float) * window, points)) ** 2
        row = np.zeros(bands)
        for k, value in enumerate(power):
            m = mel(k * rate / points)
            for j in range(bands):
                left, middle, right = corners[j : j + 3]
                row[j] += value * max(0.0, min((m - left) / (middle - left), (right - m) / (right - middle)))
        rows.append(row)
    return np.array(rows)


@pytest.fixture(scope="module")
def audio():
    return noise(3, 8200)


@pytest.fixture(scope="module")
def powers(audio):
    return directly(audio)


@pytest.mark.parametrize("core", [True, False], ids=["core", "numpy"])
def test_levels_equal_a_direct_computation(monkeypatch, audio, powers, core):
    if not core:
        monkeypatch.setattr(filtering, "native_core", lambda: None)
    expected = np.clip(10 * np.log(powers + 400) - 61.5, 0, 255)
    np.testing.assert_allclose(LogMelFilterBank()(audio), expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(LogMelFilterBank(log=False)(audio), powers, rtol=1e-9)
    other = LogMelFilterBank(n_filt=13, freq_low=100, freq_high=7000, frame_size=0.02, frame_stride=0.0125, nfft=1024,
                             scale=LogScale(1.0, 1.0, 0.0, -1e9, 1e9))  # fmt: skip
    expected = np.log(1 + directly(audio, 320, 200, 1024, 13, 100.0, 7000.0))
    np.testing.assert_allclose(other(audio), expected, rtol=0, atol=1e-9)


def test_powers_equal_kaldis(audio):
    """Kaldi computes in single precision."""
    kaldi = pytest.importorskip("kaldi_native_fbank")
    options = kaldi.FbankOptions()
    frames, mel = options.frame_opts, options.mel_opts
    frames.dither, frames.preemph_coeff, frames.remove_dc_offset, frames.window_type = 0.0, 0.0, False, "hann"
    frames.frame_length_ms, frames.frame_shift_ms = 30.0, 10.0
    mel.num_bins, mel.low_freq, mel.high_freq = 40, 0.0, 4000.0
    options.use_log_fbank = False
    fbank = kaldi.OnlineFbank(options)
    fbank.accept_waveform(16000, audio.astype(np.float32))
    fbank.input_finished()
    expected = np.stack([fbank.get_frame(i) for i in range(fbank.num_frames_ready)])
    np.testing.assert_allclose(LogMelFilterBank(log=False)(audio), expected, rtol=1e-3, atol=1e-5 * expected.max())
    levels = 10 * np.log(expected.astype(float) + 400) - 61.5
    np.testing.assert_allclose(LogMelFilterBank()(audio), np.clip(levels, 0, 255), rtol=0, atol=1e-2)


@pytest.mark.parametrize("pool_log", [True, False])
def test_bands_are_joined_by_power_and_frames_by_their_mean(audio, powers, pool_log):
    scale = LogScale()
    joined = powers[:, 0::2] + powers[:, 1::2]
    assert len(joined) % 2 == 1  # the last frame has no partner
    joined = joined[:-1]
    pairs = joined[0::2], joined[1::2]
    expected = (scale(pairs[0]) + scale(pairs[1])) / 2 if pool_log else scale((pairs[0] + pairs[1]) / 2)
    bank = LogMelFilterBank(**POOLED, pool_log=pool_log)
    np.testing.assert_allclose(bank(audio), expected, rtol=0, atol=1e-9)
    assert bank.num_frames(16000) == 49
    assert bank(np.zeros((2, 16000), np.int16)).shape == (2, 49, 20)
    assert LogMelFilterBank().num_frames(16000) == 98


@settings(max_examples=20, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 6000), max_size=20), samples=st.integers(1, 6000), pool=st.sampled_from([1, 2, 3]),
    pool_log=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_the_stream_gives_the_frames_of_the_clip(cuts, samples, pool, pool_log, seed):
    bank = LogMelFilterBank(pool_frames=pool, pool_log=pool_log, pool_bands=4)
    clip, stream = noise(seed, samples), bank.stream()
    received = 0
    for piece in np.split(clip, sorted(cuts)):
        stream.accept_waveform(piece)
        received += len(piece)
        assert stream.num_frames_ready == bank.num_frames(received)
    stream.input_finished()
    assert stream.num_frames_ready == bank.num_frames(samples)
    for index in range(stream.num_frames_ready):
        np.testing.assert_allclose(stream.get_frame(index), bank(clip)[index], rtol=1e-12)


@settings(max_examples=30, deadline=None)
@given(levels=st.lists(st.floats(0.1, 255), min_size=1, max_size=9))
def test_powers_are_those_of_the_levels(levels):
    scale = LogScale()
    np.testing.assert_allclose(scale(scale.powers(np.array(levels))), levels, rtol=0, atol=1e-6)
    assert scale.powers(np.array([-9.0])) == 0


@pytest.mark.parametrize("options", [{}, POOLED, {**POOLED, "pool_log": False}, {"log_feat": False}])
def test_the_spotter_computes_the_same_in_its_core(tmp_path, options):
    features = {"feat_type": "logmel", "n_filt": 40, "freq_low": 0.0, "freq_high": 4000.0, "frame_size": 0.03,
                "frame_stride": 0.01, "nfft": 512, "norm_feat": options.get("log_feat", True), **options}  # fmt: skip
    model = save_random_model(tmp_path / "m.safetensors", **features)
    spotter, audio = Spotter.load(tmp_path / "m.safetensors", threshold=0.5), noise(5, 30_000)
    if "log_feat" in options:
        audio = np.sign(audio).astype(np.int16)
    pipeline = FeaturePipeline.from_dict(load_model(tmp_path / "m.safetensors")[1]["features"])
    assert spotter._frames is None  # all of it runs in the core
    scores = spotter.scores(audio)
    assert len(scores) == pipeline.num_frames(30_000)
    np.testing.assert_allclose(scores, by_torch(model, pipeline, spotter.rule, audio), atol=1 / 256)
    whole = spotter.accept_waveform(audio)
    spotter.reset()
    assert [d for piece in np.split(audio, range(0, 30_000, 333)) for d in spotter.accept_waveform(piece)] == whole


def test_descriptions_of_other_front_ends_stay_as_they_were():
    described = FeaturePipeline(FeatureConfig()).to_dict()
    assert not [name for name in described if name.startswith(("log_o", "pool"))]
    assert FeaturePipeline.from_dict(described).to_dict() == described
    logmel = FeaturePipeline(FeatureConfig(feat_type="logmel", n_filt=40, pool_bands=2, log_offset=1.0)).to_dict()
    assert (logmel["pool_bands"], logmel["log_offset"], "log_bias" in logmel) == (2, 1.0, False)
    assert FeaturePipeline.from_dict(logmel).to_dict() == logmel
    with pytest.raises(ValueError, match="'pool_rows' is unknown"):
        FeaturePipeline.from_dict({**logmel, "pool_rows": 2})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_filt": 9, "pool_bands": 2}, "n_filt=9 a multiple of pool_bands"),
        ({"pool_frames": 0}, "pool_frames=0"),
        ({"nfft": 256}, "nfft=256: a frame has 480 samples"),
        ({"freq_high": 9000}, "freq_high=9000"),
        ({"pool_frames": 1.5}, "pool_frames=1.5, pool_bands=1: whole numbers"),
        ({"scale": (1.0, 1.0, float("nan"))}, "log_bias=nan"),
        ({"scale": (0.0,)}, "log_offset=0, log_factor=10, log_bias=-61.5: must be finite"),
        ({"scale": (1.0, 1.0, 0.0, 5.0, 5.0)}, "log_low=5 must be below log_high=5"),
    ],
)
def test_what_is_wrong_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        LogMelFilterBank(**{**options, **({"scale": LogScale(*options["scale"])} if "scale" in options else {})})
