"""Cells unrolled by exporters, in the ways these write them, recognised and equal to ONNX Runtime."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("onnxruntime")

from onnx import numpy_helper
from tests.onnx.models import Builder, onnx_runtime, recurrent_node, slow_signal

from deltarnn.onnx import UnsupportedGraphError, load

pytestmark = pytest.mark.usefixtures("way")

I, H = 5, 7  # noqa: E741


def two_gemms(b: Builder, gates: int, x: str, h: str) -> list[str]:
    """PyTorch's cells: a Gemm each of x and h, their sum split."""
    of_x = b.node(
        "Gemm",
        x,
        b.parameter(f"cell.weight_ih{len(b.nodes)}", gates * H, I),
        b.parameter(f"bi{len(b.nodes)}", gates * H),
        transB=1,
    )
    of_h = b.node(
        "Gemm",
        h,
        b.parameter(f"cell.weight_hh{len(b.nodes)}", gates * H, H),
        b.parameter(f"bh{len(b.nodes)}", gates * H),
        transB=1,
    )
    return split(b, b.node("Add", of_h, of_x), gates)


def concatenated(b: Builder, gates: int, x: str, h: str) -> list[str]:
    """TensorFlow's basic cells: one product of [x, h], a bias, a split; the forget gate's bias by an addition."""
    product = b.node("MatMul", b.node("Concat", x, h, axis=1), b.parameter(f"kernel{len(b.nodes)}", I + H, gates * H))
    parts = split(b, b.node("Add", product, b.parameter(f"bias{len(b.nodes)}", gates * H)), gates)
    parts[1] = b.node("Add", parts[1], b.constant(f"one{len(b.nodes)}", np.float32(1)))
    return parts


def gate_by_gate(b: Builder, gates: int, x: str, h: str) -> list[str]:
    """Its own products for each gate, sums in any order."""
    parts = []
    for gate in range(gates):
        n = len(b.nodes)
        of_x = b.node("MatMul", x, b.parameter(f"U{gate}_{n}", I, H))
        of_h = b.node("MatMul", h, b.parameter(f"V{gate}_{n}", H, H))
        parts.append(b.node("Add", of_x, b.node("Add", b.parameter(f"b{gate}_{n}", H), of_h)))
    return parts


def scaled(b: Builder, gates: int, x: str, h: str) -> list[str]:
    """Temperatures, offsets and signs around the products, as in cells that people wrote themselves."""
    parts = []
    for gate, part in enumerate(gate_by_gate(b, gates, x, h)):
        n = len(b.nodes)
        warm = b.node("Mul", b.parameter(f"warm{n}", *[(), (1, H), (H,), (1,)][gate % 4]), part)
        below = b.node("Sub", warm, b.constant(f"offset{n}", np.float32(0.5)))
        parts.append(below if gate % 2 else b.node("Neg", b.node("Sub", b.parameter(f"top{n}", H), below)))
    return parts


def sliced(b: Builder, gates: int, x: str, h: str) -> list[str]:
    """Keras: slices of a sum of products."""
    n = len(b.nodes)
    of_x = b.node("Add", b.node("MatMul", x, b.parameter(f"k{n}", I, gates * H)), b.parameter(f"kb{n}", gates * H))
    whole = b.node("Add", of_x, b.node("MatMul", h, b.parameter(f"r{n}", H, gates * H)))
    axis = b.constant(f"axis{n}", np.array([1]))
    parts = []
    for gate in range(gates):
        bounds = [b.constant(f"s{gate}_{end}_{n}", np.array([(gate + end) * H])) for end in (0, 1)]
        parts.append(b.node("Slice", whole, *bounds, axis))
    return parts


def split(b: Builder, value: str, gates: int) -> list[str]:
    names = [f"g{len(b.nodes)}_{gate}" for gate in range(gates)]
    b.node("Split", value, outputs=names, axis=1, num_outputs=gates)
    return names


