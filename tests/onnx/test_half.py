"""Models in float16: widened, with ONNX Runtime's answer to the original as the oracle."""

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16
from tests.onnx.models import Builder, onnx_runtime, recurrent_node, slow_signal
from tests.onnx.test_network import stream, streaming_lstm

from deltarnn.bench.network import Calls
from deltarnn.onnx import load, operator_library

TOLERANCE = 2e-3
"""float16 has 11 bits."""


def network(folder: Path) -> Path:
    """A GRU in both directions and an LSTM, with what converters touch: casts, filled constants, a branch."""
    b = Builder(1)
    y = b.node(
        "Squeeze", recurrent_node(b, "GRU", 6, 8, "x", prefix="gru", states=["h"]), b.constant("d", np.array([1]))
    )
    zeros = b.node(
        "ConstantOfShape", b.constant("size", np.array([1, 2, 5])), value=numpy_helper.from_array(np.float32([0.25]))
    )
    y = recurrent_node(b, "LSTM", 8, 5, y, prefix="lstm", states=[zeros, zeros])
    y = b.node("Mul", y, b.node("Cast", b.node("Shape", "x", end=1), to=TensorProto.FLOAT))
    scaled = helper.make_node("Mul", [y, b.parameter("scale", 1)], ["scaled"])
    plain = helper.make_node("Identity", [y], ["same"])
    branches = {
        f"{name}_branch": helper.make_graph([node], name, [], [onnx.ValueInfoProto(name=node.output[0])])
        for name, node in (("then", scaled), ("else", plain))
    }
    b.node("If", "loud", outputs=["y"], **branches)
    inputs = {"x": ["T", 2, 6], "h": [1, 2, 8], "loud": (TensorProto.BOOL, [])}
    path = b.save(folder / "float32.onnx", inputs, [])
    model = onnx.load(path)
    for name in ("y", "gru_h"):
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    onnx.save(model, path)
    return path


def converted(source: Path, **options: Any) -> Path:
    target = source.with_name("float16.onnx")
    onnx.save(convert_float_to_float16(onnx.load(source), **options), target)
    return target


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("kept", [False, True], ids=["float16 outside", "float32 outside"])
@pytest.mark.parametrize("loud", [False, True])
def test_it_equals_the_original(tmp_path: Path, kept: bool, loud: bool) -> None:
    path = converted(network(tmp_path), keep_io_types=kept)
    outside = "; x, h, y, gru_h are float32 now" if not kept else ""
    with pytest.warns(UserWarning, match=f"float16.onnx: it computes in float16, and its import in float32{outside}$"):
        net = load(path)
    feed = {"x": slow_signal(1, 20, 2, 6), "h": np.full((1, 2, 8), 0.5, np.float32)}
    original = {name: value if kept else value.astype(np.float16) for name, value in feed.items()}
    expected = onnx_runtime(path).run(None, {**original, "loud": np.array(loud)})
    for actual, wanted in zip(net.run(None, {**feed, "loud": np.array(loud)}), expected, strict=True):
        assert actual.dtype == np.float32
        assert np.abs(actual - wanted.astype(np.float32)).max() < TOLERANCE * max(1, np.abs(wanted).max())
    if not kept:
        with pytest.raises(ValueError, match="the input 'x' is float16: the network takes float32"):
            net.run(None, {**original, "loud": np.array(loud)})


@pytest.mark.usefixtures("way")
def test_states_stream_and_files_come_back(tmp_path: Path) -> None:
    path, x = converted(streaming_lstm(tmp_path)), slow_signal(1, 30, 1, 6)
    session, state, expected = onnx_runtime(path), np.zeros((2, 1, 16), np.float16), []
    for frame in x:
        y, state = session.run(["y", "next"], {"x": frame.astype(np.float16), "state": state})
        expected.append(y)
    with pytest.warns(UserWarning, match="it computes in float16"):
        net = load(path, thresholds=0.02)
    assert np.abs(stream(net, x) - np.stack(expected)).max() < 0.05
    assert net.activity.sparsity > 0.05  # a state rounded between calls would begin a sequence in each
    net.save(tmp_path / "saved.onnx")
    net.save_onnx(tmp_path / "operators.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(stream(load(tmp_path / "saved.onnx"), x), stream(net, x))
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(operator_library()))
    session = onnxruntime.InferenceSession(str(tmp_path / "operators.onnx"), options)
    np.testing.assert_allclose(stream(session, x), stream(net, x), rtol=0, atol=1e-6)


def test_weights_stored_so_change_nothing_else(tmp_path: Path) -> None:
    """Cast to float32 before they are used: the file that `save` writes keeps them so."""
    b = Builder()
    stored = [
        b.constant(name, b.random.uniform(-0.5, 0.5, (1, 18, n)).astype(np.float16)) for name, n in (("W", 4), ("R", 6))
    ]
    b.node("GRU", "x", *[b.node("Cast", name, to=TensorProto.FLOAT) for name in stored], outputs=["y"], hidden_size=6)
    path = b.save(tmp_path / "m.onnx", {"x": ["T", "B", 4]}, ["y"])
    x = slow_signal(1, 5, 2, 4)
    expected = onnx_runtime(path).run(None, {"x": x})[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net = load(path)
    np.testing.assert_allclose(net.run(None, {"x": x})[0], expected, rtol=0, atol=1e-6)
    net.save(tmp_path / "saved.onnx")
    assert [t.data_type for t in onnx.load(tmp_path / "saved.onnx").graph.initializer] == [TensorProto.FLOAT16] * 2


def test_the_bench_feeds_the_original_in_its_own_type(tmp_path: Path) -> None:
    path = converted(streaming_lstm(tmp_path))
    given = SimpleNamespace(data=None, shape=["x=1,6", "state=2,1,16"], set=[], state=["state=next"])
    session = onnx_runtime(path)
    calls = Calls(session, given)
    with pytest.warns(UserWarning, match="it computes in float16"):
        net = load(path)
    for ours, theirs in zip(calls.run(net), calls.run(session), strict=True):
        assert np.abs(ours - theirs).max() < TOLERANCE
