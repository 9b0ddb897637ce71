"""Fixed-point values carried in torch's floating-point tensors (MATH §6)."""

import torch
from torch import Tensor

from deltarnn.fixed.qformat import QFormat, Rounding


def fake_quantize(values: Tensor, fmt: QFormat, rounding: Rounding = "nearest") -> Tensor:
    """The grid values of `values` (any shape, floating point), in the same dtype; no useful gradient.

    round(v·2ⁿ), ties to even or floor, clipped to the format's range, over 2ⁿ (MATH §6). NaN stays NaN.
    """
    scaled = values * fmt.scale
    rounded = torch.round(scaled) if rounding == "nearest" else torch.floor(scaled)
    return torch.clamp(rounded, fmt.int_min, fmt.int_max) / fmt.scale


def fake_quantize_straight_through(values: Tensor, fmt: QFormat, rounding: Rounding = "nearest") -> Tensor:
    """`fake_quantize` forward; backward the identity inside the format's range, 0 where the value was clipped.

    The straight-through estimator of quantisation-aware training: Y. Bengio, N. Léonard, A. Courville, "Estimating or
    Propagating Gradients Through Stochastic Neurons for Conditional Computation", arXiv:1308.3432.
    """
    in_range = torch.clamp(values, fmt.min, fmt.max)
    return in_range + (fake_quantize(values, fmt, rounding) - in_range).detach()
