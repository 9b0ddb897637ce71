"""Files and calls that cannot be used: one clear sentence for each."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

pytest.importorskip("onnxruntime")

import onnxruntime
from onnx import TensorProto, helper
from tests.onnx.models import Builder, onnx_runtime, recurrent_node, slow_signal

from deltarnn.onnx import UnsupportedGraphError, load


def one_layer(folder: Path, cell: str = "GRU", outputs: tuple[str, ...] = (), **options: Any) -> Path:
    b = Builder()
    y = recurrent_node(b, cell, 4, 6, "x", prefix="rnn", **options)
    return b.save(folder / "m.onnx", {"x": ["T", "B", 4]}, [y])


@pytest.mark.parametrize(
    ("cell", "options", "message"),
    [
        ("GRU", {"clip": 3.0}, "GRU 'rnn' clips its gates"),
        ("LSTM", {"input_forget": 1}, "LSTM 'rnn' couples its input and forget gates"),
        ("GRU", {"activations": ["HardSigmoid", "Tanh"]}, "GRU 'rnn' has the activation functions HardSigmoid, Tanh"),
        ("LSTM", {"activations": ["Sigmoid", "Tanh", "Relu"]}, "LSTM 'rnn' has the activation functions Sigmoid"),
    ],
)
def test_options_that_delta_layers_lack(tmp_path: Path, cell: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedGraphError, match=message):
        load(one_layer(tmp_path, cell, **options))


@pytest.mark.parametrize("scale", [0.5, 0.0])
def test_peepholes(tmp_path: Path, scale: float) -> None:
    """Refused, unless they are 0."""
    b = Builder()
    names = [
        b.parameter("W", 1, 24, 4),
        b.parameter("R", 1, 24, 6),
        "",
        "",
        "",
        "",
        b.parameter("P", 1, 18, scale=scale),
    ]
    b.node("LSTM", "x", *names, outputs=["y"], hidden_size=6, name="rnn")
    path, x = b.save(tmp_path / "m.onnx", {"x": ["T", "B", 4]}, ["y"]), slow_signal(1, 5, 2, 4)
    if scale:
        with pytest.raises(UnsupportedGraphError, match="LSTM 'rnn' has peepholes"):
            load(path)
    else:
        expected = onnx_runtime(path).run(None, {"x": x})[0]
        np.testing.assert_allclose(load(path).run(None, {"x": x})[0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (((18, 4), (1, 18, 6)), {}, r"W has shape \(18, 4\), for 1 direction\(s\) of 6 units it must be \(1, 18, 4\)"),
        (((2, 18, 4), (2, 18, 6)), {}, r"W has shape \(2, 18, 4\)"),
        (((1, 24, 4), (1, 24, 6)), {}, r"W has shape \(1, 24, 4\)"),
        (((1, 18, 4), (1, 18, 7)), {}, r"R has shape \(1, 18, 7\), .* must be \(1, 18, 6\): the file is damaged"),
        (((1, 18, 4), (1, 18, 6), (1, 18)), {}, r"B has shape \(1, 18\), .* must be \(1, 36\)"),
        (((1, 18, 4), (1, 18, 6)), {"direction": "bidirectional"}, r"for 2 direction\(s\) of 6 units .* \(2, 18, 4\)"),
        (
            ((1, 18, 4), (1, 18, 6)),
            {"direction": "sideways"},
            "the direction 'sideways': there are forward, reverse, bid",
        ),
    ],
)
def test_weights_that_do_not_fit(tmp_path: Path, shapes: Any, options: dict[str, Any], message: str) -> None:
    b = Builder()
    names = [b.parameter(name, *shape) for name, shape in zip("WRB", shapes, strict=False)]
    b.node("GRU", "x", *names, outputs=["y"], hidden_size=6, name="rnn", **options)
    with pytest.raises(UnsupportedGraphError, match=f"GRU 'rnn'.* {message}"):
        load(b.save(tmp_path / "m.onnx", {"x": ["T", "B", 4]}, ["y"]))


def test_recurrent_operators_without_a_delta_form(tmp_path: Path) -> None:
    """Alone they are refused; beside others they stay, with a warning."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    plain, quantised = one_layer(tmp_path, "LSTM"), tmp_path / "q.onnx"
    quantization.quantize_dynamic(plain, quantised)
    with pytest.raises(
        UnsupportedGraphError, match=r"q\.onnx: the node .* is a DynamicQuantizeLSTM, .* the float model"
    ):
        load(quantised)
    b, x = Builder(), slow_signal(1, 5, 1, 4)
    y = b.node("Squeeze", recurrent_node(b, "GRU", 4, 6, "x", prefix="rnn"), b.constant("axis", np.array([1])))
    b.node("RNN", y, b.parameter("W", 1, 3, 6), b.parameter("R", 1, 3, 3), outputs=["y"], hidden_size=3, name="plain")
    path = b.save(tmp_path / "m.onnx", {"x": ["T", "B", 4]}, ["y"])
    with pytest.warns(UserWarning, match="the node 'plain' is an RNN, without gates: .*; it stays as it is"):
        net = load(path)
    np.testing.assert_allclose(net.run(None, {"x": x})[0], onnx_runtime(path).run(None, {"x": x})[0], rtol=0, atol=1e-6)


