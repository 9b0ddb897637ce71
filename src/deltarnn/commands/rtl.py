"""`deltarnn rtl`: a folder of `deltarnn export --format rtl` simulated, or synthesised for its device."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from deltarnn.files import check_file, check_writable
from deltarnn.hardware.export_rtl import RtlDesign
from deltarnn.hardware.rtl_report import FrameClocks, report_text
from deltarnn.hardware.simulation import compare, simulate
from deltarnn.hardware.synthesis import synthesise

LINE = 78
"""Characters of a tool's line that are shown."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("action", choices=("simulate", "synthesise"), help="which tools to run")
    parser.add_argument("folder", type=Path, help="what `deltarnn export --format rtl` wrote")
    parser.add_argument("--trace", type=Path, help="simulate: file (.vcd) for the waveforms")
    parser.add_argument(
        "--stalls", type=float, help="simulate: share of the clocks at which both streams are held up, such as 0.3"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the tools and print what they say of the design; 1 where the clock that was asked for does not close."""
    design = RtlDesign.read(arguments.folder)
    check_writable(arguments.folder)
    if arguments.action == "simulate":
        _simulate(design, arguments.stalls or 0.0, arguments.trace)
        closes = True
    else:
        for flag in ("trace", "stalls"):
            if getattr(arguments, flag) is not None:
                raise ValueError(f"--{flag} does nothing for synthesise: it acts for simulate")
        with _progress("yosys") as show:
            closes = synthesise(design, show).closes
    print(report_text(design))
    return 0 if closes else 1


def _simulate(design: RtlDesign, stalls: float, trace: Path | None) -> None:
    if not 0 <= stalls < 1:
        raise ValueError(f"--stalls {stalls}: must be at least 0 and below 1")
    if trace is not None:
        check_file(trace)
    with _progress("verilator: building the test bench and running it"):
        simulation = simulate(design, design.stimulus(), stalls=stalls, trace=trace)
    compare(design, simulation)
    held = f" with both streams held up {stalls:.0%} of the time" if stalls else ""
    print(f"{len(simulation.scores)} frames{held}: every score equals deltarnn.fixed to the bit")
    if not stalls:
        FrameClocks.of(simulation).write(design.folder)
    if trace is not None:
        print(f"waveforms: {trace}")


@contextmanager
def _progress(what: str) -> Iterator[Callable[[str], None]]:
    """A line of a terminal that shows how long it takes, and what a tool said last; elsewhere nothing."""
    with tqdm(desc=what, bar_format="{elapsed} {desc}", disable=None, leave=False, miniters=1) as bar:

        def show(line: str) -> None:
            bar.set_description_str(line[:LINE], refresh=False)
            bar.update()

        yield show
