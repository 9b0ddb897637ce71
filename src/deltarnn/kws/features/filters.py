"""The filters of the front ends: frequencies evenly spaced to the ear, triangles over a spectrum, band-passes."""

from collections.abc import Sequence
from typing import Literal, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.signal import butter

FloatArray = NDArray[np.float64]
Spacing = Literal["mel", "log"]


def mel(frequency: ArrayLike) -> FloatArray:
    """Mel value of a frequency in Hz: 2595·log10(1 + f/700)."""
    return 2595.0 * np.log10(1.0 + np.asarray(frequency, dtype=np.float64) / 700.0)


def spaced_frequencies(count: int, low: float, high: float, spacing: Spacing = "mel") -> FloatArray:
    """`count` frequencies in Hz from `low` to `high`, both included, evenly spaced in mel or in log f."""
    if spacing == "mel":
        return 700.0 * (10.0 ** (np.linspace(mel(low), mel(high), count) / 2595.0) - 1.0)
    return np.geomspace(low, high, count)


def corner_frequencies(
    n_filt: int, freq_low: float, freq_high: float, f_spacing: Spacing | Sequence[float], sample_rate: int
) -> FloatArray:
    """The n_filt + 2 corners of the triangles, Hz."""
    check_count(n_filt)
    if isinstance(f_spacing, str):
        if f_spacing not in ("mel", "log"):
            raise ValueError(f"f_spacing={f_spacing!r}: must be 'mel', 'log', or a list of n_filt + 2 frequencies")
        _check_range(freq_low, freq_high, sample_rate)
        return spaced_frequencies(n_filt + 2, freq_low, freq_high, f_spacing)
    corners = np.asarray(f_spacing, dtype=np.float64)
    if corners.shape != (n_filt + 2,) or not (np.diff(corners) > 0).all():
        raise ValueError(f"f_spacing has {corners.size} frequencies: needs n_filt + 2 = {n_filt + 2}, rising")
    _check_range(float(corners[0]), float(corners[-1]), sample_rate)
    return corners


def check_count(n_filt: int) -> None:
    """ValueError unless n_filt is a number of filters."""
    if n_filt != int(n_filt) or n_filt < 1:
        raise ValueError(f"n_filt={n_filt}: needs a whole number of at least 1 filter")


def triangles(corners: FloatArray, num_bins: int) -> FloatArray:
    """Weights (num_bins, n_filt) rising from corner j to 1 at corner j + 1 and falling to corner j + 2."""
    bins = np.arange(num_bins, dtype=np.float64)[:, None]
    low, middle, high = corners[:-2], corners[1:-1], corners[2:]
    with np.errstate(divide="ignore", invalid="ignore"):  # two corners in one bin: that side of the triangle is empty
        rising = np.where((bins >= low) & (bins < middle), (bins - low) / (middle - low), 0.0)
        falling = np.where((bins >= middle) & (bins < high), (high - bins) / (high - middle), 0.0)
    return rising + falling


def band_pass(centre: float, quality: float, order: int, sample_rate: int) -> FloatArray:
    """Second-order sections (order, 6) of a Butterworth band-pass with its half-power points centre·(1 ∓ 1/(2·Q))."""
    if not quality > 0:
        raise ValueError(f"q_factors={quality:g} of the channel at {centre:g} Hz: must be above 0")
    low, high = centre * (1 - 0.5 / quality), centre * (1 + 0.5 / quality)
    if order < 1 or not 0 < low < high < sample_rate / 2:
        raise ValueError(
            f"channel at {centre:g} Hz with q_factors={quality:g}, ch_orders={order}: its band {low:g} to {high:g} Hz "
            f"must lie between 0 and {sample_rate / 2:g} Hz, and its order must be at least 1"
        )
    return cast(FloatArray, butter(order, [low, high], btype="bandpass", output="sos", fs=sample_rate))


def _check_range(freq_low: float, freq_high: float, sample_rate: int) -> None:
    if not 0 < freq_low < freq_high <= sample_rate / 2 * (1 + 1e-9):  # corners computed in mel may round up
        raise ValueError(
            f"freq_low={freq_low}, freq_high={freq_high}: must rise, above 0, up to {sample_rate / 2:g} (half the "
            "sample rate)"
        )
