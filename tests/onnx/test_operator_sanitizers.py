"""The operator library's C++ under the address and undefined-behaviour sanitizers, in a stand-in for ONNX Runtime.

Cases are networks as bytes with the outputs that Python's runner gives: imported graphs, and compiled module trees.
"""

import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

pytest.importorskip("onnxruntime")

from onnx import TensorProto
from tests.engine.cases import ISAS, core, isa
from tests.engine.test_modules import TREES
from tests.engine.test_modules import signal as frames_of
from tests.native.test_native import COMPILER, NATIVE, sanitized_program
from tests.onnx.models import Builder, recurrent_node, slow_signal
from tests.onnx.test_cells import H, I, gru_cell, lstm_cell, two_gemms

from deltarnn import Quantization
from deltarnn.engine import Engine
from deltarnn.engine.module_engine import ModuleEngine
from deltarnn.onnx import Network, load
from deltarnn.onnx.lowering import BINARY, REDUCTIONS, UNARY
from deltarnn.onnx.package import program_bytes

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")

Arrays = Sequence[np.ndarray]
Calls = list[tuple[Arrays, Arrays]]
TYPES = {np.dtype(np.float32): 1, np.dtype(np.int32): 6, np.dtype(np.int64): 7}


def numbers(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}q", *values)


def write(path: Path, operator: str, package: bytes, calls: Calls) -> Path:
    """A case as native/tests/test_operators.cpp reads it."""
    content = [numbers(operator == "Program", len(package)), package, numbers(len(calls))]
    for arrays in (arrays for call in calls for arrays in call):
        content.append(numbers(len(arrays)))
        for array in arrays:
            content += [numbers(TYPES[array.dtype], array.ndim, *array.shape), array.tobytes()]
    path.write_bytes(b"".join(content))
    return path


def exported(folder: Path, name: str, net: Network, feeds: list[dict[str, np.ndarray]], whole: bool) -> Path:
    """A case of a network that exports as one operator, which takes the graph's inputs and gives its outputs."""
    net.save_onnx(folder / "out.onnx", feeds[0] if whole else None)
    (node,) = onnx.load(folder / "out.onnx").graph.node
    assert list(node.output) == net.output_names
    (data,) = [attribute.s for attribute in node.attribute if attribute.name == "data"]
    calls = [([feed[i] for i in node.input], net.run(None, feed)) for feed in feeds]
    return write(folder / name, node.op_type, data, calls)


def every_function(folder: Path) -> Path:
    """Every function that a program has."""
    b = Builder(1)
    y = recurrent_node(b, "GRU", 4, 4, "x", prefix="rnn")
    y = b.node("Squeeze", y, b.constant("axis", np.array([1])))
    y = b.node("Transpose", y, perm=[0, 2, 1])
    for name in UNARY:
        y = b.node(name, b.node("Add", b.node("Abs", y), b.constant(f"one_{name}", np.float32(1))))
    for name in ("Elu", "LeakyRelu"):
        y = b.node(name, b.node("Neg", y), alpha=0.3)
    y = b.node("Pow", b.node("Abs", y), b.constant("exponent", np.float32(1.5)))
    y = b.node("Clip", y, b.constant("low", np.float32(0.01)), b.constant("high", np.float32(3)))
    for name in BINARY:
        y = b.node(name, y, b.parameter(f"operand_{name}", 3, 1, 4))
    y = b.node("MatMul", b.node("Transpose", y, perm=[1, 2, 0]), b.parameter("product", 3, 17))
    for name in REDUCTIONS:
        b.node(name, y, b.constant(f"axes_{name}", np.array([1])), keepdims=0, outputs=[f"out_{name}"])
    return b.save(folder / "functions.onnx", {"x": [3, 1, 4]}, [f"out_{name}" for name in REDUCTIONS])


def functions_of(folder: Path) -> Path:
    net = load(every_function(folder), thresholds=0.05)
    return exported(folder, "functions", net, [{"x": slow_signal(k, 3, 1, 4)} for k in range(3)], whole=True)


