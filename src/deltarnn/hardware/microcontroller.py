"""What an exported C library needs on a Cortex-M, measured on its instruction set: flash, RAM, stack, instructions."""

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deltarnn.fixed.network import IntegerNetwork
from deltarnn.hardware.c_data import integer_type
from deltarnn.hardware.cortex_m import FLAGS, Processor, cross_compile
from deltarnn.hardware.files import ExportError, write_text

_KEPT = ("probe_state", "probe_input", "probe_output")


@dataclass(frozen=True)
class Measured:
    """One library on one core.

    flash: bytes of code and constants. state, stack: bytes of RAM, once per stream and while a call runs. frames: how
    many were run, each equal to the integer cells. instructions: (T,) of each frame. by_function: of all frames.
    """

    cpu: str
    flash: int
    state: int
    stack: int
    instructions: NDArray[np.int64]
    by_function: Counter[str]

    @property
    def mean(self) -> float:
        """Instructions per frame."""
        return float(self.instructions.mean())

    @property
    def worst(self) -> int:
        """Instructions of the frame that took most."""
        return int(self.instructions.max())

    def table(self, frames_per_second: float, front_end: "Measured | None" = None) -> str:
        """Figures line by line; the clocks are those of one instruction a cycle, and of two.

        front_end: what a whole spotter takes beside its network, and the whole one's memory.
        """
        parts = {"network": self} | ({} if front_end is None else {"front end and rule": front_end})
        whole = front_end or self
        clock = sum(part.worst for part in parts.values()) * frames_per_second / 1e6
        each = {name: part.mean * frames_per_second / 1e6 for name, part in parts.items()}
        rows = [
            ("flash", f"{whole.flash} bytes"),
            ("RAM", f"{whole.state} bytes of state, {whole.stack} of stack"),
        ]
        rows += [
            (
                name,
                f"{part.mean:.0f} instructions per frame in the mean of {len(part.instructions)}, {part.worst} at most",
            )
            for name, part in parts.items()
        ]
        total = f"{sum(each.values()):.3f} million instructions at {frames_per_second:.1f} frames/s"
        if front_end is not None:
            total += f" ({', '.join(f'{name} {value:.3f}' for name, value in each.items())})"
        rows += [
            ("a second", total),
            ("clock for real time", f"{clock:.2f} MHz at one instruction a cycle, {2 * clock:.2f} at two cycles each"),
        ]
        width = max(len(title) for title, _ in rows)
        return "\n".join([f"measured on {self.cpu}:", *(f"  {title:{width}}  {text}" for title, text in rows)])


def measure_c(
    folder: Path,
    name: str,
    cpu: str,
    network: IntegerNetwork,
    x: NDArray[np.int64],
    flags: Sequence[str] = FLAGS,
) -> Measured:
    """Run the library NAME.c in `folder`, an export of `network`, over frames x (T, I) of stored integers from reset.

    Raises
    ------
    ModuleNotFoundError
        If the extra `embedded` is missing.
    ExportError
        If the code does not compile without warnings, or an output differs from the integer cells by a bit.
    """
    act = integer_type(network.quantization.activation.bits)
    upper = name.upper()
    with tempfile.TemporaryDirectory() as build:
        probe = Path(build, "probe.c")
        write_text(
            probe,
            f'#include "{(folder / name).resolve()}.h"\n{name}_state probe_state;\n{act} probe_input[{upper}_INPUTS];\n'
            f"int32_t probe_output[{upper}_OUTPUTS];\n",
        )
        keep = (f"{name}_step", f"{name}_reset", *_KEPT)
        program = cross_compile([folder / f"{name}.c", probe], cpu, keep, flags)
    processor = Processor(program, cpu)
    state, given, output = (program.symbols[kept].address for kept in _KEPT)
    processor.call(f"{name}_reset", state)
    scores, calls = [], []
    for frame in x.astype(np.int16 if act == "int16_t" else np.int8):
        processor.write("probe_input", frame.tobytes())
        calls.append(processor.call(f"{name}_step", state, given, output))
        scores.append(np.frombuffer(processor.read("probe_output"), dtype="<i4"))
    _compare(cpu, np.array(scores), _expected(network, x))
    return Measured(
        cpu,
        program.flash,
        program.symbols["probe_state"].size,
        processor.stack,
        np.array([call.instructions for call in calls]),
        sum((call.by_function for call in calls), Counter()),
    )


def _expected(network: IntegerNetwork, x: NDArray[np.int64]) -> NDArray[np.int64]:
    return network.run(network.quantization.activation.to_float(x)).output[:, 0]


def _compare(cpu: str, scores: NDArray[np.int32], expected: NDArray[np.int64]) -> None:
    differing = np.argwhere(scores != expected)
    if len(differing):
        frame, output = differing[0]
        raise ExportError(
            f"{cpu}: the C program differs from the integer cells: frame {frame}, output {output}: "
            f"{scores[frame, output]}, expected {expected[frame, output]}"
        )
