"""Streaming twins of the front ends: the same numbers from audio that arrives piece by piece."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deltarnn.kws.features.framing import Framing, Samples

FloatArray = NDArray[np.float64]


def checked_samples(samples: ArrayLike) -> NDArray[np.int16]:
    """Samples (S,) int16, contiguous. ValueError says what they are where they are not int16 of one channel."""
    piece = np.asarray(samples)
    if piece.dtype != np.int16 or piece.ndim != 1:
        remedy = ""
        if piece.ndim == 2:
            remedy = "; one channel of several: samples[:, 0]"
        elif np.issubdtype(piece.dtype, np.floating):
            remedy = "; for floating-point audio in [-1, 1): (samples * 32768).astype(numpy.int16)"
        raise ValueError(f"samples of type {piece.dtype} and shape {piece.shape}: needs int16 of shape (S,){remedy}")
    return np.ascontiguousarray(piece)


class FrameStream:
    """Frames from a stream of samples. Made by the `stream()` of a front end.

    A frame is ready as soon as no later sample can change it, and then equals the row of the whole clip's features.
    With `gain_ctrl` frames come in blocks of 8, with `gradient` three frames late, and with `mfcc`, whose mean runs
    over the whole clip, only after `input_finished`.

    >>> from deltarnn.kws.features.frontend import LogFilterBank
    >>> stream = LogFilterBank().stream()
    >>> stream.accept_waveform(np.zeros(1000, np.int16))
    >>> stream.num_frames_ready
    3
    >>> stream.get_frame(0).shape
    (16,)
    """

    def __init__(
        self,
        framing: Framing,
        levels: Callable[[Samples], FloatArray],
        finish: Callable[[FloatArray], FloatArray] | None = None,
        *,
        transform: Callable[[Samples], Samples] | None = None,
        block: int = 1,
        context: int | None = 0,
    ) -> None:
        """framing: how samples become frames. levels: samples (…, S) that hold whole frames -> levels (T, F).
        finish: levels (T, F) of a clip -> its features. transform: what happens to samples before they are framed; it
        keeps its own state. block: frames that are computed together. context: how many frames before and after frame t
        decide its features; None: all of them."""
        self._framing, self._block, self._context = framing, block, context
        self._compute, self._finish, self._transform = levels, finish, transform
        self._samples: Samples | None = None  # received, but not yet wholly used
        self._received = self._skip = 0  # samples; those between frames that are still to come
        self._levels: list[FloatArray] = []  # of the frames from self._oldest on
        self._oldest = 0
        self._popped = 0
        self._finished = False

    def accept_waveform(self, samples: ArrayLike) -> None:
        """Take the next int16 samples, of shape (S,)."""
        piece = checked_samples(samples)
        if self._finished:
            raise ValueError("accept_waveform after input_finished: this stream takes no more samples")
        if not piece.size:
            return
        self._received += piece.size
        self._append(self._transform(piece) if self._transform else piece)
        complete = self._framing.sure(self._received)
        self._compute_frames_before(complete - complete % self._block)

    def input_finished(self) -> None:
        """No more samples come: frames that were still held back become ready."""
        if self._finished:
            return
        self._finished = True
        if self._samples is None:
            return
        count = self._framing.count(self._received)
        missing = self._framing.missing(self._received)
        if missing > 0:
            self._append(np.zeros((*self._samples.shape[:-1], missing), self._samples.dtype))
        self._compute_frames_before(count)
        if self._context is None and self._finish and self._levels:
            self._levels = list(self._finish(np.stack(self._levels)))

    @property
    def num_frames_ready(self) -> int:
        """How many frames are ready, counted from the start of the stream (popped ones included)."""
        computed = self._oldest + len(self._levels)
        if self._finished:
            return computed
        return 0 if self._context is None else max(0, computed - self._context)

    def get_frame(self, index: int) -> FloatArray:
        """Features (features,) of frame `index`. IndexError if it is not ready yet, or already popped."""
        if not self._popped <= index < self.num_frames_ready:
            raise IndexError(
                f"frame {index}: at hand are the frames from {self._popped} to {self.num_frames_ready - 1}"
            )
        if not self._context or self._finish is None:
            return self._levels[index - self._oldest]
        first = max(self._oldest, index - self._context)
        around = self._levels[first - self._oldest : index + self._context + 1 - self._oldest]
        features = self._finish(np.stack(around))
        return np.asarray(features[index - first], dtype=np.float64)

    def pop(self, count: int) -> None:
        """Forget the `count` oldest ready frames, so that a long stream needs little memory."""
        if not 0 <= count <= self.num_frames_ready - self._popped:
            raise ValueError(f"pop({count}): {self.num_frames_ready - self._popped} frames are at hand")
        self._popped += count
        forgotten = max(0, self._popped - (self._context or 0) - self._oldest)
        del self._levels[:forgotten]
        self._oldest += forgotten

    def _append(self, piece: Samples) -> None:
        skipped = min(self._skip, piece.shape[-1])
        self._skip -= skipped
        piece = piece[..., skipped:]
        self._samples = piece if self._samples is None else np.concatenate([self._samples, piece], axis=-1)

    def _compute_frames_before(self, end: int) -> None:
        """Levels of the frames up to `end`, from samples that are all there; the samples no longer needed go."""
        count = end - self._oldest - len(self._levels)
        if count <= 0 or self._samples is None:
            return
        hop, length = self._framing.hop, self._framing.length
        taken = self._samples[..., : (count - 1) * hop + length]
        self._levels.extend(self._compute(taken))
        self._skip = max(0, count * hop - self._samples.shape[-1])
        self._samples = self._samples[..., count * hop :]
