"""Log mel-band powers: the front end that most published keyword spotters use."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deltarnn.kws.features.filtering import BandLevels
from deltarnn.kws.features.filters import check_count, mel
from deltarnn.kws.features.framing import Framing, Samples, as_batch
from deltarnn.kws.features.frontend_stream import FrameStream

FloatArray = NDArray[np.float64]

TRAILING = 100
"""Zeros at a recording's end from which on they are no part of it."""


@dataclass(frozen=True)
class LogScale:
    """Levels of powers P: factor·ln(P + offset) + bias, raised to `low` and cut at `high`."""

    offset: float = 400.0
    factor: float = 10.0
    bias: float = -61.5
    low: float = 0.0
    high: float = 255.0

    def __post_init__(self) -> None:
        finite = math.isfinite(self.offset + self.factor + self.bias)
        if not (finite and self.offset > 0 and self.factor > 0 and self.low < self.high):
            raise ValueError(
                f"log_offset={self.offset:g}, log_factor={self.factor:g}, log_bias={self.bias:g}: must be finite, the "
                f"former two above 0; log_low={self.low:g} must be below log_high={self.high:g}"
            )

    def __call__(self, powers: NDArray[Any]) -> NDArray[Any]:
        """Levels of powers, of their shape and floating-point type."""
        levels = powers + powers.dtype.type(self.offset)
        np.log(levels, out=levels)
        levels *= self.factor
        levels += self.bias
        clipped: NDArray[Any] = np.clip(levels, self.low, self.high, out=levels)
        return clipped

    def powers(self, levels: NDArray[Any]) -> NDArray[Any]:
        """The powers, float32 or of the levels' floating-point type, whose levels these are; 0 where none has it."""
        if levels.dtype == np.uint8:
            table: NDArray[Any] = self.powers(np.arange(256, dtype=np.float32))[levels]
            return table
        if levels.dtype.kind != "f" or levels.dtype.itemsize < 4:
            levels = levels.astype(np.float32)
        powers = np.exp((levels - self.bias) / self.factor)
        powers -= self.offset
        return np.maximum(powers, 0, out=powers)


