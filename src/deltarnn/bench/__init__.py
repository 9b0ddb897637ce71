"""`deltarnn bench`: this machine's times, beside those of what a user would take instead.

Peers are measured in one process, their repetitions interleaved (`timing`). Each part offers `run(output, quick)`,
prints a table and writes it, with a figure and the raw numbers, into the output folder.
"""

import argparse
from importlib import import_module
from pathlib import Path

PARTS = ("engine", "training")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("--what", choices=(*PARTS, "all"), default="all", help="which part to measure (default: all)")
    parser.add_argument(
        "--output",
        type=Path,
        help="folder of tables, figures and numbers (default: benchmarks/results, or quick with --quick)",
    )
    parser.add_argument("--quick", action="store_true", help="few repetitions: a look, not a result")


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, write."""
    output = arguments.output or Path("benchmarks/quick" if arguments.quick else "benchmarks/results")
    output.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        if arguments.what in (part, "all"):
            import_module(f"deltarnn.bench.{part}").run(output, arguments.quick)
    return 0
