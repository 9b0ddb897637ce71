"""Thresholds that fetch the fewest weights within a loss budget.

Lines through the space of thresholds are followed for as long as the loss stays within the budget: one common θ, and
the thresholds that, for a multiplier λ, minimise

    Σ over signals of  error(θ) + λ · weights fetched(θ)

from curves measured one signal at a time: small errors are nearly independent, so that their energies add up, as
weights do. The curves are measured around the dense network first, then around the best thresholds so far, where they
tell how the signals act together. The loss is asked for along the lines alone.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from deltarnn.adapt.measure import Measurement, Point

COMMON, PER_SIGNAL = "one common θ", "θ per signal"
FIRST = 2.0**-5
"""Where the search for the common θ starts."""
REACH = 40
"""Steps along a line, at most."""
BISECTIONS = 4
ROUNDS = 2
"""Sets of curves around the best thresholds so far, at most."""
TRADES = 3
"""Exchanges between thresholds, per signal."""
SMALLEST_ERROR = 1e-12
GAIN = 0.005
"""Effective sparsity that is worth another round."""
FACTORS = (0.25, 0.5, 0.71, 1.41, 2.0, 4.0)
"""Where curves around the best thresholds are measured."""

Array = NDArray[np.float64]


@dataclass
class Candidates:
    """All points at which the loss was asked, per line, and the limit that it must keep."""

    limit: float
    lines: dict[str, list[Point]] = field(default_factory=dict)

    def feasible(self, point: Point) -> bool:
        """Whether the loss is within the budget."""
        return point.loss <= self.limit

    def best(self, name: str | None = None) -> Point:
        """The feasible point with the fewest weights fetched, of one line or all; the smaller loss of two such."""
        lines = self.lines.values() if name is None else [self.lines[name]]
        points = [point for line in lines for point in line if self.feasible(point)]
        return min(points, key=lambda point: (point.fetched, point.loss))

    def origin(self, point: Point) -> str:
        """The line on which `point` was found first."""
        return next(name for name, line in self.lines.items() if point in line)

    def follow(self, name: str, evaluate: Callable[[float], Point], start: float, step: float) -> None:
        """From position `start` of a line in steps towards the budget, then halving them around its edge."""
        line = self.lines.setdefault(name, [])

        def feasible(position: float) -> bool:
            line.append(evaluate(position))
            return self.feasible(line[-1])

        inside = feasible(start)
        towards = step if inside else -step
        edge = start
        for _ in range(REACH):
            before = line[-1]
            edge += towards
            if feasible(edge) != inside:
                break
            if line[-1].fetched == before.fetched and line[-1].error == before.error:
                return  # the end of the line: all or nothing fires
        else:
            return
        low, high = sorted((edge, edge - towards))
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            low, high = (middle, high) if feasible(middle) else (low, middle)


@dataclass(frozen=True)
class Curve:
    """Of one signal, in rising θ: the error of the network's output and the fraction of all weights fetched."""

    theta: Array
    error: Array
    fetched: Array

    @classmethod
    def through(cls, points: Sequence[tuple[float, float, float]]) -> "Curve":
        """A smooth curve through (θ, error, fetched); θ = 0 stands apart. Kept monotone against noise."""
        theta, error, fetched = np.array(sorted(set(points))).T
        error, fetched = np.maximum.accumulate(error), np.minimum.accumulate(fetched)
        positive = theta > 0
        if positive.sum() < 2:
            return cls(theta, error, fetched)
        knots = np.log(theta[positive])
        fine = np.linspace(knots[0], knots[-1], 32 * len(knots))
        smooth = [PchipInterpolator(knots, values[positive])(fine) for values in (error, fetched)]
        theta = np.concatenate([theta[~positive], np.exp(fine)])
        error, fetched = (
            np.concatenate([values[~positive], new]) for values, new in zip((error, fetched), smooth, strict=True)
        )
        return cls(theta, error, fetched)

    def choose(self, multiplier: float) -> int:
        """Index of the least error + multiplier · fetched."""
        return int(np.argmin(self.error + multiplier * self.fetched))


