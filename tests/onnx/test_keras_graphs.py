"""Graphs as tf2onnx writes Keras models: time in the second axis, around the operators; or loops, refused by name.

The oracle is Keras' own equations in numpy, over weights in Keras' layout.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

pytest.importorskip("onnxruntime")

from numpy.typing import NDArray
from onnx import TensorProto, helper
from tests.onnx.models import Builder, onnx_runtime, recurrent_node, slow_signal

from deltarnn.onnx import UnsupportedGraphError, load

pytestmark = pytest.mark.usefixtures("way")

Array = NDArray[Any]
I, H = 5, 7  # noqa: E741
ORDER = {"GRU": (0, 1, 2), "LSTM": (0, 3, 1, 2)}
"""Where ONNX's gates z r h, i o f c stand among Keras' z r h, i f c o."""


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


@dataclass
class Keras:
    """A layer's weights as Keras has them: kernel (I, G·H), recurrent kernel (H, G·H), bias (G·H), or (2, G·H) of a GRU
    with reset_after."""

    cell: str
    kernel: Array
    recurrent: Array
    bias: Array | None
    reset_after: bool = True

    @classmethod
    def random(cls, cell: str, bias: bool = True, reset_after: bool = True, seed: int = 0) -> "Keras":
        rng, gates = np.random.default_rng(seed), len(ORDER[cell])
        shape = (2, gates * H) if cell == "GRU" and reset_after else (gates * H,)
        arrays = [rng.uniform(-0.6, 0.6, size).astype(np.float32) for size in ((I, gates * H), (H, gates * H), shape)]
        return cls(cell, arrays[0], arrays[1], arrays[2] if bias else None, reset_after)

    def run(self, x: Array, h: Array, c: Array) -> tuple[Array, Array, Array]:
        """x (B, T, I) from h, c (B, H): all h (B, T, H), the last h and c. keras.layers.GRUCell.call, LSTMCell.call."""
        bias = np.zeros(self.kernel.shape[1]) if self.bias is None else self.bias.astype(np.float64)
        input_bias, recurrent_bias = bias if bias.ndim == 2 else (bias, np.zeros_like(bias))
        every = []
        for frame in x.swapaxes(0, 1).astype(np.float64):
            of_x = np.split(frame @ self.kernel + input_bias, len(ORDER[self.cell]), axis=1)
            of_h = np.split(h @ self.recurrent + recurrent_bias, len(ORDER[self.cell]), axis=1)
            if self.cell == "LSTM":
                i, f, g, o = (a + b for a, b in zip(of_x, of_h, strict=True))
                c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
                h = sigmoid(o) * np.tanh(c)
            else:
                z, r = (sigmoid(a + b) for a, b in zip(of_x[:2], of_h[:2], strict=True))
                product = r * of_h[2] if self.reset_after else (r * h) @ self.recurrent[:, 2 * H :]
                h = z * h + (1 - z) * np.tanh(of_x[2] + product)
            every.append(h)
        return np.stack(every, axis=1), h, c

    def nodes(self, b: Builder, x: str, states: list[str], lengths: str = "", prefix: str = "rnn") -> list[str]:
        """The operator over x (T, B, I), weights in ONNX's layout: without a second bias of Keras, zeros for it."""

        def rows(matrix: Array) -> Array:
            blocks = np.split(matrix, len(ORDER[self.cell]), axis=-1)
            return np.concatenate([blocks[gate] for gate in ORDER[self.cell]], axis=-1).T

        names = [b.constant(f"{prefix}_{n}", rows(m)[None]) for n, m in (("W", self.kernel), ("R", self.recurrent))]
        if self.bias is not None:
            pair = self.bias if self.bias.ndim == 2 else np.stack([self.bias, np.zeros_like(self.bias)])
            names.append(b.constant(f"{prefix}_B", np.concatenate([rows(part) for part in pair])[None]))
        else:
            names.append("")
        options = {"linear_before_reset": int(self.reset_after)} if self.cell == "GRU" else {}
        outputs = [f"{prefix}_Y", f"{prefix}_Y_h", f"{prefix}_Y_c"][: 3 if self.cell == "LSTM" else 2]
        b.node(self.cell, x, *names, lengths, *states, outputs=outputs, hidden_size=H, name=prefix, **options)
        return outputs


