"""The native kernels against the eager backend in float64, against finite differences, and against themselves."""

import itertools
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from tests.nn.sequences import CELLS, cases, check_against_eager, close
from torch import Tensor

from deltarnn import DeltaGRU, DeltaLSTM, QFormat, Quantization, record_activity
from deltarnn.nn import native

_native = pytest.importorskip("deltarnn._native", reason="the native extension is not built")


@pytest.mark.parametrize("isa", _native.available_isas())
@settings(max_examples=25, deadline=None, derandomize=True)
@given(case=cases())
def test_equals_eager(isa, case):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DELTARNN_ISA", isa)
        patch.setattr(torch, "get_num_threads", lambda: case.threads)
        check_against_eager(case, native)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_whole_networks_equal_eager(cell: str, bidirectional: bool):
    layer_type = CELLS[cell][0]
    options = {"num_layers": 3, "bidirectional": bidirectional, "thx": 0.06, "thh": 0.11}
    torch.manual_seed(5)
    fast = layer_type(7, 12, **options)
    slow = layer_type(7, 12, **options, backend="eager").double()
    slow.load_state_dict(fast.state_dict())
    x = (torch.randn(18, 4, 7) * 0.3).cumsum(0)
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor([18, 9, 13, 1]), enforce_sorted=False)
    runs = {}
    for layer in (fast, slow):
        with record_activity(layer) as activity:
            output, _ = layer(packed.to(layer.weight_ih_l0.dtype))
        (output.data.square().sum() + 0.01 * activity.l1_delta_h).backward()
        runs[layer] = activity.sparsity_x, activity.sparsity_h
        assert 0.1 < activity.sparsity_h < 0.98
    assert fast.backend_used.startswith(("native", "cuda"))
    assert runs[fast] == runs[slow]
    for name, parameter in slow.named_parameters():
        assert close(fast.get_parameter(name).grad, parameter.grad), name


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("thresholds", [(0.0, 0.0), (0.2, 0.1)])
def test_gradients_are_finite_differences(cell: str, thresholds: tuple[float, float]):
    """Along random directions, of a loss that has every output in it. Steps that change an event are left out."""
    torch.manual_seed(3)
    layer = CELLS[cell][0](5, 9, thx=thresholds[0], thh=thresholds[1])
    x = (torch.randn(8, 2, 5) * 0.4).cumsum(0).requires_grad_()
    weights = torch.randn(8, 2, 9)

    def loss(x: Tensor) -> tuple[Tensor, Tensor]:
        with record_activity(layer, events=True) as activity:
            output, state = layer(x, layer.initial_state(2))
        finals = sum(part.sum() for part in state[0])
        total = (output * weights).sum() + 0.1 * activity.l1_delta_h + 0.1 * finals
        return total, torch.cat(activity.events[0], dim=-1)

    loss(x)[0].backward()
    values = [x, *layer.parameters()]
    grads = [value.grad.clone() for value in values]
    checked = 0
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        for value, grad in zip(values, grads, strict=True):
            direction, step = torch.randn(value.shape, generator=generator), 3e-4
            with torch.no_grad():
                value += step * direction
                after, fired_after = loss(x)
                value -= 2 * step * direction
                before, fired_before = loss(x)
                value += step * direction
            if torch.equal(fired_after, fired_before):
                slope = float((after.double() - before.double()) / (2 * step))
                assert slope == pytest.approx(float((grad * direction).sum()), rel=0.02, abs=0.05)
                checked += 1
    assert checked >= 8


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("thresholds", [(0.0, 0.0), (0.2, 0.05)])
def test_chunks_equal_the_whole(cell: str, thresholds: tuple[float, float]):
    torch.manual_seed(0)
    layer = CELLS[cell][0](16, 33, thx=thresholds[0], thh=thresholds[1])
    x = (torch.randn(40, 5, 16) * 0.3).cumsum(0)

    def run(*cuts: int) -> tuple[Tensor, list[Tensor]]:
        layer.zero_grad()
        state, outputs = layer.initial_state(5), []
        for chunk in x.tensor_split(cuts):
            output, state = layer(chunk, state)
            outputs.append(output)
        output = torch.cat(outputs)
        (output.square().sum() + state[0].m.sum()).backward()
        return output, [parameter.grad.clone() for parameter in layer.parameters()]

    whole, whole_grads = run()
    parts, part_grads = run(1, 17, 30)
    assert torch.allclose(parts, whole, atol=1e-5)
    for part, expected in zip(part_grads, whole_grads, strict=True):
        assert close(part, expected.double())