def search(measurement: Measurement, limit: float) -> Candidates:
    """Follow the lines; the dense network is one of the candidates."""
    dense = measurement.dense
    candidates = Candidates(limit, {COMMON: [dense], PER_SIGNAL: [dense]})
    signals = len(measurement.signals)
    candidates.follow(
        COMMON, lambda position: measurement.point([2.0**position] * signals), start=math.log2(FIRST), step=1.0
    )
    best = candidates.best()
    # Where no θ was within the budget, the smallest that was tried still tells the scale of things.
    scale = best if best is not dense else min(candidates.lines[COMMON][1:], key=lambda point: point.thresholds)
    _follow_curves(candidates, measurement, [_dense_curve(measurement, i, scale) for i in range(signals)], scale.error)
    for _ in range(ROUNDS):
        best = candidates.best()
        if best is dense:
            return candidates
        curves = [_local_curve(measurement, index, best, scale) for index in range(signals)]
        _follow_curves(candidates, measurement, curves, 0.0)
        if best.fetched - candidates.best().fetched < GAIN:
            break
    traded = _trade(measurement, candidates.best())
    candidates.follow(
        PER_SIGNAL,
        lambda position: measurement.point([theta * 2.0**position for theta in traded.thresholds]),
        start=0.0,
        step=0.25,
    )
    return candidates


def _follow_curves(candidates: Candidates, measurement: Measurement, curves: Sequence[Curve], target: float) -> None:
    def evaluate(position: float) -> Point:
        chosen = [curve.choose(math.exp(position)) for curve in curves]
        return measurement.point([curve.theta[index] for curve, index in zip(curves, chosen, strict=True)])

    candidates.follow(PER_SIGNAL, evaluate, start=_multiplier_for(curves, target), step=math.log(4))


def _multiplier_for(curves: Sequence[Curve], target: float) -> float:
    """log λ at which the curves' errors add up to `target`."""
    low, high = math.log(1e-12), math.log(1e12)
    for _ in range(60):
        middle = (low + high) / 2
        error = sum(curve.error[curve.choose(math.exp(middle))] for curve in curves)
        low, high = (middle, high) if error <= target else (low, middle)
    return (low + high) / 2


def _dense_curve(measurement: Measurement, index: int, scale: Point) -> Curve:
    """The signal's thresholds alone, all others 0: over errors from a hundredth of the common θ's to three times it."""
    dense = measurement.dense
    weights = sum(count.weights for count in dense.counts)
    points = [(0.0, 0.0, dense.counts[index].fetched / weights)]

    def error_at(theta: float) -> float:
        thresholds = [0.0] * len(measurement.signals)
        thresholds[index] = theta
        point = measurement.point(thresholds, with_loss=False)
        points.append((theta, point.error, point.counts[index].fetched / weights))
        return point.error

    start = scale.thresholds[index]
    middle = max(scale.error, SMALLEST_ERROR)
    at_start = error_at(start)
    theta, error = start, at_start
    while error < 3 * middle and points[-1][2] > 0 and len(points) < 7:
        theta *= _stride(middle, error)
        error = error_at(theta)
    theta, error = start, at_start
    while error > middle / 100 and len(points) < 10:
        theta /= _stride(error, middle)
        error = error_at(theta)
    return Curve.through(points)


def _trade(measurement: Measurement, best: Point) -> Point:
    """Raise one threshold and lower another, at random, where it saves weights at no larger error.

    The smaller or the more chaotic the network, the less is its error a sum over signals.
    """
    signals = len(best.thresholds)
    pairs = list(itertools.permutations(range(signals), 2))
    np.random.default_rng(0).shuffle(pairs)
    for raised, lowered in pairs[: TRADES * signals]:
        thresholds = list(best.thresholds)
        thresholds[raised] *= 1.5
        thresholds[lowered] /= 1.25
        point = measurement.point(thresholds, with_loss=False)
        if point.error <= best.error and point.fetched < best.fetched:
            best = point
    return best


def _stride(larger: float, smaller: float) -> float:
    """2; or, errors growing about as θ², a leap towards where the errors meet."""
    return min(64.0, max(2.0, math.sqrt(larger / smaller) / 4)) if smaller > 0 else 64.0


def _local_curve(measurement: Measurement, index: int, best: Point, scale: Point) -> Curve:
    """The signal's thresholds around the best ones so far, all others kept: differences from there."""
    middle = best.thresholds[index] or scale.thresholds[index]
    points = []
    for theta in {best.thresholds[index], 0.0, *(middle * factor for factor in FACTORS)}:
        thresholds = list(best.thresholds)
        thresholds[index] = theta
        point = measurement.point(thresholds, with_loss=False)
        points.append((theta, point.error - best.error, point.fetched - best.fetched))
    return Curve.through(points)