def test_weights_that_are_computed(tmp_path: Path) -> None:
    b = Builder()
    b.node("GRU", "x", b.node("Tanh", "W"), b.parameter("R", 1, 18, 6), outputs=["y"], hidden_size=6, name="rnn")
    path = b.save(tmp_path / "m.onnx", {"x": ["T", "B", 4], "W": [1, 18, 4]}, ["y"])
    with pytest.raises(UnsupportedGraphError, match=r"GRU 'rnn': its weights W .* the importer needs constants"):
        load(path)


def test_no_recurrent_part(tmp_path: Path) -> None:
    b = Builder()
    b.node("Relu", "x", outputs=["y"])
    with pytest.raises(UnsupportedGraphError, match=r"m\.onnx: no recurrent part that the importer knows"):
        load(b.save(tmp_path / "m.onnx", {"x": ["T", 4]}, ["y"]))


def test_recurrent_layers_inside_a_loop(tmp_path: Path) -> None:
    inner = Builder()
    recurrent_node(inner, "GRU", 4, 4, "x", prefix="rnn")
    inner.node("Identity", "going", outputs=["still"])
    body = helper.make_graph(
        inner.nodes,
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("still", TensorProto.BOOL, []), onnx.ValueInfoProto(name="rnn_y")],
        inner.constants,
    )
    b = Builder()
    b.nodes.append(helper.make_node("Loop", ["count", ""], ["ys"], name="outer", body=body))
    path = b.save(tmp_path / "m.onnx", {"x": ["T", "B", 4], "count": (TensorProto.INT64, [])}, ["ys"])
    with pytest.raises(UnsupportedGraphError, match="the Loop 'outer' has recurrent layers inside"):
        load(path)


def test_operators_that_nobody_knows(tmp_path: Path) -> None:
    b = Builder()
    recurrent_node(b, "GRU", 4, 6, "x", prefix="rnn")
    b.node("Frobnicate", "rnn_y", outputs=["y"], name="odd")
    path = b.save(tmp_path / "m.onnx", {"x": ["T", "B", 4]}, ["y"])
    with pytest.raises(UnsupportedGraphError, match="the node 'odd' is a Frobnicate, which operator set 18"):
        load(path)
    model = onnx.load(path)
    model.graph.node[-1].domain = "acme"
    model.opset_import.append(helper.make_opsetid("acme", 1))
    onnx.save(model, path)
    with pytest.raises(UnsupportedGraphError, match="the node 'odd' is a Frobnicate of the domain 'acme'"):
        load(path)


def test_an_operator_that_onnx_runtime_lacks(tmp_path: Path) -> None:
    b = Builder()
    recurrent_node(b, "GRU", 4, 6, "x", prefix="rnn")
    b.node("Missing", "rnn_y", outputs=["y"], domain="com.microsoft")
    path = b.save(tmp_path / "m.onnx", {"x": ["T", "B", 4]}, ["y"])
    model = onnx.load(path)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, path)
    with pytest.raises(UnsupportedGraphError, match=r"ONNX Runtime refuses what is not recurrent: .*Missing"):
        load(path)


def test_external_data(tmp_path: Path) -> None:
    path, x = one_layer(tmp_path), slow_signal(1, 3, 1, 4)
    expected = load(path).run(None, {"x": x})[0]
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    np.testing.assert_array_equal(load(path).run(None, {"x": x})[0], expected)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"its weights are in another file, weights\.bin, which is not"):
        load(path)


def optimised(folder: Path, name: str) -> Path:
    """A small network as ONNX Runtime writes it after all its optimisations."""
    b = Builder()
    kernels = [b.parameter(f"k{i}", 16, 16, 3, 1) for i in range(2)]
    signal = "x"
    for kernel in kernels:
        signal = b.node("Conv", signal, kernel, pads=[1, 0, 1, 0])
    signal = b.node("Squeeze", signal, b.constant("axis", np.array([3])))
    y = recurrent_node(b, "GRU", 16, 6, b.node("Transpose", signal, perm=[2, 0, 1]), prefix="rnn")
    path = b.save(folder / "plain.onnx", {"x": [1, 16, 20, 1]}, [y])
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(folder / name), 4
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return folder / name


