"""The log filter bank in integers: triangles over the magnitudes of `IntegerSpectrum`, then `FeatureScale`.

Between two corners low and mid, bins rise by r_k = (k − low)/(mid − low) into one filter and fall by 1 − r_k into the
one before it. r_k are multiples of ⌊2³²/(mid − low)⌋, so one multiplication per bin and no table serve both:

    rising = ⌊Σ m_k·r_k / 2³²⌋, falling = Σ m_k − rising

apart for the bins 4i + 1, 4i + 3 and the even ones, as the FFT gives them.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from deltarnn.fixed.arithmetic import IntArray
from deltarnn.fixed.feature_scale import LEVEL_BITS, FeatureScale
from deltarnn.fixed.spectrum import IntegerSpectrum

PASSES = ((0, 2), (1, 4), (3, 4))
"""(first bin, step) of the bins that are added up together."""

_CHUNK = 256
"""Frames whose spectra are computed at once: their arrays stay in the cache."""

_ERROR = 1.02
"""The magnitude's largest error, and a little."""


def level_fraction_bits(spectrum: IntegerSpectrum, corners: tuple[int, ...]) -> int:
    """Fraction bits of magnitudes and levels: as many as the FFT has to give and 32-bit levels hold (Cauchy)."""
    widest = max(high - low for low, high in zip(corners, corners[2:], strict=False))
    largest = _ERROR * math.sqrt(widest * spectrum.energy_bound())
    return min(spectrum.fraction_bits - 1, math.floor(LEVEL_BITS - math.log2(largest)))


@dataclass(frozen=True, eq=False)
class SpectrumBank(ABC):
    """A filter bank over spectra of frames.

    spectrum: window and FFT. hop: samples from frame to frame. scale: of `levels`.
    """

    spectrum: IntegerSpectrum
    hop: int
    scale: FeatureScale

    @property
    @abstractmethod
    def num_features(self) -> int:
        """Filters."""

    @abstractmethod
    def levels(self, frames: NDArray[np.int16]) -> IntArray:
        """Σ of each filter (R, filters) of frames (R, length)."""

    @property
    def length(self) -> int:
        """Samples of a frame."""
        return len(self.spectrum.window)

    def start(self, batch_size: int) -> None:  # noqa: B027
        """Samples are not filtered: no state."""

    def filtered(self, audio: NDArray[np.int16], state: None) -> NDArray[np.int16]:
        """The samples as they are."""
        return audio

    def features(self, signal: NDArray[np.int16], count: int) -> IntArray:
        """Features (B, count, filters) of samples (B, N) that hold `count` whole frames."""
        features = np.empty((len(signal), count, self.num_features), np.int64)
        if count == 0:
            return features
        frames = sliding_window_view(signal, self.length, axis=-1)[:, :: self.hop][:, :count]
        for clip, of_clip in zip(frames, features, strict=True):
            for start in range(0, count, _CHUNK):
                part = slice(start, start + _CHUNK)
                of_clip[part] = self.scale(self.levels(clip[part]))
        return features


@dataclass(frozen=True, eq=False)
class IntegerLogFilterBank(SpectrumBank):
    """Features (frames, filters) in the network's activation format, of int16 samples.

    corners: bins (filters + 2,), not falling, of the triangles. The scale is of levels with `fraction_bits`, in sums of
    samples.
    """

    corners: tuple[int, ...]

    @property
    def num_features(self) -> int:
        """Filters."""
        return len(self.corners) - 2

    @cached_property
    def fraction_bits(self) -> int:
        """Of magnitudes and levels."""
        return level_fraction_bits(self.spectrum, self.corners)

    @property
    def steps(self) -> list[int]:
        """Of the rising weights, from each corner to the next, in 2⁻³²; 0 where no bin lies between them."""
        return [
            (1 << LEVEL_BITS) // (high - low) if high - low > 1 else 0
            for low, high in zip(self.corners, self.corners[1:], strict=False)
        ]

    def levels(self, frames: NDArray[np.int16]) -> IntArray:
        """Σ of each filter (R, filters) of frames (R, length), with `fraction_bits`."""
        magnitudes = self.spectrum.magnitudes(frames, self.fraction_bits)
        filters = self.num_features
        levels = np.zeros((len(frames), filters + 2), np.int64)  # of the corners: first and last are no filter's
        for first, stride in PASSES:
            for corner, step in enumerate(self.steps):
                low, high = self.corners[corner], self.corners[corner + 1]
                bins = np.arange(low + (first - low) % stride, high, stride)
                inside = magnitudes[:, bins].astype(np.uint64)
                weights = ((bins - low) * step).astype(np.uint64)
                rising = ((inside * weights).sum(axis=1) >> np.uint64(LEVEL_BITS)).astype(np.int64)
                levels[:, corner + 1] += rising
                levels[:, corner] += inside.sum(axis=1).astype(np.int64) - rising
        return levels[:, 1:-1]
