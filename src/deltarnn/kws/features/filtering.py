"""The costly part of the front ends: in the native core, or with numpy and scipy where that is not built.

Both ways are double precision and agree within a few units in the last place; the tests compare them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.signal import sosfilt

from deltarnn.native import native_core

FloatArray = NDArray[np.float64]
Samples = NDArray[Any]  # int16 or float64

_LANES = 8
_MAX_SECTIONS = 4
MIN_NATIVE_STREAM = 256
"""The shortest FFT that the native core computes one frame at a time."""

_CHUNK_ROWS = 64
"""Spectra computed at once by numpy: their buffers (1.3 MB at nfft 1024) stay in the second-level cache."""


class BandLevels:
    """Σ_k weight[k]·|rfft_nfft(window·frame)|[k] of every frame, for each column of weights (nfft/2 + 1, bands);
    of |rfft|² with `power`.

    Called with signals (B, N), int16 or float64, the hop and the number of frames: levels (B, count, bands). Frame t
    begins at sample t·hop and must lie within the signal. plan: the native core's, or None; frame_plan: the same
    where the core takes one frame at a time too.
    """

    def __init__(self, window: FloatArray, nfft: int, weights: FloatArray, power: bool = False) -> None:
        self._window, self._nfft, self._weights, self._power = window, nfft, weights, power
        native = native_core()
        power_of_two = nfft >= 16 and nfft & (nfft - 1) == 0
        self.plan = native.BandPlan(window, nfft, weights, power) if native and power_of_two else None
        self.frame_plan = self.plan if nfft >= MIN_NATIVE_STREAM else None
        self._blocks = _dense_blocks(weights)

    def __call__(self, signals: Samples, hop: int, count: int) -> FloatArray:
        levels = np.empty((len(signals), count, self._weights.shape[1]))
        if count == 0 or len(signals) == 0:
            return levels
        if self.plan is not None:
            self.plan.levels(np.ascontiguousarray(signals), hop, levels)
            return levels
        length, bins = len(self._window), self._nfft // 2 + 1
        frames = sliding_window_view(signals, length, axis=-1)[:, ::hop]
        rows = min(_CHUNK_ROWS, count)
        padded = np.zeros((rows, self._nfft))
        spectrum = np.empty((rows, bins), np.complex128)
        magnitude = np.empty((rows, bins))
        for clip in range(len(signals)):
            for start in range(0, count, rows):
                n = min(rows, count - start)
                np.multiply(frames[clip, start : start + n], self._window, out=padded[:n, :length])
                np.fft.rfft(padded[:n], out=spectrum[:n])
                np.abs(spectrum[:n], out=magnitude[:n])
                if self._power:
                    np.square(magnitude[:n], out=magnitude[:n])
                for used, bands, weights in self._blocks:
                    np.matmul(magnitude[:n, used], weights, out=levels[clip, start : start + n, bands])
        return levels


class BandPasses:
    """Mean absolute output of filter cascades over frames; `sections` has the second-order sections (S, 6) of each.

    Called with signals (B, N) float64, the length and hop of a frame, and the number of frames: means (B, count,
    filters). What a frame has beyond the signal's end counts as zero.
    """

    def __init__(self, sections: Sequence[FloatArray]) -> None:
        self._sections = sections
        most = max(len(s) for s in sections)
        self._native = native_core() if most <= _MAX_SECTIONS else None
        # Channels lie in the lanes of vectors; a shorter cascade goes on with sections that change nothing.
        self._coefficients = np.zeros((-(-len(sections) // _LANES), most, 5, _LANES))
        self._coefficients[:, :, 0] = 1.0
        for channel, cascade in enumerate(sections):
            lanes = self._coefficients[channel // _LANES, : len(cascade), :, channel % _LANES]
            lanes[:] = cascade[:, [0, 1, 2, 4, 5]]

    def __call__(self, signals: FloatArray, length: int, hop: int, count: int) -> FloatArray:
        channels = len(self._sections)
        if count == 0:
            return np.empty((len(signals), 0, channels))
        starts = hop * np.arange(count)
        if self._native is None:
            means = np.empty((len(signals), count, channels))
            missing = max(0, int(starts[-1]) + length - signals.shape[1])
            for channel, cascade in enumerate(self._sections):
                rectified = np.pad(np.abs(sosfilt(cascade, signals, axis=-1)), ((0, 0), (0, missing)))
                means[..., channel] = sliding_window_view(rectified, length, axis=-1)[:, ::hop][:, :count].mean(axis=-1)
            return means
        ends = np.unique(np.minimum(np.concatenate([starts[1:], starts + length]), signals.shape[1]))
        sums = np.empty((len(signals), len(ends), self._coefficients.shape[0] * _LANES))
        self._native.rectified_sums(np.ascontiguousarray(signals), self._coefficients, ends, sums)
        # Segment k lies between ends k − 1 and k; a frame is the sum of those within it.
        inside = (ends > starts[:, None]) & (ends <= starts[:, None] + length)
        return np.asarray(inside @ sums[..., :channels] / length)


def _dense_blocks(weights: FloatArray, width: int = 8) -> list[tuple[slice, slice, FloatArray]]:
    """The sparse product magnitude @ weights as a few dense ones: `width` bands, and the bins that they touch."""
    blocks = []
    for first in range(0, weights.shape[1], width):
        bands = slice(first, min(first + width, weights.shape[1]))
        used = np.flatnonzero(weights[:, bands].any(axis=1))
        bins = slice(int(used[0]), int(used[-1]) + 1) if used.size else slice(0, 1)
        blocks.append((bins, bands, np.ascontiguousarray(weights[bins, bands])))
    return blocks
