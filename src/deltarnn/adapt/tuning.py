"""Thresholds within a loss budget."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from deltarnn.adapt.measure import Loss, Measurement, Point, run_item
from deltarnn.adapt.network import (
    ArgumentError,
    Network,
    TorchNetwork,
    call,
    check_conversion,
    check_network,
    copied,
    set_thresholds,
)
from deltarnn.adapt.search import Candidates, search
from deltarnn.adapt.speed import Speed, compare
from deltarnn.adapt.tuned import SignalResult, Tuned

ITEMS_PER_HELD_OUT = 4
REPEATED = 1e-6
"""Output error of a model against itself, at thresholds 0, that needs no word."""
SLACK = 0.05
"""Sparsity that held-out data may miss without a warning."""


def tune(
    model: Any,
    calibration: Sequence[Any],
    loss: Loss | None = None,
    budget: float = 0.01,
    *,
    held_out: Any = None,
    precision: Literal["float32", "int8"] = "float32",
) -> Tuned:
    """Find the thresholds that skip the most weights at a loss within `budget`.

    >>> tuned = tune(model, [x0, x1, x2, x3], budget=0.01)  # doctest: +SKIP
    >>> print(tuned); tuned.plot("curve.png")               # doctest: +SKIP

    Parameters
    ----------
    model: a torch module with delta layers, or with dense ones that `convert` takes; a tuned copy in eval mode is
        returned. Or a network of `deltarnn.onnx.load`, whose thresholds are set.
    calibration: list of inputs, unlabelled: whatever `model(item)` takes, a tuple or list for `model(*item)`, a mapping
        for `model(**item)`; for an imported network, its feeds. Or functions of the model that run it, for example over
        a stream in many calls, and return its outputs. A few thousand steps, similar to those in use.
    loss: function of the model, or of the model and the list of items, that returns a number, lower is better. None:
        the output error, Σ (y − y of the dense model)² / Σ (y of the dense model − its mean)², the mean over outputs.
    budget: how much larger the loss may become than at thresholds 0; absolute, in the loss's own unit.
    held_out: further inputs, to check the result on data that the search has not seen. None: every fourth item of
        `calibration` is set aside (of two or three, the last).
    precision: "int8": at the thresholds found, an imported network then computes in int8 by formats from the data
        (`Network.quantize`, dense products too where the loss allows it). Of a torch module `Engine.compile` does that.

    The search (`deltarnn.adapt.search`) takes about 15 runs over the calibration data per signal, and asks for the loss
    about 40 times in all.

    Raises
    ------
    TypeError, ValueError
        If data, loss, budget or model (`check_conversion`) cannot be used, or there is no recurrent layer to tune.

    Warns
    -----
    UserWarning
        If outputs do not repeat; if on held-out data the loss leaves the budget, that of int8 too, or much less is
        skipped; and if there is no held-out figure.
    """
    network = _network(model)
    _check_options(network, loss, budget, precision)
    items, others = _split(calibration, held_out)
    target = _target(model, network, items[0])
    with tqdm(desc="tune", unit=" runs", disable=None, leave=False) as bar:
        measurement = _repeated(Measurement(network, target, items, loss, bar.update))
        candidates = search(measurement, measurement.dense.loss + budget)
        best = candidates.best()
        check = Measurement(network, target, others, loss, bar.update, measurement) if others else None
        unseen = None if check is None else _held_out(check, best)
    speed = _speed(model, network, measurement, best)
    set_thresholds(network, measurement.signals, best.thresholds)
    int8_loss = math.nan
    if precision == "int8":
        int8_loss, speed = _in_int8(target, check or measurement, items, best, budget, speed)
    tuned = _result(target, measurement, candidates, unseen, speed, loss)
    return _warned(replace(tuned, int8_loss=int8_loss))


def _network(model: Any) -> Network:
    check_network(model)
    if isinstance(model, nn.Module):
        return TorchNetwork.adapted_copy(model)
    network: Network = model
    return network


def _target(model: Any, network: Network, item: Any) -> Any:
    """What the user gets back: a torch module that computes what the model does, or the network itself."""
    if not isinstance(network, TorchNetwork):
        return network
    check_conversion(model, network.module, item)
    return network.module


def _check_options(network: Network, loss: Any, budget: Any, precision: str) -> None:
    if not (isinstance(budget, (int, float)) and math.isfinite(budget) and budget >= 0):
        raise ValueError(f"budget={budget!r}: must be a finite number of at least 0, in the unit of the loss")
    if loss is not None and not callable(loss):
        raise ArgumentError(f"loss is a {type(loss).__name__}: must be a function that returns a number, or None")
    if precision not in ("float32", "int8"):
        raise ValueError(f"precision={precision!r}: must be 'float32' or 'int8'")
    if precision == "int8" and not hasattr(network, "quantize"):
        raise ArgumentError(
            "precision='int8' is for networks of deltarnn.onnx.load: of a torch module take "
            "Engine.compile(tuned.model, 'int8', calibration=…)"
        )


def _split(calibration: Any, held_out: Any) -> tuple[list[Any], list[Any]]:
    for name, data in (("calibration", calibration), ("held_out", held_out)):
        if isinstance(data, (Tensor, np.ndarray, dict, str)):
            raise ArgumentError(f"{name} is a {type(data).__name__}: give a list of inputs, such as [x]")
    items = list(calibration)
    if not items:
        raise ValueError("calibration is empty: give a list of inputs like those that the model will meet")
    if held_out is not None:
        others = list(held_out)
        if not others:
            raise ValueError("held_out is empty: give inputs, or None to set a part of calibration aside")
        return items, others
    if len(items) < ITEMS_PER_HELD_OUT:
        return (items[:-1], items[-1:]) if len(items) > 1 else (items, [])
    aside = slice(ITEMS_PER_HELD_OUT - 1, None, ITEMS_PER_HELD_OUT)
    others = items[aside]
    del items[aside]
    return items, others


def _repeated(measurement: Measurement) -> Measurement:
    if measurement.dense.error > REPEATED:
        warnings.warn(
            f"called again on the same data at thresholds 0, the model gives other outputs (error "
            f"{measurement.dense.error:.2g}): it keeps a state from call to call, or draws random numbers, and every "
            "figure has that error in it; give items that are functions of the model, which reset it and then run it",
            stacklevel=3,
        )
    return measurement


def _held_out(measurement: Measurement, best: Point) -> tuple[Point, Point]:
    """(dense, best) on other data; losses NaN where the loss has its own data."""
    dense = measurement.point([0.0] * len(measurement.signals), with_loss=measurement.is_of_items)
    return dense, measurement.point(best.thresholds, with_loss=measurement.is_of_items)


def _in_int8(
    target: Any, measurement: Measurement, items: list[Any], best: Point, budget: float, speed: Speed
) -> tuple[float, Speed]:
    """Put the network in int8, its dense products too where the loss stays within the budget; loss and speed."""
    network, item, limit = measurement.network, measurement.items[0], measurement.dense.loss + budget
    for dense in (True, False):
        target.quantize(items, dense)
        measurement.forget()
        loss = measurement.point(best.thresholds).loss
        if loss <= limit:
            break

    def run() -> Any:
        return run_item(network, measurement.model, item)

    now = compare(run, run, lambda _: network.reset())
    return loss, Speed(speed.dense_seconds, now.seconds)


def _speed(model: Any, network: Network, measurement: Measurement, best: Point) -> Speed:
    item = measurement.items[0]
    zeros = [0.0] * len(measurement.signals)
    if isinstance(network, TorchNetwork):
        original, tuned = copied(model).eval(), network.module
        set_thresholds(network, measurement.signals, best.thresholds)
        with torch.no_grad():
            return compare(lambda: call(original, item), lambda: call(tuned, item), lambda is_tuned: None)

    def prepare(is_tuned: bool) -> None:
        set_thresholds(network, measurement.signals, best.thresholds if is_tuned else zeros)
        network.reset()

    def run() -> Any:
        return run_item(network, model, item)

    return compare(run, run, prepare)


def _result(
    target: Any,
    measurement: Measurement,
    candidates: Candidates,
    held_out: tuple[Point, Point] | None,
    speed: Speed,
    loss: Loss | None,
) -> Tuned:
    best, dense = candidates.best(), measurement.dense
    weights = sum(count.weights for count in best.counts)
    nan = math.nan
    return Tuned(
        model=target,
        thresholds=measurement.network.thresholds,
        budget=candidates.limit - dense.loss,
        loss=best.loss,
        sparsity=best.sparsity,
        effective_sparsity=best.effective_sparsity,
        held_out_loss=held_out[1].loss if held_out else nan,
        held_out_sparsity=held_out[1].sparsity if held_out else nan,
        held_out_effective_sparsity=held_out[1].effective_sparsity if held_out else nan,
        dense_loss=dense.loss,
        held_out_dense_loss=held_out[0].loss if held_out else nan,
        loss_name="output error" if loss is None else getattr(loss, "__name__", "loss"),
        method=candidates.origin(best),
        signals=tuple(
            SignalResult(signal.label, theta, count.zeros / max(count.numel, 1), count.weights / weights)
            for signal, theta, count in zip(measurement.signals, best.thresholds, best.counts, strict=True)
        ),
        lines={
            name: tuple((point.effective_sparsity, point.loss) for point in points)
            for name, points in candidates.lines.items()
        },
        speed=speed,
        runs=measurement.runs,
        loss_calls=measurement.loss_calls,
    )


def _warned(tuned: Tuned) -> Tuned:
    if math.isnan(tuned.held_out_sparsity):
        warnings.warn(
            "there is one item of calibration data: none is left to check the result on; give more, or held_out",
            stacklevel=3,
        )
    elif math.isnan(tuned.held_out_loss):
        warnings.warn(
            "loss(model) brings its own data, which the search has seen: take loss(model, items) for a held-out loss",
            stacklevel=3,
        )
    elif tuned.int8_loss > tuned.held_out_dense_loss + tuned.budget >= tuned.held_out_loss:
        warnings.warn(
            f"the loss leaves the budget in int8: {tuned.int8_loss:.4g}, in float32 {tuned.held_out_loss:.4g}; load it "
            "with precision='bfloat16', or take a smaller budget",
            stacklevel=3,
        )
    elif not tuned.within_budget:
        warnings.warn(
            f"the loss leaves the budget on held-out data: {tuned.held_out_loss:.4g}, dense "
            f"{tuned.held_out_dense_loss:.4g}, budget {tuned.budget:g}; give more calibration data or a smaller budget",
            stacklevel=3,
        )
    if tuned.held_out_effective_sparsity < tuned.effective_sparsity - SLACK:
        warnings.warn(
            f"held-out data moves more: {tuned.held_out_effective_sparsity:.1%} of its weights are not fetched, "
            f"{tuned.effective_sparsity:.1%} of the calibration data's",
            stacklevel=3,
        )
    return tuned
