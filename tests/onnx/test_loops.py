"""Loops over steps that exporters unrolled into cells: one operator where that can be, else steps in turn."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

import onnxruntime
from tests.onnx.models import Builder, onnx_runtime, slow_signal

from deltarnn.onnx import UnsupportedGraphError, load, operator_library

pytestmark = pytest.mark.usefixtures("way")

I, H, STEPS = 5, 7, 4  # noqa: E741
SIZES = {"x": ["B", STEPS, I], "h": ["B", H], "c": ["B", H]}


def cell(b: Builder, kind: str, x: str, h: str, c: str) -> tuple[str, str]:
    """One step over weights that all steps share: an LSTM, or a GRU with its reset gate before or after the product."""

    def product(value: str, weight: str, gate: int) -> str:
        return b.node("MatMul", value, f"rnn.{weight}{gate}")

    def argument(gate: int) -> str:
        return b.node("Add", b.node("Add", product(x, "w", gate), product(h, "u", gate)), f"rnn.b{gate}")

    if kind == "LSTM":
        i, f, o = (b.node("Sigmoid", argument(gate)) for gate in (0, 1, 3))
        next_c = b.node("Add", b.node("Mul", f, c), b.node("Mul", i, b.node("Tanh", argument(2))))
        return b.node("Mul", o, b.node("Tanh", next_c)), next_c
    r, z = (b.node("Sigmoid", argument(gate)) for gate in (0, 1))
    if kind == "GRU after":
        gated = b.node("Mul", r, b.node("Add", product(h, "u", 2), "rnn.b3"))
    else:
        gated = product(b.node("Mul", r, h), "u", 2)
    total = b.node("Add", b.node("Add", product(x, "w", 2), "rnn.b2"), gated)
    n = b.node("Relu" if kind == "GRU before, ReLU" else "Tanh", total)
    return b.node("Add", n, b.node("Mul", z, b.node("Sub", h, n))), c


def parameters(b: Builder) -> None:
    for gate in range(4):
        b.parameter(f"rnn.w{gate}", I, H)
        b.parameter(f"rnn.u{gate}", H, H)
        b.parameter(f"rnn.b{gate}", H)


def encoder(path: Path, kind: str, reads_c: bool = False, opset: int = 18) -> Path:
    """All results, and the state after the last step; reads_c: the cell state of the first step too."""
    b = Builder(3)
    parameters(b)
    h, c, results = "h", "c", []
    for step in range(STEPS):
        x = b.node("Gather", "x", b.constant(f"step{step}", np.array(step)), axis=1)
        h, c = cell(b, kind, x, h, c)
        results.append(b.node("Relu", c if reads_c and not step else h))
    sizes = SIZES if kind == "LSTM" else {name: SIZES[name] for name in ("x", "h")}
    outputs = [b.node("Concat", *results, axis=-1), h, *([c] if kind == "LSTM" else [])]
    return b.save(path / "m.onnx", sizes, outputs, opset)


def decoder(path: Path) -> Path:
    """What comes next is made from the last result."""
    b = Builder(4)
    parameters(b)
    b.parameter("out", H, I)
    x, h, c = "x", "h", "c"
    for _ in range(STEPS):
        h, c = cell(b, "LSTM", x, h, c)
        x = b.node("MatMul", h, "out")
    return b.save(path / "m.onnx", {"x": ["B", I], "h": ["B", H], "c": ["B", H]}, [x, h, c])


def calls(path: Path, count: int = 5) -> list[dict[str, Any]]:
    """Feeds of one stream; its states are to be handed on."""
    sizes = {value.name: value.shape[1:] for value in onnx_runtime(path).get_inputs()}
    signal = slow_signal(8, count, 2, *sizes["x"])
    zeros = {name: np.zeros((2, *size), np.float32) for name, size in sizes.items() if name != "x"}
    return [{"x": x, **zeros} for x in signal]


def stream(runner: Any, path: Path) -> list[Any]:
    """All outputs of all calls, the last ones handed on as states."""
    states: dict[str, Any] = {}
    outputs: list[Any] = []
    for feed in calls(path):
        made = runner.run(None, feed | states)
        states = dict(zip(feed.keys() - {"x"} if len(feed) == 2 else ["h", "c"], made[1:], strict=True))
        outputs += made
    return outputs


def close(got: list[Any], expected: list[Any]) -> None:
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-6)


def in_onnx_runtime(net: Any, path: Path) -> Any:
    """A session of the exported network, its recurrent parts as operators."""
    net.save_onnx(path)
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(operator_library()))
    return onnxruntime.InferenceSession(str(path), options)


@pytest.mark.parametrize("opset", [11, 18])
@pytest.mark.parametrize("kind", ["LSTM", "GRU after", "GRU before", "GRU before, ReLU"])
def test_loops_are_one_operator(tmp_path: Path, kind: str, opset: int) -> None:
    path = encoder(tmp_path, kind, opset=opset)
    net = load(path)
    assert [site.is_cell for site in net.programs.sites(net.programs.graph)] == [False]
    assert net.recurrent == ["rnn"]
    close(stream(net, path), stream(onnx_runtime(path), path))
    net.set_thresholds(0.1)
    exported = in_onnx_runtime(net, tmp_path / "operators.onnx")
    close(stream(exported, path), stream(net, path))
    assert 0.1 < net.activity.sparsity < 1


def test_cell_states_between_steps(tmp_path: Path) -> None:
    """Only the cells have them."""
    path = encoder(tmp_path, "LSTM", reads_c=True)
    net = load(path)
    assert len(net.programs.sites(net.programs.graph)) == STEPS
    close(stream(net, path), stream(onnx_runtime(path), path))


def test_one_initial_state_for_the_whole_batch(tmp_path: Path) -> None:
    """The sums of a cell broadcast it, an operator does not."""
    b = Builder(3)
    parameters(b)
    h, c = "h", "c"
    for step in range(STEPS):
        h, c = cell(b, "LSTM", b.node("Gather", "x", b.constant(f"s{step}", np.array(step)), axis=1), h, c)
    path = b.save(tmp_path / "m.onnx", {"x": ["B", STEPS, I], "h": [1, H], "c": [1, H]}, [h, c])
    feed = {"x": slow_signal(5, 3, STEPS, I), "h": slow_signal(6, 1, H), "c": slow_signal(7, 1, H)}
    close(load(path).run(None, feed), onnx_runtime(path).run(None, feed))


def test_decoders_stay_steps(tmp_path: Path) -> None:
    """As operators they would share no delta memory: refused with thresholds, equal without."""
    path = decoder(tmp_path)
    net = load(path)
    close(stream(net, path), stream(onnx_runtime(path), path))
    close(stream(in_onnx_runtime(net, tmp_path / "dense.onnx"), path), stream(onnx_runtime(path), path))
    net.set_thresholds(0.1)
    with pytest.raises(UnsupportedGraphError, match="loop around 'rnn' share one delta memory"):
        net.save_onnx(tmp_path / "operators.onnx")
