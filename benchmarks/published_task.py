"""The published twelve-class task: our models beside the literature's, as a table and a plot, from metrics files.

python benchmarks/published_task.py OUT --row "default12, delta" RUN/metrics.json … [--row …]

The metrics of several seeds make one row: mean and standard deviation. Writes OUT.md and OUT.png.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter


@dataclass(frozen=True)
class Row:
    """A model. accuracy, spread, sparsity: fractions. dense, fetched: weight bytes a second, one byte a weight, of all
    weights at every frame and of those that events asked for. None where it is not known."""

    name: str
    accuracy: float
    spread: float | None = None
    weights: int | None = None
    sparsity: float | None = None
    dense: float | None = None
    fetched: float | None = None
    remark: str = ""

    @classmethod
    def of(cls, name: str, files: list[Path]) -> "Row":
        """Of the runs of one model, one seed each."""
        runs = [json.loads(path.read_text(encoding="utf-8")) for path in files]
        sizes = {run["parameters"] for run in runs}
        if len(sizes) > 1:
            raise SystemExit(f"{name}: models of {sorted(sizes)} weights are no seeds of one")
        accuracies = [run["test_accuracy"] for run in runs]
        delta = all(run["step"] == "retrain" for run in runs)
        return cls(
            name,
            mean(accuracies),
            stdev(accuracies) if len(runs) > 1 else None,
            sizes.pop(),
            mean(run["sparsity"] for run in runs) if delta else None,
            mean(run["operations_per_second_dense"] for run in runs) / 2,  # an operation each to multiply and to add
            mean(run["operations_per_second"] for run in runs) / 2 if delta else None,
            f"{len(runs)} seeds" if len(runs) > 1 else "one seed",
        )

    def cells(self) -> list[str]:
        """Of the table."""
        spread = "" if self.spread is None else f" ± {self.spread:.1%}".replace("%", "")
        return [
            self.name,
            f"{self.accuracy:.1%}".replace("%", f"{spread} %"),
            _number(self.weights, 1, ",.0f"),
            "–" if self.sparsity is None else f"{self.sparsity:.1%}".replace("%", " %"),
            _number(None if self.dense is None else 2 * self.dense, 1e6, ".2f"),
            _number(self.dense, 1e6, ".2f"),
            _number(self.fetched, 1e6, ".2f"),
            self.remark,
        ]


PUBLISHED = [
    Row("DeltaKWS (delta-network chip)", 0.895, weights=16000, sparsity=0.87, remark="about 16 k weights"),
    Row("GRU-400, dense", 0.972),
    Row("BC-ResNet-8", 0.987),
]
"""As published on the official test set; what is not given there is left open."""

HEAD = [
    *("model", "accuracy", "weights", "sparsity", "operations, M/s, dense"),
    *("weight traffic, MB/s, dense", "weight traffic, MB/s, by events", "remark"),
]


def _number(value: float | None, unit: float, form: str) -> str:
    return "–" if value is None else format(value / unit, form).replace(",", " ")


def table(rows: list[Row]) -> str:
    """Markdown."""
    lines = [HEAD, ["---"] * len(HEAD), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def plot(rows: list[Row], path: Path) -> None:
    """Accuracy against weight traffic; models without a published traffic as lines."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for index, row in enumerate(row for row in rows if row.dense is not None):
        colour = f"C{index}"
        events = row.dense if row.fetched is None else row.fetched
        axes.plot([row.dense / 1e6, events / 1e6], [100 * row.accuracy] * 2, ":", color=colour)
        axes.plot(row.dense / 1e6, 100 * row.accuracy, "o", mfc="none", color=colour)
        axes.plot(events / 1e6, 100 * row.accuracy, "o", color=colour)
        beside = {"xytext": (-8, 0), "ha": "right", "va": "center"}
        above = {"xytext": (0, 6), "ha": "left", "va": "bottom"}
        place = {"textcoords": "offset points", **(beside if row.fetched is None else above)}
        axes.annotate(row.name, (events / 1e6, 100 * row.accuracy), **place, fontsize=8, color=colour)
    for row in rows:
        if row.dense is None:
            axes.axhline(100 * row.accuracy, color="0.6", linewidth=0.8)
            place = {"xy": (0.99, 100 * row.accuracy), "xycoords": ("axes fraction", "data")}
            axes.annotate(row.name, **place, ha="right", va="bottom", fontsize=8)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="weights fetched, MB per second of audio (circle: dense; dot: by events)", ylabel="accuracy, %")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="files to write, without their suffix")
    parser.add_argument("--row", nargs="+", action="append", required=True, metavar=("NAME", "METRICS"))
    arguments = parser.parse_args()
    rows = [Row.of(name, [Path(file) for file in files]) for name, *files in arguments.row] + PUBLISHED
    arguments.out.with_suffix(".md").write_text(table(rows), encoding="utf-8")
    plot(rows, arguments.out.with_suffix(".png"))
    print(table(rows))


if __name__ == "__main__":
    main()
