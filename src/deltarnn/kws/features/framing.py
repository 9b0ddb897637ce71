"""How samples become frames."""

import copy
import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Samples = NDArray[Any]  # int16 or float64, whatever stage the signal is in


class Framing:
    """How samples become frames: length and hop in seconds, rounded to samples.

    count = ceil(|samples − length| / hop); a signal too short for its last frame counts as followed by zeros. Or, with
    `inside`, only frames that lie wholly within the signal: count = floor((samples − length) / hop) + 1, at least 0.
    """

    def __init__(self, frame_size: float, frame_stride: float, sample_rate: int, inside: bool = False) -> None:
        if not (sample_rate > 0 and math.isfinite(frame_size) and math.isfinite(frame_stride)):
            raise ValueError(
                f"sample_rate={sample_rate}, frame_size={frame_size}, frame_stride={frame_stride}: must be finite and "
                "above 0"
            )
        self.length = round(frame_size * sample_rate)
        self.hop = round(frame_stride * sample_rate)
        if min(self.length, self.hop) < 1:
            raise ValueError(
                f"frame_size={frame_size}, frame_stride={frame_stride}: seconds; each must be at least one sample, "
                f"1/{sample_rate} s"
            )
        self.inside = inside

    def count(self, num_samples: int) -> int:
        """Frames of a clip of `num_samples` samples."""
        if self.inside:
            return self.whole(num_samples)
        return -(-abs(num_samples - self.length) // self.hop)

    def sure(self, num_samples: int) -> int:
        """Frames of a stream that are decided once `num_samples` samples are there, whatever follows."""
        # A clip of N samples has the frames i with N − length > i·hop: frame i is sure one sample after its own last.
        return self.whole(num_samples) if self.inside else max(0, -((self.length - num_samples) // self.hop))

    def pooled(self, frames: int) -> "Framing":
        """Of runs of `frames` frames, one after another."""
        pooled = copy.copy(self)
        pooled.length, pooled.hop = self.length + (frames - 1) * self.hop, frames * self.hop
        return pooled

    def whole(self, num_samples: int) -> int:
        """Frames that lie within `num_samples` samples."""
        return max(0, (num_samples - self.length) // self.hop + 1)

    def filled(self, signal: Samples) -> Samples:
        """A signal (B, N), followed by zeros where its last frame needs them."""
        missing = self.missing(signal.shape[-1])
        return np.pad(signal, ((0, 0), (0, missing))) if missing > 0 else signal

    def missing(self, num_samples: int) -> int:
        """Zeros that the last frame of a clip of `num_samples` samples needs; 0 or less for none."""
        return (self.count(num_samples) - 1) * self.hop + self.length - num_samples


def as_batch(audio: ArrayLike) -> NDArray[np.int16]:
    """Audio as (B, N) int16; anything else is refused, as it would be scaled wrongly in silence."""
    array = np.asarray(audio)
    if array.dtype != np.int16 or array.ndim not in (1, 2) or array.shape[-1] == 0:
        raise ValueError(
            f"audio of type {array.dtype} and shape {array.shape}: needs int16 samples of shape (N,) or (B, N), N > 0; "
            "for floating-point audio in [-1, 1): (audio * 32768).astype(numpy.int16)"
        )
    return array.reshape(-1, array.shape[-1])
