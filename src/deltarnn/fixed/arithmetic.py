"""Integer arithmetic on stored Q-format values: rounding shifts, saturation, wrapping (MATH §6).

Everything here works on int64 arrays whose values stand for v·2ⁿ, and is exact.
"""

import numpy as np
from numpy.typing import NDArray

from deltarnn.fixed.qformat import QFormat, Rounding, check_rounding

IntArray = NDArray[np.int64]


def shift_right(values: IntArray, bits: int, rounding: Rounding = "nearest") -> IntArray:
    """values / 2^bits, rounded half to even ("nearest") or down ("floor"); a negative `bits` shifts left, exactly.

    >>> shift_right(np.array([5, 6, 7, -6]), 2)
    array([ 1,  2,  2, -2])
    """
    check_rounding(rounding)
    if bits <= 0:
        return values << -bits
    quotient = values >> bits
    if rounding == "floor":
        return quotient
    remainder = values - (quotient << bits)
    half = 1 << (bits - 1)
    up = (remainder > half) | ((remainder == half) & ((quotient & 1) == 1))
    return np.asarray(quotient + up, dtype=np.int64)


def saturate(values: IntArray, bits: int) -> IntArray:
    """`values` clipped to a signed word of `bits` bits."""
    limit = 1 << (bits - 1)
    return np.asarray(np.clip(values, -limit, limit - 1), dtype=np.int64)


def wrap(values: IntArray, bits: int) -> IntArray:
    """`values` modulo 2^bits, as a signed word of `bits` bits reads them (an accumulator without overflow logic)."""
    limit = 1 << (bits - 1)
    return ((values + limit) & ((1 << bits) - 1)) - limit


def requantize(values: IntArray, fraction_bits: int, target: QFormat, rounding: Rounding = "nearest") -> IntArray:
    """Integers with `fraction_bits` fraction bits brought to `target`: rounded, then saturated."""
    return saturate(shift_right(values, fraction_bits - target.fraction_bits, rounding), target.bits)
