"""Evaluation, schedules, averages, finishing, sweeps: against plain loops and closed forms."""

import math
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deltarnn.fixed.qformat import QFormat
from deltarnn.kws.commands.evaluate import precisions
from deltarnn.kws.commands.sweep import Point, best_point, pareto_front
from deltarnn.kws.config.grid import Grid
from deltarnn.kws.data.splice import splice
from deltarnn.kws.evaluation.metrics import Confusion
from deltarnn.kws.evaluation.scoring import Clips, Evaluation, Sparsity, evaluate, evaluate_carried
from deltarnn.kws.features.versions import VersionedClips
from deltarnn.kws.network.averaging import AveragedModel
from deltarnn.kws.network.decision import DecisionRule, smoothed_posteriors
from deltarnn.kws.network.losses import LossOptions
from deltarnn.kws.network.model import Architecture, KeywordModel, load_keyword_model
from deltarnn.kws.report.charts import Series, ticks
from deltarnn.kws.report.page import Mark, ReportData, charts, write_report
from deltarnn.kws.training.finishing import Finisher, hold_hidden_bias, zero_fraction
from deltarnn.kws.training.outcome import model_metrics, operations_per_second
from deltarnn.kws.training.schedule import LearningRate, warmed_up
from deltarnn.nn.activity import record_activity

RULE, LOSS = DecisionRule(), LossOptions()


@pytest.fixture
def model():
    torch.manual_seed(0)
    return KeywordModel(Architecture(5, 4, hidden_size=8, num_layers=2)).to_delta((0.2,), (0.05, 0.1)).eval()


@pytest.fixture
def clips():
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(9, 10, 5, generator=generator)
    return Clips(features, torch.randint(4, (10,), generator=generator), ["_silence_", "_unknown_", "yes", "no"])


def test_evaluation_does_not_depend_on_the_batch_size(model, clips):
    whole, parts = (evaluate(model, clips, RULE, LOSS, batch_size=size) for size in (10, 3))
    assert whole.confusion == parts.confusion
    assert whole.sparsity == parts.sparsity
    assert whole.loss == pytest.approx(parts.loss, rel=1e-5)


def test_confusion_counts_by_hand():
    confusion = Confusion.of(torch.tensor([0, 1, 1, 0]), torch.tensor([0, 1, 0, 0]), ["a", "b", "c"])
    assert confusion.counts == ((2, 1, 0), (0, 1, 0), (0, 0, 0))
    assert confusion.accuracy == 0.75
    assert confusion.per_class == {"a": 2 / 3, "b": 1.0}


def test_carried_state_is_one_long_stream(model, clips):
    one = Clips(clips.features[:, :3], clips.labels[:3], clips.class_names)
    order = torch.randperm(3, generator=torch.Generator().manual_seed(0))
    # Three clips in three streams do not meet; in one stream they are one sequence.
    import deltarnn.kws.evaluation.scoring as scoring

    before, scoring.STREAMS = scoring.STREAMS, 1
    try:
        carried = evaluate_carried(model, one, RULE, LOSS)
    finally:
        scoring.STREAMS = before
    with torch.no_grad():
        scores, _ = model(one.features[:, order].transpose(0, 1).reshape(-1, 1, 5))
    decided = RULE(scores.view(3, 9, 4).transpose(0, 1))
    assert carried.confusion == Confusion.of(decided, one.labels[order], one.class_names)
    assert (
        carried.confusion != evaluate(model, one, RULE, LOSS).confusion
        or carried.sparsity != evaluate(model, one, RULE, LOSS).sparsity
    )


def test_model_files_keep_everything(model, clips, tmp_path):
    model.save(tmp_path / "model.safetensors", labels=clips.class_names)
    loaded, header = load_keyword_model(tmp_path / "model.safetensors")
    assert torch.equal(loaded(clips.features)[0], model(clips.features)[0])
    assert header["thh"] == [0.05, 0.1]
    assert header["labels"] == clips.class_names


