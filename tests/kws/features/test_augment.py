"""Augmentation: each kind does what it says, alone, and the same for the same seed."""

import numpy as np
import pytest

from deltarnn.kws.config.options import AugmentationConfig
from deltarnn.kws.config.options_data import FeatureConfig
from deltarnn.kws.features.augment import CHUNK, Augmenter
from deltarnn.kws.features.pipeline import FeaturePipeline, FeatureStatistics

PIPELINE = FeaturePipeline(FeatureConfig(), FeatureStatistics(mean=110.0, std=15.0))
NOISE = np.random.default_rng(9).integers(-500, 500, 50000).astype(np.int16)
CLIPS = (np.random.default_rng(1).normal(size=(6, 16000)) * 1000).astype(np.int16)


def augmenter(**options: float) -> Augmenter:
    return Augmenter(AugmentationConfig(**options), PIPELINE, NOISE, seed=3)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_everything_off_changes_nothing():
    assert augmenter().audio(CLIPS, rng()) is CLIPS
    np.testing.assert_array_equal(augmenter().features(CLIPS, 0), PIPELINE.normalise(PIPELINE(CLIPS)))


def test_shift_moves_whole_samples_and_fills_with_zeros():
    moved = augmenter(aug_shift=0.1).audio(CLIPS, rng())
    shifts = []
    for before, after in zip(CLIPS, moved, strict=True):
        shift = int(np.argmax(np.correlate(after.astype(float), before[2000:14000].astype(float)))) - 2000
        shifts.append(shift)
        expected = np.zeros_like(before)
        if shift >= 0:
            expected[shift:] = before[: 16000 - shift]
        else:
            expected[:shift] = before[-shift:]
        np.testing.assert_array_equal(after, expected)
    assert max(np.abs(shifts)) <= 1600
    assert len(set(shifts)) == 6


def test_gain_scales_within_its_range():
    changed = augmenter(aug_gain=6).audio(CLIPS, rng())
    gains = [20 * np.log10(a.astype(float).std() / b.astype(float).std()) for a, b in zip(changed, CLIPS, strict=True)]
    assert max(np.abs(gains)) <= 6.01
    assert np.ptp(gains) > 1
    for gain, after, before in zip(gains, changed, CLIPS, strict=True):
        np.testing.assert_allclose(after, before * 10 ** (gain / 20), atol=1.5)


def test_speed_changes_pitch_and_length_about_the_middle():
    time = np.arange(16000) / 16000
    tone = np.tile(np.rint(8000 * np.sin(2 * np.pi * 1000 * time)), (8, 1)).astype(np.int16)
    changed = augmenter(aug_speed=0.2).audio(tone, rng())
    peaks = [np.fft.rfftfreq(8000, 1 / 16000)[np.abs(np.fft.rfft(clip[4000:12000])).argmax()] for clip in changed]
    assert 800 <= min(peaks) < 950
    assert 1050 < max(peaks) <= 1200
    for peak, clip in zip(peaks, changed, strict=True):
        sounding = np.count_nonzero(clip) / 16000
        assert sounding == pytest.approx(min(1.0, 1000 / peak), abs=0.03)


def test_noise_has_the_drawn_snr_of_the_sounding_part():
    clips = CLIPS.copy()
    clips[:, :8000] = 0
    changed = augmenter(aug_noise=1.0, aug_snr_low=7, aug_snr_high=7).audio(clips, rng())
    noise = changed.astype(float) - clips
    snr = 10 * np.log10((clips[:, 8000:].astype(float) ** 2).mean(axis=1) / (noise**2).mean(axis=1))
    np.testing.assert_allclose(snr, 7, atol=0.05)
    assert (np.abs(noise[:, :8000]).max(axis=1) > 0).all()


def test_noise_comes_with_its_probability():
    clips = np.tile(CLIPS, (50, 1))
    changed = augmenter(aug_noise=0.3, aug_snr_low=0, aug_snr_high=20).audio(clips, rng())
    assert (changed != clips).any(axis=1).mean() == pytest.approx(0.3, abs=0.09)


def test_same_seed_and_epoch_give_the_same_whatever_the_threads():
    clips = np.tile(CLIPS, (CHUNK // 2, 1))  # several chunks
    options = {"aug_noise": 0.5, "aug_gain": 3, "aug_shift": 0.1, "aug_speed": 0.1}
    first = augmenter(**options).features(clips, epoch=1, workers=1)
    np.testing.assert_array_equal(augmenter(**options).features(clips, epoch=1, workers=3), first)
    assert (augmenter(**options).features(clips, epoch=2) != first).any()
    other = Augmenter(AugmentationConfig(**options), PIPELINE, NOISE, seed=4).features(clips, epoch=1)
    assert (other != first).any()
    assert (first[:6] != first[6:12]).any()  # copies of a clip differ from each other


def test_noise_must_last_a_clip():
    with pytest.raises(ValueError, match=r"--aug_noise 0.5: needs at least one second of background noise"):
        Augmenter(AugmentationConfig(aug_noise=0.5), PIPELINE, NOISE[:100], seed=0)
