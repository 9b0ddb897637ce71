"""Sweeps over an accelerator's sizes and a model's thresholds and sparsity: latency against accuracy."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deltarnn.files import replacing
from deltarnn.fixed.parameters import NetworkParameters, UnsupportedModelError
from deltarnn.hardware.accelerator import Accelerator, Events, check_frames
from deltarnn.hardware.files import write_text
from deltarnn.hardware.spartus import Spartus
from deltarnn.prune.column_balanced import column_balanced_dropout

MARKERS = "osD^vP"


@dataclass(frozen=True)
class DesignGrid:
    """What to sweep: every combination is one point.

    accelerators: the designs, such as EdgeDRNN with 4, 8, 16 processing elements. clocks_hz: clock frequencies.
    thresholds: (thx, thh) pairs. gammas: column-balanced sparsities that the weights are pruned to, without retraining;
    0 leaves them. Only Spartus skips pruned weights, so for other targets anything but (0,) is refused.
    """

    accelerators: Sequence[Accelerator]
    clocks_hz: Sequence[float]
    thresholds: Sequence[tuple[float, float]]
    gammas: Sequence[float] = (0.0,)


@dataclass(frozen=True)
class DesignPoint:
    """One design: sizes, latency (mean and maximum), energy per step, accuracy."""

    num_pe: int
    clock_hz: float
    thx: float
    thh: float
    gamma: float
    latency_mean_s: float
    latency_maximum_s: float
    energy_per_step_j: float
    effective_throughput_ops: float
    accuracy: float


def explore(
    model: NetworkParameters,
    frames: Sequence[NDArray[np.float64]],
    grid: DesignGrid,
    accuracy: Callable[[NetworkParameters], float],
    progress: Callable[[Iterable[DesignPoint], int], Iterable[DesignPoint]] = lambda points, count: points,
) -> list[DesignPoint]:
    """Every point of `grid`; thresholds and pruning are applied to `model` as it is, without retraining.

    Parameters
    ----------
    frames: sequences (T, I) on which events are measured.
    accuracy: of a model with changed thresholds and weights.
    progress: wraps the points as they are made, with their number (a progress bar).
    """
    if not isinstance(grid.accelerators[0], Spartus) and any(grid.gammas):
        raise UnsupportedModelError(
            f"gammas={list(grid.gammas)}: {grid.accelerators[0].name} does not skip zero weights; only Spartus does"
        )
    count = len(grid.accelerators) * len(grid.clocks_hz) * len(grid.thresholds) * len(grid.gammas)
    return list(progress(_points(model, frames, grid, accuracy), count))


def _points(
    model: NetworkParameters,
    frames: Sequence[NDArray[np.float64]],
    grid: DesignGrid,
    accuracy: Callable[[NetworkParameters], float],
) -> Iterable[DesignPoint]:
    sequences = check_frames(list(frames), model.input_size)
    for gamma, (thx, thh) in product(grid.gammas, grid.thresholds):
        known: dict[int, tuple[NetworkParameters, Events, float]] = {}
        for accelerator in grid.accelerators:
            num_pe = accelerator.num_macs
            # Pruning is balanced over the PEs of one array; without it the weights do not depend on the design.
            balance = accelerator.num_pe if isinstance(accelerator, Spartus) and gamma else 0
            if balance not in known:
                changed = pruned(model.with_thresholds(thx, thh), gamma, balance)
                known[balance] = changed, accelerator.events(changed, sequences), accuracy(changed)
            changed, events, score = known[balance]
            accelerator.check(changed)
            for clock in grid.clocks_hz:
                report = replace(accelerator, **{"clock_hz": clock}).report(changed, events)
                yield DesignPoint(
                    num_pe,
                    clock,
                    thx,
                    thh,
                    gamma,
                    report.latency.mean_s,
                    report.latency.maximum_s,
                    report.energy_per_step_j,
                    report.effective_throughput_ops,
                    score,
                )


def pruned(model: NetworkParameters, gamma: float, num_pe: int) -> NetworkParameters:
    """The recurrent weights pruned to column-balanced sparsity γ over `num_pe` processing elements."""
    if gamma == 0:
        return model
    layers = [
        replace(
            layer,
            weight_ih=column_balanced_dropout(layer.weight_ih, gamma, num_pe),
            weight_hh=column_balanced_dropout(layer.weight_hh, gamma, num_pe),
        )
        for layer in model.layers
    ]
    return replace(model, layers=tuple(layers))


def best_points(points: Sequence[DesignPoint]) -> list[DesignPoint]:
    """The points that no other beats in both mean latency and accuracy, fastest first."""
    best: list[DesignPoint] = []
    for point in sorted(points, key=lambda p: (p.latency_mean_s, -p.accuracy)):
        if not best or point.accuracy > best[-1].accuracy:
            best.append(point)
    return best


def points_table(points: Sequence[DesignPoint]) -> str:
    """Points as plain text, one a line."""
    names = ("MACs", "MHz", "thx", "thh", "gamma", "mean µs", "max µs", "µJ", "accuracy")
    head = " ".join(f"{name:>9}" for name in names)
    rows = [
        f"{p.num_pe:>9} {p.clock_hz / 1e6:>9.4g} {p.thx:>9.4g} {p.thh:>9.4g} {p.gamma:>9.3g} "
        f"{p.latency_mean_s * 1e6:>9.3f} {p.latency_maximum_s * 1e6:>9.3f} {p.energy_per_step_j * 1e6:>9.3f} "
        f"{p.accuracy:>9.2%}"
        for p in points
    ]
    return "\n".join([head, *rows])


def write_points(points: Sequence[DesignPoint], path: str | Path) -> None:
    """Write the points as a JSON list, atomically."""
    write_text(path, json.dumps([asdict(point) for point in points], indent=2) + "\n")


def plot_points(points: Sequence[DesignPoint], path: str | Path, title: str) -> None:
    """Write latency against accuracy as an image: one colour and outline per number of MACs, larger ones around smaller
    where they coincide; the undominated points joined and named."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axes = figure.subplots()
    front = best_points(points)
    axes.step(
        [p.latency_mean_s * 1e6 for p in front], [p.accuracy * 100 for p in front], where="post", color="grey", zorder=0
    )
    for index, num_pe in enumerate(sorted({point.num_pe for point in points})):
        chosen = [point for point in points if point.num_pe == num_pe]
        axes.scatter(
            [p.latency_mean_s * 1e6 for p in chosen], [p.accuracy * 100 for p in chosen], s=22 + 42 * index,
            marker=MARKERS[index % len(MARKERS)], facecolors="none", edgecolors=f"C{index}", linewidths=1.4,
            label=f"{num_pe} MACs",
        )  # fmt: skip
    for index, point in enumerate(front):
        theta = f"θ {point.thx:g}" if point.thx == point.thh else f"θ {point.thx:g}, {point.thh:g}"
        gamma = f", γ {point.gamma:g}" if point.gamma else ""
        axes.annotate(
            f"{point.num_pe} × {point.clock_hz / 1e6:g} MHz, {theta}{gamma}",
            (point.latency_mean_s * 1e6, point.accuracy * 100), xytext=(8, -13 - 11 * (index % 2)),
            textcoords="offset points", fontsize=8,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.0},
        )  # fmt: skip
    axes.set(xscale="log", xlabel="mean latency per step (µs)", ylabel="accuracy (%)", title=title)
    axes.margins(x=0.18, y=0.12)
    axes.legend(loc="lower right")
    with replacing(path) as part:
        figure.savefig(part, dpi=120)
