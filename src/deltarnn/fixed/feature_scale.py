"""Converts a band's level, an integer, to the network's input in its activation format: logarithm, normalisation."""

import math
from dataclasses import dataclass

import numpy as np

from deltarnn.fixed.arithmetic import IntArray
from deltarnn.fixed.qformat import QFormat

LEVEL_BITS = 32
"""Levels are below 2³², those of powers below 2⁶³."""
LOG_FRACTION = 15
LOG_STEPS = 32
_MAX_SHIFT = 40

LOG_TABLE: IntArray = np.rint(np.log2(1 + np.arange(LOG_STEPS + 1) / LOG_STEPS) * 2.0**LOG_FRACTION).astype(np.int64)
"""log₂(1 + i/32), 15 fraction bits; between two entries a straight line, at most 0.0002 below."""


def log2(levels: IntArray) -> IntArray:
    """log₂ with 15 fraction bits of levels from 1 to 2⁶³ − 1."""
    beyond = np.frexp((levels >> LEVEL_BITS).astype(np.float64))[1].astype(np.int64)  # bits that 32 do not hold
    levels = levels >> beyond
    exponent = np.frexp(levels.astype(np.float64))[1].astype(np.int64) - 1
    mantissa = levels << (LEVEL_BITS - 1 - exponent)  # its first bit is bit 31
    exponent += beyond
    index, rest = (mantissa >> 26) & (LOG_STEPS - 1), (mantissa >> 10) & 0xFFFF
    between = ((LOG_TABLE[index + 1] - LOG_TABLE[index]) * rest) >> 16
    return np.asarray((exponent << LOG_FRACTION) + LOG_TABLE[index] + between, dtype=np.int64)


@dataclass(frozen=True)
class FeatureScale:
    """A(v) of the features v of levels: clip(⌊(g·gain + offset) / 2^shift⌋, low, high).

    logarithmic: g = log₂(level + added) with 15 fraction bits, a sum of 0 giving `low`; else g = level.
    """

    logarithmic: bool
    added: int
    gain: int
    offset: int
    shift: int
    low: int
    high: int

    @classmethod
    def of(
        cls,
        slope: float,
        intercept: float,
        activation: QFormat,
        *,
        logarithmic: bool,
        added: int = 0,
        floor: float = -math.inf,
        ceiling: float = math.inf,
    ) -> "FeatureScale":
        """Features slope·log₂(level + added) + intercept, or slope·level + intercept; rounded to the nearest of A, no
        less than `floor`, no more than `ceiling`.

        Raises
        ------
        ValueError
            Where slope or intercept are beyond what 31 and 62 bits hold.
        """  # fmt: skip
        steepness = slope * activation.scale / (2.0**LOG_FRACTION if logarithmic else 1.0)
        start = (intercept + activation.step / 2) * activation.scale
        room = min(30 - math.log2(abs(steepness) or 1.0), 62 - math.log2(abs(start) or 1.0))
        shift = min(_MAX_SHIFT, math.ceil(room) - 1)
        if shift < 0:
            raise ValueError(f"features of {slope:g} a step from {intercept:g}: beyond the integer front end's range")
        low = int(activation.to_int(max(floor, activation.min)))
        high = int(activation.to_int(min(ceiling, activation.max)))
        return cls(logarithmic, added, round(steepness * 2.0**shift), round(start * 2.0**shift), shift, low, high)

    def __call__(self, levels: IntArray) -> IntArray:
        """Levels, any shape, from 0 to 2³² − 1, of a logarithm 2⁶³ − 1, less `added`."""
        levels = levels + self.added
        values = log2(np.maximum(levels, 1)) if self.logarithmic else levels
        features = np.clip((values * self.gain + self.offset) >> self.shift, self.low, self.high)
        return np.where(levels == 0, self.low, features) if self.logarithmic else features
