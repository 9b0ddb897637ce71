"""Charts against their own axes: a mark stands where the labels beside it say."""

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltarnn.kws.report import charts
from deltarnn.kws.report.charts import Mark, Series, ticks


@settings(max_examples=50, deadline=None)
@given(st.floats(-50, 50), st.floats(1e-3, 100))
def test_ticks_cover_the_range(low, width):
    values = ticks(low, low + width)
    assert values[0] <= low + 1e-6 * width
    assert values[-1] >= low + width - 1e-6 * width
    assert 3 <= len(values) <= 12
    assert not any(math.isnan(v) for v in values)


def test_the_labels_of_an_axis_are_its_ticks():
    """Steps of 2.5 % need a digit more than whole percents, which would tell 97.5 % as 98 %."""
    chart = charts.line_chart([Series([0.0, 1.0], [0.855, 0.973], "blue")], "x", "y")
    assert "97.5%" in chart
    assert "98%" not in chart


def test_charts_put_points_where_their_axes_say():
    chart = charts.line_chart(
        [Series([0.0, 1.0], [0.2, 0.6], "blue", dots=True)], "x", "y", marks=[Mark(1.0, 0.2, "here")]
    )
    dots = [tuple(map(float, at)) for at in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="3.4"', chart)]
    across = [
        float(re.search(rf'<text x="([\d.]+)" y="[\d.]+" text-anchor="middle">{tick}</text>', chart)[1])
        for tick in "01"
    ]
    up = [float(re.search(rf'y="([\d.]+)" text-anchor="end">{tick}%</text>', chart)[1]) - 4 for tick in (20, 60)]
    assert across[0] < across[1]
    assert up[0] > up[1]  # SVG counts from the top
    assert dots == [pytest.approx(at, abs=0.11) for at in zip(across, up, strict=True)]
    ring = re.search(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="8"', chart)
    assert tuple(map(float, ring.groups())) == pytest.approx((across[1], up[0]), abs=0.11)


def test_the_confusion_chart_has_classes_in_rows_and_decisions_in_columns():
    chart = charts.confusion(["a", "b"], [[5, 2], [1, 8]])
    at = {
        n: [float(v) for v in re.search(rf'<text x="([\d.]+)" y="([\d.]+)"[^>]*>{n}<', chart).groups()]
        for n in (5, 2, 1, 8)
    }
    rows = {label: float(re.search(rf'y="([\d.]+)" text-anchor="end">{label}<', chart)[1]) for label in "ab"}
    assert at[5][1] == at[2][1] == rows["a"] < at[1][1] == at[8][1] == rows["b"]
    assert at[5][0] == at[1][0] < at[2][0] == at[8][0]


def test_rasters_and_bars_show_their_values():
    fired = np.zeros((4, 3), bool)
    fired[1, 2] = True  # the second step; the last unit, which is on top
    frame = charts.Frame(1000, 110, (0, 4), (0, 3), bottom=8)
    x, y = re.search(r'<g fill="red"><rect x="([\d.]+)" y="([\d.]+)"', charts.raster(fired, "red", "", 4)).groups()
    assert float(x) == pytest.approx(frame.px(1), abs=0.1)
    assert float(y) == pytest.approx(frame.top)
    whole, quarter = map(float, re.findall(r'width="([\d.]+)" height="16"', charts.bars({"a": 0.25}, "red")))
    assert quarter == pytest.approx(whole / 4, abs=0.1)
