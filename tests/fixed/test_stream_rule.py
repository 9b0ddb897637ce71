"""The rule in integers against the rule in floating point, whatever the scores."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltarnn.fixed.stream_rule import IntegerPicker, IntegerRule
from deltarnn.kws.spotter.device import integer_rule
from deltarnn.kws.spotter.rule import StreamRule

STRIDE = 0.016375
rules = st.builds(
    StreamRule,
    smoothing=st.integers(1, 20),
    limit=st.sampled_from([1 / 256, 0.5, 8.0, 100.3]),
    refractory=st.floats(0.1, 1.0),
    hold=st.floats(0.0, 0.1),
    threshold=st.floats(-3.0, 9.0),
)


@given(rule=rules, seed=st.integers(0, 2**32 - 1), bits=st.integers(4, 14), cut=st.integers(0, 300))
def test_the_same_detections_as_in_floating_point(rule, seed, bits, cut):
    rng = np.random.default_rng(seed)
    loud = 2.0**bits * rng.choice([0.02, 2.0, 8.0])
    scores = np.rint(rng.normal(size=(300, 5)).cumsum(axis=0) * loud / 4).astype(np.int64)
    integers = integer_rule(rule, STRIDE, bits)
    picker = IntegerPicker(integers, 3)
    sums = np.concatenate([picker.sums(scores[:cut]), picker.sums(scores[cut:])])
    expected = rule.scores(scores / 2.0**bits)
    np.testing.assert_array_equal((sums / (256 * rule.smoothing)).astype(np.float32), expected)
    peaks = [*picker.peaks(sums[:cut]), *picker.peaks(sums[cut:])]
    unit = 256 * rule.smoothing
    found = [(p.frame, p.keyword, np.float32(p.score / unit), p.decided) for p in peaks]
    assert found == [tuple(p) for p in rule.peaks(expected, STRIDE)]


@given(rule=rules, units=st.integers(-1000, 1000))
def test_a_threshold_that_a_score_can_have_is_not_passed_by_it(rule, units):
    unit = 256 * rule.smoothing
    on_grid = StreamRule(rule.smoothing, rule.limit, rule.refractory, rule.hold, units / unit)
    expected = max(units, -rule.bound * rule.smoothing - unit - 1) if abs(units / unit) <= rule.limit else None
    if expected is not None:
        assert integer_rule(on_grid, STRIDE, 8).threshold == units


def test_rules_beyond_the_integers_are_refused():
    with pytest.raises(ValueError, match="their sum must be below 2"):
        IntegerRule(4096, 4096, 6, 46, 0, 8)
    with pytest.raises(ValueError, match="times must be 1"):
        IntegerRule(12, 2048, 50, 46, 0, 8)
