"""Thresholds of the delta encoders: one number for all layers, one per layer, or one per layer and direction."""

import math
from numbers import Real
from typing import Any

from deltarnn.fixed.qformat import Quantization

Thresholds = float | tuple[float, ...] | list[float]


def per_layer(
    name: str, value: Thresholds, num_layers: int, quantization: Quantization | None, directions: int = 1
) -> tuple[float, ...]:
    """`value` as one threshold per layer, or per layer and direction where that many are given.

    Raises
    ------
    TypeError, ValueError
        If it is not a finite number ≥ 0 or a tuple or list of so many of them, or is off the activation grid of
        `quantization`: comparing with one value and updating by another would let the memories drift (MATH §6).
    """
    plain: Any = value.tolist() if hasattr(value, "tolist") else value  # numpy's and torch's numbers and vectors
    values = tuple(plain) if isinstance(plain, (tuple, list)) else (plain,) * num_layers
    if len(values) not in (num_layers, num_layers * directions):
        both = f", or for each of the {num_layers * directions} layers and directions" if directions > 1 else ""
        raise ValueError(
            f"{name} has {len(values)} values: give one number, or one for each of the {num_layers} layers{both}"
        )
    for threshold in values:
        if isinstance(threshold, bool) or not isinstance(threshold, Real):
            raise TypeError(f"{name}={threshold!r}: a threshold must be a number")
        if not math.isfinite(threshold) or threshold < 0:
            raise ValueError(f"{name}={threshold}: a threshold must be finite and at least 0 (0 fires always)")
        if quantization is not None and not quantization.activation.contains(float(threshold)):
            below, above = quantization.nearest_thresholds(float(threshold))
            raise ValueError(
                f"{name}={threshold} is not on the grid of the activations, {quantization.activation}: "
                f"the nearest allowed values are {below} and {above}"
            )
    return tuple(float(threshold) for threshold in values)
