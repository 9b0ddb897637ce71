"""The integer front ends against the definitions in floating point, and their streams against whole clips."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kws.spotter.conftest import noise

from deltarnn.fixed import QFormat
from deltarnn.fixed.feature_scale import FeatureScale, log2
from deltarnn.fixed.front_end import IntegerFrames, clip_features
from deltarnn.fixed.parameters import UnsupportedModelError
from deltarnn.fixed.spectrum import IntegerSpectrum, window_q15
from deltarnn.kws.config.options_data import FeatureConfig
from deltarnn.kws.features.device import device_front_end
from deltarnn.kws.features.pipeline import FeaturePipeline, FeatureStatistics

A = QFormat(8, 8)
LOG = FeatureStatistics(mean=110.0, std=20.0)
IIR = FeatureStatistics(mean=60.0, std=90.0, mic_mean=3.5, mic_full_scale=9000.0)

MEL = {"feat_type": "logmel", "n_filt": 32, "pool_bands": 2, "nfft": 1024, "frame_size": 0.03, "frame_stride": 0.01}


def pipeline(**options) -> FeaturePipeline:
    iir = options.get("feat_type") == "iir"
    if iir:
        options = {"freq_high": 6500.0, **options}
    return FeaturePipeline(FeatureConfig(**options), IIR if iir else LOG)


@pytest.mark.parametrize(("length", "nfft"), [(64, 64), (100, 128), (262, 1024), (512, 1024), (700, 1024), (512, 2048)])
@pytest.mark.parametrize("amplitude", [3, 300, 30000])
def test_magnitudes_are_those_of_the_fft_within_one_per_cent(length, nfft, amplitude):
    spectrum = IntegerSpectrum(window_q15(np.hamming(length)), nfft)
    frames = (np.random.default_rng(length).normal(size=(20, length)) * amplitude).clip(-32768, 32767).astype(np.int16)
    exact = np.abs(np.fft.rfft(np.hamming(length) * frames, nfft))[:, :-1]
    bits = spectrum.fraction_bits - 1
    error = np.abs(spectrum.magnitudes(frames, bits) / 2.0**bits - exact)
    assert (error <= 0.0105 * exact + 0.4 + 2e-4 * exact.max()).all()


@pytest.mark.parametrize(("length", "nfft"), [(64, 64), (262, 1024), (1024, 1024), (100, 4096)])
def test_no_samples_overflow_32_bits(length, nfft, monkeypatch):
    """The loudest frames that suit each bin: nothing inside leaves 32 bits, and little is wasted."""
    from deltarnn.fixed import spectrum as module

    spectrum, seen = IntegerSpectrum(window_q15(np.hamming(length)), nfft), []

    def multiply(a, w):
        seen.append(np.abs(a).max(initial=0))
        return (a * w) >> 16

    monkeypatch.setattr(module, "multiply", multiply)
    n, k = np.arange(length), np.arange(0, nfft // 2, max(1, nfft // 64))[:, None]
    for phase in (0, np.pi / 4, np.pi / 2):
        frames = np.where(np.cos(2 * np.pi * k * n / nfft + phase) >= 0, 32767, -32768).astype(np.int16)
        seen.append(spectrum.magnitudes(frames, spectrum.fraction_bits - 1).max())
    assert 2**27 < max(seen) < 2**31


@pytest.mark.parametrize("options", [{}, {"frame_size": 0.064, "freq_high": 8000.0}, {"pool_bands": 32, "nfft": 4096}])
def test_no_samples_overflow_the_levels_of_powers(options):
    """The loudest frames that suit each bin stay below 2⁶², as the bound says, and not by far."""
    front = device_front_end(pipeline(**{**MEL, **options}), A)
    n, k = np.arange(front.length), np.arange(0, front.spectrum.nfft // 2, 8)[:, None]
    frames = np.where(np.cos(2 * np.pi * k * n / front.spectrum.nfft) >= 0, 32767, -32768).astype(np.int16)
    assert 2**59 < front.levels(frames).max() < 2**62
    assert 0 < front.weights.max() <= 2**12
    assert front.weights.sum(axis=1).max() <= 2**12 + 1


def test_a_spectrum_of_another_length_is_refused():
    with pytest.raises(ValueError, match="nfft=1000: the integer FFT takes powers of two from 64 to 4096"):
        IntegerSpectrum(window_q15(np.hamming(500)), 1000)
    with pytest.raises(ValueError, match="a frame has 600 samples"):
        IntegerSpectrum(window_q15(np.hamming(600)), 512)


@given(st.lists(st.integers(1, 2**32 - 1) | st.integers(2**32, 2**63 - 1), min_size=1, max_size=50))
def test_the_logarithm(levels):
    error = log2(np.array(levels)) / 2.0**15 - np.log2(levels)
    assert (np.abs(error) < 2.5e-4).all()


def test_a_scale_rounds_to_the_nearest_and_keeps_to_its_range():
    scale = FeatureScale.of(0.1, -1.0, QFormat(3, 5), logarithmic=False)
    levels = np.arange(0, 200)
    np.testing.assert_array_equal(scale(levels), np.floor((0.1 * levels - 1) * 32 + 0.5).clip(-128, 127))
    low = FeatureScale.of(0.5, -8.0, A, logarithmic=True, floor=-3.0)
    assert low(np.array([0, 1, 2**32 - 1])).tolist() == [-768, -768, 2048]
    with pytest.raises(ValueError, match="beyond the integer front end's range"):
        FeatureScale.of(1e9, 0.0, A, logarithmic=False)


@pytest.mark.parametrize(
    ("options", "rms", "most"),
    [
        ({}, 0.003, 0.02),
        ({"frame_size": 0.032}, 0.003, 0.02),
        ({"frame_size": 0.016, "frame_stride": 0.02, "nfft": 512, "n_filt": 8, "f_spacing": "log"}, 0.003, 0.02),
        ({"log_feat": False, "norm_feat": False}, 0.3, 128.0),
        (MEL, 0.003, 0.02),
        ({**MEL, "pool_bands": 1, "log_offset": 1.0, "frame_size": 0.064, "freq_high": 8000.0}, 0.003, 0.02),
        ({"feat_type": "iir"}, 0.002, 0.004),
        ({"feat_type": "iir", "sim_mic": False, "frame_size": 0.01, "ch_orders": 3}, 0.003, 0.02),
        ({"feat_type": "iir", "logf": "lut", "q_factors": 8.0}, 0.002, 0.004),
    ],
)
def test_features_are_those_of_the_front_end_in_floating_point(options, rms, most):
    """Within a step of Q8.8 or little more, in units of the normalised features, over all levels of noise."""
    exact = pipeline(**options)
    front, audio = device_front_end(exact, A), np.stack([noise(seed, 6000) for seed in range(3)])
    reference = exact.normalise(exact(audio)).clip(A.min, A.max)
    error = clip_features(front, audio, reference.shape[1]) / 256 - reference
    if options.get("log_feat", True):
        assert np.sqrt(np.mean(error**2)) < rms
        assert np.abs(error).max() < most
    else:  # levels, which saturate: within the magnitude's one per cent
        assert (np.abs(error) < 0.011 * np.abs(reference) + 0.3).all()


@settings(max_examples=8, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 3000), max_size=12),
    options=st.sampled_from(
        [
            {"frame_size": 0.032},
            {"frame_stride": 0.025},
            MEL,
            {"feat_type": "iir", "frame_size": 0.01},
            {"feat_type": "iir"},
        ]
    ),
    seed=st.integers(0, 99),
)
def test_a_stream_in_pieces_gives_the_frames_of_the_whole(cuts, options, seed):
    front, audio = device_front_end(pipeline(**options), A), noise(seed, 3000)
    count = (len(audio) - front.length - 1) // front.hop + 1
    stream = IntegerFrames(front)
    frames = np.concatenate([stream.accept(piece) for piece in np.split(audio, sorted(cuts))])
    np.testing.assert_array_equal(frames, clip_features(front, audio[None], count)[0])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"mfcc": True, "n_filt": 40}, "--mfcc"),
        ({"gradient": True}, "--gradient"),
        ({"gain_ctrl": True}, "--gain_ctrl"),
        ({"qf": True}, "--qf"),
        ({"logf": "lut"}, r"--logf \(lut\)"),
        ({"feat_type": "iir", "logf": "lut", "approx_log": True}, "--approx_log"),
        ({"feat_type": "iir", "frame_size": 0.032}, "no overlapping frames"),
        ({"feat_type": "iir", "oversample_factor": 2}, r"--oversample_factor \(2\)"),
        ({**MEL, "pool_frames": 2}, r"--pool_frames \(2\)"),
        ({**MEL, "log_feat": False}, "--log_feat"),
        ({**MEL, "log_offset": 1e-9}, "--log_offset 1e-09"),
        ({"nfft": 1000}, "nfft=1000"),
    ],
)
def test_what_a_device_cannot_compute_is_named(options, named):
    with pytest.raises(UnsupportedModelError, match=named):
        device_front_end(pipeline(**options), A)
