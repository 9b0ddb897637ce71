"""Thresholds chosen for a rate of false alarms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltarnn.kws.spotter.calibration import calibrate
from deltarnn.kws.spotter.rule import UNIT, StreamRule

STRIDE = 0.25


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), alarms=st.integers(1, 30), smoothing=st.integers(1, 5))
def test_the_rate_is_kept_and_one_step_lower_would_exceed_it(seed, alarms, smoothing):
    rng = np.random.default_rng(seed)
    rule = StreamRule(smoothing=smoothing, refractory=3 * STRIDE, hold=0.0)
    negatives = [rule.scores(rng.normal(size=(400, 5)).cumsum(axis=0)) for _ in range(3)]
    hours = 1200 * STRIDE / 3600
    calibration = calibrate(negatives, rule, STRIDE, alarms / hours)
    found = sum(len(calibration.rule.peaks(scores, STRIDE)) for scores in negatives)
    assert found <= alarms
    assert calibration.hours == pytest.approx(hours)
    assert calibration.false_alarms_per_hour == pytest.approx(found / hours)
    lower = StreamRule(smoothing, 8.0, 3 * STRIDE, 0.0, calibration.rule.threshold - 1 / (UNIT * smoothing))
    assert sum(len(lower.peaks(scores, STRIDE)) for scores in negatives) > alarms or lower.threshold < -8


def test_too_little_audio_is_refused():
    with pytest.raises(ValueError, match=r"5 false alarms an hour cannot be measured on 0\.10 hours"):
        calibrate([np.zeros((1440, 3), np.float32)], StreamRule(12), STRIDE)