def axes(b: Builder, *values: int) -> str:
    return b.constant(f"axes{len(b.constants)}", np.array(values, np.int64))


def zero_states(b: Builder, count: int) -> list[str]:
    """As tf2onnx fills them: a constant of a shape that is put together from the input's."""
    batch = b.node("Slice", b.node("Shape", "x"), axes(b, 0), axes(b, 1), axes(b, 0))
    shape = b.node("Concat", batch, axes(b, H), axis=0)
    zeros = [b.node("ConstantOfShape", shape) for _ in range(count)]
    return [b.node("Unsqueeze", zero, axes(b, 0)) for zero in zeros]


@pytest.mark.parametrize(
    ("cell", "options"),
    [
        ("LSTM", {}),
        ("LSTM", {"bias": False}),
        ("GRU", {}),
        ("GRU", {"reset_after": False}),
        ("GRU", {"reset_after": False, "bias": False}),
    ],
)
@pytest.mark.parametrize("form", ["zeros", "none", "lengths"])
@pytest.mark.parametrize("sequences", [True, False])
def test_layers(tmp_path: Path, cell: str, options: dict[str, Any], form: str, sequences: bool) -> None:
    """return_sequences or not; initial states of zeros as nodes, none; with every sequence's length as a node."""
    layer, b = Keras.random(cell, **options), Builder()
    states = ["", ""] if form == "none" else zero_states(b, 2)
    lengths = ""
    if form == "lengths":
        size = b.node("Shape", "x")
        steps = b.node("Cast", b.node("Slice", size, axes(b, 1), axes(b, 2), axes(b, 0)), to=TensorProto.INT32)
        lengths = b.node("Expand", steps, b.node("Slice", size, axes(b, 0), axes(b, 1), axes(b, 0)))
    x = b.node("Transpose", "x", perm=[1, 0, 2])
    y, last, *_ = layer.nodes(b, x, states[: 2 if cell == "LSTM" else 1], lengths)
    if sequences:
        y = b.node("Transpose", b.node("Squeeze", y, axes(b, 1)), perm=[1, 0, 2])
    else:
        y = b.node("Squeeze", last, axes(b, 0))
    b.node("Identity", y, outputs=["y"])
    path = b.save(tmp_path / "m.onnx", {"x": ["batch", "time", I]}, ["y"])
    net = load(path)
    for batch, steps_ in ((2, 9), (1, 4), (2, 9)):
        signal = np.ascontiguousarray(slow_signal(batch, steps_, batch, I).swapaxes(0, 1))
        every, h, _ = layer.run(signal, *np.zeros((2, batch, H)))
        np.testing.assert_allclose(net.run(None, {"x": signal})[0], every if sequences else h, rtol=0, atol=2e-6)
    (found,) = net.layers.values()
    assert found.mode == cell
    if cell == "GRU":
        assert found.reset_after == layer.reset_after


@pytest.mark.parametrize(("cell", "reset_after"), [("LSTM", True), ("GRU", True), ("GRU", False)])
def test_states_as_inputs_and_outputs(tmp_path: Path, cell: str, reset_after: bool) -> None:
    """A model with initial_state=…, return_state=True: (B, H) each, with an axis more around the operator."""
    layer, b = Keras.random(cell, reset_after=reset_after), Builder()
    names = ["h", "c"] if cell == "LSTM" else ["h"]
    states = [b.node("Unsqueeze", name, axes(b, 0)) for name in names]
    y, *last = layer.nodes(b, b.node("Transpose", "x", perm=[1, 0, 2]), states)
    b.node("Transpose", b.node("Squeeze", y, axes(b, 1)), perm=[1, 0, 2], outputs=["y"])
    for name, value in zip(names, last, strict=True):
        b.node("Squeeze", value, axes(b, 0), outputs=[f"next_{name}"])
    inputs = {"x": ["batch", "time", I], **{name: ["batch", H] for name in names}}
    path = b.save(tmp_path / "m.onnx", inputs, ["y", *(f"next_{name}" for name in names)])
    signal = np.ascontiguousarray(slow_signal(3, 30, 2, I).swapaxes(0, 1))
    start = np.random.default_rng(4).uniform(-1, 1, (2, 2, H)).astype(np.float32)
    expected = layer.run(signal, *start)

    def stream(net: Any, step: int) -> tuple[list[Array], list[Array]]:
        carried, outputs = list(start[: len(names)]), []
        for first in range(0, 30, step):
            feed = {"x": signal[:, first : first + step], **dict(zip(names, carried, strict=True))}
            y, *carried = net.run(None, feed)
            outputs.append(y)
        return outputs, carried

    for step in (1, 3, 30):
        outputs, carried = stream(load(path), step)
        np.testing.assert_allclose(np.concatenate(outputs, axis=1), expected[0], rtol=0, atol=5e-6)
        for got, value in zip(carried, expected[1:], strict=False):
            np.testing.assert_allclose(got, value, rtol=0, atol=5e-6)
    whole, parts = load(path, thresholds=0.1), load(path, thresholds=0.1)
    np.testing.assert_allclose(
        np.concatenate(stream(parts, 1)[0], axis=1), stream(whole, 30)[0][0], rtol=0, atol=1e-6
    )  # its delta memories go on through the axes around it
    assert parts.activity.sparsity == whole.activity.sparsity > 0.2