def viewed(b: Builder, gates: int, x: str, h: str, *, inner: bool = False, how: str = "unbind") -> list[str]:
    """The sum as (B, gates, H), or (B, H, gates), its gates picked by an index or a split."""
    n = len(b.nodes)
    of_x, of_h = (
        b.node("MatMul", x, b.parameter(f"w{n}", I, gates * H)),
        b.node("MatMul", h, b.parameter(f"u{n}", H, gates * H)),
    )
    sizes, axis = ([-1, H, gates], 2) if inner else ([-1, gates, H], 1)
    whole = b.node("Reshape", b.node("Add", of_x, of_h), b.constant(f"sizes{n}", np.array(sizes)))
    if how == "index":
        return [b.node("Gather", whole, b.constant(f"g{gate}_{n}", np.array(gate)), axis=axis) for gate in range(gates)]
    names = [f"v{n}_{gate}" for gate in range(gates)]
    b.node("Split", whole, outputs=names, axis=axis - 3, num_outputs=gates)
    return [b.node("Squeeze", name, b.constant(f"{name}_axis", np.array([axis]))) for name in names]


def strided(b: Builder, gates: int, x: str, h: str) -> list[str]:
    """Gates that stand by turns, taken by steps."""
    n = len(b.nodes)
    of_x, of_h = (
        b.node("MatMul", x, b.parameter(f"w{n}", I, gates * H)),
        b.node("MatMul", h, b.parameter(f"u{n}", H, gates * H)),
    )
    whole, last = b.node("Add", of_x, of_h), b.constant(f"last{n}", np.array([2**31 - 1]))
    axis, step = b.constant(f"axis{n}", np.array([1])), b.constant(f"step{n}", np.array([gates]))
    firsts = [b.constant(f"first{gate}_{n}", np.array([gate])) for gate in range(gates)]
    return [b.node("Slice", whole, first, last, axis, step) for first in firsts]


VIEWS = [partial(viewed, inner=inner, how=how) for inner in (False, True) for how in ("unbind", "index")]


def lstm_cell(b: Builder, arguments: Callable[..., list[str]], x: str, h: str, c: str) -> tuple[str, str]:
    i, f, g, o = arguments(b, 4, x, h)
    kept = b.node("Mul", c, b.node("Sigmoid", f))
    next_c = b.node("Add", b.node("Mul", b.node("Sigmoid", i), b.node("Tanh", g)), kept)
    return b.node("Mul", b.node("Tanh", next_c), b.node("Sigmoid", o)), next_c


def gru_cell(b: Builder, form: str, x: str, h: str) -> str:
    """PyTorch's cell, its last line written in one of its forms."""
    n_ = len(b.nodes)
    of_x = split(b, b.node("Gemm", x, b.parameter(f"wi{n_}", 3 * H, I), b.parameter(f"bi{n_}", 3 * H), transB=1), 3)
    of_h = split(b, b.node("Gemm", h, b.parameter(f"wh{n_}", 3 * H, H), b.parameter(f"bh{n_}", 3 * H), transB=1), 3)
    r, z = (b.node("Sigmoid", b.node("Add", of_h[k], of_x[k])) for k in range(2))
    n = b.node("Tanh", b.node("Add", of_x[2], b.node("Mul", of_h[2], r)))
    if form == "difference":
        return b.node("Add", b.node("Mul", b.node("Sub", h, n), z), n)
    if form == "from h":
        return b.node("Add", h, b.node("Mul", z, b.node("Sub", n, h)))
    if form == "addcmul":  # its factor written out
        return b.node(
            "Add", n, b.node("Mul", b.node("Mul", z, b.node("Sub", h, n)), b.constant("factor", np.ones(1, np.float32)))
        )
    if form == "two products":
        return b.node("Add", b.node("Sub", n, b.node("Mul", z, n)), b.node("Mul", h, z))
    if form == "two products of n last":
        return b.node("Sub", b.node("Add", n, b.node("Mul", z, h)), b.node("Mul", n, z))
    one = b.constant(f"one{n_}", np.float32(1))
    if form == "lerp":  # of torch: h' from the nearer end
        change = b.node("Sub", h, n)
        from_n = b.node("Add", n, b.node("Mul", z, change))
        from_h = b.node("Sub", h, b.node("Mul", change, b.node("Sub", one, z)))
        return b.node("Where", b.node("Less", z, b.constant("half", np.float32(0.5))), from_n, from_h)
    old, new = (n, h) if form == "z for n" else (h, n)
    return b.node("Add", b.node("Mul", z, old), b.node("Mul", b.node("Sub", one, z), new))


