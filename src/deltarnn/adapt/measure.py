"""Measures a network on one set of data at given thresholds: distance to its dense outputs, weights fetched, loss."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from deltarnn.adapt.network import ArgumentError, Array, Count, Network, Signal, set_thresholds, signals_of

Loss = Callable[..., Any]


@dataclass(frozen=True)
class Point:
    """What thresholds give on one set of data.

    thresholds: one per signal. error: distance to the dense outputs. loss: the user's, where it was asked for, or the
    error. counts: one per signal.
    """

    thresholds: tuple[float, ...]
    error: float
    loss: float
    counts: tuple[Count, ...]

    @property
    def sparsity(self) -> float:
        """Fraction of deltas equal to 0."""
        return sum(count.zeros for count in self.counts) / sum(count.numel for count in self.counts)

    @property
    def effective_sparsity(self) -> float:
        """Fraction of weights not fetched."""
        return 1 - self.fetched

    @property
    def fetched(self) -> float:
        """Fraction of weights fetched."""
        return sum(count.fetched for count in self.counts) / sum(count.weights for count in self.counts)


class Measurement:
    """Measures a network on `items`, and remembers what it measured.

    model: what the loss is asked of. loss: None, or a function of the model, or of the model and the items, that
    returns a number. on_run: called before each run over the items. like: of more data, whose scale measures the errors
    of outputs that do not vary over these items, as of one number per item.
    """

    def __init__(
        self,
        network: Network,
        model: Any,
        items: Sequence[Any],
        loss: Loss | None,
        on_run: Callable[[], Any] = lambda: None,
        like: "Measurement | None" = None,
    ) -> None:
        self.network, self.model, self.items = network, model, items
        self.signals: list[Signal] = signals_of(network)
        self._loss, self._on_run = loss, on_run
        self._with_items = loss is not None and takes_items(loss)
        self._errors: dict[tuple[float, ...], tuple[float, tuple[Count, ...]]] = {}
        self._losses: dict[tuple[float, ...], float] = {}
        self.runs = self.loss_calls = 0
        set_thresholds(network, self.signals, [0.0] * len(self.signals))
        self._dense = [self._outputs(item) for item in items]
        self._energy = _energies(self._dense, None if like is None else like._energy_per_value)
        sizes = np.sum([[output.size for output in outputs] for outputs in self._dense], axis=0)
        self._energy_per_value: Array = self._energy / sizes

    @property
    def is_of_items(self) -> bool:
        """Whether the loss is one of these items, and not of data of its own."""
        return self._loss is None or self._with_items

    def forget(self) -> None:
        """What was measured is no longer so: the network changed. The dense outputs stay those of before."""
        self._errors.clear()
        self._losses.clear()

    @cached_property
    def dense(self) -> Point:
        """At thresholds 0."""
        return self.point([0.0] * len(self.signals))

    def point(self, thresholds: Sequence[float], with_loss: bool = True) -> Point:
        """Measure at one threshold per signal; without the user's loss, `loss` is NaN unless it is known."""
        key = tuple(float(value) for value in thresholds)
        set_thresholds(self.network, self.signals, key)
        if key not in self._errors:
            self._errors[key] = self._run()
        error, counts = self._errors[key]
        if self._loss is None:
            return Point(key, error, error, counts)
        if with_loss and key not in self._losses:
            self.loss_calls += 1
            self._losses[key] = _number(self._loss(self.model, *([self.items] if self._with_items else [])))
        return Point(key, error, self._losses.get(key, math.nan), counts)

    def _run(self) -> tuple[float, tuple[Count, ...]]:
        self.runs += 1
        self._on_run()
        distances = np.zeros(len(self._energy))
        totals = np.zeros((len(self.signals), 4), np.int64)
        for item, dense in zip(self.items, self._dense, strict=True):
            for index, (output, expected) in enumerate(zip(self._outputs(item), dense, strict=True)):
                difference = output.astype(np.float64) - expected
                distances[index] += float(np.vdot(difference, difference))
            totals += _counts(self.network, self.signals)
        if not totals.any():
            names = ", ".join(dict.fromkeys(repr(signal.part) for signal in self.signals))
            raise ValueError(
                f"no recurrent layer ran over this data: there is {names}, which the model does not call; it must call "
                "the modules themselves, not a function over their weights, for thresholds to act"
            )
        varies = self._energy > 0
        error = float((distances[varies] / self._energy[varies]).mean())
        return error, tuple(Count(*map(int, row)) for row in totals)

    def _outputs(self, item: Any) -> list[Array]:
        self.network.reset()
        outputs = [np.asarray(output) for output in run_item(self.network, self.model, item)]
        return [output for output in outputs if np.issubdtype(output.dtype, np.floating)]


def run_item(network: Network, model: Any, item: Any) -> Sequence[Array]:
    """All outputs for one item of the data, which may be a function that runs the model itself."""
    if callable(item) and network is model:
        outputs: Sequence[Array] = item(model)
        return outputs
    if hasattr(network, "input_names") and not isinstance(item, Mapping):
        raise ArgumentError(
            f"an item is a {type(item).__name__}: an imported network takes a dict of input name → array, or a function"
        )
    return network.run(None, item)


def takes_items(loss: Loss) -> bool:
    """Whether `loss` is a function of the model and the data, not of the model alone."""
    try:
        parameters = inspect.signature(loss).parameters.values()
    except (TypeError, ValueError):  # a builtin
        return False
    needed = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty]
    return len(needed) > 1


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ArgumentError(f"loss returned a {type(value).__name__}: must return a number") from None
    if not math.isfinite(number):
        raise ValueError(f"loss returned {number}: must be a finite number, smaller for a better model")
    return number


def _energies(outputs: Sequence[Sequence[Array]], per_value: Array | None) -> Array:
    """Per output, Σ (y − mean of y)² over all items; where that is 0, what it is per value elsewhere."""
    if not outputs[0]:
        raise ValueError(
            "the model returns no floating-point tensor: there is nothing to compare with its dense output"
        )
    for item, tensors in enumerate(outputs):
        if not all(np.isfinite(tensor).all() for tensor in tensors):
            raise ValueError(f"the dense model's output for item {item} is not finite")
    energies = np.zeros(len(outputs[0]))
    for index in range(len(energies)):
        values = np.concatenate([np.asarray(item[index], np.float64).ravel() for item in outputs])
        energies[index] = np.square(values - values.mean()).sum()
        if energies[index] == 0 and per_value is not None:
            energies[index] = per_value[index] * values.size
    if not energies.any():
        raise ValueError("the dense model's outputs do not vary over this data: there is no scale to measure errors by")
    return energies


def _counts(network: Network, signals: Sequence[Signal]) -> Array:
    """(signals, 4): rows of `Count`; zeros for parts that did not run."""
    rows = np.zeros((len(signals), 4), np.int64)
    per_part = network.activity.per_part
    for row, signal in zip(rows, signals, strict=True):
        if signal.part in per_part:
            for count in per_part[signal.part].layers[signal.layer].delta_counts():
                if count.signal == signal.kind:
                    fetched = count.numel - count.zeros
                    row += (count.zeros, count.numel, count.numel * count.rows, fetched * count.rows)
    return rows
