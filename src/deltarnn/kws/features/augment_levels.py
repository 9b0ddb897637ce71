"""Random changes of clips that are levels: what is done to audio, done to the powers of its bands."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from deltarnn.kws.config.options import AugmentationConfig
from deltarnn.kws.data.arrays import Levels
from deltarnn.kws.features.pipeline import FeaturePipeline, Features

Powers = NDArray[np.float32]

CHUNK = 128
"""Clips that share one random generator."""

LOUD = 0.25
"""Share of a clip's frames, the loudest, whose mean power is its own beside noise."""


class LevelAugmenter:
    """Features of augmented clips of levels, as `AugmentationConfig` says; a change is off where its option is 0.

    In this order, on powers: the bands are moved by a factor (a longer or shorter vocal tract), frames by speed and
    time shift (both by linear interpolation; what moves in from outside is zero), noise is added at a signal-to-noise
    ratio of mean powers, and all is multiplied by a gain. Then logarithm, pooling and normalisation as of any clip.

    Choices do not depend on how the pipeline pools: pipelines that differ in that alone hear the same changes.

    Parameters
    ----------
    config: how much of each. pipeline: makes features of levels. noise: levels (M, frames, bands). seed: of all
        choices.

    Raises
    ------
    ValueError
        If noise is asked for and there is none.
    """

    def __init__(self, config: AugmentationConfig, pipeline: FeaturePipeline, noise: Levels, seed: int) -> None:
        if config.aug_noise and not len(noise):
            raise ValueError(f"--aug_noise {config.aug_noise}: the data set has no noise (noise.npz of --from)")
        self.config, self.pipeline, self.seed = config, pipeline, seed
        self.bank = pipeline.log_mel
        self.noise: Powers = self.bank.joined(self.bank.scale.powers(np.asarray(noise)))
        self._noise_power = np.maximum(_totals(self.noise).mean(1), np.finfo(np.float32).tiny)

    def features(self, levels: Levels, version: int, workers: int = 1) -> Features:
        """The network's input (N, T, F), normalised, of all clips (N, frames, bands) as they sound in this version."""
        out = np.empty((len(levels), *self.pipeline.clip_shape(levels)), np.float32)

        def compute(start: int) -> None:
            rng = np.random.default_rng([self.seed, version, start])
            powers = self.powers(np.asarray(levels[start : start + CHUNK]), rng)
            shaped = self.pipeline.shape(self.bank.finish(powers))
            out[start : start + CHUNK] = self.pipeline.normalise(shaped.astype(np.float32))

        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(compute, range(0, len(levels), CHUNK)))
        return out

    def powers(self, levels: Levels, rng: np.random.Generator) -> Powers:
        """Changed powers (B, frames, features) of levels (B, frames, bands)."""
        c, batch = self.config, len(levels)
        warp, speed, shift, decibels, ratio, noisy = 2 * rng.random((6, batch), np.float32) - 1
        chosen = rng.integers(max(1, len(self.noise)), size=batch)
        powers = self._warped(self.bank.scale.powers(levels).astype(np.float32, copy=False), 1 + c.aug_warp * warp)
        if c.aug_speed or c.aug_shift:
            powers = _moved(powers, 1 + c.aug_speed * speed, shift * c.aug_shift / self.pipeline.config.frame_stride)
        if c.aug_noise:
            snr = c.aug_snr_low + (c.aug_snr_high - c.aug_snr_low) * (ratio + 1) / 2
            gain = np.where((noisy + 1) / 2 < c.aug_noise, 10 ** (-snr / 10), 0)
            self._add_noise(powers, chosen, gain)
        if c.aug_gain:
            powers *= (10 ** (c.aug_gain * decibels / 10))[:, None, None]
        return powers

    def _warped(self, powers: Powers, factors: NDArray[np.float32]) -> Powers:
        """Bands of (B, T, bands) read at factor times their number, and joined as the front end joins them."""
        if not self.config.aug_warp:
            return self.bank.joined(powers)
        bands = powers.shape[2]
        position = np.minimum(np.arange(bands, dtype=np.float32) * factors[:, None], bands - 1)
        below = np.minimum(position.astype(np.int64), bands - 2)
        weights = np.zeros((len(powers), bands, bands), np.float32)
        rows, columns = np.arange(len(powers))[:, None], np.arange(bands)
        weights[rows, below, columns] = 1 - (position - below)
        weights[rows, below + 1, columns] = position - below
        warped: Powers = np.matmul(powers, self.bank.joined(weights))
        return warped

    def _add_noise(self, powers: Powers, chosen: NDArray[np.int64], gain: NDArray[np.floating]) -> None:
        """Add the chosen noises to clips (B, T, F) at gain times the power that makes both equally loud."""
        loud = max(1, round(LOUD * powers.shape[1]))
        power = np.partition(_totals(powers), -loud, axis=1)[:, -loud:].mean(1)
        factors = gain * power / self._noise_power[chosen]
        noisy = np.flatnonzero(factors)
        powers[noisy] += factors[noisy, None, None].astype(np.float32) * self.noise[chosen[noisy]]


def _totals(powers: Powers) -> Powers:
    """Powers (B, T) of all bands (B, T, F) together."""
    total: Powers = powers @ np.ones(powers.shape[2], np.float32)
    return total


def _moved(powers: Powers, speed: NDArray[np.float32], shift: NDArray[np.float32]) -> Powers:
    """Powers (B, T, F) at `speed` times their tempo, the middle moved by `shift` frames."""
    batch, frames, _ = powers.shape
    middle = (frames - 1) / 2
    position = (np.arange(frames, dtype=np.float32) - middle - shift[:, None]) * speed[:, None] + np.float32(middle)
    below = np.floor(position)
    fraction = (position - below)[..., None]
    inside = ((position >= 0) & (position <= frames - 1))[..., None]
    rows = np.arange(batch)[:, None]
    first = np.clip(below, 0, frames - 1).astype(np.int64)
    moved: Powers = powers[rows, first]
    moved *= (1 - fraction) * inside
    after = powers[rows, np.minimum(first + 1, frames - 1)]
    after *= fraction * inside
    moved += after
    return moved
