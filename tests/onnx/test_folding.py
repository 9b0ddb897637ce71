"""Conditions and arithmetic on sizes that exporters put around recurrent layers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

import onnx
from onnx import TensorProto, ValueInfoProto, helper
from tests.onnx.models import Builder, onnx_runtime, recurrent_node, slow_signal

from deltarnn.onnx import UnsupportedGraphError, load


def branch(name: str, cell: str, seed: int, output: str = "y") -> Any:
    """The body of an If: a recurrent layer over the outer x, its constants and names inside."""
    b = Builder(seed)
    y = recurrent_node(b, cell, 4, 6, "x", prefix="layer")
    b.node("Squeeze", y, b.constant("axis", np.array([1])), outputs=[output])
    return helper.make_graph(b.nodes, name, [], [ValueInfoProto(name=output)], b.constants)


def switched(folder: Path, condition: str, outer: Builder, inputs: dict[str, Any]) -> Path:
    bodies = {"then_branch": branch("a", "GRU", 1), "else_branch": branch("b", "LSTM", 2)}
    outer.nodes.append(helper.make_node("If", [condition], ["out"], name="switch", **bodies))
    return outer.save(folder / "m.onnx", {"x": ["T", "B", 4], **inputs}, ["out"])


def test_a_switch_by_a_number_among_the_inputs(tmp_path: Path) -> None:
    """As a sampling rate chooses a network; the branches use the same names for different things."""
    b = Builder()
    condition = b.node("Equal", "rate", b.constant("wide", np.array(16000)))
    path = switched(tmp_path, condition, b, {"rate": (TensorProto.INT64, [])})
    net, session = load(path), onnx_runtime(path)
    assert [layer.mode for layer in net.layers.values()] == ["GRU", "LSTM"]
    for rate in (16000, 8000, 16000, 8000):
        for steps in (3, 5):
            feed = {"x": slow_signal(rate + steps, steps, 2, 4), "rate": np.array(rate)}
            np.testing.assert_allclose(net.run(None, feed)[0], session.run(None, feed)[0], rtol=0, atol=1e-6)
    assert set(net.activity.per_part) == set(net.recurrent)


def test_a_switch_by_a_size(tmp_path: Path) -> None:
    b = Builder()
    size = b.node("Gather", b.node("Shape", "x"), b.constant("zero", np.array(0)), axis=0)
    path = switched(tmp_path, b.node("Less", size, b.constant("few", np.array(4))), b, {})
    net, session = load(path), onnx_runtime(path)
    for steps in (3, 5, 4, 1):
        feed = {"x": slow_signal(steps, steps, 2, 4)}
        np.testing.assert_allclose(net.run(None, feed)[0], session.run(None, feed)[0], rtol=0, atol=1e-6)


def test_a_switch_by_the_signal_is_refused(tmp_path: Path) -> None:
    b = Builder()
    mean = b.node("ReduceMean", "x", keepdims=0)
    path = switched(tmp_path, b.node("Less", mean, b.constant("zero", np.float32(0))), b, {})
    net = load(path)
    with pytest.raises(UnsupportedGraphError, match=r"the If 'switch' .* depends on more than"):
        net.run(None, {"x": slow_signal(1, 3, 2, 4)})


def test_two_switches_may_use_the_same_names(tmp_path: Path) -> None:
    b = Builder()
    true = b.constant("true", np.array(True))
    for number, (cell, seed) in enumerate((("GRU", 1), ("LSTM", 2))):
        body = branch("body", cell, seed)
        b.nodes.append(helper.make_node("If", [true], [f"out{number}"], then_branch=body, else_branch=body))
    path = b.save(tmp_path / "m.onnx", {"x": ["T", "B", 4]}, ["out0", "out1"])
    net, feed = load(path), {"x": slow_signal(1, 3, 2, 4)}
    assert len(net.recurrent) == 2
    for got, expected in zip(net.run(None, feed), onnx_runtime(path).run(None, feed), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


def test_weights_may_be_put_together_from_constants(tmp_path: Path) -> None:
    """As exporters reorder the gates of another framework."""
    b = Builder()
    lead = b.constant("lead", np.array([0]))
    parts = [b.parameter(f"w{gate}", 6, 4) for gate in range(3)]
    w = b.node("Unsqueeze", b.node("Concat", parts[1], parts[0], parts[2], axis=0), lead)
    zeros = b.node("ConstantOfShape", b.node("Concat", lead_of(b, 1), batch_of(b), lead_of(b, 6), axis=0))
    r = b.parameter("r", 1, 18, 6)
    b.node("GRU", "x", w, r, "", "", zeros, outputs=["y"], hidden_size=6, linear_before_reset=1)
    path = b.save(tmp_path / "m.onnx", {"x": ["T", "B", 4]}, ["y"])
    feed = {"x": slow_signal(1, 3, 2, 4)}
    np.testing.assert_allclose(load(path).run(None, feed)[0], onnx_runtime(path).run(None, feed)[0], rtol=0, atol=1e-6)


def lead_of(b: Builder, size: int) -> str:
    return b.constant(f"size{len(b.constants)}", np.array([size]))


def batch_of(b: Builder) -> str:
    """The size of x's second axis, as exporters find it."""
    size = b.node("Gather", b.node("Shape", "x"), b.constant("batch_axis", np.array(1)), axis=0)
    return b.node("Unsqueeze", size, b.constant("front", np.array([0])))


def test_nodes_in_any_order(tmp_path: Path) -> None:
    """Tools append the casts that they insert, and ONNX Runtime does not mind."""
    b = Builder()
    condition = b.node("Equal", "rate", b.constant("wide", np.array(16000)))
    path = switched(tmp_path, condition, b, {"rate": (TensorProto.INT64, [])})
    model = onnx.load(path)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes[::-1])
    onnx.save(model, path)
    feed = {"x": slow_signal(1, 5, 2, 4), "rate": np.array(16000)}
    expected = onnx_runtime(path).run(None, feed)[0]
    np.testing.assert_allclose(load(path).run(None, feed)[0], expected, rtol=0, atol=1e-6)
