"""Recordings made of log-mel levels, to train streams on where only levels are shared."""

from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from deltarnn.kws.data.audio import Audio, to_int16
from deltarnn.kws.features.log_mel import LogMelFilterBank

Powers = NDArray[np.float32]

_INVERSIONS = 15
"""Steps from band powers to a spectrum."""

_ITERATIONS = 12
"""Steps towards phases that agree; afterwards the levels of loud bands are some 1.4 dB off (Speech Commands)."""

_MOMENTUM = 0.9


class Resynthesis:
    """From levels (N, T, F) to samples (N, (T − 1)·hop + length) int16 whose own levels are close to them.

    front_end: what made the levels; its bands and frames are not pooled, its levels logarithmic. The spectrum S of a
    frame follows from its band powers P and the triangles W (bins, F) by

        S ← S · W( P / (Wᵀ S) ) / W 1

    and phases by alternating between spectra that have the magnitude √S and those that belong to a signal (D. W.
    Griffin, J. S. Lim, "Signal estimation from modified short-time Fourier transform", IEEE Trans. ASSP, 1984), with
    momentum. Speech comes out hoarse, for pitch is lost; levels and what a keyword network makes of them are kept.
    """

    def __init__(self, front_end: LogMelFilterBank) -> None:
        if front_end.pool_bands > 1 or front_end.pool_frames > 1 or not front_end.log:
            raise ValueError("levels of pooled bands or frames, or plain powers, do not tell enough of a recording")
        self._scale, self._frames, self._nfft = front_end.scale, front_end.frames, front_end.nfft
        self._triangles = front_end.triangles.astype(np.float32)
        length = self._frames.length
        self._window = np.zeros(self._nfft, np.float32)
        self._window[:length] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)

    def __call__(self, levels: NDArray[Any], rng: np.random.Generator) -> Audio:
        """Phases begin with what `rng` draws."""
        if levels.ndim != 3 or levels.shape[2] != self._triangles.shape[1]:
            raise ValueError(f"levels of shape {levels.shape}: needs (clips, frames, {self._triangles.shape[1]})")
        magnitude = np.sqrt(self._spectrum(self._scale.powers(levels)))
        turned = rng.uniform(0, 2 * np.pi, magnitude.shape).astype(np.float32)
        spectrum, before = magnitude * np.exp(1j * turned), np.zeros((), np.complex64)
        for _ in range(_ITERATIONS):
            consistent = self._analysed(self._signal(spectrum))
            ahead = consistent + np.float32(_MOMENTUM) * (consistent - before) if before.ndim else consistent
            before = consistent
            spectrum = magnitude * (ahead / (np.abs(ahead) + np.float32(1e-9)))
        samples = self._signal(spectrum)
        return to_int16(samples[:, : (levels.shape[1] - 1) * self._frames.hop + self._frames.length])

    def _spectrum(self, powers: Powers) -> Powers:
        """Bin powers (N, T, bins) of band powers (N, T, F)."""
        triangles, least = self._triangles, np.float32(1e-6)
        total = triangles.sum(1) + least
        start = np.repeat(powers.mean(-1, keepdims=True) + least, len(triangles), -1)
        spectrum: Powers = start * (triangles.sum(1) > 0)
        for _ in range(_INVERSIONS):
            spectrum *= (powers / (spectrum @ triangles + least)) @ triangles.T / total
        return spectrum

    def _signal(self, spectrum: NDArray[np.complex64]) -> NDArray[np.float32]:
        """The signal (N, ·) whose frames are nearest to a spectrum (N, T, bins)."""
        hop, window = self._frames.hop, self._window
        frames = scipy.fft.irfft(spectrum, self._nfft) * window
        clips, count = frames.shape[:2]
        signal = np.zeros((clips, (count - 1) * hop + self._nfft), np.float32)
        weight = np.zeros(signal.shape[1], np.float32)
        for number in range(count):
            part = slice(number * hop, number * hop + self._nfft)
            signal[:, part] += frames[:, number]
            weight[part] += np.square(window)
        signal /= np.maximum(weight, np.float32(0.1))
        return signal

    def _analysed(self, signal: NDArray[np.float32]) -> NDArray[np.complex64]:
        """The spectrum (N, T, bins) of a signal's frames."""
        frames = np.lib.stride_tricks.sliding_window_view(signal, self._nfft, 1)[:, :: self._frames.hop]
        analysed: NDArray[np.complex64] = scipy.fft.rfft(frames * self._window)
        return analysed