def tree(folder: Path, name: str, precision: Any) -> Path:
    """A compiled module: one frame a call."""
    torch.manual_seed(3)
    model = TREES[name][0]().eval()
    frames = frames_of(name, 12)
    calibration = {"calibration": frames} if precision == "int8" else {}
    example = torch.zeros(TREES[name][1]) if name == "bands" else None
    engine = Engine.compile(model, precision, example=example, **calibration)
    assert isinstance(engine, ModuleEngine)
    program = engine._program
    shapes = [(engine.input_size,), (engine.output_size,)]
    package = program_bytes(program.parts, engine._engines, program.streams, shapes, ())
    outputs = engine.run(frames)
    return write(
        folder / f"tree-{name}-{precision}",
        "Program",
        package,
        [([x], [y]) for x, y in zip(frames, outputs, strict=True)],
    )


def sequences(folder: Path, cell: str, precision: Any, layout: int, **options: Any) -> Path:
    """A recurrent operator of two sizes, with initial states and lengths."""
    b, directions = Builder(5), 2 if options.get("direction") == "bidirectional" else 1
    states = ["h", "c"] if cell == "LSTM" else ["h"]
    recurrent_node(b, cell, 4, 5, "x", states=states, lengths="lengths", prefix="rnn", layout=layout, **options)
    order = ["B", directions, 5] if layout else [directions, "B", 5]
    inputs: dict[str, Any] = {"x": ["B", "T", 4] if layout else ["T", "B", 4], **dict.fromkeys(states, order)}
    inputs["lengths"] = (TensorProto.INT32, ["B"])
    outputs = ["rnn_y", "rnn_h"] + (["rnn_c"] if cell == "LSTM" else [])
    formats = {"quantization": Quantization()} if precision == "int8" else {}
    net = load(b.save(folder / "in.onnx", inputs, outputs), thresholds=0.125, precision=precision, **formats)
    feeds = []
    for steps, batch in ((7, 3), (1, 1), (4, 4)):
        sizes = {"x": (steps, batch, 4), **dict.fromkeys(states, (directions, batch, 5))}
        arrays = {name: slow_signal(steps, *size) for name, size in sizes.items()}
        if layout:
            arrays = {name: np.ascontiguousarray(array.swapaxes(0, 1)) for name, array in arrays.items()}
        lengths = np.array([max(steps - row, 1) for row in range(batch)], np.int32)
        feeds.append({**arrays, "lengths": lengths})
    name = "-".join(["sequences", cell, precision, str(layout), *map(str, options.values())])
    return exported(folder, name, net, feeds, whole=False)


def steps(folder: Path, cell: str) -> Path:
    """An unrolled cell, one step a call, its states handed on."""
    b = Builder(6)
    states = ["h", "c"] if cell == "LSTM" else ["h"]
    found = lstm_cell(b, two_gemms, "x", "h", "c") if cell == "LSTM" else [gru_cell(b, "difference", "x", "h")]
    path = b.save(folder / "in.onnx", {"x": ["B", I], **{name: ["B", H] for name in states}}, list(found))
    net = load(path, thresholds=0.1)
    feeds, carried = [], {name: np.zeros((2, H), np.float32) for name in states}
    for x in slow_signal(5, 6, 2, I):
        feeds.append({"x": x, **carried})
        carried = dict(zip(states, net.run(None, feeds[-1]), strict=True))
    net.reset()
    return exported(folder, f"steps-{cell}", net, feeds, whole=False)


@pytest.mark.parametrize("name", dict.fromkeys([ISAS[0], ISAS[-1]]))
def test_operators_under_sanitizers(tmp_path: Path, name: str) -> None:
    program = sanitized_program("test_operators", NATIVE / "onnxruntime" / "operators.cpp")
    with isa(name):
        cases = [functions_of(tmp_path)]
        cases += [tree(tmp_path, tree_name, "float32") for tree_name in TREES]
        cases += [tree(tmp_path, "encoder", precision) for precision in ("bfloat16", "int8")]
        for cell in ("GRU", "LSTM"):
            cases.append(steps(tmp_path, cell))
            cases += [sequences(tmp_path, cell, precision, 0) for precision in ("float32", "bfloat16", "int8")]
            cases.append(sequences(tmp_path, cell, "float32", 1, direction="bidirectional"))
            cases.append(sequences(tmp_path, cell, "int8", 1, direction="reverse"))
        cases.append(sequences(tmp_path, "GRU", "float32", 0, linear_before_reset=0))
        cases.append(sequences(tmp_path, "GRU", "float32", 0, activations=["Sigmoid", "Relu"]))
        result = subprocess.run([program, *cases], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    operations = len(core.operations)
    assert f"{name}: {len(cases)} cases, {operations} of {operations} operations" in result.stdout
    assert " 0 differ" in result.stdout
