"""Front ends: from 16-bit audio to one feature vector per frame, for many clips at once; the log filter bank.

A bank is called as `bank(audio)`, audio int16 of shape (N,) or (B, N), and returns float64 features of shape
(frames, features) or (B, frames, features), before normalisation. `bank.stream()` gives the twin that takes the same
audio piece by piece (`deltarnn.kws.features.frontend_stream`). The others are in `log_mel` and `iir`.
"""

import math
from collections.abc import Sequence
from typing import Any, Protocol, cast

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray
from scipy.fft import dct

from deltarnn.kws.features.filtering import BandLevels
from deltarnn.kws.features.filters import Spacing, corner_frequencies, triangles
from deltarnn.kws.features.framing import Framing, as_batch
from deltarnn.kws.features.frontend_stream import FrameStream

FloatArray = NDArray[np.float64]
Samples = NDArray[Any]  # int16 or float64, whatever stage the signal is in

FULL_SCALE_32BIT = 65536.0
"""int16 samples enter the filter bank as 32-bit full-scale numbers."""

GAIN_CONTROL_BLOCK = 8
"""Frames that share one gain with `gain_ctrl`."""

_GRADIENT_CONTEXT = 3
"""Frames on either side that decide a frame's second difference, its edge formulas included."""


class FrontEnd(Protocol):
    """What training and the streaming spotter need of a front end."""

    num_features: int
    framing: Framing

    def __call__(self, audio: ArrayLike) -> FloatArray: ...

    def num_frames(self, num_samples: int) -> int: ...

    def stream(self) -> FrameStream: ...

    def native(self) -> dict[str, Any] | None: ...


def cepstrum(levels: FloatArray, num_coefficients: int = 39, lifter: int = 22) -> FloatArray:
    """Mel-frequency cepstrum (…, T, K) of log levels (…, T, F): coefficients 1 … K of the orthonormal DCT-II, the k-th
    liftered by 1 + lifter/2·sin(π(k − 1)/lifter), then their mean over the frames, and 10⁻⁸, taken off."""
    position = np.arange(num_coefficients)
    coefficients = dct(levels, type=2, axis=-1, norm="ortho")[..., 1 : num_coefficients + 1]
    coefficients = coefficients * (1.0 + lifter / 2.0 * np.sin(np.pi * position / lifter))
    return cast(FloatArray, coefficients - (coefficients.mean(axis=-2, keepdims=True) + 1e-8))


def gradients(levels: FloatArray) -> FloatArray:
    """Levels (…, T, F) with their first and second differences along time (second-order edges): (…, T, 3F)."""
    if levels.shape[-2] < 3:
        raise ValueError(f"gradient needs at least 3 frames, this clip has {levels.shape[-2]}")
    first = np.gradient(levels, axis=-2, edge_order=2)
    second = np.gradient(first, axis=-2, edge_order=2)
    return np.concatenate([levels, first, second], axis=-1)


