"""The log mel filter bank in integers: weighted sums of the powers of `IntegerSpectrum`, then `FeatureScale`.

    level = Σ_k ⌊|X_k|² / 2^s⌋·w_k          w: the triangles with 12 fraction bits

s is the least for which no level, with what the logarithm adds, reaches 2⁶³, whatever the samples (Parseval).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deltarnn.fixed.arithmetic import IntArray
from deltarnn.fixed.log_bank import SpectrumBank
from deltarnn.fixed.spectrum import IntegerSpectrum

WEIGHT_BITS = 12
_SUM_BITS = 62
"""Levels are below 2⁶²; what the logarithm adds, too."""
_ERROR = 1.02
"""The largest relative error of the integer spectrum, and more."""


def power_shift(spectrum: IntegerSpectrum) -> int:
    """s: the bits that powers lose before they are weighted."""
    largest = _ERROR * spectrum.energy_bound()
    return max(0, math.ceil(math.log2(largest)) + 2 * spectrum.fraction_bits + WEIGHT_BITS - _SUM_BITS)


def level_bits(spectrum: IntegerSpectrum) -> int:
    """Fraction bits of levels, in squared sums of samples."""
    return 2 * spectrum.fraction_bits - power_shift(spectrum) + WEIGHT_BITS


@dataclass(frozen=True, eq=False)
class IntegerLogMelFilterBank(SpectrumBank):
    """Features (frames, filters) in the network's activation format, of int16 samples.

    weights: (nfft/2, filters) from 0 to 2¹². The scale is of levels with `level_bits`.
    """

    weights: IntArray

    @property
    def num_features(self) -> int:
        """Filters."""
        return int(self.weights.shape[1])

    @property
    def bands(self) -> list[tuple[int, int]]:
        """(first, end) of the bins with a weight, of each filter; (0, 0) where it has none."""
        used = [np.flatnonzero(column) for column in self.weights.T]
        return [(int(bins[0]), int(bins[-1]) + 1) if len(bins) else (0, 0) for bins in used]

    def levels(self, frames: NDArray[np.int16]) -> IntArray:
        """Σ of each filter (R, filters) of frames (R, length)."""
        powers = self.spectrum.powers(frames) >> power_shift(self.spectrum)
        return np.asarray(powers @ self.weights, dtype=np.int64)
