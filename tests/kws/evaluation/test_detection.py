"""Detections against what was said, by hand; the curve against every threshold tried."""

import numpy as np
import pytest

from deltarnn.kws.data.stream import Word
from deltarnn.kws.evaluation.detection import Timing, at_false_alarms, at_threshold, match
from deltarnn.kws.spotter.rule import Peak, StreamRule

TIMING = Timing(hop=160, length=160, sample_rate=16000)


def said(keyword: int, start: float, end: float) -> Word:
    return Word(keyword, round(16000 * start), round(16000 * end), "clean", "")


def heard(keyword: int, seconds: float) -> Peak:
    frame = round(seconds * 100) - 1
    return Peak(frame, keyword, 1.0, frame + 10)


def test_each_word_takes_one_detection_of_its_own():
    words = [said(0, 1.0, 1.5), said(1, 3.0, 3.4), said(0, 6.0, 6.5)]
    peaks = [heard(0, 1.6), heard(0, 2.0), heard(0, 3.5), heard(1, 4.1), heard(0, 7.5)]
    outcome = match(peaks, words, TIMING)
    assert [(i, peak) for i, peak in outcome.hits] == [(0, peaks[0]), (1, peaks[3])]
    assert outcome.misses == [2]
    assert outcome.false_alarms == [peaks[1], peaks[2], peaks[4]]
    assert outcome.answered == [0, 1, None]
    assert outcome.miss_rate == pytest.approx(1 / 3)
    assert outcome.misses_by(words) == {"clean": pytest.approx(1 / 3)}
    # 0.1 s after the word's end the score was highest, and another 0.1 s later that was known.
    assert outcome.latencies(words, TIMING)[0] == pytest.approx(0.2)


def by_hand(peaks: list[Peak], words: list[Word]) -> dict[int, Peak]:
    """Of every detection all words are looked at."""
    hits: dict[int, Peak] = {}
    for peak in peaks:
        at = TIMING.sample(peak.frame)
        waiting = [
            (word.end, i)
            for i, word in enumerate(words)
            if word.keyword == peak.keyword and i not in hits and word.start - 3200 <= at <= word.end + 12000
        ]
        if waiting:
            hits[min(waiting)[1]] = peak
    return hits


@pytest.mark.parametrize("gap", [0.05, 0.2, 1.0])
def test_words_in_bursts_and_within_others_are_found(gap):
    rng = np.random.default_rng(0)
    starts = np.cumsum(rng.exponential(gap, 300))
    lengths = np.where(rng.random(300) < 0.1, 8.0, rng.uniform(0.1, 0.5, 300))
    words = [said(int(rng.integers(2)), t, t + length) for t, length in zip(starts, lengths, strict=True)]
    peaks = [heard(int(rng.integers(2)), t) for t in np.arange(0.5, starts[-1] + 10, 0.3)]
    outcome = match(peaks, words, TIMING)
    assert dict(outcome.hits) == by_hand(peaks, words)
    assert len(outcome.hits) + len(outcome.false_alarms) == len(peaks)


def test_a_detection_counts_for_the_word_that_ends_first():
    outcome = match([heard(0, 2.6), heard(0, 5.0)], [said(0, 1.0, 9.0), said(0, 2.0, 2.5)], TIMING)
    assert (outcome.misses, outcome.false_alarms) == ([], [])


def test_without_a_word_there_is_no_miss_rate():
    assert match([heard(0, 1.0)], [], TIMING).miss_rate is None


def test_the_lowest_threshold_within_the_rate_is_found():
    rng = np.random.default_rng(0)
    rule = StreamRule(smoothing=2, limit=4.0, refractory=0.05, hold=0.01)
    scores = (np.rint(rng.normal(size=(3000, 2)) * 512) / 512).clip(-4, 4).astype(np.float32)
    words = [said(0, t, t + 0.2) for t in range(1, 29, 3)]
    threshold, outcome = at_false_alarms(scores, words, rule, TIMING, 3600.0)
    hours = 3000 / 100 / 3600
    assert len(outcome.false_alarms) <= 3600 * hours
    below = at_threshold(scores, words, rule, TIMING, threshold - 1 / 512)
    assert len(below.false_alarms) > 3600 * hours
