"""Look-up tables of σ and tanh: one description, from which every integer path takes its numbers (MATH §6).

The integer cells, fake quantisation, the C export and the accelerator models all evaluate N(f(A)) through the same
entries, so none of them can round a tie its own way.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from deltarnn.fixed.qformat import QFormat, Quantization, Rounding

Activation = Literal["sigmoid", "tanh", "hardsigmoid", "hardtanh"]

MAX_ADDRESS_BITS = 16


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    # exp of a non-positive number only: no overflow at the far end of a wide format.
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, e) / (1.0 + e)


_FUNCTIONS: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
    "hardsigmoid": lambda x: np.clip(x / 4 + 0.5, 0, 1),
    "hardtanh": lambda x: np.clip(x, -1, 1),
}


_NAMES: dict[bool, tuple[Activation, Activation]] = {
    False: ("sigmoid", "tanh"),
    True: ("hardsigmoid", "hardtanh"),
}


@dataclass(frozen=True)
class LookUpTable:
    """N(f(q)) for every value q of a format: entry = round(f(q·2^−n_in)·2^n_out), saturated to the output format.

    f is evaluated in double precision.

    Parameters
    ----------
    function: "sigmoid", "tanh", "hardsigmoid" (clip(x/4 + 1/2, 0, 1)) or "hardtanh" (clip(x, −1, 1)).
    address: format of the input. At most 16 bits.
    output: format of the entries.
    rounding: of the entries.
    """

    function: Activation
    address: QFormat
    output: QFormat
    rounding: Rounding = "nearest"

    def __post_init__(self) -> None:
        if self.function not in _FUNCTIONS:
            raise ValueError(f"function={self.function!r}: must be one of {', '.join(_FUNCTIONS)}")
        if self.address.bits > MAX_ADDRESS_BITS:
            raise ValueError(
                f"a table over {self.address} would have 2^{self.address.bits} entries: "
                f"activation formats may have at most {MAX_ADDRESS_BITS} bits"
            )

    @property
    def entries(self) -> NDArray[np.int64]:
        """(2^bits,) entries in rising order of q, from the most negative value of the address format. Read-only."""
        return _entries(self)

    def __call__(self, q: NDArray[np.int64]) -> NDArray[np.int64]:
        """Entries at stored integers `q`, any shape; `q` outside the address format saturates to its ends."""
        low, high = self.address.int_min, self.address.int_max
        return self.entries[np.clip(q, low, high) - low]

    def trimmed(self) -> tuple[int, NDArray[np.int64]]:
        """(first, entries): the table without its constant ends; q < first reads entry 0, q beyond it the last.

        What a memory has to hold: a sigmoid over Q8.8 needs under 3 000 of 65 536 entries.
        """
        changes = np.flatnonzero(np.diff(self.entries))
        if changes.size == 0:
            return self.address.int_min, self.entries[:1]
        first, last = int(changes[0]), int(changes[-1]) + 1
        return self.address.int_min + first, self.entries[first : last + 1]


@cache
def _entries(table: LookUpTable) -> NDArray[np.int64]:
    q = np.arange(table.address.int_min, table.address.int_max + 1, dtype=np.int64)
    entries = table.output.to_int(_FUNCTIONS[table.function](table.address.to_float(q)), table.rounding)
    entries.flags.writeable = False
    return entries


def activation_function(
    name: Literal["sigmoid", "tanh"], hard: bool
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """σ or tanh in double precision, or its hard form (MATH §3)."""
    return _FUNCTIONS[_NAMES[hard][name == "tanh"]]


def gate_tables(quantization: Quantization, hard_activations: bool = False) -> tuple[LookUpTable, LookUpTable]:
    """(σ, tanh) of a quantised layer: from the format A to the format N, with hard activations if wanted."""
    sigmoid, tanh = _NAMES[hard_activations]
    q = quantization
    return (
        LookUpTable(sigmoid, q.activation, q.gate, q.rounding),
        LookUpTable(tanh, q.activation, q.gate, q.rounding),
    )
