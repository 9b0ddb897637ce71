"""Simulation of an exported design with Verilator: what the core computes, and in how many clocks."""

import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deltarnn.fixed.arithmetic import IntArray
from deltarnn.hardware.core_layout import CoreLayout
from deltarnn.hardware.export_rtl import BENCH, TOP, RtlDesign
from deltarnn.hardware.files import ExportError
from deltarnn.hardware.verilator import build_program

BoolArray = NDArray[np.bool_]
BEAT, RESET, THRESHOLD, WEIGHT, PAUSE, DRAIN = range(6)
"""Commands of the bench."""

Command = tuple[int, int, int]


@dataclass(frozen=True)
class Simulation:
    """What a simulation saw, per step.

    Attributes
    ----------
    scores: (T, O) stored integers, as IntegerNetwork.run gives them. classes: (T,) the core's argmax.
    hidden: per recurrent layer (T, H), stored integers. fired_x, fired_h: per recurrent layer (T, I), (T, H).
    cycles: (T,) clocks of each step, from its start to its last result.
    product_cycles, busy_cycles: (T,) of them: from each layer's first product to its last; those with lanes at work.
    """

    scores: IntArray
    classes: IntArray
    hidden: tuple[IntArray, ...]
    fired_x: tuple[BoolArray, ...]
    fired_h: tuple[BoolArray, ...]
    cycles: IntArray
    product_cycles: IntArray
    busy_cycles: IntArray


def simulate(
    design: RtlDesign | str | Path,
    features: ArrayLike,
    thresholds: ArrayLike | None = None,
    stalls: float = 0.0,
    seed: int = 0,
    trace: str | Path | None = None,
    optimize: int = 1,
) -> Simulation:
    """Build the design with Verilator (once per folder) and run features (T, I), stored integers in A, from reset.

    thresholds: (layers, 2) stored integers written to the registers before the first frame; None keeps the model's.
    stalls: probability of a clock without a valid beat in, and of one without ready out. trace: a .vcd file to write.
    optimize: of the compiler, 0 to 3, where the program is not built yet.

    Raises
    ------
    MissingToolError
        If Verilator or a C++ compiler is not there.
    """
    design = design if isinstance(design, RtlDesign) else RtlDesign.read(design)
    frames = np.asarray(features)
    if frames.ndim != 2 or frames.shape[1] != design.input_size or frames.dtype.kind not in "iu":
        raise ValueError(
            f"features have shape {frames.shape} and dtype {frames.dtype}: must be integers (T, {design.input_size})"
        )
    registers = [] if thresholds is None else np.asarray(thresholds).reshape(-1).tolist()
    commands = [(RESET, 2, 0), *load_weights(design), *((THRESHOLD, i, value) for i, value in enumerate(registers))]
    return run_commands(design, [*commands, *beats(frames)], stalls, seed, trace, optimize)


def beats(frames: ArrayLike) -> list[Command]:
    """The commands that send frames (T, I)."""
    return [(BEAT, int(v), int(i == len(frame) - 1)) for frame in np.asarray(frames) for i, v in enumerate(frame)]


def load_weights(design: RtlDesign) -> list[Command]:
    """The commands that fill a weight memory which starts undefined, of the iCE40; none for others."""
    if design.target != "ice40":
        return []
    values = design.weights().ravel().tolist()
    return [(WEIGHT, value, int(i == len(values) - 1)) for i, value in enumerate(values)]