FORMS = ["difference", "blend", "z for n", "from h", "two products", "two products of n last", "lerp", "addcmul"]


def written_out_gru_cell(b: Builder, x: str, h: str) -> str:
    """As people write it from the book: x U + r ∘ (h V) + b, from left to right."""

    def product(name: str, value: str, size: int) -> str:
        return b.node("MatMul", value, b.parameter(name, size, H))

    def gate(name: str) -> str:
        total = b.node("Add", product(f"U{name}", x, I), product(f"V{name}", h, H))
        return b.node("Sigmoid", b.node("Add", total, b.parameter(f"b{name}", H)))

    total = b.node("Add", product("Un", x, I), b.node("Mul", gate("r"), product("Vn", h, H)))
    n, z = b.node("Tanh", b.node("Add", total, b.parameter("bn", H))), gate("z")
    return b.node("Add", b.node("Mul", b.node("Sub", b.constant("one", np.float32(1)), z), n), b.node("Mul", z, h))


def tensorflow_gru_cell(b: Builder, x: str, h: str) -> str:
    """TensorFlow's first GRUCell: products of concatenations, one σ of both gates, split after it."""

    def product(name: str, value: str, width: int) -> str:
        both = b.node("MatMul", b.node("Concat", x, value, axis=1), b.parameter(f"{name}/kernel", I + H, width))
        return b.node("Add", both, b.parameter(f"{name}/bias", width))

    r, u = split(b, b.node("Sigmoid", product("gates", h, 2 * H)), 2)
    n = b.node("Tanh", product("candidate", b.node("Mul", r, h), H))
    return b.node("Add", b.node("Mul", u, h), b.node("Mul", b.node("Sub", b.constant("one", np.float32(1)), u), n))


def keras_gru_cell(b: Builder, function: str, x: str, h: str) -> str:
    """Keras' reset_after=False: the reset gate before the candidate's product."""
    n_ = len(b.nodes)
    u = b.parameter(f"recurrent{n_}", H, 2 * H)
    of_x = split(
        b, b.node("Add", b.node("MatMul", x, b.parameter(f"kernel{n_}", I, 3 * H)), b.parameter(f"b{n_}", 3 * H)), 3
    )
    of_h = split(b, b.node("MatMul", h, u), 2)
    z, r = (b.node("Sigmoid", b.node("Add", of_x[k], of_h[k])) for k in range(2))
    product = b.node("MatMul", b.node("Mul", r, h), b.parameter(f"candidate{n_}", H, H))
    n = b.node(function, b.node("Add", of_x[2], product))
    one = b.constant(f"one{n_}", np.float32(1))
    return b.node("Add", b.node("Mul", z, h), b.node("Mul", b.node("Sub", one, z), n))


def compare(path: Path, names: list[str], steps: int, size: int = I) -> Any:
    """Run both over steps, states handed on; the imported network."""
    net, session = load(path), onnx_runtime(path)
    states = {name: [np.zeros((2, H), np.float32)] * 2 for name in names}
    for x in slow_signal(5, steps, 2, size):
        for k, runner in enumerate((net, session)):
            feed = {"x": x, **{name: states[name][k] for name in names}}
            outputs = runner.run([f"next_{name}" for name in names], feed)
            for name, value in zip(names, outputs, strict=True):
                states[name] = [value, states[name][1]] if k == 0 else [states[name][0], value]
        for got, expected in states.values():
            np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6)
    return net


