"""Augmentation of levels: each kind does to the powers what it does to audio, alone, and the same for the same seed."""

import numpy as np
import pytest

from deltarnn.kws.config.options import AugmentationConfig
from deltarnn.kws.config.options_data import FeatureConfig
from deltarnn.kws.features.augment_levels import CHUNK, LevelAugmenter
from deltarnn.kws.features.pipeline import FeaturePipeline, FeatureStatistics

FRONT = {"feat_type": "logmel", "n_filt": 40, "freq_low": 0.0, "freq_high": 4000.0, "frame_size": 0.03,
         "frame_stride": 0.01, "nfft": 512, "log_high": 500.0}  # fmt: skip
RNG = np.random.default_rng(1)
LEVELS = RNG.integers(20, 200, (6, 98, 40)).astype(np.uint8)
NOISE = RNG.integers(20, 120, (5, 98, 40)).astype(np.uint8)


def pipeline(**options: float) -> FeaturePipeline:
    return FeaturePipeline(FeatureConfig(**FRONT, **options), FeatureStatistics(mean=90.0, std=40.0))


def augmenter(noise=NOISE, pooled=None, **options: float) -> LevelAugmenter:
    return LevelAugmenter(AugmentationConfig(**options), pipeline(**(pooled or {})), noise, seed=3)


def changed(levels=LEVELS, **options: float) -> tuple[np.ndarray, np.ndarray]:
    """Powers before and after."""
    made = augmenter(**options)
    return made.bank.scale.powers(levels), made.powers(levels, np.random.default_rng(0))


def test_everything_off_changes_nothing():
    before, after = changed()
    np.testing.assert_array_equal(after, before)
    whole = pipeline()
    np.testing.assert_allclose(augmenter().features(LEVELS, 0), whole.normalise(whole(LEVELS)), atol=1e-6)


def test_gain_multiplies_power_within_its_range():
    before, after = changed(aug_gain=6)
    decibels = 10 * np.log10((after / before)[:, 0, 0])
    assert max(abs(decibels)) <= 6.001
    assert np.ptp(decibels) > 1
    np.testing.assert_allclose(after, before * 10 ** (decibels / 10)[:, None, None], rtol=1e-4)


def test_shift_moves_frames_and_fills_with_nothing():
    """A ramp tells by its value from where a frame came."""
    ramp = np.broadcast_to(np.arange(98.0)[:, None] + 100, (6, 98, 40))
    made = augmenter(aug_shift=0.1)
    powers = made.powers(made.bank.scale(ramp), np.random.default_rng(0))
    shifts = [50 - (clip[50, 0] - 100) for clip in powers]
    assert max(np.abs(shifts)) <= 10
    assert len(np.unique(np.round(shifts, 3))) == 6
    for shift, clip in zip(shifts, powers, strict=True):
        position = np.arange(98) - shift
        inside = (position >= 0) & (position <= 97)
        np.testing.assert_allclose(
            clip[inside], np.broadcast_to(position[inside, None] + 100, (inside.sum(), 40)), rtol=1e-3
        )
        assert (clip[~inside] == 0).all()


def test_speed_stretches_about_the_middle():
    ramp = np.broadcast_to(np.arange(98.0)[:, None] + 100, (6, 98, 40))
    made = augmenter(aug_speed=0.2)
    powers = made.powers(made.bank.scale(ramp), np.random.default_rng(0))[..., 0]
    slopes = powers[:, 60] - powers[:, 59]
    assert 0.8 <= slopes.min() < 1 < slopes.max() <= 1.2
    np.testing.assert_allclose((powers[:, 48] + powers[:, 49]) / 2, 148.5, rtol=1e-3)


def test_warp_moves_bands():
    ramp = np.broadcast_to(np.arange(40.0) + 100, (6, 98, 40))
    made = augmenter(aug_warp=0.2)
    powers = made.powers(made.bank.scale(ramp), np.random.default_rng(0))[:, 50]
    factors = (powers[:, 20] - 100) / 20
    assert 0.8 <= factors.min() < 1 < factors.max() <= 1.2
    expected = np.minimum(np.arange(40) * factors[:, None], 39) + 100
    np.testing.assert_allclose(powers, expected, rtol=1e-3)


def test_noise_has_the_asked_ratio_to_the_loudest_quarter():
    before, after = changed(aug_noise=1, aug_snr_low=7, aug_snr_high=7)
    added = (after - before).sum(2).mean(1)
    loud = np.sort(before.sum(2), axis=1)[:, -24:].mean(1)
    np.testing.assert_allclose(10 * np.log10(loud / added), 7, atol=0.05)
    _, sometimes = changed(np.repeat(LEVELS, 20, axis=0), aug_noise=0.3)
    noisy = (sometimes != np.repeat(before, 20, axis=0)).any(axis=(1, 2))
    assert 0.15 < noisy.mean() < 0.45
    with pytest.raises(ValueError, match=r"--aug_noise 0\.5: the data set has no noise"):
        augmenter(noise=NOISE[:0], aug_noise=0.5)


EVERYTHING = {"aug_noise": 0.5, "aug_gain": 3, "aug_shift": 0.1, "aug_speed": 0.1, "aug_warp": 0.05}


def test_versions_depend_on_the_seed_alone():
    levels = np.concatenate([LEVELS] * (CHUNK // 6 + 2))
    made = augmenter(**EVERYTHING)
    one, other = made.features(levels, 0, workers=1), made.features(levels, 0, workers=3)
    np.testing.assert_array_equal(one, other)
    assert (made.features(levels, 1) != one).any()
    np.testing.assert_array_equal(made.features(levels[:CHUNK], 0), one[:CHUNK])


def test_pipelines_that_pool_otherwise_hear_the_same():
    fine = augmenter(**EVERYTHING)
    coarse = augmenter(pooled={"pool_bands": 2}, **EVERYTHING)
    powers = [made.powers(LEVELS, np.random.default_rng(0)) for made in (fine, coarse)]
    np.testing.assert_allclose(powers[0][..., ::2] + powers[0][..., 1::2], powers[1], rtol=1e-4)
    assert augmenter(pooled={"pool_bands": 2, "pool_frames": 2}).features(LEVELS, 0).shape == (6, 49, 20)
