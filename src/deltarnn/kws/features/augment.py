"""Random changes of training clips, drawn anew for every epoch and the same for the same seed."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from deltarnn.kws.config.options import AugmentationConfig
from deltarnn.kws.data.audio import Audio, to_int16
from deltarnn.kws.features.pipeline import FeaturePipeline, Features

CHUNK = 64
"""Clips that share one random generator: what a clip gets depends on seed, epoch and its place, not on threads."""


class Augmenter:
    """Features of augmented clips, as `AugmentationConfig` says; every kind of change is off where its option is 0.

    In this order: speed and time shift (one resampling by linear interpolation; what moves in from outside is zero),
    gain, and background noise at a signal-to-noise ratio of mean powers (the clip's over its non-zero part).

    Parameters
    ----------
    config: how much of each. pipeline: makes and normalises features. noise: (M,) int16, from which noise is cut.
    seed: of all choices.

    Raises
    ------
    ValueError
        If noise is asked for and `noise` is shorter than a clip.
    """

    def __init__(self, config: AugmentationConfig, pipeline: FeaturePipeline, noise: Audio, seed: int) -> None:
        self.config, self.pipeline, self.noise, self.seed = config, pipeline, noise, seed
        samples = pipeline.config.sample_rate
        if config.aug_noise and len(noise) < samples:
            raise ValueError(f"--aug_noise {config.aug_noise}: needs at least one second of background noise")

    def features(self, clips: Audio, epoch: int, workers: int = 1) -> Features:
        """The network's input (N, T, F), normalised, of all clips (N, S) as they sound in this epoch."""
        pipeline = self.pipeline
        out = np.empty((len(clips), pipeline.num_frames(clips.shape[1]), pipeline.num_features), np.float32)

        def compute(start: int) -> None:
            rng = np.random.default_rng([self.seed, epoch, start])
            audio = self.audio(np.asarray(clips[start : start + CHUNK]), rng)
            out[start : start + CHUNK] = pipeline.normalise(pipeline(audio))

        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(compute, range(0, len(clips), CHUNK)))
        return out

    def audio(self, clips: Audio, rng: np.random.Generator) -> Audio:
        """Changed clips (B, S) int16; the same array where nothing is to be changed."""
        if not self.config.changes_audio:
            return clips
        signal = clips.astype(np.float32)
        if self.config.aug_speed or self.config.aug_shift:
            signal = self._move(signal, rng)
        if self.config.aug_gain:
            decibels = rng.uniform(-self.config.aug_gain, self.config.aug_gain, (len(signal), 1))
            signal *= (10 ** (decibels / 20)).astype(np.float32)
        if self.config.aug_noise:
            self._add_noise(signal, rng)
        return to_int16(signal)

    def _move(self, signal: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        batch, samples = signal.shape
        speed = 1 + self.config.aug_speed * np.asarray(2 * rng.random(batch) - 1)
        reach = self.config.aug_shift * self.pipeline.config.sample_rate
        shift = np.rint(reach * (2 * rng.random(batch) - 1))
        moved = np.zeros_like(signal)
        padded = np.pad(signal, ((0, 0), (0, 1)))
        ramp = np.arange(samples, dtype=np.float64)
        for clip in range(batch):
            # Sample n of the result is the clip's at `position`: the middle stays in place but for the shift.
            position = (ramp - samples / 2) * speed[clip] + (samples / 2 - shift[clip])
            first = np.searchsorted(position, 0.0, side="left")
            last = np.searchsorted(position, samples - 1.0, side="right")
            inside = position[first:last]
            below = inside.astype(np.int64)
            fraction = (inside - below).astype(np.float32)
            row = padded[clip]
            moved[clip, first:last] = row[below] * (1 - fraction) + row[below + 1] * fraction
        return moved

    def _add_noise(self, signal: NDArray[np.float32], rng: np.random.Generator) -> None:
        batch, samples = signal.shape
        if len(self.noise) < samples:
            raise ValueError(f"--aug_noise: {len(self.noise)} samples of background noise, and clips have {samples}")
        noisy = rng.random(batch) < self.config.aug_noise
        low, high = self.config.aug_snr_low, self.config.aug_snr_high
        snr = low + (high - low) * np.asarray(rng.random(batch))
        starts = rng.integers(0, len(self.noise) - samples + 1, batch)
        for clip in np.flatnonzero(noisy):
            noise = self.noise[starts[clip] : starts[clip] + samples].astype(np.float32)
            power = np.dot(signal[clip], signal[clip]) / max(1, np.count_nonzero(signal[clip]))
            noise_power = np.dot(noise, noise) / samples
            if noise_power:
                signal[clip] += np.sqrt(power / noise_power * 10 ** (-snr[clip] / 10)) * noise
