"""Front ends in integers: from int16 samples to the network's input in its activation format; clips and streams."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deltarnn.fixed.arithmetic import IntArray
from deltarnn.fixed.feature_scale import FeatureScale


class IntegerFrontEnd(Protocol):
    """A filter bank: what happens to samples one by one, then what is made of each frame of `length`, every `hop`."""

    @property
    def scale(self) -> FeatureScale: ...

    @property
    def length(self) -> int: ...

    @property
    def hop(self) -> int: ...

    @property
    def num_features(self) -> int: ...

    def start(self, batch_size: int) -> Any:
        """The state of `filtered` before the first sample."""

    def filtered(self, audio: NDArray[np.int16], state: Any) -> NDArray[Any]:
        """The signal (B, …, N) that is framed, of samples (B, N) that follow those before; changes `state`."""

    def features(self, signal: NDArray[Any], count: int) -> IntArray:
        """Features (B, count, num_features) of a signal that holds `count` whole frames."""


def clip_features(front_end: IntegerFrontEnd, clips: NDArray[np.int16], count: int) -> IntArray:
    """Features (B, count, F) of clips (B, N), each from a fresh state; what a frame has beyond the end is 0."""
    signal = front_end.filtered(clips, front_end.start(len(clips)))
    missing = (count - 1) * front_end.hop + front_end.length - signal.shape[-1]
    if missing > 0:
        signal = np.pad(signal, (*((0, 0) for _ in signal.shape[1:]), (0, missing)))
    return front_end.features(signal, count)


class IntegerFrames:
    """Features of a stream of samples; a frame is complete one sample after its own last."""

    def __init__(self, front_end: IntegerFrontEnd) -> None:
        self._front_end, self._state = front_end, front_end.start(1)
        self._signal = front_end.filtered(np.zeros((1, 0), np.int16), self._state)
        self._skip = 0

    def accept(self, samples: NDArray[np.int16]) -> IntArray:
        """Features (T, F) of the frames that the next samples (N,) complete."""
        front, signal = self._front_end, self._front_end.filtered(samples[None], self._state)
        skipped = min(self._skip, signal.shape[-1])
        self._skip -= skipped
        signal = np.concatenate([self._signal, signal[..., skipped:]], axis=-1)
        count = max(0, (signal.shape[-1] - front.length - 1) // front.hop + 1)
        features: IntArray = front.features(signal, count)[0]
        used = count * front.hop
        self._skip += max(0, used - signal.shape[-1])
        self._signal = signal[..., used:]
        return features