class LogMelFilterBank:
    """Logarithms of the powers in bands on the mel scale.

    Per frame, with a periodic Hann window: factor·ln( P_f + offset ) + bias within [low, high], where
    P_f = Σ_k triangle_f[k]·|rfft_nfft(window·samples)|²[k]. The triangles are straight on the mel scale
    (1127·ln(1 + f/700)), between n_filt + 2 corners evenly spaced from `freq_low` to `freq_high`, as in HTK and Kaldi.
    Frames lie wholly within the clip: floor((samples − length)/hop) + 1 of them.

    Parameters
    ----------
    n_filt: number of bands. freq_low, freq_high: outer corners, Hz. frame_size, frame_stride: seconds.
    nfft: FFT length, at least the frame's length in samples. log: False gives the powers P themselves.
    scale: offset, factor, bias and limits of the logarithm; the defaults are those of 8-bit images.
    pool_bands: neighbouring bands that become one by the sum of their powers: n_filt / pool_bands features.
    pool_frames: neighbouring frames that become one, by the mean of their levels; by that of their powers without
        `pool_log`. A last run of fewer frames is left out.

    Raises
    ------
    ValueError
        On parameters out of range (named), or audio that is not int16.

    Examples
    --------
    >>> LogMelFilterBank()(np.zeros(16000, np.int16)).shape
    (98, 40)
    """

    def __init__(
        self,
        n_filt: int = 40,
        freq_low: float = 0,
        freq_high: float = 4000,
        frame_size: float = 0.03,
        frame_stride: float = 0.01,
        nfft: int = 512,
        sample_rate: int = 16000,
        log: bool = True,
        scale: LogScale | None = None,
        pool_bands: int = 1,
        pool_frames: int = 1,
        pool_log: bool = True,
    ) -> None:
        self.frames = Framing(frame_size, frame_stride, sample_rate, inside=True)
        if self.frames.length > nfft:
            raise ValueError(f"nfft={nfft}: a frame has {self.frames.length} samples; nfft must be at least that")
        check_count(n_filt)
        if not 0 <= freq_low < freq_high <= sample_rate / 2:
            raise ValueError(
                f"freq_low={freq_low}, freq_high={freq_high}: must rise, from 0 to {sample_rate / 2:g} (half the "
                "sample rate)"
            )
        if pool_frames < 1 or pool_frames % 1 or pool_bands < 1 or pool_bands % 1 or n_filt % pool_bands:
            raise ValueError(
                f"pool_frames={pool_frames}, pool_bands={pool_bands}: whole numbers of at least 1; and "
                f"n_filt={n_filt} a multiple of pool_bands"
            )
        self.framing = self.frames.pooled(pool_frames)
        self.n_filt, self.nfft, self.sample_rate = n_filt, nfft, sample_rate
        self.log, self.scale = log, scale or LogScale()
        self.pool_bands, self.pool_frames, self.pool_log = pool_bands, pool_frames, pool_log and log
        self.num_features = n_filt // pool_bands
        bins = mel(np.arange(nfft // 2 + 1) * (sample_rate / nfft))[:, None]
        low, middle, high = (np.linspace(mel(freq_low), mel(freq_high), n_filt + 2)[i : n_filt + i] for i in range(3))
        self.triangles = np.maximum(0.0, np.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)))
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.frames.length) / self.frames.length)
        self._band_powers = BandLevels(window, nfft, self.joined(self.triangles), power=True)

    def __call__(self, audio: ArrayLike) -> FloatArray:
        samples = as_batch(audio)
        features = self._features_of(samples, self.framing.count(samples.shape[-1]))
        return features[0] if np.ndim(audio) == 1 else features

    def num_frames(self, num_samples: int) -> int:
        """Frames of a clip of `num_samples` samples."""
        return self.framing.count(num_samples)

    def stream(self) -> FrameStream:
        """A twin that takes audio piece by piece and gives the same numbers."""
        return FrameStream(
            self.framing, lambda samples: self._features_of(samples[None], self.framing.whole(len(samples)))[0]
        )

    def native(self) -> dict[str, Any] | None:
        """What the native core's spotter needs to compute these frames, or None without the core."""
        plan, scale = self._band_powers.frame_plan, self.scale
        if plan is None:
            return None
        return {
            "plan": plan, "hop": self.frames.hop, "pool": self.pool_frames, "ahead": 0, "pool_scaled": self.pool_log,
            "scale": "natural" if self.log else "plain", "offset": scale.offset, "factor": scale.factor,
            "bias": scale.bias, "low": scale.low if self.log else 0.0, "high": scale.high if self.log else math.inf,
        }  # fmt: skip

    def centred(self, samples: NDArray[np.int16], num_samples: int) -> FloatArray:
        """Features (T, F) of one recording (N,), with the frames of a clip of `num_samples` samples.

        More than TRAILING zeros at the recording's end do not count, unless less than a frame would be left. A
        recording of fewer frames has them in the middle, (count − n)//2 empty ones before them; one of more counts by
        its first.
        """
        spoken = np.flatnonzero(samples)
        end = int(spoken[-1]) + 1 if len(spoken) else 0
        if len(samples) - end > TRAILING and end >= self.frames.length:
            samples = samples[:end]
        count, there = self.frames.count(num_samples), self.frames.count(len(samples))
        powers = np.zeros((count, self.num_features))
        if there:
            first = max(0, (count - there) // 2)
            inside = self._band_powers(samples[None], self.frames.hop, min(count, there))[0]
            powers[first : first + len(inside)] = inside
        return self.finish(powers)

    def of_levels(self, levels: NDArray[Any]) -> NDArray[Any]:
        """Features (…, T, F) of the levels (…, frames, n_filt) that this front end gives without pooling."""
        if levels.shape[-1] != self.n_filt or not self.log:
            raise ValueError(f"levels of {levels.shape[-1]} bands: needs the logarithmic ones of n_filt={self.n_filt}")
        return self.finish(self.joined(self.scale.powers(levels)))

    def joined(self, powers: NDArray[Any]) -> NDArray[Any]:
        """Powers (…, features) of runs of `pool_bands` bands, from those (…, n_filt) of single ones."""
        return np.ascontiguousarray(sum(powers[..., band :: self.pool_bands] for band in range(self.pool_bands)))

    def finish(self, powers: NDArray[Any]) -> NDArray[Any]:
        """Features (…, T // pool_frames, F) of the powers (…, T, F) of frames, bands pooled: logarithm, frames."""
        if self.pool_log:
            powers = self.scale(powers)
        if self.pool_frames > 1:
            end = powers.shape[-2] // self.pool_frames * self.pool_frames
            runs = (powers[..., frame : end : self.pool_frames, :] for frame in range(self.pool_frames))
            powers = np.asarray(sum(runs) / self.pool_frames)
        return powers if self.pool_log or not self.log else self.scale(powers)

    def _features_of(self, signal: Samples, count: int) -> FloatArray:
        return self.finish(self._band_powers(signal, self.frames.hop, count * self.pool_frames))