def run_with_threads(layer: torch.nn.Module, x: Tensor, threads: int) -> list[Tensor]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        layer.zero_grad()
        x = x.clone().requires_grad_()
        output, _ = layer(x)
        output.square().sum().backward()
        return [output.detach(), x.grad, *(parameter.grad.clone() for parameter in layer.parameters())]
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("threshold", [0.0, 0.1])
def test_threads(cell: str, threshold: float):
    torch.manual_seed(0)
    layer = CELLS[cell][0](16, 40, num_layers=2, thx=threshold, thh=threshold)
    x = (torch.randn(30, 11, 16) * 0.3).cumsum(0)
    one, three = run_with_threads(layer, x, 1), run_with_threads(layer, x, 3)
    for first, second in zip(three, run_with_threads(layer, x, 3), strict=True):
        assert torch.equal(first, second)  # deterministic for one number of threads
    assert torch.equal(one[0], three[0])
    assert torch.equal(one[1], three[1])
    for first, second in zip(one[2:], three[2:], strict=True):
        assert close(first, second.double())


@pytest.mark.parametrize("thresholds", [(0.3, 0.02), (0.0, 0.0)])
def test_threads_that_share_one_gradient(thresholds: tuple[float, float]):
    """Above 2²⁰ weights the threads do not each have a copy. Their shares, of 16 and 17 samples, differ in how many
    groups of 16 they are; the steps are more than one chunk."""
    torch.manual_seed(0)
    options = {"thx": thresholds[0], "thh": thresholds[1]}
    layer, slow = DeltaGRU(500, 400, **options), DeltaGRU(500, 400, **options, backend="eager")
    slow.load_state_dict(layer.state_dict())
    x = torch.randn(10, 50, 500).cumsum(0)
    three, expected = run_with_threads(layer, x, 3), run_with_threads(slow, x, 1)
    for first, second in zip(three, expected, strict=True):
        assert (first - second).norm() < 1e-3 * second.norm()
    for first, second in zip(three, run_with_threads(layer, x, 3), strict=True):
        assert torch.equal(first, second)


