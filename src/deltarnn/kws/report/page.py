"""report.html: one self-contained page about a trained network, its figures inline SVG, readable in light and dark."""

import csv
import html
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deltarnn.files import read_json, write_text
from deltarnn.kws.evaluation.scoring import Clips
from deltarnn.kws.network.decision import DecisionRule
from deltarnn.kws.network.model import KeywordModel
from deltarnn.kws.report import charts
from deltarnn.kws.report.charts import Mark, Series
from deltarnn.kws.report.document import document, pair, tiles
from deltarnn.kws.training.runs import log_folder
from deltarnn.nn.activity import record_activity

Fired = NDArray[np.bool_]


@dataclass(frozen=True)
class ReportData:
    """What the page is made from.

    metrics: as in metrics.json. clips: where the example comes from. sweep: as in sweep.json, or None. history: rows
    of history.csv, or none.
    """

    model: KeywordModel
    metrics: dict[str, Any]
    clips: Clips
    rule: DecisionRule
    frame_stride: float
    sweep: dict[str, Any] | None = None
    history: tuple[dict[str, str], ...] = ()

    @classmethod
    def gather(
        cls, path: Path, model: KeywordModel, metrics: dict[str, Any], clips: Clips, rule: DecisionRule, stride: float
    ) -> "ReportData":
        """With the history of the run that made the model file at `path`, and the newest sweep beside it."""
        sweeps = sorted(path.parent.glob("sweep-*/sweep.json"), key=lambda file: file.stat().st_mtime)
        history = log_folder(path, metrics.get("run", "")) / "history.csv"
        rows = (
            tuple(csv.DictReader(history.read_text(encoding="utf-8").splitlines()))
            if "run" in metrics and history.is_file()
            else ()
        )
        return cls(model, metrics, clips, rule, stride, read_json(sweeps[-1]) if sweeps else None, rows)


def write_report(path: str | Path, data: ReportData) -> Path:
    """Write the page."""
    path = Path(path)
    words = ", ".join(label for label in data.metrics["labels"] if not label.startswith("_"))
    lead = (
        f"{html.escape(str(data.model.rnn))} listens for {html.escape(words)}. It computes only where its inputs and "
        "its own state change by more than a threshold."
    )
    sections = [_example(data), pair(_curve(data), _confusion(data)), pair(_history(data), _classes(data))]
    footer = (
        f"<footer>{html.escape(Path(data.metrics.get('run', '')).name)} · model file "
        f"<code>{html.escape(str(data.metrics.get('model', '')))}</code></footer>"
    )
    content = f"{_tiles(data)}{''.join(sections)}{footer}"
    write_text(path, document("Keyword spotting report", "Keyword spotting with a delta network", lead, content))
    return path


def _tiles(data: ReportData) -> str:
    m = data.metrics
    accuracy = "test" if "test_accuracy" in m else "validation"
    dense, sparse = m["operations_per_second_dense"], m["operations_per_second"]
    return tiles(
        [
            (f"{m[f'{accuracy}_accuracy']:.1%}", f"of {accuracy} clips decided right"),
            (f"{m['sparsity']:.1%}", "temporal sparsity: deltas that are zero"),
            (_short(sparse), f"operations per second of audio, dense {_short(dense)}"),
            (f"{dense / sparse:.1f}×", "less arithmetic than the dense network"),
            (f"{m['parameters'] / 1000:.1f} k", f"parameters, {m['model_bytes_int8'] / 1024:.0f} KiB at 8 bits"),
        ]
    )


def _example(data: ReportData) -> str:
    """A keyword clip: its features, and below them what fired."""
    clip = _typical_clip(data)
    features = data.clips.features[:, clip : clip + 1]
    with torch.no_grad(), record_activity(data.model, events=True) as activity:
        scores, _ = data.model.eval()(features)
    fired_x, fired_h = (part[:, 0].numpy() for part in activity.events[0])
    seconds = len(features) * data.frame_stride
    label = data.clips.class_names[int(data.clips.labels[clip])]
    confidence = float(data.rule.best(scores)[0, int(data.clips.labels[clip])])
    drawn = charts.at_both_widths(lambda width: _events(features, fired_x, fired_h, seconds, width))
    return (
        f"<section><h2>“{html.escape(label)}”, frame by frame</h2><p>Above, what the network hears. Below, the only "
        f"moments at which an input ({fired_x.mean():.0%} of all) or a unit of the first layer ({fired_h.mean():.0%}) "
        f"changed enough to be passed on; every blank costs nothing. Decided with {confidence:.0%} confidence.</p>"
        f"{drawn}</section>"
    )