class LogFilterBank:
    """Log levels of triangular filters over the magnitude spectrum.

    Per frame: 20·log10( Σ_k triangle_f[k] · |rfft_nfft(window · samples · 65536)|[k] / nfft ), Hamming window,
    triangles with corners floor((nfft + 1)·frequency/sample_rate); a level of exactly 0 counts as the float64 epsilon.

    Parameters
    ----------
    n_filt: number of filters. freq_low, freq_high: outer corners, Hz. f_spacing: "mel", "log", or the n_filt + 2
        corner frequencies themselves.
    frame_size, frame_stride: seconds. nfft: FFT length, at least the frame's length in samples.
    gradient: append first and second differences along time (3·n_filt features).
    gain_ctrl: each block of 8 frames to zero mean and unit standard deviation (ddof 1) before the window.
    mfcc: cepstral coefficients 1–39 instead of levels (n_filt ≥ 40).
    log: False gives the levels Σ themselves.
    floor: log levels below it are raised to it, dB.

    Raises
    ------
    ValueError
        On parameters out of range (named), or audio that is not int16.

    Examples
    --------
    >>> LogFilterBank()(np.zeros(16000, np.int16)).shape
    (61, 16)
    """

    def __init__(
        self,
        n_filt: int = 16,
        freq_low: float = 100,
        freq_high: float = 8000,
        frame_size: float = 0.016384,
        frame_stride: float = 0.016384,
        nfft: int = 1024,
        f_spacing: Spacing | Sequence[float] = "mel",
        gradient: bool = False,
        gain_ctrl: bool = False,
        mfcc: bool = False,
        sample_rate: int = 16000,
        log: bool = True,
        floor: float = -math.inf,
    ) -> None:
        self.framing = Framing(frame_size, frame_stride, sample_rate)
        if self.framing.length > nfft:
            raise ValueError(f"nfft={nfft}: a frame has {self.framing.length} samples; nfft must be at least that")
        if mfcc and n_filt < 40:
            raise ValueError(f"mfcc needs coefficients 1-39 of at least 40 filters; n_filt={n_filt}")
        if mfcc and not log:
            raise ValueError("mfcc is the cepstrum of log levels; it cannot be combined with log=False")
        if math.isnan(floor):
            raise ValueError(f"floor={floor}: must be a number of dB, -inf for none")
        self.nfft, self.gradient, self.gain_ctrl, self.mfcc, self.log = nfft, gradient, gain_ctrl, mfcc, log
        self.floor = floor
        self.sample_rate = sample_rate
        self.corners = corner_frequencies(n_filt, freq_low, freq_high, f_spacing, sample_rate)
        self.triangles = triangles(np.floor((nfft + 1) * self.corners / sample_rate), nfft // 2 + 1)
        self.num_features = (39 if mfcc else n_filt) * (3 if gradient else 1)
        window = np.hamming(self.framing.length) * (FULL_SCALE_32BIT / nfft)
        self._band_levels = BandLevels(window, nfft, self.triangles)

    def __call__(self, audio: ArrayLike) -> FloatArray:
        samples = as_batch(audio)
        features = self.finish(self.levels(samples))
        return features[0] if np.ndim(audio) == 1 else features

    def num_frames(self, num_samples: int) -> int:
        """Frames of a clip of `num_samples` samples."""
        return self.framing.count(num_samples)

    def stream(self) -> FrameStream:
        """A twin that takes audio piece by piece and gives the same numbers."""
        return FrameStream(
            self.framing,
            lambda samples: self._levels_of(samples[None], self.framing.whole(len(samples)))[0],
            self.finish,
            block=GAIN_CONTROL_BLOCK if self.gain_ctrl else 1,
            context=None if self.mfcc else _GRADIENT_CONTEXT if self.gradient else 0,
        )

    def native(self) -> dict[str, Any] | None:
        """What the native core's spotter needs to compute frames; None where it cannot: they are more than levels."""
        plan = self._band_levels.frame_plan
        if plan is None or self.gain_ctrl or self.gradient or self.mfcc:
            return None
        return {
            "plan": plan, "hop": self.framing.hop, "pool": 1, "ahead": 1, "pool_scaled": True,
            "scale": "decibel" if self.log else "plain", "offset": 0.0, "factor": 1.0, "bias": 0.0,
            "low": self.floor if self.log else -math.inf, "high": math.inf,
        }  # fmt: skip

    def levels(self, samples: NDArray[np.int16]) -> FloatArray:
        """Log levels (B, T, n_filt) of audio (B, N), before cepstrum and gradient."""
        count = self.framing.count(samples.shape[-1])
        return self._levels_of(self.framing.filled(samples), count)

    def _levels_of(self, signal: Samples, count: int) -> FloatArray:
        hop, length = self.framing.hop, self.framing.length
        if self.gain_ctrl and count:
            frames = sliding_window_view(signal, length, axis=-1)[:, ::hop][:, :count]
            signal, hop = _equalise_gain(frames).reshape(len(signal), -1), length
        out = self._band_levels(signal, hop, count)
        if self.log:
            np.copyto(out, np.finfo(np.float64).eps, where=out == 0)
            np.log10(out, out=out)
            out *= 20.0
            np.maximum(out, self.floor, out=out)
        return out

    def finish(self, levels: FloatArray) -> FloatArray:
        """Features of the levels (…, T, n_filt) of whole clips: cepstrum and gradient, where asked for."""
        if self.mfcc:
            levels = cepstrum(levels)
        return gradients(levels) if self.gradient else levels


def _equalise_gain(frames: Samples) -> FloatArray:
    """Frames (B, T, length), each block of 8 frames with zero mean and unit deviation; silent blocks stay 0."""
    equal = frames.astype(np.float64) * FULL_SCALE_32BIT
    for start in range(0, equal.shape[1], GAIN_CONTROL_BLOCK):
        block = equal[:, start : start + GAIN_CONTROL_BLOCK]
        block -= block.mean(axis=(1, 2), keepdims=True)
        deviation = block.std(axis=(1, 2), ddof=1, keepdims=True)
        block /= np.where(deviation == 0, 1.0, deviation)
    return equal / FULL_SCALE_32BIT  # the window brings the factor back