def test_operations_count_weights_fetched():
    model = KeywordModel(Architecture(16, 12, hidden_size=64))
    recurrent, head = 3 * 64 * (16 + 64), 64 * 12
    assert operations_per_second(model, 0.01, 0.75) == pytest.approx(2 * (recurrent / 4 + head) * 100)


def test_metrics_are_of_the_last_group():
    """Accuracies of each; sparsity and operations of the test group, the operations at its effective sparsity."""
    model = KeywordModel(Architecture(16, 2, hidden_size=64)).to_delta()
    results = {}
    for group, right, sparsity in (
        ("validation", 3, Sparsity(0.1, 0.2, 0.3, 0.4)),
        ("test", 1, Sparsity(0.5, 0.6, 0.7, 0.8)),
    ):
        results[group] = Evaluation(Confusion(("a", "b"), ((right, 4 - right), (0, 0))), 0.0, sparsity)
    metrics = model_metrics(model, results, 0.01)
    assert (metrics["validation_accuracy"], metrics["test_accuracy"]) == (0.75, 0.25)
    assert [metrics[name] for name in ("sparsity_x", "sparsity_h", "sparsity", "effective_sparsity")] == [
        0.5,
        0.6,
        0.7,
        0.8,
    ]
    assert metrics["operations_per_second"] == operations_per_second(model, 0.01, 0.8)
    assert metrics["operations_per_second_dense"] == operations_per_second(model, 0.01)
    assert metrics["test"]["confusion"] == [[1, 3], [0, 0]]


def test_zero_fraction_is_of_weights_alone(model):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "bias" in name or name == "rnn.weight_hh_l1":
                parameter.zero_()
    weights = {name: p.numel() for name, p in model.named_parameters() if "weight" in name}
    assert zero_fraction(model) == weights["rnn.weight_hh_l1"] / sum(weights.values())


def test_a_held_hidden_bias_stays_0(model, clips):
    hold_hidden_bias(model)
    before = [model.rnn.get_parameter(f"bias_hh_l{layer}").detach().clone() for layer in range(2)]
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model.train()(clips.features)[0].square().sum().backward()
    optimizer.step()
    for layer, start in enumerate(before):
        bias = model.rnn.get_parameter(f"bias_hh_l{layer}")
        assert not bias[16:].any()
        assert (bias[:16] != start[:16]).any()


@pytest.mark.parametrize(("largest", "bits"), [(0.9, 1), (1.1, 2), (5.0, 4)])
def test_fixed_point_weights_have_no_integer_bit_too_many_or_too_few(model, largest, bits):
    with torch.no_grad():
        for parameter in model.rnn.parameters():
            parameter.clamp_(-0.5, 0.5)
        model.rnn.weight_hh_l1[3, 2] = -largest
    variants = precisions(model)
    assert variants["float"].delta.quantization is None
    assert variants["fixed"].delta.quantization.weight == QFormat(bits, 8 - bits)


def test_cosine_rate_rises_then_falls():
    rate = LearningRate(1.0, 0.1, 200, "cosine")
    values = [rate.at(step) for step in range(200)]
    assert values[0] == pytest.approx(0.1)
    assert max(values) == values[10] == pytest.approx(1.0)
    assert values[105] == pytest.approx(0.55, abs=0.01)
    assert values[-1] == pytest.approx(0.1, abs=1e-3)
    assert all(a > b for a, b in pairwise(values[10:]))


def test_plateau_waits_then_reduces_down_to_the_end():
    rate = LearningRate(1.0, 0.5, 100, "plateau", factor=0.6, patience=1)
    seen = []
    for loss in (3.0, 2.0, 2.5, 2.5, 2.5, 2.5, 1.0):
        rate.after_epoch(loss)
        seen.append(rate.at(0))
    assert seen == [1.0, 1.0, 1.0, 0.6, 0.6, 0.5, 0.5]


def test_thresholds_warm_up_linearly_on_the_grid():
    assert warmed_up((0.4, 0.2), 5, 10) == pytest.approx((0.2, 0.1))
    assert warmed_up((0.4,), 10, 10) == (0.4,)
    assert warmed_up((0.4,), 0, 0) == (0.4,)
    assert warmed_up((0.375,), 4, 10, QFormat(3, 5)) == (0.15625,)