def _events(features: Tensor, fired_x: Fired, fired_h: Fired, seconds: float, width: float) -> str:
    """What is heard and what fired, one below the other."""
    return (
        charts.spectrogram(features[:, 0].numpy(), seconds, width)
        + charts.raster(fired_x, "var(--warm)", "Δx", seconds, width, height=100)
        + charts.raster(fired_h, "var(--green)", "Δh", seconds, width, height=210, time_axis=True)
    )


def _typical_clip(data: ReportData) -> int:
    """A keyword clip that was decided right, of median activity among the first of its kind."""
    spoken = torch.nonzero(data.clips.labels > 1)[:, 0][:: max(1, len(data.clips) // 60)]
    with torch.no_grad(), record_activity(data.model, events=True) as activity:
        scores, _ = data.model.eval()(data.clips.features[:, spoken])
    right = torch.nonzero(data.rule(scores) == data.clips.labels[spoken])[:, 0]
    events = activity.events[0][1].float().mean((0, 2))
    chosen = right if len(right) else torch.arange(len(spoken))
    order = chosen[events[chosen].argsort()]
    return int(spoken[order[len(order) // 2]])


def _curve(data: ReportData) -> str:
    if data.sweep is None:
        return ""
    points, front = data.sweep["points"], data.sweep["front"]
    x, y = "test_sparsity", "test_accuracy"
    line: list[dict[str, float]] = []
    for point in sorted(front, key=lambda point: (-point[x], -point[y])):  # only down from left to right
        if not line or point[y] > line[-1][y]:
            line.append(point)
    grey, blue = "var(--grey)", "var(--blue)"
    series = [
        Series([p[x] for p in points], [p[y] for p in points], grey, "other thresholds", line=False, dots=True),
        Series([p[x] for p in front], [p[y] for p in front], blue, "best on validation", line=False, dots=True),
        Series([p[x] for p in line], [p[y] for p in line], blue),
    ]
    marks, best = [], data.sweep["best"]
    if best is not None:
        text = f"θx {best['thx']:g}, θh {best['thh']:g}"
        marks.append(Mark(best[x], best[y], "sparsest within the budget", text))
    if y in data.metrics:
        marks.append(Mark(data.metrics["sparsity"], data.metrics[y], "this model", diamond=True))
    how = "retrained" if data.sweep["retrained_epochs"] else "not retrained"
    chart = charts.line_chart(
        series, "temporal sparsity", "test accuracy", x_text="{:.0%}".format, marks=marks,
        height=max(270.0, charts.confusion_height(len(data.metrics["labels"]))),
    )  # fmt: skip
    return f"<section><h2>Accuracy against sparsity</h2><p>Each point a pair of thresholds, {how}.</p>{chart}</section>"


def _confusion(data: ReportData) -> str:
    group = "test" if "test" in data.metrics else "validation"
    chart = charts.confusion(data.metrics["labels"], data.metrics[group]["confusion"])
    return f"<section><h2>Confusion</h2><p>{group.title()} clips: rows spoken, columns decided.</p>{chart}</section>"


def _history(data: ReportData) -> str:
    if len(data.history) < 2:
        return ""
    epochs = [float(row["epoch"]) for row in data.history]
    series = [
        Series(epochs, [float(row[name]) for row in data.history], colour, label)
        for name, colour, label in (
            ("validation_accuracy", "var(--blue)", "validation accuracy"),
            ("sparsity", "var(--green)", "sparsity"),
        )
        if data.history[0].get(name)
    ]
    if not series:
        return ""
    shown = data.metrics["test" if "test" in data.metrics else "validation"]["per_class"]
    chart = charts.line_chart(series, "epoch", "", height=max(230.0, charts.bars_height(len(shown))))
    return f"<section><h2>Training</h2><p>After every epoch, at full thresholds.</p>{chart}</section>"


def _classes(data: ReportData) -> str:
    group = "test" if "test" in data.metrics else "validation"
    chart = charts.bars(data.metrics[group]["per_class"], "var(--blue)")
    return f"<section><h2>Classes</h2><p>Share of each class’s {group} clips decided right.</p>{chart}</section>"


def _short(number: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return f"{number:.0f}"
