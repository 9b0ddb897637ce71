"""Whole graphs as native programs: each operator against ONNX Runtime, and what is left to it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.onnx.models import Builder, onnx_runtime, recurrent_node, slow_signal

from deltarnn.onnx import load
from deltarnn.onnx.lowering import NativeProgram
from deltarnn.onnx.program import Program

Body = Callable[[Builder, str], str]
"""Nodes over a value of shape (3, 2, 8), made by a recurrent layer."""


def ints(b: Builder, *values: int) -> str:
    return b.constant(f"ints{len(b.constants)}", np.array(values))


def convolved(b: Builder, x: str, kernel: tuple[int, ...], channels: int, outputs: int, **options: Any) -> str:
    n, groups = len(b.nodes), options.get("group", 1)
    weight = b.parameter(f"kernel{n}", outputs, channels // groups, *kernel)
    return b.node("Conv", x, weight, b.parameter(f"kb{n}", outputs), **options)


def moved(b: Builder, x: str) -> str:
    backwards = b.node("Slice", x, ints(b, 7), ints(b, 1), ints(b, 2), ints(b, -2))
    return b.node(
        "Concat", backwards, b.node("Tile", b.node("Gather", x, ints(b, 1), axis=2), ints(b, 1, 1, 2)), axis=2
    )


def divided(b: Builder, x: str) -> str:
    largest = b.node("Max", x, b.parameter("c", 8), b.parameter("d", 1))
    return b.node("Div", largest, b.constant("three", np.float32(3)))


def affine(b: Builder, x: str) -> str:
    rows, w, v = b.node("Reshape", x, ints(b, 6, 8)), b.parameter("w", 5, 8), b.parameter("v", 5)
    return b.node("Gemm", rows, w, v, transB=1, alpha=0.5, beta=2.0)


def normalized(b: Builder, x: str) -> str:
    variance = b.constant("variance", np.array([1, 2], np.float32))
    return b.node("BatchNormalization", x, *(b.parameter(name, 2) for name in "gsm"), variance)


def strided(b: Builder, x: str) -> str:
    return convolved(b, convolved(b, x, (2,), 2, 4, strides=[2], pads=[0, 3]), (2,), 4, 33, dilations=[2])


def same(b: Builder, x: str) -> str:
    upper, lower = (convolved(b, x, (4,), 2, 2, auto_pad=f"SAME_{side}") for side in ("UPPER", "LOWER"))
    return b.node("Add", upper, lower)


def over_two_axes(b: Builder, x: str) -> str:
    picture = b.node("Unsqueeze", b.node("Transpose", x, perm=[1, 0, 2]), ints(b, 0))
    return b.node("GlobalAveragePool", convolved(b, picture, (2, 3), 2, 4, strides=[1, 2], pads=[1, 0, 0, 1]))


BODIES: dict[str, Body] = {
    "unary": lambda b, x: b.node("Abs", b.node("Neg", b.node("Exp", b.node("Tanh", b.node("Sigmoid", x))))),
    "roots": lambda b, x: b.node("Log", b.node("Reciprocal", b.node("Softplus", b.node("Sqrt", b.node("Abs", x))))),
    "leaky": lambda b, x: b.node("Elu", b.node("LeakyRelu", x, alpha=0.3), alpha=0.7),
    "erf": lambda b, x: b.node("Mul", x, b.node("Erf", b.node("Relu", x))),
    "clip": lambda b, x: b.node("Clip", x, b.constant("low", np.float32(-0.1)), b.constant("high", np.float32(0.2))),
    "power": lambda b, x: b.node("Pow", b.node("Abs", x), b.constant("p", np.float32(1.5))),
    "square": lambda b, x: b.node("Pow", x, b.constant("p", np.float32(2))),
    "broadcast": lambda b, x: b.node(
        "Mul", b.node("Sub", x, b.parameter("c", 2, 1)), b.node("ReduceMax", x, ints(b, 1))
    ),
    "divided": divided,
    "minimum": lambda b, x: b.node("Min", b.node("Transpose", x, perm=[2, 0, 1]), b.parameter("c", 8, 3, 2)),
    "matmul": lambda b, x: b.node("Add", b.node("MatMul", x, b.parameter("w", 8, 40)), b.parameter("v", 40)),
    "gemm": affine,
    "moves": moved,
    "expand": lambda b, x: b.node("Relu", b.node("Expand", b.node("ReduceMean", x, ints(b, 0)), ints(b, 4, 2, 8))),
    "reflect": lambda b, x: b.node("Pad", x, ints(b, 0, 0, 3, 1, 0, 2), mode="reflect"),
    "padded": lambda b, x: b.node("Pad", x, ints(b, 0, 0, 3, 1, 0, 2), b.constant("fill", np.float32(0.5))),
    "sums": lambda b, x: b.node("Add", b.node("ReduceSum", x, ints(b, -1, 0)), b.node("ReduceMin", x)),
    "softmax": lambda b, x: b.node("Softmax", x, axis=1),
    "layer norm": lambda b, x: b.node("LayerNormalization", x, b.parameter("g", 8), b.parameter("s", 8), axis=-1),
    "batch norm": normalized,
    "conv": lambda b, x: convolved(b, x, (3,), 2, 5, pads=[1, 1]),
    "strides": strided,
    "groups": lambda b, x: convolved(b, b.node("Relu", convolved(b, x, (1,), 2, 4)), (3,), 4, 8, group=2, pads=[2, 0]),
    "same": same,
    "two axes": over_two_axes,
}


def model(folder: Path, body: Body) -> Path:
    b = Builder(1)
    y = recurrent_node(b, "GRU", 4, 8, "x", prefix="rnn")
    value = body(b, b.node("Squeeze", y, b.constant("axis", np.array([1]))))
    b.node("Identity", value, outputs=["y"])
    return b.save(folder / "m.onnx", {"x": ["T", "B", 4]}, ["y", "rnn_h"])


@pytest.mark.parametrize("name", BODIES)
def test_operators(tmp_path: Path, name: str) -> None:
    path, feed = model(tmp_path, BODIES[name]), {"x": slow_signal(1, 3, 2, 4)}
    net = load(path)
    for _ in range(2):
        for got, expected in zip(net.run(None, feed), onnx_runtime(path).run(None, feed), strict=True):
            assert got.shape == expected.shape
            np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-6)
    (program,) = net.programs.kept.values()
    assert isinstance(program, NativeProgram)


@pytest.mark.parametrize(
    "body",
    [
        lambda b, x: b.node("CumSum", x, b.constant("along", np.array(0))),
        lambda b, x: b.node("MatMul", x, b.node("Transpose", x, perm=[0, 2, 1])),
        lambda b, x: b.node("Cast", b.node("Relu", x), to=11),
    ],
    ids=["operator", "product of values", "type"],
)
def test_what_has_no_instruction_is_left_to_onnx_runtime(tmp_path: Path, body: Body) -> None:
    path, feed = model(tmp_path, body), {"x": slow_signal(1, 3, 2, 4)}
    net = load(path)
    np.testing.assert_allclose(net.run(["y"], feed)[0], onnx_runtime(path).run(["y"], feed)[0], rtol=0, atol=2e-6)
    (program,) = net.programs.kept.values()
    assert isinstance(program, Program)


def test_large_networks_are_left_to_onnx_runtime(tmp_path: Path) -> None:
    net = load(model(tmp_path, lambda b, x: b.node("MatMul", x, b.parameter("w", 8, 1000))))
    for steps, kind in ((3, NativeProgram), (2000, Program)):
        net.run(None, {"x": slow_signal(1, steps, 1, 4)})
        net.run(None, {"x": slow_signal(1, steps, 1, 4)})
        assert isinstance(list(net.programs.kept.values())[-1], kind)


def test_nan_passes_through_every_comparison(tmp_path: Path) -> None:
    path = model(tmp_path, lambda b, x: b.node("Max", b.node("Relu", b.node("Clip", x)), b.node("ReduceMax", x)))
    x = slow_signal(1, 3, 2, 4)
    x[1, 0, 0] = np.nan
    (y, _) = load(path).run(None, {"x": x})
    assert np.isnan(y).any()
