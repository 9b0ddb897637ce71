"""GRU and LSTM nodes, imported, against ONNX Runtime and the eager delta layers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

onnxruntime = pytest.importorskip("onnxruntime")

import onnx  # noqa: E402
from onnx import TensorProto  # noqa: E402
from tests.onnx.models import Builder, onnx_runtime, recurrent_node, slow_signal  # noqa: E402

from deltarnn.onnx import load  # noqa: E402


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "cell": draw(st.sampled_from(["GRU", "LSTM"])),
        "inputs": draw(st.integers(1, 20)),
        "hidden": draw(st.sampled_from([1, 7, 16, 33])),
        "steps": draw(st.integers(1, 12)),
        "batch": draw(st.integers(1, 3)),
        "direction": draw(st.sampled_from(["forward", "reverse", "bidirectional"])),
        "bias": draw(st.booleans()),
        "with_lengths": draw(st.booleans()),
        "with_states": draw(st.booleans()),
        "linear_before_reset": draw(st.integers(0, 1)),
        "relu": draw(st.booleans()),
        "seed": draw(st.integers(0, 999)),
    }


@settings(max_examples=40, deadline=None)
@given(case=cases())
def test_threshold_0_equals_onnx_runtime(tmp_path_factory: pytest.TempPathFactory, case: dict[str, Any]) -> None:
    cell, hidden, batch, steps = case["cell"], case["hidden"], case["batch"], case["steps"]
    directions = 2 if case["direction"] == "bidirectional" else 1
    b = Builder(case["seed"])
    inputs: dict[str, Any] = {"x": ["T", "B", case["inputs"]]}
    feed: dict[str, Any] = {"x": slow_signal(case["seed"], steps, batch, case["inputs"])}
    if case["with_lengths"]:
        inputs["lengths"] = (TensorProto.INT32, ["B"])
        feed["lengths"] = b.random.integers(0, steps + 1, batch).astype(np.int32)
    names = ["h0", "c0"][: 2 if cell == "LSTM" else 1] if case["with_states"] else []
    for name in names:
        inputs[name] = [directions, "B", hidden]
        feed[name] = b.random.uniform(-1, 1, (directions, batch, hidden)).astype(np.float32)
    lengths = "lengths" if case["with_lengths"] else ""
    options: dict[str, Any] = {
        "direction": case["direction"],
        "bias": case["bias"],
        "lengths": lengths,
        "states": names,
    }
    if cell == "GRU":
        options["linear_before_reset"] = case["linear_before_reset"]
        options["activations"] = ["Sigmoid", "Relu" if case["relu"] else "Tanh"] * directions
    recurrent_node(b, cell, case["inputs"], hidden, "x", **options)
    outputs = list(b.nodes[-1].output)
    path = b.save(tmp_path_factory.mktemp("onnx") / "m.onnx", inputs, outputs)
    net = load(path)
    assert len(net.recurrent) == directions
    for _ in range(2):
        for got, expected in zip(net.run(None, feed), onnx_runtime(path).run(None, feed), strict=True):
            np.testing.assert_allclose(got, expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("cell", ["GRU", "LSTM"])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_thresholds_compute_what_the_eager_layers_compute(tmp_path: Path, cell: str, direction: str) -> None:
    b = Builder(1)
    recurrent_node(b, cell, 5, 12, "x", direction=direction)
    path = b.save(tmp_path / "m.onnx", {"x": ["T", "B", 5]}, [f"{cell.lower()}_y"])
    net = load(path, thresholds={name: (0.2, 0.05 * (1 + n)) for n, name in enumerate(load(path).recurrent)})
    x = slow_signal(2, 40, 2, 5)
    (y,) = net.run(None, {"x": x})
    for position, (name, layer) in enumerate(net.layers.items()):
        frames = x[::-1].copy() if name.endswith(".reverse") else x
        with torch.no_grad():
            expected = layer(torch.from_numpy(frames))[0].numpy()
        expected = expected[::-1] if name.endswith(".reverse") else expected
        np.testing.assert_allclose(y[:, position], expected, rtol=0, atol=1e-5)
    assert 0.3 < net.activity.sparsity < 0.95
    assert set(net.activity.per_part) == set(net.recurrent)


def test_stacked_layers_need_no_session_between_them(tmp_path: Path) -> None:
    b = Builder()
    axis = b.constant("axis", np.array([1]))
    y = recurrent_node(b, "GRU", 4, 8, b.node("Relu", "x"), prefix="one")
    y = recurrent_node(b, "LSTM", 8, 6, b.node("Squeeze", y, axis), prefix="two")
    b.node("Squeeze", y, axis, outputs=["y"])
    path = b.save(tmp_path / "m.onnx", {"x": ["T", "B", 4]}, ["y"])
    net = load(path)
    assert net.recurrent == ["one", "two"]
    feed = {"x": slow_signal(1, 9, 2, 4)}
    np.testing.assert_allclose(net.run(["y"], feed)[0], onnx_runtime(path).run(["y"], feed)[0], rtol=0, atol=1e-6)


def test_weights_may_be_inputs(tmp_path: Path) -> None:
    b = Builder(7)
    b.node("GRU", "x", "W", "R", outputs=["y"], hidden_size=6, linear_before_reset=1, name="rnn")
    path = b.save(tmp_path / "m.onnx", {"x": ["T", "B", 4], "W": [1, 18, 4], "R": [1, 18, 6]}, ["y"])
    net, session, x = load(path, thresholds=0.0), onnx_runtime(path), slow_signal(1, 9, 2, 4)
    for early in (net.reset, lambda: net.set_thresholds(0.1), lambda: net.recurrent):
        with pytest.raises(
            RuntimeError, match=r"the weights of this network are inputs \(W, R\): .* at the first call"
        ):
            early()
    assert repr(net) == "LateNetwork(weights are inputs: W, R)"
    for _ in range(2):
        w, r = (b.random.uniform(-0.5, 0.5, shape).astype(np.float32) for shape in ((1, 18, 4), (1, 18, 6)))
        for _ in range(2):
            feed = {"x": x, "W": w, "R": r}
            np.testing.assert_allclose(net.run(None, feed)[0], session.run(None, feed)[0], rtol=0, atol=1e-6)
        assert net.recurrent == ["rnn"]
    net.set_thresholds(0.1)
    net.save_onnx(tmp_path / "out.onnx", feed)
    assert [value.name for value in onnx.load(tmp_path / "out.onnx").graph.input] == ["x"]
    net.run(None, {**feed, "W": 2 * w})
    assert net.thresholds == {"rnn": [(0.1, 0.1)]}
    with pytest.raises(ValueError, match="the input 'R' is missing: it holds the weights"):
        net.run(None, {"x": x, "W": w})
