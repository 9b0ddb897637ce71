"""`deltarnn import`: what the importer finds in an ONNX file, and the file with thresholds."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np

from deltarnn.onnx.export import operator_library
from deltarnn.onnx.graph import Array
from deltarnn.onnx.loading import load
from deltarnn.onnx.network import Network


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("model", type=Path, help="an ONNX file")
    parser.add_argument("--thx", type=float, help="θx of all recurrent parts (default: the file's, else 0)")
    parser.add_argument("--thh", type=float, help="θh of all recurrent parts (default: the file's, else 0)")
    parser.add_argument("--output", type=Path, help="write the network with these thresholds, for deltarnn.onnx.load")
    parser.add_argument(
        "--operators", type=Path, metavar="FILE", help="write it for ONNX Runtime with DeltaRNN's operator library"
    )
    parser.add_argument(
        "--shape", action="append", metavar="INPUT=SIZES", help="sizes of a call, for --operators: input=1,576"
    )
    parser.add_argument(
        "--set", action="append", metavar="INPUT=VALUE", help="a number among the inputs, for --operators: sr=16000"
    )


def run(arguments: argparse.Namespace) -> int:
    """Import, print, write."""
    if arguments.operators is None and (arguments.shape or arguments.set):
        raise ValueError("--shape and --set are for --operators, which is not given")
    net = load(arguments.model)
    if arguments.thx is not None or arguments.thh is not None:
        net.set_thresholds({name: _changed(pair, arguments) for name, [pair] in net.thresholds.items()})
    print(table(net))
    if arguments.output is not None:
        net.save(arguments.output)
        print(f"written: {arguments.output}")
    if arguments.operators is not None:
        found = net.save_onnx(arguments.operators, _example(net, arguments))
        print(f"written: {arguments.operators}, {found} for ONNX Runtime with {operator_library()}")
    return 0


def pairs(flag: str, given: Sequence[str] | None) -> dict[str, str]:
    """INPUT=VALUE by input.

    Raises
    ------
    ValueError
        Naming the flag, if one is anything else.
    """
    for text in given or ():
        if "=" not in text:
            raise ValueError(f"--{flag} {text}: must be INPUT=VALUE")
    return dict(text.split("=", 1) for text in given or ())


def sizes_of(name: str, text: str) -> list[int]:
    """The sizes in --shape NAME=TEXT. ValueError if it is anything else."""
    try:
        return [int(size) for size in text.split(",")]
    except ValueError:
        raise ValueError(f"--shape {name}={text}: must be whole numbers separated by commas") from None


def number_of(name: str, text: str) -> float:
    """The number in --set NAME=TEXT. ValueError if it is anything else."""
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"--set {name}={text}: must be a number") from None


def _example(net: Network, arguments: argparse.Namespace) -> dict[str, Array] | None:
    """A call with the sizes and numbers that the flags give."""
    shapes, numbers = pairs("shape", arguments.shape), pairs("set", arguments.set)
    if not shapes and not numbers:
        return None
    for name in [*shapes, *numbers]:
        if name not in net.input_names:
            raise ValueError(f"no input is called {name!r}: the network takes {', '.join(net.input_names)}")
    example = {}
    for name in net.input_names:
        dtype, shape = net.programs.graph.declared(name)
        if name in shapes:
            shape = tuple(sizes_of(name, shapes[name]))
        if shape is None or None in shape:
            raise ValueError(f"the size of {name!r} is not known: give --shape {name}=…")
        example[name] = np.full(cast(tuple[int, ...], shape), number_of(name, numbers.get(name, "0"))).astype(dtype)
    return example


def table(net: Network) -> str:
    """The recurrent parts as text, one a line."""
    rows = [("recurrent part", "cell", "sizes", "weights", "θx", "θh", "found as")]
    for name, part in net.parts.items():
        w = part.weights
        count = sum(array.size for array in w.arrays.values())
        cell = w.cell if w.reset_after else f"{w.cell}, reset before the product"
        sizes = f"{w.input_size}→{w.hidden_size}"
        rows.append((name, cell, sizes, f"{count:,}", f"{part.thx:g}", f"{part.thh:g}", part.origin))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, f"inputs: {', '.join(net.input_names)}; outputs: {', '.join(net.output_names)}"])


def _changed(pair: tuple[float, float], arguments: argparse.Namespace) -> tuple[float, float]:
    thx, thh = arguments.thx, arguments.thh
    return pair[0] if thx is None else thx, pair[1] if thh is None else thh
