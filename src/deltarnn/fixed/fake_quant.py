"""Fixed-point values carried in torch's floating-point tensors (MATH §6)."""

from functools import cache

import torch
from torch import Tensor

from deltarnn.fixed.qformat import QFormat, Rounding
from deltarnn.fixed.tables import LookUpTable


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


def look_up(table: LookUpTable, values: Tensor) -> Tensor:
    """The table's entries, as real numbers, at `values` (any shape, float64) of its address format. NaN stays NaN.

    torch's own tanh and σ may differ from those of the table in the last bit, which decides where rounding is "floor":
    tanh(19) is 1 − 2⁻⁵³ or 1.
    """
    places = (values.nan_to_num() * table.address.scale).long() - table.address.int_min
    return torch.where(values.isnan(), values, _real_entries(table).to(values.device)[places])


@cache
def _real_entries(table: LookUpTable) -> Tensor:
    return torch.from_numpy(table.output.to_float(table.entries))
