"""Formats of one delta layer tensor by tensor (MATH §6): the general form, of which a `Quantization` is one case."""

from dataclasses import dataclass, fields

from deltarnn.fixed.qformat import QFormat, Quantization, Rounding, check_rounding
from deltarnn.fixed.tables import MAX_ADDRESS_BITS


@dataclass(frozen=True)
class LayerFormats:
    """The formats of one layer's tensors, each with a point of its own.

    input, hidden, cell: X, H, C of x and thx, of h and thh, and of the LSTM's c. address: P, what σ and tanh look up.
    weight_ih, weight_hh: of the matrices. gate: N. bias: of what the memories M start at, or None for M's own grid
    (then b_hn is not rounded to P either). rounding: of all but weights and biases, which go to the nearest.

    M has n_X + n_Wih = n_H + n_Whh fraction bits, both the same.

    Raises
    ------
    ValueError
        If these sums differ, or are less than P's fraction bits.
    """

    input: QFormat
    hidden: QFormat
    cell: QFormat
    address: QFormat
    weight_ih: QFormat
    weight_hh: QFormat
    gate: QFormat
    bias: QFormat | None = None
    rounding: Rounding = "nearest"

    def __post_init__(self) -> None:
        of_x = self.input.fraction_bits + self.weight_ih.fraction_bits
        of_h = self.hidden.fraction_bits + self.weight_hh.fraction_bits
        if of_x != of_h:
            raise ValueError(
                f"{self.input} and {self.weight_ih} make {of_x} fraction bits, {self.hidden} and {self.weight_hh} "
                f"{of_h}: the memories need one number of them"
            )
        if self.address.bits > MAX_ADDRESS_BITS:
            raise ValueError(f"address format {self.address} has {self.address.bits} bits: at most {MAX_ADDRESS_BITS}")
        if of_x < self.address.fraction_bits:
            raise ValueError(f"address format {self.address}: no more than the memories' {of_x} bits after the point")
        check_rounding(self.rounding)

    @classmethod
    def uniform(cls, quantization: Quantization) -> "LayerFormats":
        """One format A of activations, one W of weights and biases, N of gates."""
        a, w = quantization.activation, quantization.weight
        return cls(a, a, a, a, w, w, quantization.gate, w, quantization.rounding)

    @property
    def memory_fraction_bits(self) -> int:
        """Fraction bits of M."""
        return self.input.fraction_bits + self.weight_ih.fraction_bits

    def __str__(self) -> str:
        named = [f"{field.name} {getattr(self, field.name)}" for field in fields(self) if field.name != "bias"]
        return ", ".join(named[:-1])
