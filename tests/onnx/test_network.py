"""What a user does with an imported network: states, thresholds, training, files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("onnxruntime")

import onnx
from onnx import TensorProto, helper, numpy_helper
from tests.onnx.models import Builder, onnx_runtime, recurrent_node, slow_signal

from deltarnn.onnx import Network, load

pytestmark = pytest.mark.usefixtures("way")


def streaming_lstm(folder: Path, hidden: int = 16) -> Path:
    """One step per call, states in one tensor (2, B, H), as voice detectors have it, with a layer before and after."""
    b = Builder(3)
    first, second = b.constant("zero", np.array(0)), b.constant("one", np.array(1))
    lead, axis0 = b.constant("lead", np.array([0])), b.constant("tail", np.array([0]))
    x = b.node("Unsqueeze", b.node("Tanh", b.node("MatMul", "x", b.parameter("W_in", 6, 8))), lead)
    h, c = (b.node("Unsqueeze", b.node("Gather", "state", index, axis=0), lead) for index in (first, second))
    recurrent_node(b, "LSTM", 8, hidden, x, states=[h, c], prefix="rnn")
    b.node("MatMul", b.node("Squeeze", "rnn_h", axis0), b.parameter("W_out", hidden, 2), outputs=["y"])
    b.node("Concat", "rnn_h", "rnn_c", axis=0, outputs=["next"])
    return b.save(folder / "streaming.onnx", {"x": ["B", 6], "state": [2, "B", hidden]}, ["y", "next"])


def plain_gru(folder: Path) -> Path:
    """A sequence per call, no states."""
    b = Builder(4)
    recurrent_node(b, "GRU", 6, 10, "x", prefix="rnn")
    b.node("MatMul", "rnn_y", b.parameter("W_out", 10, 3), outputs=["y"])
    return b.save(folder / "plain.onnx", {"x": ["T", "B", 6]}, ["y"])


def stream(net: Network, x: np.ndarray, batch: int = 1) -> np.ndarray:
    """y of each step x (T, B, 6), the state handed from call to call."""
    state = np.zeros((2, batch, 16), np.float32)
    outputs = []
    for frame in x:
        y, state = net.run(["y", "next"], {"x": frame, "state": state})
        outputs.append(y)
    return np.stack(outputs)


@pytest.mark.parametrize("batch", [1, 3])
def test_steps_with_states_equal_onnx_runtime_and_go_on_between_calls(tmp_path: Path, batch: int) -> None:
    path, x = streaming_lstm(tmp_path), slow_signal(1, 50, batch, 6)
    expected = stream(onnx_runtime(path), x, batch)
    np.testing.assert_allclose(stream(load(path), x, batch), expected, rtol=0, atol=1e-5)
    net = load(path, thresholds=0.05)
    assert np.abs(stream(net, x, batch) - expected).max() < 0.1
    assert net.activity.sparsity > 0.2  # with new delta memories in each call nearly everything would fire
    assert net.activity.per_part["rnn"].steps == 50 * batch


def test_a_state_that_was_not_returned_last_begins_a_sequence(tmp_path: Path) -> None:
    net, x = load(streaming_lstm(tmp_path), thresholds=0.1), slow_signal(2, 30, 1, 6)
    first = stream(net, x)
    stream(net, slow_signal(3, 7, 1, 6))
    np.testing.assert_array_equal(stream(net, x), first)


def test_a_caller_may_write_into_the_state_it_got(tmp_path: Path) -> None:
    b = Builder()
    recurrent_node(b, "GRU", 3, 4, "x", states=["h"], prefix="rnn")
    net = load(b.save(tmp_path / "m.onnx", {"x": [1, 1, 3], "h": [1, 1, 4]}, ["rnn_h"]), thresholds=0.1)
    x = np.ones((1, 1, 3), np.float32)
    (h,) = net.run(None, {"x": x, "h": np.zeros((1, 1, 4), np.float32)})
    h *= 0
    np.testing.assert_array_equal(net.run(None, {"x": x, "h": h})[0], net.stream().run(None, {"x": x, "h": h})[0])


def test_held_states_make_chunks_equal_the_whole(tmp_path: Path) -> None:
    path, x = plain_gru(tmp_path), slow_signal(4, 60, 2, 6)
    (whole,) = load(path, thresholds=0.1).run(None, {"x": x})
    net = load(path, thresholds=0.1, states="held")
    chunks = [net.run(None, {"x": chunk})[0] for chunk in np.split(x, [1, 2, 20, 33])]
    np.testing.assert_allclose(np.concatenate(chunks), whole, rtol=0, atol=1e-5)
    net.reset()
    np.testing.assert_allclose(net.run(None, {"x": x[:5]})[0], whole[:5], rtol=0, atol=1e-5)
    again = load(path, thresholds=0.1)
    again.run(None, {"x": x[:5]})
    np.testing.assert_allclose(again.run(None, {"x": x[:5]})[0], whole[:5], rtol=0, atol=1e-5)


def test_streams_are_independent(tmp_path: Path) -> None:
    net = load(plain_gru(tmp_path), thresholds=0.1, states="held")
    x = slow_signal(5, 20, 1, 6)
    other = net.stream()
    (first,) = net.run(None, {"x": x})
    np.testing.assert_array_equal(other.run(None, {"x": x})[0], first)
    assert other.activity.per_part["rnn"].steps == 20


def test_thresholds_by_name_number_and_pair(tmp_path: Path) -> None:
    net = load(streaming_lstm(tmp_path))
    assert net.thresholds == {"rnn": [(0.0, 0.0)]}
    for given, expected in ((0.1, (0.1, 0.1)), ((0.1, 0.2), (0.1, 0.2)), ({"rnn": [(0.3, 0)]}, (0.3, 0.0))):
        net.set_thresholds(given)
        assert net.thresholds == {"rnn": [expected]}
        assert (net.layers["rnn"].thx, net.layers["rnn"].thh) == ((expected[0],), (expected[1],))
    nan = float("nan")
    for wrong, message in (
        ({"lstm": 1}, "there are rnn"),
        ((1, 2, 3), "no number, pair"),
        (-1, "at least 0"),
        (nan, "finite"),
    ):
        with pytest.raises(ValueError, match=message):
            net.set_thresholds(wrong)
    assert net.thresholds == {"rnn": [(0.3, 0.0)]}


def test_training_the_layers_changes_the_network_once_compiled(tmp_path: Path) -> None:
    net, x = load(streaming_lstm(tmp_path), thresholds=0.05), slow_signal(6, 25, 1, 6)
    before = stream(net, x)
    with net.record_inputs() as recorded:
        stream(net, x)
    (sequence,) = recorded["rnn"]
    assert sequence.x.shape == (25, 1, 8)
    layer = net.layers["rnn"]
    state = tuple(torch.zeros(1, 1, 16) for _ in range(2))
    layer(torch.from_numpy(sequence.x), state)[0].sum().backward()
    with torch.no_grad():
        layer.weight_ih_l0 -= 0.1 * layer.weight_ih_l0.grad
        layer.bias_ih_l0 += 0.1
    np.testing.assert_array_equal(stream(net, x), before)
    net.compile()
    after = stream(net, x)
    assert np.abs(after - before).max() > 1e-3
    net.save(tmp_path / "saved.onnx")
    again = load(tmp_path / "saved.onnx")
    assert again.thresholds == net.thresholds
    np.testing.assert_array_equal(stream(again, x), after)


def test_a_saved_network_is_still_the_original_to_others(tmp_path: Path) -> None:
    path, x = streaming_lstm(tmp_path), slow_signal(7, 10, 1, 6)
    net = load(path, thresholds=(0.1, 0.2))
    net.save(tmp_path / "saved.onnx")
    np.testing.assert_array_equal(stream(onnx_runtime(tmp_path / "saved.onnx"), x), stream(onnx_runtime(path), x))
    assert load(tmp_path / "saved.onnx").thresholds == {"rnn": [(0.1, 0.2)]}
    assert load(tmp_path / "saved.onnx", thresholds=0).thresholds == {"rnn": [(0.0, 0.0)]}


def test_any_number_of_sizes_runs(tmp_path: Path) -> None:
    path = plain_gru(tmp_path)
    net, session = load(path), onnx_runtime(path)
    for steps in [*range(1, 14), 3, 3, 20, 5]:
        x = slow_signal(steps, steps, 2, 6)
        np.testing.assert_allclose(net.run(None, {"x": x})[0], session.run(None, {"x": x})[0], rtol=0, atol=1e-6)


def test_sequences_of_no_steps_are_no_calibration(tmp_path: Path) -> None:
    b = Builder(3)
    y = recurrent_node(b, "GRU", 4, 6, "x", lengths="lengths", prefix="rnn")
    path = b.save(tmp_path / "m.onnx", {"x": ["T", "B", 4], "lengths": (TensorProto.INT32, ["B"])}, [y])
    net, feed = load(path), {"x": slow_signal(3, 30, 2, 4), "lengths": np.array([30, 0], np.int32)}
    with net.record_inputs() as recorded:
        expected = net.run(None, feed)[0]
    assert [sequence.x.shape for sequence in recorded["rnn"]] == [(30, 1, 4)]
    net.quantize([feed])
    np.testing.assert_allclose(net.run(None, feed)[0], expected, rtol=0, atol=0.02)


def test_tokens_are_a_signal(tmp_path: Path) -> None:
    """Of one token a call, one program is made, and an exported operator takes every token."""
    b = Builder(3)
    table, ids = b.parameter("table", 20, 4), {"ids": (TensorProto.INT64, ["T", "B"])}
    y = recurrent_node(b, "GRU", 4, 6, b.node("Gather", table, "ids", axis=0), prefix="rnn")
    path = b.save(tmp_path / "m.onnx", ids, [y])
    net, session = load(path), onnx_runtime(path)
    for token in (3, 7, 3, 7, 11):
        feed = {"ids": np.array([[token]])}
        np.testing.assert_allclose(net.run(None, feed)[0], session.run(None, feed)[0], rtol=0, atol=1e-6)
    assert len(net.programs.kept) == 1
    assert net.save_onnx(tmp_path / "out.onnx", example={"ids": np.array([[3]])}) == "1 recurrent operators"


def test_outputs_of_every_kind(tmp_path: Path) -> None:
    """Numbers of rank 0, inputs, constants, whole numbers: in the shapes and types of ONNX Runtime."""
    b, x = Builder(4), slow_signal(3, 7, 2, 4)
    y = recurrent_node(b, "GRU", 4, 6, "x", prefix="rnn")
    outputs = ["x", y, b.node("ReduceSum", y, keepdims=0), b.node("Constant", value_float=3.0), b.node("Shape", y)]
    outputs += [b.node("Greater", y, b.constant("zero", np.float32(0))), b.node("Identity", "x"), "rnn_W"]
    path = b.save(tmp_path / "m.onnx", {"x": ["T", "B", 4]}, outputs)
    net, expected = load(path), onnx_runtime(path).run(None, {"x": x})
    for _ in range(2):
        for actual, wanted in zip(net.run(None, {"x": x}), expected, strict=True):
            assert (actual.shape, actual.dtype) == (wanted.shape, wanted.dtype)
            np.testing.assert_allclose(actual, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("flat", [True, False])
def test_sparse_weights_and_the_long_name_of_the_domain(tmp_path: Path, flat: bool) -> None:
    b, x = Builder(4), slow_signal(3, 7, 2, 4)
    y = recurrent_node(b, "GRU", 4, 6, "x", prefix="rnn")
    model = onnx.load(b.save(tmp_path / "m.onnx", {"x": ["T", "B", 4]}, [y]))
    for name in ("rnn_W", "rnn_R"):
        (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == name]
        pruned = numpy_helper.to_array(tensor) * (numpy_helper.to_array(tensor) > 0.2)
        places = np.flatnonzero(pruned)[:, None] if flat else np.argwhere(pruned)
        model.graph.initializer.remove(tensor)
        values = numpy_helper.from_array(pruned[pruned != 0], name)
        where = numpy_helper.from_array(places[:, 0] if flat else places)
        sparse = helper.make_sparse_tensor(values, where, pruned.shape)
        if name == "rnn_W":
            model.graph.sparse_initializer.append(sparse)
        else:
            model.graph.node.insert(0, helper.make_node("Constant", [], [name], sparse_value=sparse))
    model.graph.node[-1].domain = model.opset_import[0].domain = "ai.onnx"
    onnx.save(model, tmp_path / "sparse.onnx")
    expected = onnx_runtime(tmp_path / "sparse.onnx").run(None, {"x": x})[0]
    np.testing.assert_allclose(load(tmp_path / "sparse.onnx").run(None, {"x": x})[0], expected, rtol=0, atol=1e-6)


def test_int8_computes_what_the_quantised_layer_computes(tmp_path: Path) -> None:
    from deltarnn import QFormat, Quantization

    quantization = Quantization(QFormat(8, 8), QFormat(1, 7), QFormat(2, 6))
    net = load(plain_gru(tmp_path), thresholds=0.0625, precision="int8", quantization=quantization)
    x = slow_signal(8, 30, 1, 6)
    layer = net.layers["rnn"].eval()
    layer.quantization = quantization
    with net.record_inputs() as recorded:
        (y,) = net.run(None, {"x": x})
    with torch.no_grad():
        h = layer(torch.from_numpy(recorded["rnn"][0].x))[0].numpy()
    weight = next(t for t in net.model.graph.initializer if t.name == "W_out")
    from onnx import numpy_helper

    np.testing.assert_allclose(y[:, 0, 0], h[:, 0] @ numpy_helper.to_array(weight), rtol=0, atol=1e-6)


def test_groups_of_small_grus_over_bands_in_the_batch(tmp_path: Path) -> None:
    """As in GTCRN: halves of the features have a GRU each, every band is a row of the batch, and a stream."""
    b, bands = Builder(8), 33
    halves = b.node("Split", "x", outputs=["low", "high"], axis=2, num_outputs=2)
    axis = b.constant("axis", np.array([1]))
    ys = []
    for name in (halves, "high"):
        recurrent_node(b, "GRU", 4, 6, name, prefix=f"rnn_{name}", states=[f"h_{name}"])
        ys.append(b.node("Squeeze", f"rnn_{name}_y", axis))
    b.node("Add", b.node("Concat", *ys, axis=2), b.parameter("shift", 12), outputs=["y"])
    sizes = {"x": ["T", bands, 8], "h_low": [1, bands, 6], "h_high": [1, bands, 6]}
    path = b.save(tmp_path / "groups.onnx", sizes, ["y", "rnn_low_h", "rnn_high_h"])
    x = slow_signal(5, 40, bands, 8)

    def streamed(runner: Any) -> np.ndarray:
        h, out = [np.zeros((1, bands, 6), np.float32)] * 2, []
        for frame in x:
            y, *h = runner.run(None, {"x": frame[None], "h_low": h[0], "h_high": h[1]})
            out.append(y[0])
        return np.stack(out)

    np.testing.assert_allclose(streamed(load(path)), streamed(onnx_runtime(path)), rtol=0, atol=1e-5)
    net = load(path, thresholds=0.1)
    assert np.abs(streamed(net) - streamed(onnx_runtime(path))).max() < 0.2
    assert net.activity.per_part["rnn_low"].steps == 40 * bands
    assert net.activity.sparsity > 0.2


def test_sequences_come_out_as_lists(tmp_path: Path) -> None:
    b = Builder()
    y = recurrent_node(b, "GRU", 4, 6, "x", prefix="rnn")
    b.node("SplitToSequence", y, b.constant("sizes", np.array([2, 3])), outputs=["parts"], axis=0)
    path = b.save(tmp_path / "m.onnx", {"x": [5, 1, 4]}, ["parts"])
    model = onnx.load(path)
    model.graph.output[0].CopyFrom(helper.make_tensor_sequence_value_info("parts", TensorProto.FLOAT, None))
    onnx.save(model, path)
    feed = {"x": slow_signal(1, 5, 1, 4)}
    (actual,), (expected,) = load(path).run(None, feed), onnx_runtime(path).run(None, feed)
    assert isinstance(actual, list)
    assert [part.shape for part in actual] == [(2, 1, 1, 6), (3, 1, 1, 6)]
    np.testing.assert_allclose(np.concatenate(actual), np.concatenate(expected), rtol=0, atol=1e-6)


def test_sizes_of_minus_one_are_any(tmp_path: Path) -> None:
    b = Builder()
    y = recurrent_node(b, "GRU", 4, 6, "x", prefix="rnn")
    path = b.save(tmp_path / "m.onnx", {"x": [-1, -1, 4]}, [y])
    net = load(path)
    for steps in (5, 7, 7):
        feed = {"x": slow_signal(1, steps, 2, 4)}
        np.testing.assert_allclose(net.run(None, feed)[0], onnx_runtime(path).run(None, feed)[0], rtol=0, atol=1e-6)


def test_strings_among_the_inputs(tmp_path: Path) -> None:
    """numpy has two types for them."""
    b = Builder()
    row = b.node("LabelEncoder", "word", keys_strings=["a", "b"], values_int64s=[0, 1], domain="ai.onnx.ml")
    x = b.node("Unsqueeze", b.node("Gather", b.parameter("table", 2, 4), row), b.constant("axis", np.array([1])))
    y = recurrent_node(b, "GRU", 4, 6, x, prefix="rnn")
    path = b.save(tmp_path / "m.onnx", {"word": (TensorProto.STRING, ["T"])}, [y])
    model = onnx.load(path)
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 2))
    onnx.save(model, path)
    for word in (np.array(["a", "b", "b"]), np.array(["a", "b", "b"], dtype=object)):
        expected = onnx_runtime(path).run(None, {"word": word})[0]
        np.testing.assert_allclose(load(path).run(None, {"word": word})[0], expected, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="the input 'word' is int64: the network takes object"):
        load(path).run(None, {"word": np.array([0])})
