"""Programs for Arm Cortex-M without a board: cross-compiled, and run instruction by instruction under Unicorn.

Needs the extra `embedded` (ziglang, a clang with its linker; unicorn, QEMU's processor as a library).
"""

import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from deltarnn.hardware.elf import Program
from deltarnn.hardware.files import ExportError

CPUS = {
    "cortex-m0plus": "UC_CPU_ARM_CORTEX_M0",
    "cortex-m4": "UC_CPU_ARM_CORTEX_M4",
    "cortex-m7": "UC_CPU_ARM_CORTEX_M7",
}
"""Cores by name, and Unicorn's model of each (M0+ runs M0's instructions)."""

FLAGS = ("-std=c99", "-O2", "-fomit-frame-pointer", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-pedantic")
_LINK = ("-ffunction-sections", "-fdata-sections", "-nostdlib", "-Wl,--gc-sections")
MISSING = "pip install 'deltarnn[embedded]' (ziglang and unicorn) for measuring on Cortex-M"
FLASH, RAM, END = 0x0800_0000, 0x2000_0000, 0x0FFF_FFF0
FLASH_SIZE, RAM_SIZE, STACK_SIZE = 1 << 22, 1 << 20, 1 << 16
UNTOUCHED = b"\xa5"

_SCRIPT = f"""MEMORY {{ FLASH (rx) : ORIGIN = {FLASH:#x}, LENGTH = {FLASH_SIZE}
  RAM (rwx) : ORIGIN = {RAM:#x}, LENGTH = {RAM_SIZE - STACK_SIZE} }}
SECTIONS {{
  .text : {{ *(.text .text.*) *(.rodata .rodata.*) }} > FLASH
  .ARM.exidx : {{ *(.ARM.exidx*) }} > FLASH
  .data : {{ *(.data .data.*) }} > RAM
  .bss : {{ *(.bss .bss.* COMMON) }} > RAM
}}
"""


def available() -> bool:
    """Whether compiler and processor are installed."""
    return find_spec("ziglang") is not None and find_spec("unicorn") is not None


def cross_compile(sources: Sequence[Path], cpu: str, keep: Sequence[str], flags: Sequence[str] = FLAGS) -> Program:
    """Compile and link C files for `cpu`; what neither `keep` names nor a kept function uses is left out.

    Raises
    ------
    ModuleNotFoundError
        If ziglang or unicorn is missing.
    ExportError
        With the compiler's words, which are errors at the first warning.
    """
    if not available():
        raise ModuleNotFoundError(MISSING)
    if cpu not in CPUS:
        raise ValueError(f"cpu={cpu!r}: must be one of {', '.join(CPUS)}")
    with tempfile.TemporaryDirectory() as folder:
        script, program = Path(folder, "memory.ld"), Path(folder, "program.elf")
        script.write_text(_SCRIPT, encoding="utf-8")
        kept = [f"-Wl,-u,{name}" for name in keep]
        target = ["-target", "thumb-freestanding-eabi", f"-mcpu={cpu.replace('-', '_')}"]
        command = [sys.executable, "-m", "ziglang", "cc", *target, *flags, *_LINK, f"-Wl,-e,{keep[0]}", *kept]
        command += ["-T", str(script), *(str(source.resolve()) for source in sources), "-o", str(program)]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            raise ExportError(f"{' '.join(command[1:])} failed:\n{result.stderr}")
        return Program.read(program)


@dataclass(frozen=True)
class Call:
    """What one call took: instructions, by function too; result: register r0."""

    instructions: int
    by_function: Counter[str]
    result: int


class Processor:
    """A Cortex-M with a program in flash; calls its functions by name and counts.

    stack: the most bytes of stack that any call so far has taken.
    """

    def __init__(self, program: Program, cpu: str) -> None:
        unicorn: Any = import_module("unicorn")  # half typed: its names are Any
        arm_const = unicorn.arm_const

        self.program = program
        self._registers = arm_const
        self._unicorn = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS)
        self._unicorn.ctl_set_cpu_model(getattr(arm_const, CPUS[cpu]))
        self._unicorn.mem_map(FLASH, FLASH_SIZE, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
        self._unicorn.mem_map(RAM, RAM_SIZE)
        self._unicorn.mem_map(END & ~0xFFF, 0x1000)
        for address, data in program.segments:
            self._unicorn.mem_write(address, data)
        self._top = RAM + RAM_SIZE
        self._unicorn.mem_write(self._top - STACK_SIZE, UNTOUCHED * STACK_SIZE)
        self._blocks: Counter[tuple[int, int]] = Counter()
        self._unicorn.hook_add(unicorn.UC_HOOK_BLOCK, self._enter)
        self._function_at = cache(program.function_at)
        self._length = cache(self._instructions)

    def _enter(self, _: Any, address: int, size: int, __: Any) -> None:
        self._blocks[address, size] += 1

    def _instructions(self, address: int, size: int) -> int:
        """Thumb instructions between two addresses: the first halfword tells whether one has a second."""
        code = bytes(self._unicorn.mem_read(address, size))
        at = count = 0
        while at < size:
            at += 4 if code[at + 1] >> 3 in (0b11101, 0b11110, 0b11111) else 2
            count += 1
        return count

    def call(self, function: str, *arguments: int) -> Call:
        """Call with up to four words. Unicorn raises its UcError where the code faults."""
        registers = self._registers
        for register, value in zip(
            (registers.UC_ARM_REG_R0, registers.UC_ARM_REG_R1, registers.UC_ARM_REG_R2, registers.UC_ARM_REG_R3),
            arguments,
            strict=False,
        ):
            self._unicorn.reg_write(register, value & 0xFFFF_FFFF)
        self._unicorn.reg_write(registers.UC_ARM_REG_SP, self._top)
        self._unicorn.reg_write(registers.UC_ARM_REG_LR, END | 1)
        self._blocks.clear()
        self._unicorn.emu_start(self.program.symbols[function].address | 1, END)
        by_function: Counter[str] = Counter()
        for (address, size), times in self._blocks.items():
            by_function[self._function_at(address)] += times * self._length(address, size)
        return Call(by_function.total(), by_function, self._unicorn.reg_read(registers.UC_ARM_REG_R0))

    def write(self, symbol: str, data: bytes) -> None:
        """Write to a variable."""
        self._unicorn.mem_write(self.program.symbols[symbol].address, data)

    def read(self, symbol: str) -> bytes:
        """All bytes of a variable."""
        place = self.program.symbols[symbol]
        return bytes(self._unicorn.mem_read(place.address, place.size))

    @property
    def stack(self) -> int:
        """Bytes of stack that the deepest call took."""
        memory = bytes(self._unicorn.mem_read(self._top - STACK_SIZE, STACK_SIZE))
        return len(memory.lstrip(UNTOUCHED))
