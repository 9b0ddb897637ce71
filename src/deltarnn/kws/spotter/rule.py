"""The decision rule of an endless stream: from the class scores of every frame to detections.

Class 0 is silence, class 1 every other word; keyword k is class k + 2. The margin of a keyword at a frame is by how
much it leads all other classes; what is compared with the threshold is the mean of its latest margins:

    m_k(t) = min(L, max(−L, l_{k+2}(t) − max_{j ≠ k+2} l_j(t)))          rounded to 1/256; −L where it is no number
    s_k(t) = 1/w Σ_{τ = t−w+1 … t} m_k(τ)                                  m = −L before the stream begins

A detection is a peak of the largest s_k above the threshold, at least `refractory` after the last one. Rounded margins
make the sum exact: integers in a ring buffer of w frames give the same bits as any other way of adding.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

NON_KEYWORDS = 2
"""Classes before the first keyword: silence and unknown words."""

UNIT = 256
"""Margins are whole multiples of 1/UNIT."""

SMOOTHING = 0.4
"""Seconds over which margins are averaged, unless a rule says otherwise: longer misses fewer words, later."""

LONGEST_SMOOTHING = 1 << 16
"""Frames."""

LONGEST_PAUSE = 3600.0
"""Seconds of hold or refractory time."""


class Peak(NamedTuple):
    """A detection: the frame at which its score was largest, the keyword (from 0), that score, and the frame at which
    it was decided."""

    frame: int
    keyword: int
    score: float
    decided: int


@dataclass(frozen=True)
class StreamRule:
    """How detections are made of class scores.

    smoothing: w, frames. limit: L. refractory: seconds from one detection to the next possible one.
    hold: seconds for which a score must stay the largest before it is a peak; it delays decisions by as much.
    threshold: above which a peak is a detection. ValueError names the parameter that is out of range.
    """

    smoothing: int
    limit: float = 8.0
    refractory: float = 0.75
    hold: float = 0.05
    threshold: float = 0.0

    def __post_init__(self) -> None:
        whole = isinstance(self.smoothing, int | np.integer) and not isinstance(self.smoothing, bool)
        if not whole or not 1 <= self.smoothing <= LONGEST_SMOOTHING:
            raise ValueError(f"smoothing={self.smoothing}: must be a whole number of frames, 1 to {LONGEST_SMOOTHING}")
        if not 1 / UNIT <= self.limit <= 1024:
            raise ValueError(f"limit={self.limit}: must be from 1/{UNIT} to 1024")
        if not 0 <= self.hold <= self.refractory <= LONGEST_PAUSE:
            raise ValueError(
                f"hold={self.hold}, refractory={self.refractory}: seconds, 0 ≤ hold ≤ refractory ≤ {LONGEST_PAUSE:g}"
            )
        if not abs(self.threshold) <= float(np.finfo(np.float32).max):
            raise ValueError(f"threshold={self.threshold}: must be finite")
        object.__setattr__(self, "smoothing", int(self.smoothing))  # numpy's numbers as Python's, which JSON takes
        for name in ("limit", "refractory", "hold", "threshold"):
            object.__setattr__(self, name, float(getattr(self, name)))

    @classmethod
    def at(cls, frame_stride: float, threshold: float = 0.0) -> "StreamRule":
        """The usual rule for frames `frame_stride` seconds apart."""
        return cls(smoothing=max(1, round(SMOOTHING / frame_stride)), threshold=threshold)

    @property
    def bound(self) -> int:
        """The limit L in units of 1/UNIT."""
        return int(self.limit * UNIT)

    def margins(self, logits: ArrayLike) -> NDArray[np.int32]:
        """Margins (…, keywords), in units of 1/UNIT, of class scores (…, classes)."""
        values = np.asarray(logits, dtype=np.float32)
        if values.shape[-1] <= NON_KEYWORDS:
            raise ValueError(f"class scores of shape {values.shape}: need silence, unknown, and one keyword or more")
        ranked = np.sort(values, axis=-1)
        first, second = ranked[..., -1:], ranked[..., -2:-1]
        others = np.where(values == first, second, first)  # of two equal leaders each is the other's rival
        lead = (values - others)[..., NON_KEYWORDS:] * np.float32(UNIT)
        # Not clip, which would keep NaN.
        rounded: NDArray[np.int32] = np.fmin(np.fmax(np.rint(lead), -self.bound), self.bound).astype(np.int32)
        return rounded

    def scores(self, logits: ArrayLike) -> NDArray[np.float32]:
        """s (T, keywords), of a fresh stream, of class scores (T, classes)."""
        return self.smoothed(self.margins(logits))

    def smoothed(self, margins: NDArray[np.int32]) -> NDArray[np.float32]:
        """s (T, keywords) of margins (T, keywords) in units of 1/UNIT, of a fresh stream."""
        before = np.full((self.smoothing, *margins.shape[1:]), -self.bound, np.int64)
        sums = np.cumsum(np.concatenate([before, margins]), axis=0)
        sums = sums[self.smoothing :] - sums[: -self.smoothing]
        means: NDArray[np.float32] = (sums / (UNIT * self.smoothing)).astype(np.float32)
        return means

    def peaks(self, scores: NDArray[np.float32], frame_stride: float) -> list[Peak]:
        """All detections in scores (T, keywords) of frames `frame_stride` seconds apart."""
        picker = PeakPicker(self, frame_stride)
        best = scores.max(axis=-1)
        words = scores.argmax(axis=-1)
        return list(picker.feed_all(best, words))


class PeakPicker:
    """The detections of a stream, decided as its frames come.

    A score above the threshold that is larger than the frame's before becomes the candidate, if it is larger than the
    candidate there is. A candidate that has been the largest for `hold` is a detection; so is, at the latest, the one
    there is `refractory` after the first. After a detection's frame, none follows for `refractory`.
    """

    def __init__(self, rule: StreamRule, frame_stride: float) -> None:
        self.threshold = np.float32(rule.threshold)
        self.hold = round(rule.hold / frame_stride)
        self.refractory = max(1, round(rule.refractory / frame_stride))
        self.reset()

    def reset(self) -> None:
        """Begin a new stream."""
        self._frame = 0
        self._before = np.float32(-np.inf)
        self._opened = 0
        self._candidate: Peak | None = None
        self._next = 0

    def feed(self, score: float, keyword: int) -> Peak | None:
        """The detection that is decided at the next frame, or None. score, keyword: the largest of its scores."""
        frame, rises = self._frame, score > self._before
        self._frame, self._before = frame + 1, np.float32(score)
        candidate = self._candidate
        if score > self.threshold and rises and frame >= self._next and (candidate is None or score > candidate.score):
            self._opened = frame if candidate is None else self._opened
            candidate = self._candidate = Peak(frame, keyword, float(score), frame)
        if candidate is None or (frame - candidate.frame < self.hold and frame - self._opened < self.refractory):
            return None
        self._candidate, self._next = None, candidate.frame + self.refractory
        return candidate._replace(decided=frame)

    def feed_all(self, scores: NDArray[np.float32], keywords: NDArray[np.int64]) -> Iterator[Peak]:
        """The same of many frames (T,); frames that cannot matter are skipped."""
        above = scores > self.threshold
        end, position = len(scores), 0
        loud = np.flatnonzero(above)
        start = self._frame
        while position < end:
            if self._candidate is None:  # nothing happens before the next frame above the threshold
                index = np.searchsorted(loud, max(position, self._next - start))
                following = int(loud[index]) if index < len(loud) else end
                if following > position:
                    self._frame, self._before = start + following, scores[following - 1]
                    position = following
                    continue
            peak = self.feed(float(scores[position]), int(keywords[position]))
            position += 1
            if peak is not None:
                yield peak