def run_commands(
    design: RtlDesign,
    commands: Sequence[Command],
    stalls: float = 0.0,
    seed: int = 0,
    trace: str | Path | None = None,
    optimize: int = 1,
) -> Simulation:
    """Run the bench with `commands` (rtl/delta_core_bench.sv tells them), and gather what it recorded.

    After a reset among them only the steps since the last one are returned.
    """
    program = build_bench(design, trace is not None, optimize)
    stall = round(stalls * 65536)
    with tempfile.TemporaryDirectory() as name:
        written, record = Path(name, "commands"), Path(name, "record")
        written.write_text("".join(f"{a} {b} {c}\n" for a, b, c in commands), encoding="utf-8")
        arguments = [
            f"+commands={written}",
            f"+record={record}",
            f"+stall_in={stall}",
            f"+stall_out={stall}",
            f"+seed={seed + 1}",
            *([] if trace is None else [f"+trace={Path(trace).resolve()}"]),
        ]
        done = subprocess.run([program, *arguments], cwd=design.folder, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{program} failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
        lines = record.read_text(encoding="utf-8").split("\n")
    return read_record(design.layout, design.activation_format.bits, lines)


def build_bench(design: RtlDesign, trace: bool = False, optimize: int = 1) -> Path:
    """The bench of a design as a program, built where it is not there yet or older than its sources."""
    program = design.folder / ("simulation_trace" if trace else "simulation")
    sources = [design.folder / name for name in design.sources]
    models = [design.folder / name for name in design.models]
    bench, main = (design.folder / name for name in BENCH)
    newest = max(path.stat().st_mtime for path in [*sources, *models, bench, main])
    if not program.exists() or program.stat().st_mtime < newest:
        build_program([*sources, *models, bench], f"{TOP}_bench", main, program, trace, optimize)
    return program.resolve()


def read_record(layout: CoreLayout, bits: int, lines: Iterable[str]) -> Simulation:
    """What the bench recorded, `bits` per activation, as arrays."""
    gathered = _Record(layout, bits)
    for line in lines:
        if line:
            kind, *words = line.split()
            getattr(gathered, f"line_{kind}")(*words)
    return gathered.simulation()


class _Record:
    """The lines of a record, gathered; a method for each kind of line."""

    def __init__(self, layout: CoreLayout, bits: int) -> None:
        self.layout, self.bits = layout, bits
        self.line_r()

    def line_r(self) -> None:
        """A reset: what came before it does not count."""
        layout = self.layout
        self.steps: list[list[int]] = []
        self.scores: list[list[int]] = [[]]
        self.classes: list[int] = []
        sizes = list(zip((layout.input_size, *layout.hidden_sizes), layout.hidden_sizes, strict=False))
        self.h = [np.zeros(hidden, dtype=np.int64) for _, hidden in sizes]
        self.hidden: list[list[IntArray]] = [[] for _ in sizes]
        self.fired: dict[tuple[int, bool], list[BoolArray]] = {}
        self.firing = {
            (part.layer, part.hidden): np.zeros(part.columns, dtype=np.bool_)
            for part in layout.parts
            if part.threshold is not None
        }

    def line_f(self, word: str, fires: str) -> None:
        part = next(p for p in reversed(self.layout.parts) if p.held <= int(word))
        flags = self.firing.get((part.layer, part.hidden))
        if flags is not None:
            start, mask = (int(word) - part.held) * self.layout.width, int(fires, 16)
            for value in range(min(self.layout.width, part.columns - start)):
                flags[start + value] = mask >> value & 1

    def line_h(self, word: str, units: str, values: str) -> None:
        starts = self.layout.outputs
        layer = max(index for index, start in enumerate(starts) if start <= int(word))
        if layer >= len(self.h):
            return  # of a dense layer
        start, mask, packed = (int(word) - starts[layer]) * self.layout.width, int(units, 16), int(values, 16)
        sign = 1 << (self.bits - 1)
        for value in range(self.layout.width):
            if mask >> value & 1:
                raw = packed >> (value * self.bits) & (2 * sign - 1)
                self.h[layer][start + value] = (raw ^ sign) - sign

    def line_o(self, score: str, user: str, last: str) -> None:
        self.scores[-1].append(int(score))
        if int(last):
            self.classes.append(int(user))
            self.scores.append([])

    def line_c(self, *counts: str) -> None:
        self.steps.append([int(count) for count in counts])
        for layer, h in enumerate(self.h):
            self.hidden[layer].append(h.copy())
        for key, flags in self.firing.items():
            self.fired.setdefault(key, []).append(flags.copy())
            flags[:] = False

    def line_e(self) -> None:
        """A frame of the wrong length was dropped: it makes no step."""

    def simulation(self) -> Simulation:
        cycles, products, busy = np.array(self.steps, dtype=np.int64).reshape(-1, 3).T
        layers = range(len(self.h))
        return Simulation(
            np.array(self.scores[:-1], dtype=np.int64),
            np.array(self.classes, dtype=np.int64),
            tuple(np.array(self.hidden[layer]) for layer in layers),
            tuple(np.array(self.fired.get((layer, False), [])) for layer in layers),
            tuple(np.array(self.fired.get((layer, True), [])) for layer in layers),
            cycles,
            products,
            busy,
        )


def compare(design: RtlDesign | str | Path, simulation: Simulation) -> None:
    """Raise ExportError unless the stimulus' scores in `simulation` equal expected.hex to the bit."""
    design = design if isinstance(design, RtlDesign) else RtlDesign.read(design)
    expected = design.expected()
    if simulation.scores.shape != expected.shape:
        raise ExportError(f"{design.folder}: the simulation has scores {simulation.scores.shape}, not {expected.shape}")
    different = np.argwhere(simulation.scores != expected)
    if len(different):
        step, output = different[0]
        raise ExportError(
            f"{design.folder}: score {output} of frame {step} is {simulation.scores[step, output]} in the simulation, "
            f"{expected[step, output]} in deltarnn.fixed"
        )
