"""Networks in ONNX Runtime itself, by the operators of DeltaRNN's library: equal to the runner's."""

import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

import onnx
import onnxruntime
from onnx import TensorProto, helper
from tests.onnx.models import Builder, onnx_runtime, recurrent_node, slow_signal
from tests.onnx.test_network import plain_gru, stream, streaming_lstm
from tests.onnx.test_pretrained import file_of, probabilities

from deltarnn import DeltaLSTM, Quantization
from deltarnn.cli import main
from deltarnn.engine import Engine
from deltarnn.onnx import Network, UnsupportedGraphError, load, operator_library
from deltarnn.onnx.package import site_bytes
from deltarnn.onnx.recurrent import Site

SOURCE = Path(__file__).parents[2] / "native" / "onnxruntime" / "ort_api.hpp"


def with_library(path: Path) -> Any:
    """A session of ONNX Runtime with the library."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.register_custom_ops_library(str(operator_library()))
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node if node.domain == "deltarnn"]


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(("batch", "precision"), [(1, "float32"), (3, "float32"), (2, "bfloat16"), (1, "int8")])
def test_steps_with_states(tmp_path: Path, whole: bool, batch: int, precision: Any) -> None:
    formats = {"quantization": Quantization()} if precision == "int8" else {}
    net = load(streaming_lstm(tmp_path), thresholds=0.125, precision=precision, **formats)
    out, x = tmp_path / "out.onnx", slow_signal(1, 40, batch, 6)
    example = {"x": x[0], "state": np.zeros((2, batch, 16), np.float32)} if whole else None
    told = net.save_onnx(out, example)
    assert (told, operators(out)) == (
        ("the whole network", ["Program"]) if whole else ("1 recurrent operators", ["Recurrent"])
    )
    expected = stream(net, x, batch)
    session = with_library(out)
    actual = stream(session, x, batch)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=0 if whole else 1e-6)
    np.testing.assert_array_equal(stream(session, x, batch), actual)  # a state that was not returned last begins anew
    assert [node.name for node in session.get_inputs()] == net.input_names
    assert [node.name for node in session.get_outputs()] == net.output_names


@pytest.mark.parametrize("options", [{}, {"direction": "bidirectional"}, {"direction": "reverse", "layout": 1}])
@pytest.mark.parametrize("cell", ["GRU", "LSTM"])
def test_sequences_in_all_layouts(tmp_path: Path, cell: str, options: dict[str, Any]) -> None:
    """Two layers, initial states, lengths, several sizes with one file."""
    b, directions = Builder(5), 2 if options.get("direction") == "bidirectional" else 1
    states = ["h", "c"] if cell == "LSTM" else ["h"]
    recurrent_node(b, cell, 4, 5, "x", states=states, lengths="lengths", prefix="rnn", **options)
    order = ["B", directions, 5] if options.get("layout") else [directions, "B", 5]
    sizes: dict[str, Any] = {"x": ["B", "T", 4] if options.get("layout") else ["T", "B", 4], "h": order, "c": order}
    inputs = {"x": sizes["x"], **{name: sizes[name] for name in states}, "lengths": (TensorProto.INT32, ["B"])}
    outputs = ["rnn_y", "rnn_h"] + (["rnn_c"] if cell == "LSTM" else [])
    path = b.save(tmp_path / "in.onnx", inputs, outputs)
    net = load(path, thresholds=0.1)
    net.save_onnx(tmp_path / "out.onnx")
    session = with_library(tmp_path / "out.onnx")
    for steps, batch in ((7, 3), (4, 1)):
        x = slow_signal(steps, steps, batch, 4)
        state = slow_signal(batch, directions, batch, 5)
        feed = {
            "x": x.swapaxes(0, 1) if options.get("layout") else x,
            **{name: state.swapaxes(0, 1) if options.get("layout") else state for name in states},
            "lengths": np.array([steps, steps - 1, 0][:batch], np.int32),
        }
        feed = {name: np.ascontiguousarray(value) for name, value in feed.items()}
        for actual, expected in zip(session.run(None, feed), net.run(None, feed), strict=True):
            np.testing.assert_array_equal(actual, expected)


def test_held_states_go_on_from_call_to_call(tmp_path: Path) -> None:
    path, x = plain_gru(tmp_path), slow_signal(4, 60, 2, 6)
    for example in (None, {"x": x[:20]}):
        load(path, thresholds=0.1, states="held").save_onnx(tmp_path / "out.onnx", example)
        session = with_library(tmp_path / "out.onnx")
        chunks = np.concatenate([session.run(None, {"x": part})[0] for part in np.split(x, 3)])
        (whole,) = load(path, thresholds=0.1).run(None, {"x": x})
        np.testing.assert_allclose(chunks, whole, rtol=0, atol=1e-6)


def test_dense_it_equals_the_original(tmp_path: Path) -> None:
    path, x = plain_gru(tmp_path), slow_signal(6, 30, 2, 6)
    load(path).save_onnx(tmp_path / "out.onnx")
    expected = onnx_runtime(path).run(None, {"x": x})[0]
    np.testing.assert_allclose(with_library(tmp_path / "out.onnx").run(None, {"x": x})[0], expected, rtol=0, atol=1e-5)


def test_silero_vad_as_one_operator_refuses_another_rate(tmp_path: Path) -> None:
    path = file_of("silero_vad", "data/silero_vad.onnx")
    out = tmp_path / "vad.onnx"
    shapes = ["--shape", "input=1,576", "--shape", "state=2,1,128", "--set", "sr=16000"]
    assert main(["import", str(path), "--thx", "0.1", "--thh", "0.1", "--operators", str(out), *shapes]) == 0
    assert operators(out) == ["Program"]
    session, net = with_library(out), load(path, thresholds=0.1)
    np.testing.assert_array_equal(probabilities(session, 16000), probabilities(net, 16000))
    feed = {"input": np.zeros((1, 576), np.float32), "state": np.zeros((2, 1, 128), np.float32), "sr": np.array(8000)}
    with pytest.raises(Exception, match="exported for the value 16000 of input 2"):
        session.run(None, feed)
    with pytest.raises(UnsupportedGraphError, match="give an example= of a call"):
        load(path).save_onnx(out)


@pytest.mark.parametrize("kind", [np.bool_, np.uint8, np.int8, np.int16, np.int32, np.int64])
def test_whole_numbers_of_every_kind_keep_their_value(tmp_path: Path, kind: Any) -> None:
    """A branch that an input chooses: the operator takes the value it was exported for, and no other."""
    b = Builder(8)
    recurrent_node(b, "GRU", 4, 5, "x", prefix="rnn")
    condition = b.node("Cast", "flag", to=TensorProto.BOOL)
    branches = [
        helper.make_graph(
            [helper.make_node(operator, ["rnn_y"], ["out"])], operator, [], [onnx.ValueInfoProto(name="out")]
        )
        for operator in ("Neg", "Abs")
    ]
    b.node("If", condition, outputs=["y"], then_branch=branches[0], else_branch=branches[1])
    flag = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    path = b.save(tmp_path / "in.onnx", {"x": ["T", "B", 4], "flag": (flag, [])}, ["y"])
    feed = {"x": slow_signal(3, 6, 1, 4), "flag": np.array(1, kind)}
    assert load(path).save_onnx(tmp_path / "out.onnx", feed) == "the whole network"
    session = with_library(tmp_path / "out.onnx")
    expected = onnx_runtime(path).run(None, feed)[0]
    np.testing.assert_allclose(session.run(None, feed)[0], expected, rtol=0, atol=1e-6)
    with pytest.raises(Exception, match="exported for the value 1 of input 1"):
        session.run(None, {**feed, "flag": np.array(0, kind)})


def test_outputs_that_stand_twice_or_are_inputs(tmp_path: Path) -> None:
    """As exporters write where a module returns a tensor twice, or its input: outputs keep their places."""
    b, x = Builder(9), slow_signal(3, 6, 1, 4)
    recurrent_node(b, "GRU", 4, 5, "x", prefix="rnn")
    path = b.save(tmp_path / "in.onnx", {"x": [6, 1, 4]}, ["rnn_y", "rnn_h", "x", "rnn_y"])
    assert load(path).save_onnx(tmp_path / "out.onnx") == "the whole network"
    actual = with_library(tmp_path / "out.onnx").run(None, {"x": x})
    for one, other in zip(actual, onnx_runtime(path).run(None, {"x": x}), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_constants_that_outputs_and_branches_read(tmp_path: Path) -> None:
    b = Builder()
    y = recurrent_node(b, "GRU", 4, 6, "x", prefix="rnn")
    for name, size in (("loud", 2.0), ("still", 0.5), ("version", 3.0)):
        b.constant(name, np.full(6, size, np.float32))
    branches = {
        f"{branch}_branch": helper.make_graph(
            [helper.make_node("Mul", [y, constant], [branch])], branch, [], [onnx.ValueInfoProto(name=branch)]
        )
        for branch, constant in (("then", "loud"), ("else", "still"))
    }
    b.node("If", "switch", outputs=["y"], **branches)
    path = b.save(tmp_path / "m.onnx", {"x": ["T", "B", 4], "switch": (TensorProto.BOOL, ["N"])}, ["y", "version"])
    net = load(path)
    net.save_onnx(tmp_path / "out.onnx")
    session = with_library(tmp_path / "out.onnx")
    for switch in (True, False):
        feed = {"x": slow_signal(1, 7, 2, 4), "switch": np.array([switch])}
        for actual, expected in zip(session.run(None, feed), onnx_runtime(path).run(None, feed), strict=True):
            np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6)


def test_a_wrong_example_and_wrong_sizes_on_the_command_line(tmp_path: Path, capsys: Any) -> None:
    path = plain_gru(tmp_path)
    with pytest.raises(ValueError, match="has shape"):
        load(path).save_onnx(tmp_path / "out.onnx", {"x": np.zeros((3, 6), np.float32)})
    for flags, message in (
        (["--shape", "x=2,1,6"], "--shape and --set are for --operators"),
        (["--operators", str(tmp_path / "o.onnx"), "--shape", "z=2"], "no input is called 'z'"),
        (["--operators", str(tmp_path / "o.onnx"), "--shape", "x"], "must be INPUT=VALUE"),
        (["--operators", str(tmp_path / "o.onnx"), "--set", "x=1"], "the size of 'x' is not known: give --shape x="),
    ):
        assert main(["import", str(path), *flags]) == 1
        assert message in capsys.readouterr().err


def damaged(path: Path, change: Any) -> None:
    model = onnx.load(path)
    (node,) = [node for node in model.graph.node if node.domain == "deltarnn"]
    node.attribute[0].s = change(node.attribute[0].s)
    onnx.save(model, path)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"DRNX" + data[4:], "no package of DeltaRNN"),
        (lambda data: data[:4] + struct.pack("<I", 9) + data[8:], "another version"),
        (lambda data: data[: len(data) // 2], "ends early"),
        (lambda data: data[:8] + struct.pack("<Q", 1 << 60) + data[16:], "ends early"),
        (lambda data: b"", "ends early"),
    ],
)
def test_damaged_packages_are_refused(tmp_path: Path, whole: bool, change: Any, message: str) -> None:
    net: Network = load(plain_gru(tmp_path))
    out = tmp_path / "out.onnx"
    net.save_onnx(out, {"x": np.zeros((2, 1, 6), np.float32)} if whole else None)
    damaged(out, change)
    with pytest.raises(Exception, match=message):
        with_library(out)


@pytest.mark.parametrize(
    ("hidden", "is_cell", "message"),
    [((8, 16), False, "directions of different sizes"), ((8, 8), True, "a cell with several directions")],
)
def test_packages_whose_directions_contradict_each_other(
    tmp_path: Path, hidden: Sequence[int], is_cell: bool, message: str
) -> None:
    """The first direction's sizes say how much room the states of all have."""
    engines = [Engine.compile(DeltaLSTM(4, size, proj_size=3)) for size in hidden]
    site = Site("rnn", (), (False, True), "x", "", "", "h", "c", is_cell=is_cell)
    data = site_bytes(site, engines, held=False)
    node = helper.make_node("Recurrent", ["x"], ["h", "c"], domain="deltarnn", data=data)
    x, h, c = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "h", "c"))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("deltarnn", 1)]
    graph = helper.make_graph([node], "network", [x], [h, c])
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "out.onnx")
    with pytest.raises(Exception, match=message):
        with_library(tmp_path / "out.onnx")


