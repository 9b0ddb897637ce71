"""The result of tuning: thresholds, losses, sparsities and speed, as values, as text, as JSON and as a picture."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltarnn.adapt.network import ThresholdsOf
from deltarnn.adapt.speed import Speed
from deltarnn.files import replacing, write_json

NOTHING = 0.25
"""Below this effective sparsity the engine's gain is small (docs/engine.md): a result, and told as such."""


@dataclass(frozen=True)
class SignalResult:
    """One signal: its threshold, the fraction of its deltas equal to 0, its share of the weights."""

    name: str
    threshold: float
    sparsity: float
    share: float


@dataclass(frozen=True)
class Tuned:
    """A model with thresholds within a loss budget.

    model: with the thresholds set. thresholds: {module name: [(thx, thh) per layer and direction]}, as
    `convert` takes them.
    loss, sparsity (of all deltas), effective_sparsity (of all weights): on the calibration data. held_out_…: on data
    that the search never saw; NaN where there is none, the loss also where the user's function brings its own data.
    dense_loss, held_out_dense_loss: at thresholds 0. loss_name: "output error", the distance to the dense outputs, or
    the name of the user's function. method: which line of the search won. lines: per line, (effective sparsity, loss)
    of every point at which the loss was asked. runs, loss_calls: over the calibration data. int8_loss: in int8, on the
    held-out data if there is any; NaN where that was not asked for.
    """

    model: Any
    thresholds: ThresholdsOf
    budget: float
    loss: float
    sparsity: float
    effective_sparsity: float
    held_out_loss: float
    held_out_sparsity: float
    held_out_effective_sparsity: float
    dense_loss: float
    held_out_dense_loss: float
    loss_name: str
    method: str
    signals: tuple[SignalResult, ...]
    lines: dict[str, tuple[tuple[float, float], ...]]
    speed: Speed
    runs: int
    loss_calls: int
    int8_loss: float = math.nan

    @property
    def within_budget(self) -> bool:
        """Whether the loss on held-out data is within the budget too; False where it is not known."""
        return self.held_out_loss <= self.held_out_dense_loss + self.budget

    @property
    def finding(self) -> str:
        """One sentence: what can be skipped; or that nothing can, and why."""
        skipped = f"{self.effective_sparsity:.0%} at the budget"
        if self.effective_sparsity >= NOTHING:
            return f"{skipped}: that part of the recurrent weights need not be fetched"
        moving = ", ".join(f"{s.name} {1 - s.sparsity:.0%}" for s in self.signals)
        return (
            f"nothing to skip here: {skipped}. The signals move at almost every step, by more than the loss allows to "
            f"ignore; of their elements fire: {moving}"
        )

    def __str__(self) -> str:
        width = max(len(s.name) for s in self.signals)
        lines = [
            self.finding,
            "",
            f"{'':22}{'calibration':>12}{'held out':>12}",
            _row("zero deltas", self.sparsity, self.held_out_sparsity, "{:.1%}"),
            _row("weights not fetched", self.effective_sparsity, self.held_out_effective_sparsity, "{:.1%}"),
            _row(f"{self.loss_name}"[:21], self.loss, self.held_out_loss, "{:.5g}"),
            _row("  at thresholds 0", self.dense_loss, self.held_out_dense_loss, "{:.5g}"),
            *([] if math.isnan(self.int8_loss) else [_row("  in int8", math.nan, self.int8_loss, "{:.5g}")]),
            "",
            f"budget {self.budget:g}; found on the line of {self.method}, {self.runs} runs, {self.loss_calls} losses",
            str(self.speed),
            "",
            f"{'signal':{width}}  threshold  zero deltas  of the weights",
        ]
        lines += [f"{s.name:{width}}  {s.threshold:9.4g}  {s.sparsity:11.1%}  {s.share:14.1%}" for s in self.signals]
        return "\n".join(lines)

    def save(self, path: str | Path) -> None:
        """Write all but the model as JSON; NaN as null."""
        record = {name: value for name, value in vars(self).items() if name not in ("model", "signals", "speed")}
        record |= {"signals": [vars(s) for s in self.signals], "speed": vars(self.speed), "finding": self.finding}
        numbers = {name: None if isinstance(v, float) and math.isnan(v) else v for name, v in record.items()}
        write_json(Path(path), numbers)

    def plot(self, path: str | Path) -> None:
        """Write a picture (PNG): loss against the weights not fetched, along both lines."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        axis = figure.subplots()
        for (name, points), colour in zip(self.lines.items(), ("#57606a", "#1f6feb"), strict=True):
            axis.plot([100 * x for x, _ in points], [y for _, y in points], ".", color=colour, alpha=0.5)
            best = frontier(points)
            axis.plot([100 * x for x, _ in best], [y for _, y in best], "o-", color=colour, markersize=4, label=name)
        limit = self.dense_loss + self.budget
        axis.axhline(limit, color="#d1480f", linestyle="--", linewidth=1, label="budget")
        chosen = (
            ("chosen", self.effective_sparsity, self.loss, "o"),
            (
                "held out",
                self.held_out_effective_sparsity,
                self.held_out_loss,
                "D",
            ),
        )
        for label, x, y, marker in chosen:
            axis.plot([100 * x], [y], marker, color="#d1480f", markersize=8, fillstyle="none", label=label)
        # Far beyond the budget the curve tells nothing about the choice.
        axis.set_ylim(self.dense_loss - 0.2 * self.budget, self.dense_loss + max(4 * self.budget, 1e-12))
        axis.set(xlabel="weights not fetched (%)", ylabel=self.loss_name, title=self.finding.split(":")[0])
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, loc="upper left")
        with replacing(Path(path)) as part:
            figure.savefig(part, dpi=130, format="png")


def frontier(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of points (effective sparsity, loss) those to which no other is better in both, in rising sparsity."""
    best: list[tuple[float, float]] = []
    for sparsity, loss in sorted(points, key=lambda point: (-point[0], point[1])):
        if not best or loss < best[-1][1]:
            best.append((sparsity, loss))
    return best[::-1]


def _row(name: str, value: float, held_out: float, form: str) -> str:
    texts = ["–" if math.isnan(number) else form.format(number) for number in (value, held_out)]
    return f"{name:22}{texts[0]:>12}{texts[1]:>12}"