@pytest.mark.parametrize("arguments", [two_gemms, concatenated, gate_by_gate, sliced, scaled, strided, *VIEWS])
def test_lstm_cells(tmp_path: Path, arguments: Callable[..., list[str]]) -> None:
    b = Builder(1)
    h, c = lstm_cell(b, arguments, b.node("Relu", "x"), "h", "c")
    b.node("Identity", h, outputs=["next_h"])
    b.node("Identity", c, outputs=["next_c"])
    path = b.save(tmp_path / "m.onnx", {"x": ["B", I], "h": ["B", H], "c": ["B", H]}, ["next_h", "next_c"])
    net = compare(path, ["h", "c"], 12)
    (name,) = net.recurrent
    assert net.layers[name].mode == "LSTM"
    assert (net.layers[name].input_size, net.layers[name].hidden_size) == (I, H)
    assert net.activity.per_part[name].steps == 24


def test_one_initial_state_for_the_whole_batch(tmp_path: Path) -> None:
    """The sums in a cell broadcast it."""
    b = Builder(1)
    next_h, next_c = lstm_cell(b, gate_by_gate, "x", "h", "c")
    path = b.save(tmp_path / "m.onnx", {"x": ["B", I], "h": [1, H], "c": [1, H]}, [next_h, next_c])
    feed = {"x": slow_signal(5, 3, I), "h": slow_signal(6, 1, H), "c": slow_signal(7, 1, H)}
    for got, expected in zip(load(path).run(None, feed), onnx_runtime(path).run(None, feed), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("form", FORMS)
def test_gru_cells(tmp_path: Path, form: str) -> None:
    """One layer; where nothing fires, the state is all that is left of the cell: no node computes it beside."""
    b = Builder(2)
    b.node("Identity", gru_cell(b, form, b.node("Relu", "x"), "h"), outputs=["next_h"])
    path = b.save(tmp_path / "m.onnx", {"x": ["B", I], "h": ["B", H]}, ["next_h"])
    net = compare(path, ["h"], 12)
    assert [layer.mode for layer in net.layers.values()] == ["GRU"]
    net.set_thresholds(1e9)
    states = [np.zeros((1, H), np.float32)]
    for x in slow_signal(5, 4, 1, I):
        states += net.run(None, {"x": x, "h": states[-1]})
    (layer,) = net.layers.values()
    expected, _ = layer(torch.zeros(4, 1, I))
    np.testing.assert_allclose(states[1:], expected.detach().numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("cell", [written_out_gru_cell, tensorflow_gru_cell])
def test_gru_cells_of_other_hands(tmp_path: Path, cell: Callable[..., str]) -> None:
    """Equal at thresholds 0; above, their steps are one sequence of the layer that was found."""
    b = Builder(2)
    b.node("Identity", cell(b, "x", "h"), outputs=["next_h"])
    path = b.save(tmp_path / "m.onnx", {"x": ["B", I], "h": ["B", H]}, ["next_h"])
    net = compare(path, ["h"], 12)
    assert [layer.reset_after for layer in net.layers.values()] == [cell is written_out_gru_cell]
    net.set_thresholds(0.1)
    x, h = slow_signal(5, 30, 1, I), np.zeros((1, H), np.float32)
    (layer,) = net.layers.values()
    for frame, expected in zip(x, layer(torch.from_numpy(x))[0].detach().numpy(), strict=True):
        (h,) = net.run(None, {"x": frame, "h": h})
        np.testing.assert_allclose(h, expected, rtol=0, atol=2e-6)
    assert 0.2 < net.activity.sparsity < 1


@pytest.mark.parametrize("function", ["Tanh", "Relu"])
def test_gru_cells_that_reset_before_the_product(tmp_path: Path, function: str) -> None:
    b = Builder(2)
    b.node("Identity", keras_gru_cell(b, function, "x", "h"), outputs=["next_h"])
    path = b.save(tmp_path / "m.onnx", {"x": ["B", I], "h": ["B", H]}, ["next_h"])
    (layer,) = compare(path, ["h"], 12).layers.values()
    assert (layer.mode, layer.reset_after, layer.candidate) == ("GRU", False, function.lower())


def test_names_are_what_the_weights_share(tmp_path: Path) -> None:
    b = Builder(3)
    h, _ = lstm_cell(
        b,
        lambda b, gates, x, h: split(
            b,
            b.node(
                "Add",
                b.node("MatMul", x, b.parameter("decoder.rnn.weight_ih", I, 4 * H)),
                b.node("MatMul", h, b.parameter("decoder.rnn.weight_hh", H, 4 * H)),
            ),
            gates,
        ),
        "x",
        "h",
        "c",
    )
    net = load(b.save(tmp_path / "m.onnx", {"x": ["B", I], "h": ["B", H], "c": ["B", H]}, [h]))
    assert net.recurrent == ["decoder.rnn"]


def test_hidden_state_is_told_from_an_input_of_the_same_size(tmp_path: Path) -> None:
    """Both enter the same sum; mistaken for each other, the delta memories would start anew at every step."""
    b = Builder(4)
    first, second = b.constant("first", np.array(0)), b.constant("second", np.array(1))
    h, c = (b.node("Gather", "state", index, axis=0) for index in (first, second))
    x, axis = b.node("Squeeze", "x", b.constant("lead", np.array([0]))), b.constant("axis", np.array([0]))
    of_x, of_h = b.node("MatMul", x, b.parameter("w", H, 4 * H)), b.node("MatMul", h, b.parameter("u", H, 4 * H))
    h, c = lstm_cell(b, lambda b, gates, x, h: split(b, b.node("Add", of_x, of_h), gates), x, h, c)
    b.node("Concat", b.node("Unsqueeze", h, axis), b.node("Unsqueeze", c, axis), axis=0, outputs=["next"])
    path = b.save(tmp_path / "m.onnx", {"x": [1, "B", H], "state": [2, "B", H]}, ["next"])
    (layer,) = load(path).layers.values()
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in b.constants}
    np.testing.assert_array_equal(layer.weight_ih_l0.detach().numpy(), weights["w"].T)
    np.testing.assert_array_equal(layer.weight_hh_l0.detach().numpy(), weights["u"].T)


@pytest.mark.parametrize("prefix", ["", "decoder."])
def test_steps_of_an_unrolled_loop_are_one_stream(tmp_path: Path, prefix: str) -> None:
    """They compute what the layer computes, at thresholds above 0 too; named by their weights or not."""
    b = Builder(5)
    w, u = b.parameter(f"{prefix}w", I, 4 * H), b.parameter(f"{prefix}u", H, 4 * H)
    h, c = "h", "c"
    for step in range(4):
        x = b.node("Gather", "x", b.constant(f"step{step}", np.array(step)), axis=0)
        of_x, of_h = b.node("MatMul", x, w), b.node("MatMul", h, u)
        h, c = lstm_cell(b, lambda b, gates, x, h, of=(of_x, of_h): split(b, b.node("Add", *of), gates), x, h, c)
    path = b.save(tmp_path / "m.onnx", {"x": [4, "B", I], "h": ["B", H], "c": ["B", H]}, [h, c])
    net = load(path, thresholds=0.1)
    (layer,) = net.layers.values()
    states = [np.zeros((1, H), np.float32)] * 2
    frames = slow_signal(6, 12, 1, I)
    for chunk in np.split(frames, 3):
        states = net.run(None, dict(zip("xhc", (chunk, *states), strict=True)))
    expected = [state.detach().numpy()[0] for state in layer(torch.from_numpy(frames))[1]]
    np.testing.assert_allclose(states, expected, rtol=0, atol=1e-6)
    assert 0.1 < net.activity.sparsity < 1
    feed = dict(zip("xhc", (frames[:4], *states), strict=True))
    for got, original in zip(load(path).run(None, feed), onnx_runtime(path).run(None, feed), strict=True):
        np.testing.assert_allclose(got, original, rtol=0, atol=1e-6)


@pytest.mark.parametrize("given", [["x", "h0", "c0", "h1", "c1"], ["h1", "c1", "h0", "c0", "x"]])
def test_layers_of_one_size_over_each_other(tmp_path: Path, given: list[str]) -> None:
    """The hidden state of the upper layer is its own, not what the lower one made, of the same size."""
    b = Builder(4)
    x = "x"
    states: list[str] = []
    for layer in range(2):
        of_x, of_h = (
            b.node("MatMul", value, b.parameter(f"layer{layer}.{value}", H, 4 * H)) for value in (x, f"h{layer}")
        )
        pair = lstm_cell(
            b, lambda b, gates, x, h, of=(of_h, of_x): split(b, b.node("Add", *of), gates), x, f"h{layer}", f"c{layer}"
        )
        x = pair[0]
        states += pair
    net = load(b.save(tmp_path / "m.onnx", {name: ["B", H] for name in given}, states))
    weights = {tensor.name: numpy_helper.to_array(tensor).T for tensor in b.constants}
    for number, layer in enumerate(net.layers.values()):
        np.testing.assert_array_equal(layer.weight_hh_l0.detach().numpy(), weights[f"layer{number}.h{number}"])


def test_attention_goes_in_beside_the_input(tmp_path: Path) -> None:
    """x of an attention decoder is put together from parts, of which some are made from h; the steps are one layer."""
    b = Builder(7)
    w, u, of_h, out = (
        b.parameter(f"rnn.{n}", *sizes) for n, sizes in enumerate([(I + H, 4 * H), (H, 4 * H), (H, H), (H, I)])
    )
    frame, h, c = "x", "h", "c"
    for _ in range(3):
        context = b.node("Mul", "memory", b.node("Softmax", b.node("MatMul", h, of_h), axis=-1))
        both = b.node("Concat", frame, context, axis=-1)
        total = b.node("Add", b.node("MatMul", both, w), b.node("MatMul", h, u))
        h, c = lstm_cell(b, lambda b, gates, x, h, total=total: split(b, total, gates), both, h, c)
        frame = b.node("MatMul", h, out)
    sizes = {"x": ["B", I], "memory": ["B", H], "h": ["B", H], "c": ["B", H]}
    path = b.save(tmp_path / "m.onnx", sizes, [frame, h, c])
    net, feed = load(path), {name: slow_signal(2, 2, I if name == "x" else H) for name in sizes}
    for got, expected in zip(net.run(None, feed), onnx_runtime(path).run(None, feed), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6)
    assert [part.steps for part in net.activity.per_part.values()] == [6]


@pytest.mark.parametrize("speakers", [1, 2])
def test_a_constant_beside_the_input(tmp_path: Path, speakers: int) -> None:
    """A bias, where it is the same for all of the batch; else it is not overlooked."""
    b = Builder(1)
    both = b.node(
        "Concat", "x", b.constant("speaker", slow_signal(9, 2 // speakers, 3).repeat(speakers, 0)), "h", axis=1
    )
    total = b.node("MatMul", both, b.parameter("kernel", I + 3 + H, 4 * H))
    h, c = lstm_cell(b, lambda b, gates, x, h: split(b, total, gates), "x", "h", "c")
    extra = recurrent_node(b, "GRU", I, H, b.node("Unsqueeze", "x", b.constant("axis", np.array([0]))))
    path = b.save(tmp_path / "m.onnx", {"x": [2, I], "h": [2, H], "c": [2, H]}, [h, c, extra])
    net, feed = load(path), {"x": slow_signal(1, 2, I), "h": slow_signal(2, 2, H), "c": slow_signal(3, 2, H)}
    for got, expected in zip(net.run(None, feed), onnx_runtime(path).run(None, feed), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6)
    assert len(net.recurrent) == speakers


def test_gates_of_something_else_are_left_alone(tmp_path: Path) -> None:
    b = Builder(6)
    i, _, g, o = two_gemms(b, 4, "x", "h")
    b.node(
        "Mul",
        b.node("Sigmoid", o),
        b.node("Tanh", b.node("Add", b.node("Sigmoid", i), b.node("Tanh", g))),
        outputs=["y"],
    )
    path = b.save(tmp_path / "m.onnx", {"x": ["B", I], "h": ["B", H]}, ["y"])
    with pytest.raises(UnsupportedGraphError, match="no recurrent part"):
        load(path)
