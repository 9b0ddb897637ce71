"""What an export writes: numbers as hexadecimal text, and what it says of itself."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deltarnn.files import write_bytes, write_text

__all__ = ["ExportError", "ExportResult", "from_hex", "to_hex", "write_bytes", "write_text"]


def to_hex(values: ArrayLike, bits: int) -> list[str]:
    """Integers (any shape, read in row order) as two's complement words of `bits` bits, one lower-case text each.

    >>> to_hex([1, -1], 8)
    ['01', 'ff']
    """
    array = np.asarray(values)
    low, high = -(1 << (bits - 1)), (1 << bits) - 1
    if array.size and not (low <= int(array.min()) and int(array.max()) <= high):
        raise ValueError(f"values from {array.min()} to {array.max()} do not fit in words of {bits} bits")
    digits, mask = -(-bits // 4), (1 << bits) - 1
    return [f"{int(value) & mask:0{digits}x}" for value in array.ravel()]


def from_hex(lines: Iterable[str], bits: int) -> NDArray[np.int64]:
    """Read back `to_hex` as signed words."""
    words = np.array([int(line, 16) for line in lines], dtype=np.int64)
    return np.where(words >= 1 << (bits - 1), words - (1 << bits), words)


class ExportError(ValueError):
    """An export that, read back, is not what was to be exported."""


@dataclass(frozen=True)
class ExportResult:
    """What an export wrote: names of files in `folder`, figures by name (sizes in bytes), and what was rounded."""

    folder: Path
    files: tuple[str, ...]
    figures: dict[str, int]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{self.folder}: {', '.join(self.files)}"]
        lines += [f"  {name}: {value}" for name, value in self.figures.items()]
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join([*lines, "  read back and compared: equal"])
