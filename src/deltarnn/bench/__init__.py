"""`deltarnn bench`: times on this machine, or instruction counts on a microcontroller, against the usual alternatives.

Peers are measured in one process, their repetitions interleaved (`timing`). Each part offers `run(output, quick)`,
prints a table and writes it, with a figure and the raw numbers, into the output folder. `--model` measures an ONNX file
against its import, and prints; with `--what mcu` a keyword model against itself at thresholds 0.
"""

import argparse
from importlib import import_module
from pathlib import Path

from deltarnn.files import check_writable

PARTS = ("engine", "training", "cuda", "mcu")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("--what", choices=(*PARTS, "all"), default="all", help="what to measure (default: all)")
    parser.add_argument(
        "--output",
        type=Path,
        help="folder of tables, figures and numbers (default: bench, or bench/quick with --quick)",
    )
    parser.add_argument(
        "--model", type=Path, help="measure this ONNX file instead, against its import; mcu: this keyword model"
    )
    parser.add_argument(
        "--threshold", type=float, help="of --model: θ of all its recurrent parts (default: the file's)"
    )
    parser.add_argument(
        "--data",
        type=Path,
        help="of --model: an .npz file, an array (calls, …) for each input signal; mcu: a feature file of the model's",
    )
    for flag, what in (
        ("shape", "INPUT=1,576: sizes of a signal that is made up"),
        ("set", "INPUT=16000: an input that stays the same"),
        ("state", "INPUT=OUTPUT: a state, fed back from an output"),
    ):
        parser.add_argument(f"--{flag}", action="append", metavar=what.split(":")[0], help=f"of --model: {what}")
    parser.add_argument("--quick", action="store_true", help="few repetitions, for a quick look")


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, write."""
    if arguments.model is not None and arguments.what != "mcu":
        print(import_module("deltarnn.bench.network").run(arguments))
        return 0
    output = arguments.output or Path("bench/quick" if arguments.quick else "bench")
    check_writable(output)
    output.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        if arguments.what == "all" and part == "cuda" and not import_module("torch").cuda.is_available():
            print("cuda: not measured, torch sees no GPU here")
        elif arguments.what == "all" and part == "mcu" and not import_module("deltarnn.hardware.cortex_m").available():
            print(f"mcu: not measured: {import_module('deltarnn.hardware.cortex_m').MISSING}")
        elif arguments.what == part == "mcu":
            import_module("deltarnn.bench.mcu").run(output, arguments.quick, arguments.model, arguments.data)
        elif arguments.what in (part, "all"):
            import_module(f"deltarnn.bench.{part}").run(output, arguments.quick)
    print(f"written to {output}")
    return 0