def test_a_network_without_inputs(tmp_path: Path) -> None:
    b = Builder()
    y = recurrent_node(b, "GRU", 4, 6, b.constant("x", slow_signal(1, 7, 1, 4)), prefix="rnn")
    net, out = load(b.save(tmp_path / "m.onnx", {}, [y]), thresholds=0.1), tmp_path / "out.onnx"
    for example in (None, {}):
        assert net.save_onnx(out, example) == "1 recurrent operators"
        np.testing.assert_allclose(with_library(out).run(None, {})[0], net.run(None, {})[0], rtol=0, atol=1e-6)


def test_the_declared_part_of_the_api_is_that_of_its_header() -> None:
    """Where ONNX Runtime's headers are installed (a development package of the system)."""
    header = next(
        (
            path
            for folder in ("/usr/include", "/usr/local/include")
            for path in Path(folder).rglob("onnxruntime_c_api.h")
        ),
        None,
    )
    if header is None:
        pytest.skip("ONNX Runtime's headers are not installed")
    text = header.read_text(encoding="utf-8")
    api = text[text.index("struct OrtApi {") :]
    slots = re.findall(r"\(ORT_API_CALL\s*\*\s*(\w+)\)|ORT_API2_STATUS\((\w+)|ORT_CLASS_RELEASE\((\w+)\)", api)
    names = [function or status or f"Release{kind}" for function, status, kind in slots]
    for name, slot in re.findall(r"using (\w+) = Function<(\d+)", SOURCE.read_text(encoding="utf-8")):
        assert names[int(slot)] == name
