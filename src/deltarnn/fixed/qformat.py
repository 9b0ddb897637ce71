"""Q formats: signed fixed-point numbers, and the set of formats of a quantised layer (MATH §6)."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

Rounding = Literal["nearest", "floor"]
"""How a value between two grid points is rounded: to the nearest, ties to even; or down."""

Overflow = Literal["saturate", "wrap"]
"""What becomes of a value outside the range: the nearest end of the range; or the value modulo 2^(m+n)."""

ROUNDINGS, OVERFLOWS = get_args(Rounding), get_args(Overflow)


def check_rounding(rounding: str) -> None:
    """ValueError unless `rounding` is one of ROUNDINGS."""
    if rounding not in ROUNDINGS:
        raise ValueError(f"rounding={rounding!r}: must be one of {', '.join(map(repr, ROUNDINGS))}")


@dataclass(frozen=True)
class QFormat:
    """Qm.n: a signed number of m integer bits (sign included) and n fraction bits.

    A value v is stored as the integer round(v·2ⁿ), clipped to [−2^(m+n−1), 2^(m+n−1) − 1] (MATH §6).

    >>> QFormat(3, 5).quantize([0.11, 9.0])
    array([0.125  , 3.96875])

    Raises
    ------
    ValueError
        If there are no bits at all, or more than 32.
    """

    integer_bits: int
    fraction_bits: int

    def __post_init__(self) -> None:
        for name in ("integer_bits", "fraction_bits"):  # numpy's integers as Python's, which JSON takes
            bits = getattr(self, name)
            if not isinstance(bits, int | np.integer) or isinstance(bits, bool):
                raise ValueError(f"{name}={bits!r}: must be a whole number")
            object.__setattr__(self, name, int(bits))
        if self.integer_bits < 1 or self.fraction_bits < 0 or self.bits > 32:
            raise ValueError(
                f"{self!r}: needs at least 1 integer bit (the sign), no negative fraction, at most 32 bits"
            )

    def __str__(self) -> str:
        return f"Q{self.integer_bits}.{self.fraction_bits}"

    @classmethod
    def holding(cls, largest: float, bits: int = 8) -> "QFormat":
        """The format of `bits` bits with the fewest integer bits that hold ±`largest`, or none but integer bits."""
        integer = next((m for m in range(1, bits) if largest < 2 ** (m - 1)), bits)
        return cls(integer, bits - integer)

    @property
    def bits(self) -> int:
        """Word length m + n."""
        return self.integer_bits + self.fraction_bits

    @property
    def scale(self) -> int:
        """2ⁿ, the integer that stands for 1.0."""
        return 1 << self.fraction_bits

    @property
    def step(self) -> float:
        """2⁻ⁿ, the distance of two grid values."""
        return 1.0 / self.scale

    @property
    def int_min(self) -> int:
        """The smallest stored integer."""
        return -(1 << (self.bits - 1))

    @property
    def int_max(self) -> int:
        """The largest stored integer."""
        return (1 << (self.bits - 1)) - 1

    @property
    def min(self) -> float:
        """The smallest value."""
        return self.int_min / self.scale

    @property
    def max(self) -> float:
        """The largest value."""
        return self.int_max / self.scale

    def to_int(
        self, values: ArrayLike, rounding: Rounding = "nearest", overflow: Overflow = "saturate"
    ) -> NDArray[np.int64]:
        """Stored integers (int64) of real `values`, of the same shape. NaN is refused, and ±inf when wrapping."""
        check_rounding(rounding)
        if overflow not in OVERFLOWS:
            raise ValueError(f"overflow={overflow!r}: must be one of {', '.join(map(repr, OVERFLOWS))}")
        scaled = np.asarray(values, dtype=np.float64) * self.scale
        if np.isnan(scaled).any():
            raise ValueError(f"NaN has no value in {self}")
        rounded = np.rint(scaled) if rounding == "nearest" else np.floor(scaled)
        if overflow == "wrap":
            if np.isinf(rounded).any():
                raise ValueError(f"an infinite value cannot wrap into {self}")
            bounded = np.mod(rounded - self.int_min, 2.0**self.bits) + self.int_min
        else:
            bounded = np.clip(rounded, self.int_min, self.int_max)
        return np.asarray(bounded, dtype=np.int64)

    def to_float(self, integers: ArrayLike) -> NDArray[np.float64]:
        """Real values (float64) of stored integers."""
        return np.asarray(integers, dtype=np.float64) / self.scale

    def quantize(self, values: ArrayLike, rounding: Rounding = "nearest") -> NDArray[np.float64]:
        """The grid values (float64) of real `values`: `to_float(to_int(values))`."""
        return self.to_float(self.to_int(values, rounding))

    def neighbours(self, value: float) -> tuple[float, float]:
        """The grid values just below and above `value` (the same value twice on the grid)."""
        below, above = self.to_int(value, "floor"), -self.to_int(-value, "floor")
        return float(self.to_float(below)), float(self.to_float(above))

    def round_threshold(self, threshold: float) -> float:
        """The value nearest to `threshold`, for converting a float model (MATH §6).

        Raises
        ------
        ValueError
            If a positive threshold would become 0, and so fire always, or one is beyond the range.
        """
        if not 0 <= threshold <= self.max:
            raise ValueError(f"threshold {threshold} must lie between 0 and {self.max}, the largest {self}")
        rounded = float(self.quantize(threshold))
        if threshold > 0 and rounded == 0:
            raise ValueError(
                f"threshold {threshold} rounds to 0 in {self} and would fire at every step: "
                f"use at least {self.step}, or more fraction bits"
            )
        return rounded

    def contains(self, value: float) -> bool:
        """Whether `value` is exactly a grid value."""
        return float(self.quantize(value)) == value


@dataclass(frozen=True)
class Quantization:
    """The formats of a quantised delta layer (MATH §6): A, W and N, and how activations are rounded.

    Parameters
    ----------
    activation: A, of inputs, hidden and cell states, thresholds and products.
    weight: W, of weights and biases (always rounded to nearest, ties to even).
    gate: N, of the outputs of σ and tanh.
    rounding: of A and N: "nearest" (ties to even) or "floor".
    """

    activation: QFormat = QFormat(3, 5)
    weight: QFormat = QFormat(1, 7)
    gate: QFormat = QFormat(2, 6)
    rounding: Rounding = "nearest"

    def __post_init__(self) -> None:
        check_rounding(self.rounding)
        for name in ("activation", "weight", "gate"):
            if not isinstance(getattr(self, name), QFormat):
                raise TypeError(f"{name}={getattr(self, name)!r}: must be a QFormat, such as QFormat(3, 5)")

    @classmethod
    def holding(cls, largest: float) -> "Quantization":
        """The formats of a float model with weights up to ±`largest`: Q8.8, 8 bits that hold them, Q2.6."""
        return cls(QFormat(8, 8), QFormat.holding(largest), QFormat(2, 6))

    def nearest_thresholds(self, threshold: float) -> tuple[float, float]:
        """The activation-grid values just below and above `threshold` (the same value twice on the grid)."""
        return self.activation.neighbours(threshold)

    def round_threshold(self, threshold: float) -> float:
        """The activation-grid value nearest to `threshold`, for converting a float model (MATH §6).

        Raises
        ------
        ValueError
            If a positive threshold would become 0, and so fire always, or one is beyond the format's range.
        """
        return self.activation.round_threshold(threshold)
