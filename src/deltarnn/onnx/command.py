"""`deltarnn import`: what the importer finds in an ONNX file, and the file with thresholds."""

import argparse
from pathlib import Path

from deltarnn.onnx.loading import load
from deltarnn.onnx.network import Network


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("model", type=Path, help="an ONNX file")
    parser.add_argument("--thx", type=float, help="θx of all recurrent parts (default: the file's, else 0)")
    parser.add_argument("--thh", type=float, help="θh of all recurrent parts (default: the file's, else 0)")
    parser.add_argument("--output", type=Path, help="write the network with these thresholds, for deltarnn.onnx.load")


def run(arguments: argparse.Namespace) -> int:
    """Import, print, write."""
    net = load(arguments.model)
    if arguments.thx is not None or arguments.thh is not None:
        net.set_thresholds({name: _changed(pair, arguments) for name, [pair] in net.thresholds.items()})
    print(table(net))
    if arguments.output is not None:
        net.save(arguments.output)
        print(f"written: {arguments.output}")
    return 0


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