def test_works_in_a_forked_process():
    """A child has none of its parent's threads; waiting for them would never end."""
    code = (
        "import os, torch; from deltarnn import DeltaGRU; torch.set_num_threads(2)\n"
        "layer, x = DeltaGRU(4, 8, thx=0.1, thh=0.1), torch.randn(6, 4, 4)\n"
        "with torch.no_grad():\n"
        "    y = layer(x)[0]; child = os.fork()\n"
        "    if child == 0: os._exit(0 if torch.equal(layer(x)[0], y) else 1)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.parametrize(("cell", "given"), [("GRU", ""), ("GRU", "h"), ("LSTM", ""), ("LSTM", "hc")])
def test_a_fresh_state_equals_one_written_out(cell: str, given: str):
    """Output, final state and all gradients, whether h and c come as the dense layer's or in the delta state."""
    torch.manual_seed(0)
    layer = CELLS[cell][0](5, 20, thx=0.2, thh=0.05)
    x = torch.randn(9, 4, 5).cumsum(0).requires_grad_()
    parts = {field: torch.randn(4, 20).requires_grad_() for field in given}
    leaves = [x, *parts.values(), *layer.parameters()]

    stacked = tuple(part[None] for part in parts.values())
    dense = layer(x, None if not parts else stacked if cell == "LSTM" else stacked[0])
    (state,) = layer.initial_state(4)
    written = layer(x, [state._replace(**parts)])
    assert torch.equal(dense[0], written[0])
    h_n = dense[1][0] if cell == "LSTM" else dense[1]
    assert torch.equal(h_n[0], written[1][0].h)
    grads = [torch.autograd.grad(output.square().sum(), leaves) for output in (dense[0], written[0])]
    for actual, expected in zip(*grads, strict=True):
        assert torch.allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_a_fresh_state_has_rounded_biases_under_quantisation(cell: str):
    """In training too, where the kernels themselves compute in float."""
    torch.manual_seed(0)
    formats = Quantization(QFormat(3, 5), QFormat(1, 3), QFormat(2, 6))
    layer = CELLS[cell][0](5, 20, thx=0.25, thh=0.0625, quantization=formats)
    x = torch.randn(9, 4, 5).cumsum(0)
    assert torch.equal(layer(x)[0], layer(x, layer.initial_state(4))[0])
    assert layer.backend_used.startswith(("native (events)", "cuda"))


@pytest.mark.parametrize("cell", CELLS)
def test_operators_are_well_formed(cell: str):
    """Schemas, fake kernels (also with symbolic shapes), autograd."""
    torch.manual_seed(0)
    lstm, rows = cell == "LSTM", CELLS[cell][2] * 6
    state = [torch.randn(3, 4), torch.randn(3, 6), torch.randn(3, 6), torch.randn(3, 6) if lstm else None]
    weights, biases = [torch.randn(rows, 4), torch.randn(rows, 6)], [torch.randn(rows), torch.randn(rows)]
    running = [torch.randn(5, 3, 4), *state, torch.randn(3, 24), *weights, None, None]
    fresh = [torch.randn(5, 3, 4), *[None] * 5, *weights, *biases]
    for tensors, training in itertools.product((running, fresh), (False, True)):
        inputs = [None if tensor is None else tensor.clone().requires_grad_(training) for tensor in tensors]
        arguments = (lstm, *inputs, torch.tensor([5, 2, 1]), 0.3, 0.1, False, training)
        torch.library.opcheck(torch.ops.deltarnn.sequence.default, arguments)


def test_compiles_without_a_break():
    layer = DeltaGRU(4, 8, thx=0.1, thh=0.1)
    x = torch.randn(6, 3, 4)
    compiled = torch.compile(lambda x: layer(x)[0], fullgraph=True, backend="aot_eager")
    output = compiled(x)
    output.sum().backward()
    grads = [parameter.grad.clone() for parameter in layer.parameters()]
    layer.zero_grad()
    expected = layer(x)[0]
    expected.sum().backward()
    assert torch.equal(output, expected)
    for grad, parameter in zip(grads, layer.parameters(), strict=True):
        assert torch.allclose(grad, parameter.grad)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("threshold", [0.0, 0.1])
def test_nan_shows(cell: str, threshold: float):
    layer = CELLS[cell][0](4, 20, thx=threshold, thh=threshold)
    x = torch.zeros(6, 2, 4)
    x[2, 1, 3] = float("nan")
    output = layer(x)[0]
    assert output[2:, 1].isnan().all()
    assert not output[:2].isnan().any()
    assert not output[:, 0].isnan().any()


def test_layouts_of_memory():
    """Batch-first input arrives transposed, and a column of a larger tensor with gaps between its elements."""
    torch.manual_seed(0)
    layer = DeltaGRU(3, 8, thx=0.1, thh=0.1)
    x = torch.randn(5, 2, 3)
    expected = layer(x)[0]
    assert torch.equal(layer(x.transpose(0, 1).contiguous().transpose(0, 1))[0], expected)
    assert torch.equal(layer(torch.stack([x, x], dim=-1)[..., 0])[0], expected)


@pytest.mark.parametrize(
    ("make", "convert", "reason"),
    [
        (lambda: DeltaGRU(3, 4), lambda layer: layer.double(), "float64"),
        (lambda: DeltaLSTM(3, 4, proj_size=2), lambda layer: layer, "projection"),
        (
            lambda: DeltaGRU(3, 4, quantization=Quantization(QFormat(3, 5), QFormat(1, 7), QFormat(2, 6))),
            lambda layer: layer.eval(),
            "quantised",
        ),
    ],
)
def test_says_what_it_cannot_do(make, convert, reason: str):
    layer = convert(make())
    x = torch.zeros(2, 1, 3, dtype=layer.weight_ih_l0.dtype)
    layer(x)
    assert layer.backend_used.startswith("eager (")
    assert reason in layer.backend_used
    layer.backend = "native"
    with pytest.raises(ValueError, match=reason):
        layer(x)


def test_says_what_it_used():
    layer, x = DeltaGRU(3, 4, thx=0.1, thh=0.0), torch.zeros(2, 1, 3)
    layer(x)
    assert layer.backend_used == "native (events for inputs, held-state products for hidden states)"
    layer.thh = 0.1
    layer(x)
    assert layer.backend_used.startswith(("native (events)", "cuda"))
    layer.thx = layer.thh = 0
    layer(x)
    assert layer.backend_used == "native (held-state products)"


def test_the_operator_refuses_what_does_not_fit():
    zeros = torch.zeros
    arguments = [False, zeros(2, 1, 3), zeros(1, 3), zeros(1, 4), zeros(1, 4), None, zeros(1, 16), zeros(12, 3)]
    rest = [zeros(12, 4), None, None, None, 0.1, 0.1, False, False]
    torch.ops.deltarnn.sequence(*arguments, *rest)
    for index, wrong in ((3, zeros(1, 5)), (6, zeros(1, 12)), (7, zeros(12, 2)), (2, zeros(1, 3).double())):
        with pytest.raises(ValueError, match="must be"):
            torch.ops.deltarnn.sequence(*arguments[:index], wrong, *arguments[index + 1 :], *rest)
    with pytest.raises(ValueError, match="lengths"):
        torch.ops.deltarnn.sequence(*arguments, *rest[:3], torch.tensor([3]), *rest[4:])
    with pytest.raises(ValueError, match="bias_hh"):
        torch.ops.deltarnn.sequence(*arguments, *rest[:2], zeros(16), *rest[3:])


def test_a_record_is_kept_where_gradients_are_wanted():
    """Whatever `training` a recorded graph holds; and a sequence without a record has no backward pass."""
    weights = [torch.randn(12, 3, requires_grad=True), torch.randn(12, 4, requires_grad=True)]
    start = [False, torch.randn(5, 2, 3), None, None, None, None, None, *weights, None, None, None, 0.1, 0.1, False]
    grads = []
    for training in (False, True):
        torch.ops.deltarnn.sequence(*start, training)[0].sum().backward()
        grads.append(weights[0].grad)
        weights[0].grad = weights[1].grad = None
    assert torch.equal(*grads)
    with torch.no_grad():
        output, *_, fired_x, fired_h, events, tape = torch.ops.deltarnn.sequence(*start, False)
        record = (*start[1:6], *weights, None, 0.1, 0.1, False, output, fired_x, fired_h, events, tape)
        with pytest.raises(ValueError, match="training=False"):
            torch.ops.deltarnn.sequence_backward(False, *record, output, *[None] * 6, True, False, False)


def test_devices_must_agree():
    layer, x = DeltaGRU(3, 4).to("meta"), torch.zeros(2, 1, 3)
    with pytest.raises(ValueError, match="weight_ih_l0 is on meta, the input on cpu"):
        layer(x)
    with pytest.raises(ValueError, match="h_0 is on meta"):
        DeltaGRU(3, 4)(x, torch.zeros(1, 1, 4, device="meta"))


def test_second_derivatives_are_refused():
    layer, x = DeltaGRU(3, 4), torch.randn(2, 1, 3, requires_grad=True)
    with pytest.raises(RuntimeError, match="second derivatives"):
        torch.autograd.grad(layer(x)[0].sum(), x, create_graph=True)
