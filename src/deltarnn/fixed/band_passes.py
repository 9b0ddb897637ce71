"""The bank of band-passes in integers: a microphone's converter, second-order sections in Q29, means of |·|.

Per sample, with F fraction bits of the converter's counts:

    v = ⌊clip(256·x − mean, ±full_scale)·gain / 2³¹⌋                               or x·2^F without a microphone model
    y = ⌊(b0·x0 + b1·x1 + b2·x2 − a1·y1 − a2·y2 + 2²⁸) / 2²⁹⌋                          per section, one after another
    level = Σ ⌊|y| / 2^d⌋                                                              over the samples of a frame

F is as large as keeps every |y| below 2²⁸, whatever the samples (Σ|h| of the impulse responses), d as small as keeps
levels below 2³¹.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from deltarnn.fixed.arithmetic import IntArray
from deltarnn.fixed.feature_scale import FeatureScale

COEFFICIENT_BITS = 29
SIGNAL_BITS = 28
LEVEL_BITS = 31
MICROPHONE_BITS = 8
GAIN_BITS = 31

_RESPONSE = 1 << 15
"""Samples of impulse responses that are added up."""


@dataclass(frozen=True)
class Microphone:
    """A converter in integers: mean and full scale in 1/256 of a sample; gain in 2⁻³¹ of a sample's 1/256."""

    mean: int
    full_scale: int
    gain: int


@dataclass(frozen=True, eq=False)
class BandPassSections:
    """Second-order sections (filters, sections, 5) b0, b1, b2, a1, a2 in Q29, for signals up to ±`peak` counts.

    ValueError where a coefficient does not fit, or a filter never comes to rest.
    """

    coefficients: IntArray
    peak: float

    @classmethod
    def of(cls, sections: Sequence[NDArray[np.float64]], peak: float) -> "BandPassSections":
        """Of sections (S, 6) per filter, as of scipy; a shorter cascade goes on with sections that do nothing."""
        most = max(map(len, sections))
        coefficients = np.zeros((len(sections), most, 5))
        coefficients[..., 0] = 1.0
        for cascade, row in zip(sections, coefficients, strict=True):
            row[: len(cascade)] = cascade[:, [0, 1, 2, 4, 5]]
        rounded = np.rint(coefficients * 2.0**COEFFICIENT_BITS).astype(np.int64)
        if np.abs(coefficients).max() >= 4:
            raise ValueError("a coefficient of the band-passes is 4 or larger: beyond the integer front end's range")
        bank = cls(rounded, peak)
        if bank.fraction_bits < 0:
            raise ValueError("the band-passes ring too long for 32-bit integers: use a lower q_factors or ch_orders")
        return bank

    @cached_property
    def fraction_bits(self) -> int:
        """F."""
        from scipy.signal import sosfilt

        impulse = np.zeros(_RESPONSE)
        impulse[0] = 1.0
        largest = 1.0
        for cascade in self.coefficients / 2.0**COEFFICIENT_BITS:
            signal = impulse
            for b0, b1, b2, a1, a2 in cascade:
                signal = sosfilt([[b0, b1, b2, 1.0, a1, a2]], signal)
                largest = max(largest, float(np.abs(signal).sum()))
        return math.floor(SIGNAL_BITS - math.log2(1.01 * largest * self.peak))


@dataclass(frozen=True, eq=False)
class IntegerBandPasses:
    """Features (frames, filters) in the network's activation format, of int16 samples.

    length, hop: of frames, in samples. scale: of levels with `fraction_bits`, sums over a frame.
    """

    sections: BandPassSections
    microphone: Microphone | None
    length: int
    hop: int
    scale: FeatureScale

    @property
    def num_features(self) -> int:
        """Filters."""
        return len(self.sections.coefficients)

    @property
    def level_shift(self) -> int:
        """d."""
        return level_shift(self.length)

    def start(self, batch_size: int) -> tuple[IntArray, IntArray]:
        """The latest two inputs (2, B, filters, 1) and outputs (2, B, filters, sections), the newer first."""
        shape = (2, batch_size, *self.sections.coefficients.shape[:2])
        return np.zeros((2, batch_size, shape[2]), np.int64), np.zeros(shape, np.int64)

    def filtered(self, audio: NDArray[np.int16], state: tuple[IntArray, IntArray]) -> NDArray[Any]:
        """⌊|y|/2^d⌋ (B, filters, N) of the last section's y."""
        inputs, outputs = state
        signal, half = self._converted(audio), 1 << (COEFFICIENT_BITS - 1)
        b0, b1, b2, a1, a2 = np.moveaxis(self.sections.coefficients, -1, 0)
        rectified = np.empty((audio.shape[1], len(audio), self.num_features), np.uint32)
        for t in range(audio.shape[1]):
            x = np.broadcast_to(signal[:, t, None], inputs[0].shape)
            x1, x2 = inputs
            new = []
            for s in range(b0.shape[1]):
                y1, y2 = outputs[:, ..., s]
                y = b0[:, s] * x + b1[:, s] * x1 + b2[:, s] * x2 - a1[:, s] * y1 - a2[:, s] * y2
                new.append((y + half) >> COEFFICIENT_BITS)
                x, x1, x2 = new[-1], y1, y2
            inputs[1], inputs[0] = inputs[0], signal[:, t, None]
            outputs[1], outputs[0] = outputs[0], np.stack(new, axis=-1)
            rectified[t] = np.abs(x) >> self.level_shift
        return np.ascontiguousarray(np.moveaxis(rectified, 0, -1))

    def features(self, signal: NDArray[Any], count: int) -> IntArray:
        """Features (B, count, filters) of `filtered` signals (B, filters, N) that hold `count` whole frames."""
        levels = np.zeros((len(signal), count, self.num_features), np.int64)
        if count:
            frames = sliding_window_view(signal, self.length, axis=-1)[:, :, :: self.hop][:, :, :count]
            levels[:] = np.moveaxis(frames.sum(axis=-1, dtype=np.int64), 1, 2)
        return self.scale(levels)

    def _converted(self, audio: NDArray[np.int16]) -> IntArray:
        x = audio.astype(np.int64)
        if self.microphone is None:
            return x << self.sections.fraction_bits
        mic = self.microphone
        x = np.clip((x << MICROPHONE_BITS) - mic.mean, -mic.full_scale, mic.full_scale)
        return np.asarray((x * mic.gain) >> GAIN_BITS, dtype=np.int64)


def level_shift(length: int) -> int:
    """d for frames of `length` samples."""
    return max(0, SIGNAL_BITS + length.bit_length() - LEVEL_BITS)
