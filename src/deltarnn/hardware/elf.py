"""The parts of a 32-bit ELF file that running and measuring a program without a system needs."""

import struct
from dataclasses import dataclass
from pathlib import Path

_SHT_SYMTAB, _SHT_NOBITS, _SHF_WRITE, _SHF_ALLOC = 2, 8, 1, 2
_STT_FUNC = 2


@dataclass(frozen=True)
class Symbol:
    """Address (without the Thumb bit) and size in bytes of a function or object."""

    address: int
    size: int
    function: bool


@dataclass(frozen=True)
class Program:
    """A linked little-endian ELF32 program.

    segments: (address, bytes) of what is loaded, read-only first. flash: bytes of code, constants and the start values
    of variables. ram: bytes of variables. symbols: by name.
    """

    segments: tuple[tuple[int, bytes], ...]
    flash: int
    ram: int
    symbols: dict[str, Symbol]

    @classmethod
    def read(cls, path: Path) -> "Program":
        """The program at `path`; ValueError if it is none."""
        data = path.read_bytes()
        if data[:6] != b"\x7fELF\x01\x01":
            raise ValueError(f"{path}: no little-endian 32-bit ELF file")
        (offset,), (count,) = struct.unpack_from("<I", data, 32), struct.unpack_from("<H", data, 48)
        sections = [struct.unpack_from("<10I", data, offset + 40 * index) for index in range(count)]
        segments, flash, ram, symbols = [], 0, 0, {}
        for _, kind, flags, address, start, size, link, *_ in sections:
            if kind == _SHT_SYMTAB:
                symbols = dict(_symbols(data, start, size, sections[link][4]))
            if not flags & _SHF_ALLOC or not size:
                continue
            ram += size if flags & _SHF_WRITE else 0
            if kind != _SHT_NOBITS:
                flash += size
                segments.append((address, data[start : start + size]))
        return cls(tuple(segments), flash, ram, symbols)

    def function_at(self, address: int) -> str:
        """The function that holds `address`, or "?"."""
        for name, symbol in self.symbols.items():
            if symbol.function and symbol.address <= address < symbol.address + symbol.size:
                return name
        return "?"


def _symbols(data: bytes, start: int, size: int, strings: int) -> list[tuple[str, Symbol]]:
    found = []
    for at in range(start, start + size, 16):
        name, value, length, info = struct.unpack_from("<IIIB", data, at)
        text = data[strings + name : data.index(b"\0", strings + name)].decode()
        kind = info & 15
        if text and length:
            found.append((text, Symbol(value & ~1 if kind == _STT_FUNC else value, length, kind == _STT_FUNC)))
    return found