def test_two_layers_and_dense_ones_around_them(tmp_path: Path) -> None:
    """Keras' Dense over (B, T, ·), a GRU to sequences, an LSTM to its last state, as one model."""
    b = Builder(2)
    gru, lstm = Keras.random("GRU", seed=1), Keras.random("LSTM", seed=2)
    lstm.kernel = np.random.default_rng(3).uniform(-0.6, 0.6, (H, 4 * H)).astype(np.float32)
    y = b.node("Add", b.node("MatMul", "x", b.parameter("dense/kernel", 3, I)), b.parameter("dense/bias", I))
    y = b.node("Transpose", b.node("Relu", y), perm=[1, 0, 2])
    y = gru.nodes(b, y, zero_states(b, 1), prefix="gru")[0]
    y = b.node("Transpose", b.node("Squeeze", y, axes(b, 1)), perm=[1, 0, 2])
    y = b.node("Transpose", y, perm=[1, 0, 2])
    last = lstm.nodes(b, y, zero_states(b, 2), prefix="lstm")[1]
    b.node("Gemm", b.node("Squeeze", last, axes(b, 0)), b.parameter("out/kernel", H, 2), outputs=["y"])
    path = b.save(tmp_path / "m.onnx", {"x": ["batch", "time", 3]}, ["y"])
    net = load(path)
    assert net.recurrent == ["gru", "lstm"]
    for seed in range(3):
        feed = {"x": np.random.default_rng(seed).normal(size=(2, 8, 3)).astype(np.float32)}
        np.testing.assert_allclose(net.run(None, feed)[0], onnx_runtime(path).run(None, feed)[0], rtol=0, atol=2e-6)


def test_bidirectional_of_one_operator(tmp_path: Path) -> None:
    """Bidirectional(LSTM): both directions in one operator, their outputs taken apart and concatenated."""
    ways, b = [Keras.random("LSTM", seed=seed) for seed in (5, 6)], Builder()
    alone = [Builder(), Builder()]
    for layer, one in zip(ways, alone, strict=True):
        layer.nodes(one, "x", [])
    arrays = [{c.name: onnx.numpy_helper.to_array(c) for c in one.constants} for one in alone]
    weights = [b.constant(n, np.concatenate([a[n] for a in arrays])) for n in ("rnn_W", "rnn_R", "rnn_B")]
    x = b.node("Transpose", "x", perm=[1, 0, 2])
    b.node("LSTM", x, *weights, outputs=["Y"], hidden_size=H, direction="bidirectional", name="bi")
    b.node("Split", "Y", outputs=["fore", "back"], axis=1, num_outputs=2)
    parts = [b.node("Transpose", b.node("Squeeze", n, axes(b, 1)), perm=[1, 0, 2]) for n in ("fore", "back")]
    b.node("Concat", *parts, axis=2, outputs=["y"])
    path = b.save(tmp_path / "m.onnx", {"x": ["batch", "time", I]}, ["y"])
    signal = np.ascontiguousarray(slow_signal(7, 8, 2, I).swapaxes(0, 1))
    zeros = np.zeros((2, 2, H))
    fore, back = ways[0].run(signal, *zeros)[0], ways[1].run(signal[:, ::-1], *zeros)[0][:, ::-1]
    (y,) = load(path).run(None, {"x": signal})
    np.testing.assert_allclose(y, np.concatenate([fore, back], axis=2), rtol=0, atol=2e-6)


