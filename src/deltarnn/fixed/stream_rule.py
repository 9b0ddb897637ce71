"""The decision rule of an endless stream in integers: `deltarnn.kws.spotter.rule` on class scores in fixed point.

All numbers are sums: a score is Σ of the latest `smoothing` margins, in 1/(unit·smoothing).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from deltarnn.fixed.arithmetic import IntArray, shift_right

MAX_SUM = 1 << 24
"""Sums below it are float32 numbers: the rule in floating point decides the same."""


class IntegerPeak(NamedTuple):
    """A detection: the frame with its largest score, the keyword (from 0), that score, the frame that decided it."""

    frame: int
    keyword: int
    score: int
    decided: int


@dataclass(frozen=True)
class IntegerRule:
    """How detections are made of class scores.

    smoothing, hold, refractory: frames. bound: of margins, in 1/unit. threshold: sums above it are detections. others:
    classes before the first keyword. score_fraction_bits: of the class scores.

    ValueError where the numbers are out of range.
    """

    smoothing: int
    bound: int
    hold: int
    refractory: int
    threshold: int
    score_fraction_bits: int
    unit: int = 256
    others: int = 2

    def __post_init__(self) -> None:
        if min(self.smoothing, self.bound, self.refractory) < 1 or not 0 <= self.hold <= self.refractory < 1 << 15:
            raise ValueError(f"{self}: times must be 1 … 32767 frames, the hold no longer than the refractory time")
        if self.bound * self.smoothing >= MAX_SUM:
            raise ValueError(
                f"smoothing={self.smoothing} frames of margins up to {self.bound}: their sum must be below 2^24"
            )

    def margins(self, scores: IntArray) -> IntArray:
        """Margins (…, keywords), in 1/unit, of class scores (…, classes)."""
        ranked = np.sort(scores, axis=-1)
        others = np.where(scores == ranked[..., -1:], ranked[..., -2:-1], ranked[..., -1:])
        lead = (scores - others)[..., self.others :] * self.unit
        margins: IntArray = np.clip(shift_right(lead, self.score_fraction_bits), -self.bound, self.bound)
        return margins


@dataclass
class IntegerPicker:
    """Detections of a stream, decided as its frames come."""

    rule: IntegerRule
    keywords: int
    _ring: IntArray = field(init=False)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin a new stream."""
        self._ring = np.full((self.rule.smoothing, self.keywords), -self.rule.bound, np.int64)
        self._frame = self._opened = self._next = 0
        self._before: int | None = None
        self._candidate: IntegerPeak | None = None

    def sums(self, scores: IntArray) -> IntArray:
        """Σ of margins (T, keywords) at the next frames, of class scores (T, classes)."""
        margins = np.concatenate([self._ring, self.rule.margins(scores)])
        self._ring = margins[len(scores) :]
        total = np.cumsum(np.concatenate([np.zeros_like(margins[:1]), margins]), axis=0)
        sums: IntArray = total[self.rule.smoothing :] - total[: -self.rule.smoothing]
        return sums[1:]

    def peaks(self, sums: IntArray) -> Iterator[IntegerPeak]:
        """Detections that sums (T, keywords) of the next frames decide."""
        for best, keyword in zip(sums.max(axis=-1).tolist(), sums.argmax(axis=-1).tolist(), strict=True):
            peak = self._feed(best, keyword)
            if peak is not None:
                yield peak

    def _feed(self, score: int, keyword: int) -> IntegerPeak | None:
        rule, frame, candidate = self.rule, self._frame, self._candidate
        rises = self._before is None or score > self._before
        self._frame, self._before = frame + 1, score
        if score > rule.threshold and rises and frame >= self._next and (candidate is None or score > candidate.score):
            self._opened = frame if candidate is None else self._opened
            candidate = self._candidate = IntegerPeak(frame, keyword, score, frame)
        if candidate is None or (frame - candidate.frame < rule.hold and frame - self._opened < rule.refractory):
            return None
        self._candidate, self._next = None, candidate.frame + rule.refractory
        return candidate._replace(decided=frame)
