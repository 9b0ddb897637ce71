"""report.html: its figures are the metrics', its example is of a keyword, and it fits a telephone."""

import re
from dataclasses import replace

import pytest
import torch

from deltarnn.kws.evaluation.scoring import Clips
from deltarnn.kws.network.decision import DecisionRule
from deltarnn.kws.network.model import Architecture, KeywordModel
from deltarnn.kws.report import charts
from deltarnn.kws.report.page import ReportData, write_report
from deltarnn.nn.activity import record_activity


@pytest.fixture
def page(tmp_path):
    """report.html of a model with one keyword clip, number 4, and numbers that are all different."""
    torch.manual_seed(0)
    model = KeywordModel(Architecture(5, 4, hidden_size=8, num_layers=2)).to_delta((0.2,), (0.05, 0.1)).eval()
    features = torch.randn(9, 10, 5, generator=torch.Generator().manual_seed(3))
    labels = torch.zeros(10, dtype=torch.long)
    labels[4] = 3
    point = {"thx": 0.1, "thh": 0.2, "test_sparsity": 0.8, "test_accuracy": 0.95}
    best = {"thx": 0.3, "thh": 0.4, "test_sparsity": 0.9, "test_accuracy": 0.90}
    metrics = {
        "labels": ["_silence_", "no"], "test_accuracy": 0.91, "validation_accuracy": 0.82,
        "sparsity": 0.73, "sparsity_x": 0.64, "sparsity_h": 0.55,
        "operations_per_second_dense": 8e6, "operations_per_second": 2e6, "parameters": 30720,
        "model_bytes_int8": 30720,
        "test": {"confusion": [[3, 1], [0, 4]], "per_class": {"a": 0.75, "b": 1.0}},
        "validation": {"confusion": [[9, 0], [0, 9]], "per_class": {"a": 1.0, "b": 1.0}},
    }  # fmt: skip
    sweep = {"points": [point, best], "front": [best, point], "best": best, "retrained_epochs": 0}
    spoken = Clips(features, labels, ["_silence_", "_unknown_", "yes", "no"])
    data = ReportData(model, metrics, spoken, DecisionRule(), 0.01, sweep)
    return write_report(tmp_path / "report.html", data).read_text(), data


def test_report_tiles_are_the_metrics(page):
    tiles = {text: value for value, text in re.findall(r"<b>(.*?)</b><span>(.*?)</span>", page[0])}
    assert tiles == {
        "of test clips decided right": "91.0%",
        "temporal sparsity: deltas that are zero": "73.0%",
        "operations per second of audio, dense 8 M": "2 M",
        "less arithmetic than the dense network": "4.0×",
        "parameters, 30 KiB at 8 bits": "30.7 k",
    }


def test_names_are_text_and_no_markup(page, tmp_path):
    hostile = "<img src=x onerror=alert(1)>"
    names, metrics = ["_silence_", "_unknown_", "yes", hostile], {**page[1].metrics, "model": hostile, "run": hostile}
    metrics["labels"] = ["_silence_", hostile]
    metrics["test"] = {**metrics["test"], "per_class": {"a": 0.75, hostile: 1.0}}
    data = replace(page[1], metrics=metrics, clips=replace(page[1].clips, class_names=names))
    assert "<img" not in write_report(tmp_path / "hostile.html", data).read_text()


def test_report_charts_are_of_the_test_set(page):
    text, data = page
    assert charts.confusion(data.metrics["labels"], [[3, 1], [0, 4]]) in text
    assert charts.bars({"a": 0.75, "b": 1.0}, "var(--blue)") in text
    # Of the two points the marked one is sparser, so farther right, and less accurate, so lower.
    ring = re.search(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="8"', text).groups()
    dots = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="3.4"', text)
    assert float(ring[0]) == max(float(x) for x, _ in dots)
    assert float(ring[1]) == max(float(y) for _, y in dots)
    assert "θx 0.3, θh 0.4" in text


def test_report_shows_a_keyword_and_what_fired(page):
    text, data = page
    with torch.no_grad(), record_activity(data.model, events=True) as activity:
        scores, _ = data.model(data.clips.features[:, 4:5])
    fired_x, fired_h = (float(fired.float().mean()) for fired in activity.events[0])
    assert f"{fired_x:.0%}" != f"{fired_h:.0%}"
    assert "“no”, frame by frame" in text
    assert f"an input ({fired_x:.0%} of all) or a unit of the first layer ({fired_h:.0%})" in text
    assert f"with {float(DecisionRule().best(scores)[0, 3]):.0%} confidence" in text


def test_the_curve_falls_from_left_to_right_and_its_marks_are_explained(page, tmp_path):
    """Points chosen on validation need not be in order on the test set."""
    text, data = page
    points = [
        {"thx": 0.1, "thh": 0.2, "test_sparsity": s, "test_accuracy": a}
        for s, a in ((0.5, 0.90), (0.6, 0.95), (0.7, 0.80), (0.8, 0.92), (0.9, 0.70))
    ]
    sweep = {"points": points, "front": points, "best": points[3], "retrained_epochs": 0}
    metrics = {**data.metrics, "run": "/home/somebody/log/gscdv2/retrain-x"}
    path = write_report(str(tmp_path / "again.html"), replace(data, sweep=sweep, metrics=metrics))
    text = path.read_text(encoding="utf-8")
    line = re.search(r'<polyline points="([^"]+)"', text)[1].split()
    xs, ys = zip(*(map(float, point.split(",")) for point in line), strict=True)
    assert len(line) == 3  # 60 %, 80 % and 90 %: the others are beaten in both
    assert sorted(xs, reverse=True) == list(xs)
    assert sorted(ys, reverse=True) == list(ys)  # SVG counts from the top: to the left the accuracy rises
    for name in ("other thresholds", "best on validation", "sparsest within the budget", "this model"):
        assert f">{name}</text>" in text
    diamonds = re.findall(r'<polygon points="([^"]+)"', text)
    assert len(diamonds) == 2  # in the legend, and where the headline's numbers are
    assert "/home/" not in text
    assert "retrain-x · model file" in text


def test_a_page_fits_a_telephone(page):
    """No column wider than the screen; a chart of its own width for what spans the page."""
    text, _ = page
    assert "minmax(420px" not in text
    widths = {float(width) for width in re.findall(r'<svg viewBox="0 0 ([\d.]+) ', text)}
    assert widths == {charts.NARROW, charts.WIDE}
    assert text.count('<div class="narrow">') == text.count('<div class="wide">') == 1
    assert "@media (max-width: 640px)" in text