def cell_body(b: Builder, x: str) -> str:
    """One step of an LSTM without biases in single operators: h and c go in, next_h and next_c come out."""
    product = b.node("MatMul", b.node("Concat", x, "h", axis=1), b.parameter("kernel", I + H, 4 * H))
    b.node("Split", product, outputs=["gi", "gc", "gf", "go"], axis=1, num_outputs=4)
    new = b.node("Mul", b.node("Sigmoid", "gi"), b.node("Tanh", "gc"))
    b.node("Add", new, b.node("Mul", "c", b.node("Sigmoid", "gf")), outputs=["next_c"])
    return b.node("Mul", b.node("Tanh", "next_c"), b.node("Sigmoid", "go"), outputs=["next_h"])


def info(name: str, kind: int = TensorProto.FLOAT, shape: Any = None) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def test_loops_are_refused_by_name(tmp_path: Path) -> None:
    """tf2onnx where it does not recognise a cell: the TensorFlow while loop itself."""
    inner = Builder()
    cell_body(inner, inner.node("Gather", "x", "i", axis=0))
    inner.node("Identity", "going", outputs=["still"])
    body = helper.make_graph(
        inner.nodes,
        "body",
        [info("i", TensorProto.INT64, []), info("going", TensorProto.BOOL, []), info("h"), info("c")],
        [info("still", TensorProto.BOOL, []), info("next_h"), info("next_c")],
        inner.constants,
    )
    b = Builder()
    b.nodes.append(
        helper.make_node("Loop", ["count", "", "h0", "c0"], ["h9", "c9"], name="model/lstm/while", body=body)
    )
    states = {"h0": ["B", H], "c0": ["B", H], "count": (TensorProto.INT64, [])}
    path = b.save(tmp_path / "m.onnx", {"x": ["T", "B", I], **states}, ["h9"])
    with pytest.raises(
        UnsupportedGraphError, match=r"the Loop 'model/lstm/while' has recurrent layers inside: .*export"
    ):
        load(path)


def test_scans_are_refused_by_name(tmp_path: Path) -> None:
    inner = Builder()
    inner.node("Identity", cell_body(inner, "frame"), outputs=["out"])
    body = helper.make_graph(
        inner.nodes, "body", [info("h"), info("c"), info("frame")], [info("next_h"), info("next_c"), info("out")],
        inner.constants,
    )  # fmt: skip
    b = Builder()
    outputs = ["h9", "c9", "y"]
    b.nodes.append(helper.make_node("Scan", ["h0", "c0", "x"], outputs, name="scan", body=body, num_scan_inputs=1))
    path = b.save(tmp_path / "m.onnx", {"x": ["T", "B", I], "h0": ["B", H], "c0": ["B", H]}, ["y"])
    assert onnx_runtime(path).get_outputs()[0].name == "y"  # a graph that is valid
    with pytest.raises(UnsupportedGraphError, match=r"the Scan 'scan' has recurrent layers inside: .*export"):
        load(path)


@pytest.mark.filterwarnings("ignore:.*is an RNN, without gates")
def test_plain_rnns(tmp_path: Path) -> None:
    """Keras' SimpleRNN alone is refused by name; beside a layer with gates it stays as it was."""

    def simple(b: Builder, x: str, inputs: int) -> str:
        weights = [b.parameter(f"W{inputs}", 1, H, inputs), b.parameter(f"R{inputs}", 1, H, H)]
        return b.node("RNN", x, *weights, outputs=["plain"], hidden_size=H, name="simple_rnn")

    b = Builder()
    simple(b, "x", I)
    with pytest.raises(UnsupportedGraphError, match=r"m\.onnx: the node 'simple_rnn' is an RNN, without gates: .*GRUs"):
        load(b.save(tmp_path / "m.onnx", {"x": ["T", "B", I]}, ["plain"]))
    b = Builder()
    simple(b, b.node("Squeeze", recurrent_node(b, "GRU", I, H, "x", prefix="gru"), axes(b, 1)), H)
    path = b.save(tmp_path / "m.onnx", {"x": ["T", "B", I]}, ["plain"])
    net, feed = load(path), {"x": slow_signal(1, 6, 2, I)}
    assert net.recurrent == ["gru"]
    np.testing.assert_allclose(net.run(None, feed)[0], onnx_runtime(path).run(None, feed)[0], rtol=0, atol=2e-6)
