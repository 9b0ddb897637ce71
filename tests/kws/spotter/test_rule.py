"""The stream's decision rule against its definition, and its two ways of running against each other."""

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltarnn.kws.spotter.rule import UNIT, PeakPicker, StreamRule

STRIDE = 0.016


def walk(seed: int, frames: int, classes: int = 5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.cumsum(rng.normal(size=(frames, classes)), axis=0).astype(np.float32)


def test_scores_are_mean_leads_of_the_latest_frames():
    rule, logits = StreamRule(smoothing=3, limit=2.5), walk(0, 40)
    scores = rule.scores(logits)
    assert (scores.dtype, scores.shape) == (np.float32, (40, 3))
    for t in range(40):
        for k in range(3):
            margins = []
            for frame in range(t - 2, t + 1):
                if frame < 0:
                    margins.append(-2.5)
                    continue
                lead = logits[frame, k + 2] - np.delete(logits[frame], k + 2).max()
                margins.append(np.clip(np.rint(lead * UNIT) / UNIT, -2.5, 2.5))
            assert scores[t, k] == np.float32(np.mean(margins))


def test_equal_leaders_lead_by_nothing():
    assert StreamRule(smoothing=1).scores([[0.0, 0.0, 3.0, 3.0]]).tolist() == [[0.0, 0.0]]


def test_a_peak_is_detected_once_at_its_top_and_after_the_hold():
    best = np.array([0, 1, 3, 2, 4, 3, 3, 2, 1, 1, 0, 0], np.float32)
    rule = StreamRule(12, refractory=4 * STRIDE, hold=2 * STRIDE, threshold=2.5)
    peaks = rule.peaks(best[:, None], STRIDE)
    assert [(p.frame, p.score, p.decided) for p in peaks] == [(4, 4.0, 6)]


def test_falling_scores_after_the_refractory_time_are_no_second_detection():
    best = np.array([0, 9, 8, 7, 6, 5, 4, 3], np.float32)
    rule = StreamRule(12, refractory=2 * STRIDE, hold=0.0, threshold=1.0)
    assert [p.frame for p in rule.peaks(best[:, None], STRIDE)] == [1]


def test_an_endless_rise_is_decided_within_the_refractory_time():
    best = np.arange(100, dtype=np.float32)
    rule = StreamRule(12, refractory=10 * STRIDE, hold=3 * STRIDE, threshold=0.0)
    assert rule.peaks(best[:, None], STRIDE)[0].decided == 11


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6), frames=st.integers(1, 120), cut=st.integers(0, 120), threshold=st.floats(-3, 6),
    hold=st.integers(0, 5), more=st.integers(0, 9), smoothing=st.integers(1, 7),
)  # fmt: skip
def test_frame_by_frame_all_at_once_and_in_pieces_agree(seed, frames, cut, threshold, hold, more, smoothing):
    rule = StreamRule(smoothing, 8.0, (hold + more) * STRIDE, hold * STRIDE, threshold)
    scores = rule.scores(walk(seed, frames))
    best, words = scores.max(-1), scores.argmax(-1)
    picker = PeakPicker(rule, STRIDE)
    singly = [peak for s, k in zip(best, words, strict=True) if (peak := picker.feed(s, k))]
    assert rule.peaks(scores, STRIDE) == singly
    picker.reset()
    pieces = [*picker.feed_all(best[:cut], words[:cut]), *picker.feed_all(best[cut:], words[cut:])]
    assert pieces == singly
    for before, after in pairwise(singly):
        assert after.frame - before.frame >= max(1, hold + more)
    assert all(p.score > np.float32(threshold) and p.decided - p.frame <= hold for p in singly)


@pytest.mark.parametrize(
    "wrong",
    [
        {"smoothing": 0},
        {"smoothing": 2.5},
        {"smoothing": 1 << 17},
        {"limit": 0.0},
        {"hold": -0.1},
        {"hold": 1.0},
        {"refractory": 1e9},
        {"refractory": np.inf},
        {"threshold": np.nan},
    ],
)
def test_parameters_out_of_range_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        StreamRule(**{"smoothing": 12, **wrong})


def test_a_margin_that_is_no_number_is_the_lowest():
    logits = np.array([[1, 2, np.inf, np.inf], [0, 0, np.nan, 9]], np.float32)
    with np.errstate(invalid="ignore"):
        assert (StreamRule(12).margins(logits)[:, 0] == -8 * 256).all()


def test_scores_without_keywords_are_refused():
    with pytest.raises(ValueError, match="one keyword"):
        StreamRule(12).scores(np.zeros((4, 2)))


def test_the_usual_rule_averages_as_long_whatever_the_frames():
    assert [StreamRule.at(stride).smoothing for stride in (0.01, 0.016384, 1.0)] == [40, 24, 1]
    assert StreamRule.at(0.01, threshold=2.5).threshold == 2.5


def test_numbers_of_numpy_are_taken_and_kept_as_python_s() -> None:
    rule = StreamRule(np.int64(4), np.float32(2), np.float64(0.5), np.float32(0), np.float32(0.75))
    assert json.loads(json.dumps(vars(rule))) == vars(StreamRule(4, 2.0, 0.5, 0.0, 0.75))


@pytest.mark.parametrize("smoothing", [True, 2.0, np.float32(2), 0, "2"])
def test_a_smoothing_that_is_no_number_of_frames_is_refused(smoothing: Any) -> None:
    with pytest.raises(ValueError, match="smoothing="):
        StreamRule(smoothing)