def test_graphs_that_onnx_runtime_optimised_for_a_machine(tmp_path: Path) -> None:
    path = optimised(tmp_path, "m.onnx")
    if all(node.domain != "com.microsoft.nchwc" for node in onnx.load(path).graph.node):
        pytest.skip("ONNX Runtime has no blocked convolutions on this machine")
    with pytest.raises(UnsupportedGraphError, match=r"optimised for one machine: import the ONNX file from before"):
        load(path)


def test_the_format_of_onnx_runtime_itself(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedGraphError, match=r"m\.ort: a model in ONNX Runtime's own format"):
        load(optimised(tmp_path, "m.ort"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04model/data.pkl", r"an archive, as of PyTorch or Keras: export the model to ONNX"),
        (b"\x89HDF\r\n\x1a\n", "a Keras model: export it to ONNX"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
            r"a pointer of Git LFS .*: fetch the file itself",
        ),
        (b"<!DOCTYPE html><html>", "a web page or XML: download the ONNX file itself"),
        (b"\x1c\0\0\0TFL3\x14\0", "a model of TensorFlow Lite: convert it to ONNX"),
    ],
)
def test_files_of_other_kinds(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(UnsupportedGraphError, match=message):
        load(path)


@pytest.mark.parametrize("content", [b"", b"not a model at all", b"\x08\x08\x12\x04"])
def test_files_that_are_no_models(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(UnsupportedGraphError, match=r"m\.onnx: not an ONNX model, or a damaged one"):
        load(path)
    with pytest.raises(FileNotFoundError, match=r"none\.onnx: no such file"):
        load(tmp_path / "none.onnx")


def test_a_truncated_file(tmp_path: Path) -> None:
    path = one_layer(tmp_path)
    whole = path.read_bytes()
    for size in (len(whole) // 2, len(whole) - 7):
        path.write_bytes(whole[:size])
        with pytest.raises(UnsupportedGraphError):
            load(path)


@pytest.mark.parametrize("operator", ["ConcatFromSequence", "OptionalGetElement"])
def test_inputs_that_are_no_tensors(tmp_path: Path, operator: str) -> None:
    b = Builder()
    x = b.node(operator, "xs", **({"axis": 0} if operator == "ConcatFromSequence" else {}))
    path = b.save(tmp_path / "m.onnx", {"xs": None}, [recurrent_node(b, "GRU", 4, 6, x, prefix="rnn")])
    model = onnx.load(path)
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, ["T", "B", 4])
    make = helper.make_optional_type_proto if operator.startswith("Opt") else helper.make_sequence_type_proto
    model.graph.input[0].type.CopyFrom(make(tensor))
    onnx.save(model, path)
    with pytest.raises(UnsupportedGraphError, match=r"the input 'xs' is no tensor.*with tensors as inputs"):
        load(path)


def test_nodes_that_wait_for_each_other(tmp_path: Path) -> None:
    b = Builder()
    b.node("Add", "x", "later", outputs=["sum"], name="first")
    b.node("Relu", "sum", outputs=["later"], name="second")
    recurrent_node(b, "GRU", 4, 6, "later", prefix="rnn")
    path = b.save(tmp_path / "m.onnx", {"x": ["T", "B", 4]}, ["rnn_y"])
    with pytest.raises(UnsupportedGraphError, match="the Add 'first' waits for its own result: the file is damaged"):
        load(path)


def test_calls_that_do_not_fit(tmp_path: Path) -> None:
    net = load(one_layer(tmp_path))
    x = np.zeros((3, 1, 4), np.float32)
    for names, feed, message in (
        (None, {}, "the input 'x' is missing: the network takes x"),
        (None, {"x": x, "z": x}, "the input 'z' is unknown"),
        (None, {"x": x.astype(np.float64)}, "the input 'x' is float64: the network takes float32"),
        (None, {"x": x[0]}, r"the input 'x' has shape \(1, 4\): the network takes \(any, any, 4\)"),
        (None, {"x": np.zeros((3, 1, 5), np.float32)}, r"the network takes \(any, any, 4\)"),
        (["q"], {"x": x}, "no output is called 'q': the network has rnn_y"),
    ):
        with pytest.raises(ValueError, match=message):
            net.run(names, feed)
    for call in (lambda: net.engine("gru"), lambda: net.set_thresholds({"gru": 0.1})):
        with pytest.raises(ValueError, match="no recurrent part is called 'gru': there are rnn"):
            call()


@pytest.mark.usefixtures("way")
def test_inputs_that_the_file_gives_values(tmp_path: Path) -> None:
    """As weights are in files of older exporters: part of the network, and inputs once their initializer is removed."""
    b = Builder()
    y = recurrent_node(b, "GRU", 4, 6, "x", prefix="rnn", states=[b.parameter("h", 1, 2, 6)])
    sizes = {tensor.name: list(tensor.dims) for tensor in b.constants}
    path, feed = b.save(tmp_path / "m.onnx", {"x": ["T", 2, 4], **sizes}, [y]), {"x": slow_signal(1, 5, 2, 4)}
    net = load(path)
    np.testing.assert_allclose(net.run(None, feed)[0], onnx_runtime(path).run(None, feed)[0], rtol=0, atol=1e-6)
    feed["h"] = slow_signal(2, 1, 2, 6)
    with pytest.raises(ValueError, match=r"the input 'h' has a value in the file.* remove its initializer"):
        net.run(None, feed)
    expected = onnx_runtime(path).run(None, feed)[0]
    b.constants = [tensor for tensor in b.constants if tensor.name != "h"]
    path = b.save(tmp_path / "open.onnx", {"x": ["T", 2, 4], **sizes}, [y])
    np.testing.assert_allclose(load(path).run(None, feed)[0], expected, rtol=0, atol=1e-6)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"x": (3, 2, 5)}, r"the GRU 'rnn' gets an input of shape \(3, 2, 5\): it takes \(T, B, 4\)"),
        ({"x": (2, 4)}, r"the GRU 'rnn' gets an input of shape \(2, 4\): it takes \(T, B, 4\)"),
        ({"x": (0, 2, 4)}, r"the GRU 'rnn' gets an input of shape \(0, 2, 4\): .*none of them 0"),
        ({"h": (1, 3, 6)}, r"the GRU 'rnn' gets an initial h of shape \(1, 3, 6\): .* \(1, 2, 6\)"),
        ({"h": (1, 1, 6)}, r"the GRU 'rnn' gets an initial h of shape \(1, 1, 6\): .* \(1, 2, 6\)"),
        ({"h": (1, 2, 5)}, r"the GRU 'rnn' gets an initial h of shape \(1, 2, 5\): .* \(1, 2, 6\)"),
    ],
)
def test_sizes_that_only_a_call_shows(tmp_path: Path, sizes: dict[str, tuple[int, ...]], message: str) -> None:
    b = Builder()
    y = recurrent_node(b, "GRU", 4, 6, "x", states=["h"], prefix="rnn")
    path = b.save(tmp_path / "m.onnx", {"x": None, "h": None}, [y])
    net, feed = load(path), {"x": (3, 2, 4), "h": (1, 2, 6)}
    assert net.run(None, {name: np.zeros(size, np.float32) for name, size in feed.items()})[0].shape == (3, 1, 2, 6)
    for _ in range(2):  # by the program for all sizes, and by one of their own
        with pytest.raises(ValueError, match=message):
            net.run(None, {name: np.zeros(size, np.float32) for name, size in {**feed, **sizes}.items()})
    with pytest.raises(ValueError, match=message):
        load(path).run(None, {name: np.zeros(size, np.float32) for name, size in {**feed, **sizes}.items()})


@pytest.mark.parametrize("lengths", [[4, 1], [-1, 2], [1], [1, 2, 3]])
def test_lengths_that_do_not_fit(tmp_path: Path, lengths: list[int]) -> None:
    b = Builder()
    y = recurrent_node(b, "LSTM", 4, 6, "x", lengths="lengths", prefix="rnn")
    path = b.save(tmp_path / "m.onnx", {"x": ["T", "B", 4], "lengths": (TensorProto.INT32, ["N"])}, [y])
    feed = {"x": np.zeros((3, 2, 4), np.float32), "lengths": np.array(lengths, np.int32)}
    with pytest.raises(ValueError, match=r"the LSTM 'rnn' gets lengths .*: one for each of 2 sequences, up to 3"):
        load(path).run(None, feed)


def test_options_of_load(tmp_path: Path) -> None:
    path = one_layer(tmp_path, direction="bidirectional")
    with pytest.raises(UnsupportedGraphError, match="states='held' needs a network that runs forwards in time"):
        load(path, states="held")
    with pytest.raises(ValueError, match="states='kept': must be one of 'explicit', 'held'"):
        load(path, states="kept")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="precision='half'"):
        load(path, precision="half")  # type: ignore[arg-type]