def test_average_follows_the_recursion():
    layer = torch.nn.Linear(1, 1)
    average = AveragedModel(layer, 0.9)
    expected = layer.weight.item()
    for update in range(1, 12):
        with torch.no_grad():
            layer.weight += 1.0
        decay = min(0.9, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * layer.weight.item()
        average.update(layer, update)
    assert average.module.weight.item() == pytest.approx(expected, rel=1e-5)


def test_scores_are_scaled_into_their_format_and_decisions_stay(model, clips):
    with torch.no_grad():
        model.head[0].weight *= 100
        model.head[0].bias *= 100
    before = model(clips.features)[0].detach()
    scores = Grid(QFormat(3, 5), "nearest")
    finisher = Finisher(dense=Grid(QFormat(4, 20), "nearest"), scores=scores, calibration=clips.features)
    finisher.evaluate(model, 0)
    model.score_grid = None
    after = model(clips.features)[0].detach()
    assert after.abs().max() == pytest.approx(scores.format.max, rel=1e-3)
    assert torch.allclose(after / after.abs().max(), before / before.abs().max(), atol=1e-4)


def test_batches_hold_versions_of_the_right_clips():
    versions = torch.arange(2 * 5 * 3 * 1, dtype=torch.float16).view(2, 5, 3, 1)
    clips = VersionedClips(
        versions, torch.arange(5), taught=torch.stack([versions[:, :, 0, 0], -versions[:, :, 1, 0]], 2)
    )
    batch = clips.batch(torch.tensor([4, 0, 2]), torch.Generator().manual_seed(1))
    assert batch.targets.tolist() == [4, 0, 2]
    assert batch.features.dtype == torch.float32
    for column, clip in enumerate((4, 0, 2)):
        taken = [v for v in range(2) if torch.equal(batch.features[:, column], versions[v, clip].float())]
        assert batch.taught[column].tolist() == clips.taught[taken[0], clip].tolist()


def test_spliced_clips_are_made_of_two_words():
    rng = np.random.default_rng(0)
    clips = np.stack([np.full(16000, level, np.int16) for level in (0, 100, 900)])
    spliced = splice(clips, np.array([0, 2, 3]), 40, rng)
    assert spliced.shape == (40, 16000)
    # Levels are matched, so a join of the two constant words is constant; silence is never taken.
    assert set(np.unique(spliced[:, 0])) <= {100, 900}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_pareto_front_is_what_no_point_dominates(pairs):
    points = [Point(i, 0, {"validation_accuracy": a, "validation_sparsity": s}) for i, (a, s) in enumerate(pairs)]

    def dominated(p):
        return any(
            q.accuracy >= p.accuracy
            and q.sparsity >= p.sparsity
            and (q.accuracy, q.sparsity) != (p.accuracy, p.sparsity)
            for q in points
        )

    expected = {(p.accuracy, p.sparsity) for p in points if not dominated(p)}
    front = pareto_front(points)
    assert {(p.accuracy, p.sparsity) for p in front} == expected
    assert all(p.sparsity < q.sparsity and p.accuracy > q.accuracy for p, q in pairwise(front))
    best = best_point(points, 3)
    allowed = [p.sparsity for p in points if p.accuracy >= 3]
    assert (best is None) == (not allowed)
    assert best is None or best.sparsity == max(allowed)


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


@pytest.fixture
def page(model, clips, tmp_path):
    """report.html of a model with one keyword clip, number 4, and numbers that are all different."""
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
    spoken = Clips(clips.features, labels, clips.class_names)
    data = ReportData(model, metrics, spoken, RULE, 0.01, sweep)
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
    assert f"with {float(smoothed_posteriors(scores, 60)[-1, 0, 3]):.0%} confidence" in text


def test_the_curve_falls_from_left_to_right_and_its_marks_are_explained(page, model, clips, tmp_path):
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
