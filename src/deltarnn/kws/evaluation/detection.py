"""Detections in a long recording against what was said: misses, false alarms, latency, and the curve."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from deltarnn.kws.data.stream import Word
from deltarnn.kws.spotter.rule import UNIT, Peak, StreamRule

EARLY, TOLERANCE = 0.2, 0.75
"""Seconds before a word's beginning, and after its end, in which its detection counts: where a word begins is
uncertain."""


@dataclass(frozen=True)
class Timing:
    """When frames are there: frame t once sample t·hop + length is."""

    hop: int
    length: int
    sample_rate: int

    @property
    def stride(self) -> float:
        """Seconds from frame to frame."""
        return self.hop / self.sample_rate

    def sample(self, frame: int) -> int:
        """The sample after the frame's last."""
        return frame * self.hop + self.length


@dataclass(frozen=True)
class Outcome:
    """What a spotter made of a recording.

    hits: of each word that was detected, its number and the detection. misses: numbers of the others. false_alarms:
    detections of what was not said; answered: for each of them the keyword that was said instead, or None.
    """

    hits: list[tuple[int, Peak]]
    misses: list[int]
    false_alarms: list[Peak]
    answered: list[int | None]

    @property
    def miss_rate(self) -> float | None:
        """Fraction of words that were not detected, None where there was none."""
        total = len(self.hits) + len(self.misses)
        return len(self.misses) / total if total else None

    def misses_by(self, words: Sequence[Word]) -> dict[str, float]:
        """Miss rate by condition."""
        said = Counter(word.condition for word in words)
        missed = Counter(words[i].condition for i in self.misses)
        return {condition: missed[condition] / count for condition, count in said.items()}

    def latencies(self, words: Sequence[Word], timing: Timing) -> NDArray[np.float64]:
        """Seconds from the end of each word that was detected to the decision (hits,)."""
        late = [timing.sample(peak.decided) - words[i].end for i, peak in self.hits]
        return np.array(late, dtype=np.float64) / timing.sample_rate


def match(peaks: Sequence[Peak], words: Sequence[Word], timing: Timing) -> Outcome:
    """Each word takes the first detection of its keyword from EARLY before its beginning until TOLERANCE after its end;
    a detection that several wait for counts for the one that ends first. words in order of their beginnings."""
    hits: dict[int, Peak] = {}
    false_alarms: list[Peak] = []
    answered: list[int | None] = []
    starts = np.array([word.start for word in words], dtype=np.int64) - round(EARLY * timing.sample_rate)
    ends = np.array([word.end for word in words], dtype=np.int64) + round(TOLERANCE * timing.sample_rate)
    open_until = np.maximum.accumulate(ends)  # of a word and all before it: an earlier one may end later
    for peak in peaks:
        at = timing.sample(peak.frame)
        near = range(int(np.searchsorted(open_until, at)), int(np.searchsorted(starts, at, "right")))
        inside = [i for i in near if at <= ends[i]]
        fitting = [i for i in inside if words[i].keyword == peak.keyword and i not in hits]
        if fitting:
            hits[min(fitting, key=lambda i: words[i].end)] = peak
        else:
            false_alarms.append(peak)
            answered.append(words[inside[-1]].keyword if inside else None)
    return Outcome(sorted(hits.items()), [i for i in range(len(words)) if i not in hits], false_alarms, answered)


def at_threshold(
    scores: NDArray[np.float32], words: Sequence[Word], rule: StreamRule, timing: Timing, threshold: float
) -> Outcome:
    """The outcome of scores (T, keywords) at another threshold than the rule's."""
    return match(replace(rule, threshold=threshold).peaks(scores, timing.stride), words, timing)


def at_false_alarms(
    scores: NDArray[np.float32], words: Sequence[Word], rule: StreamRule, timing: Timing, per_hour: float
) -> tuple[float, Outcome]:
    """The lowest threshold with at most `per_hour` false alarms an hour, found by bisection, and its outcome."""
    steps = UNIT * rule.smoothing  # scores are multiples of 1/steps, up to the limit
    hours = len(scores) * timing.stride / 3600
    low, high = -rule.bound * rule.smoothing - 1, rule.bound * rule.smoothing
    best = at_threshold(scores, words, rule, timing, high / steps)
    while high - low > 1:
        middle = (low + high) // 2
        outcome = at_threshold(scores, words, rule, timing, middle / steps)
        if len(outcome.false_alarms) <= per_hour * hours:
            high, best = middle, outcome
        else:
            low = middle
    return high / steps, best
