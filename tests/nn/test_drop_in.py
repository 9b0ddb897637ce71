"""What nn.GRU and nn.LSTM do beyond computing: their exceptions, in-place work on results, transforms, tracing."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.layers import CELLS, DENSE, relative_error, smooth_input
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jacrev, jvp, vjp, vmap
from torch.nn.utils.rnn import pack_padded_sequence

from deltarnn import DeltaGRU, DeltaLSTM
from deltarnn.nn.errors import DeviceError, DtypeError, ShapeError

BOTH = pytest.mark.parametrize("kind", ["GRU", "LSTM"])
THRESHOLDS = pytest.mark.parametrize("thresholds", [{}, {"thx": 0.125, "thh": 0.0625}], ids=["dense", "delta"])


def pair(kind: str, *sizes: int, **options: Any) -> tuple[nn.Module, nn.Module]:
    """A delta layer and the dense layer with its parameters."""
    torch.manual_seed(0)
    delta, dense = CELLS[kind](*sizes, **options), DENSE[kind](*sizes, **options)
    dense.load_state_dict(delta.state_dict())
    return delta, dense


def gradients(layer: nn.Module, x: Tensor, use: Any) -> list[Tensor]:
    x = x.clone().requires_grad_()
    layer.zero_grad()
    use(*layer(x)).backward()
    return [x.grad, *(parameter.grad for parameter in layer.parameters())]


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda layer, x, h: layer(x[..., :2], h), ShapeError),
        (lambda layer, x, h: layer(x[None], h), ShapeError),
        (lambda layer, x, h: layer(x[:0], h), ShapeError),
        (lambda layer, x, h: layer(x, h[:1]), ShapeError),
        (lambda layer, x, h: layer(x, h[0]), ShapeError),
        (lambda layer, x, h: layer(x, h.double()), DtypeError),
        (lambda layer, x, h: layer(x, h.to("meta")), DeviceError),
        (lambda layer, x, h: layer(x.double(), h), DtypeError),
        (lambda layer, x, h: layer(x.to("meta"), h.to("meta")), DeviceError),
    ],
)
def test_exceptions_are_those_of_the_dense_layer_and_value_errors(call: Any, kind: type[Exception]):
    delta, dense = pair("GRU", 3, 4, 2)
    arguments = torch.zeros(5, 2, 3), torch.zeros(2, 2, 4)
    with pytest.raises(Exception) as of_dense:  # noqa: PT011 (whatever it raises)
        call(dense, *arguments)
    with pytest.raises(kind) as of_delta:
        call(delta, *arguments)
    assert isinstance(of_delta.value, type(of_dense.value))
    assert isinstance(of_delta.value, ValueError)
    assert isinstance(of_delta.value, RuntimeError)


def test_wordings_that_are_those_of_the_dense_layer():
    with pytest.raises(ValueError, match=r"RNN input dtype \(torch.float64\) does not match weight dtype"):
        DeltaGRU(3, 4)(torch.zeros(2, 1, 3).double())
    with pytest.raises(ValueError, match="proj_size argument is only supported for LSTM"):
        DeltaGRU(3, 4, proj_size=2)
    with pytest.raises(TypeError, match="unexpected keyword argument 'nonlinearity'"):
        DeltaGRU(3, 4, nonlinearity="tanh")


def masked(y: Tensor, state: Any) -> Tensor:
    y += 1
    y[y > 1.2] = 0
    return y.square().sum()


def rectified(y: Tensor, state: Any) -> Tensor:
    return (2 * y.relu_()).square().sum()


def dropped(y: Tensor, state: Any) -> Tensor:
    torch.manual_seed(1)
    return nn.functional.dropout(y, 0.5, True, inplace=True).sum()


def scaled_states(y: Tensor, state: Any) -> Tensor:
    return state[0].mul_(2).sum() + y[-1:].mul_(3).square().sum()


@BOTH
@THRESHOLDS
@pytest.mark.parametrize("batch_first", [False, True])
def test_results_may_be_written_into(kind: str, thresholds: dict[str, float], batch_first: bool):
    torch.manual_seed(0)
    x = smooth_input(7, 2, 3, dtype=torch.float32).transpose(0, 1 if batch_first else 0).contiguous()
    native = CELLS[kind](3, 5, 2, batch_first=batch_first, **thresholds)
    eager = CELLS[kind](3, 5, 2, batch_first=batch_first, backend="eager", **thresholds)
    eager.load_state_dict(native.state_dict())
    for use in (masked, rectified, dropped, scaled_states):
        for actual, expected in zip(gradients(native, x, use), gradients(eager, x, use), strict=True):
            assert relative_error(actual, expected) < 1e-5
    compiled = torch.compile(lambda x: masked(*native(x)), backend="aot_eager")
    x = x.requires_grad_()
    by_compiler = torch.autograd.grad(compiled(x), (x, *native.parameters()))
    for actual, expected in zip(by_compiler, gradients(eager, x.detach(), masked), strict=True):
        assert relative_error(actual, expected) < 1e-5
    assert native.backend_used.startswith("native")


@BOTH
@THRESHOLDS
def test_transforms(kind: str, thresholds: dict[str, float]):
    """grad, vjp, jacrev, per-sample gradients and jvp: eager, and what backward gives."""
    torch.manual_seed(0)
    delta = CELLS[kind](3, 4, **thresholds)
    x = smooth_input(6, 5, 3, dtype=torch.float32)
    parameters = {name: parameter.detach() for name, parameter in delta.named_parameters()}

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(delta, parameters, (x,))[0].square().sum()

    delta.zero_grad()
    delta(x)[0].square().sum().backward()
    expected = {name: parameter.grad for name, parameter in delta.named_parameters()}
    assert delta.backend_used.startswith("native")

    actual = grad(loss)(parameters, x)
    assert delta.backend_used == "eager (transforms of torch.func differentiate eager operations)"
    by_vjp = vjp(lambda p: loss(p, x), parameters)[1](torch.ones(()))[0]
    by_jacrev = jacrev(loss)(parameters, x)
    per_sample = vmap(grad(loss), in_dims=(None, 1))(parameters, x)
    for name, wanted in expected.items():
        for given in (actual[name], by_vjp[name], by_jacrev[name], per_sample[name].sum(0)):
            assert relative_error(given, wanted) < 1e-4
    tangents = {name: torch.randn_like(parameter) for name, parameter in parameters.items()}
    slope = sum((expected[name] * tangents[name]).sum() for name in parameters)
    assert relative_error(jvp(lambda p: loss(p, x), (parameters,), (tangents,))[1], slope) < 1e-4
    with forward_ad.dual_level():
        dual = {name: forward_ad.make_dual(parameters[name], tangents[name]) for name in parameters}
        assert relative_error(forward_ad.unpack_dual(loss(dual, x)).tangent, slope) < 1e-4


@BOTH
def test_native_asked_for_inside_a_transform_says_why_not(kind: str):
    layer = CELLS[kind](3, 4, backend="native")
    with pytest.raises(ValueError, match=r"backend='native' cannot compute this call: transforms of torch\.func"):
        grad(lambda x: layer(x)[0].sum())(torch.zeros(2, 1, 3))


@BOTH
def test_autocast_takes_states_of_other_layers(kind: str):
    delta, _ = pair(kind, 3, 4)
    x, h = smooth_input(6, 5, 3, dtype=torch.float32), torch.randn(1, 5, 4)
    h = h.bfloat16().float()  # the same number in both
    state = h if kind == "GRU" else (h, 2 * h)
    half = h.bfloat16() if kind == "GRU" else (h.bfloat16(), (2 * h).bfloat16())
    expected = delta(x, state)[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(delta(x, half)[0], expected)
        assert torch.equal(delta(x.bfloat16().float().bfloat16(), half)[0], delta(x.bfloat16().float(), state)[0])


@BOTH
@pytest.mark.parametrize("backend", ["auto", "eager"])
def test_trace(kind: str, backend: str):
    layer = CELLS[kind](3, 4, thx=0.1, thh=0.05, backend=backend)
    x = smooth_input(6, 2, 3, dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(layer, x)
    assert torch.equal(traced(x)[0], layer(x)[0])
    use = lambda y, state: y.square().sum()  # noqa: E731
    for actual, expected in zip(gradients(traced, x, use), gradients(layer, x, use), strict=True):
        assert relative_error(actual, expected) < 1e-5
    if backend == "auto":
        longer = smooth_input(9, 2, 3, dtype=torch.float32)
        assert torch.equal(traced(longer)[0], layer(longer)[0])


def test_scripting_says_what_to_use():
    for module in (DeltaGRU(3, 4), nn.Sequential(DeltaLSTM(3, 4))):
        with pytest.raises(RuntimeError, match=r"Delta(GRU|LSTM) cannot be scripted.*use torch.jit.trace"):
            torch.jit.script(module)


@BOTH
def test_layers_are_leaves_of_symbolic_traces(kind: str):
    class Model(nn.Module):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.rnn, self.head = layer, nn.Linear(4, 2)

        def forward(self, x: Tensor, hx: Any) -> Tensor:
            y, _ = self.rnn(x, hx)
            return self.head(y + self.rnn(x)[0])

    graphs = []
    for layer in pair(kind, 3, 4):
        traced = torch.fx.symbolic_trace(Model(layer))
        graphs.append([(node.op, str(node.target)) for node in traced.graph.nodes])
        x, h = torch.randn(5, 2, 3), torch.randn(1, 2, 4)
        hx = h if kind == "GRU" else (h, h)
        assert torch.equal(traced(x, hx), traced.get_submodule("head")(layer(x, hx)[0] + layer(x)[0]))
    assert graphs[0] == graphs[1]
    assert ("call_module", "rnn") in graphs[0]


@BOTH
@pytest.mark.parametrize("strict", [False, True])
def test_export_with_any_number_of_steps(kind: str, strict: bool):
    layer = CELLS[kind](3, 4, thx=0.1, thh=0.05)
    dynamic = {0: torch.export.Dim("steps", min=2, max=1000)}
    program = torch.export.export(
        layer, (smooth_input(6, 2, 3, dtype=torch.float32),), dynamic_shapes=(dynamic,), strict=strict
    )
    for steps in (2, 17):
        x = smooth_input(steps, 2, 3, dtype=torch.float32)
        assert torch.equal(program.module()(x)[0], layer(x)[0])


def test_inductor_without_implicit_fallbacks():
    from torch._inductor import config

    layer = DeltaGRU(3, 4, thx=0.1)
    x = smooth_input(6, 2, 3, dtype=torch.float32)
    with config.patch(implicit_fallbacks=False):
        compiled = torch.compile(layer, fullgraph=True)
        use = lambda y, state: y.sum()  # noqa: E731
        for actual, expected in zip(gradients(compiled, x, use), gradients(layer, x, use), strict=True):
            assert relative_error(actual, expected) < 1e-5


@BOTH
def test_dropout_on_packed_input_draws_as_the_dense_layer(kind: str):
    delta, dense = pair(kind, 3, 8, 3, dropout=0.5)
    packed = pack_padded_sequence(torch.randn(6, 4, 3), torch.tensor([3, 6, 1, 5]), enforce_sorted=False)
    results = []
    for layer in (delta, dense):
        torch.manual_seed(5)
        results.append(layer(packed)[0].data)
    assert relative_error(results[0], results[1]) < 1e-5


def test_methods_that_subclasses_of_nn_lstm_call():
    delta, dense = pair("LSTM", 3, 4, 2, proj_size=2)
    x = torch.zeros(5, 6, 3)
    assert delta.get_expected_cell_size(x, None) == dense.get_expected_cell_size(x, None) == (2, 6, 4)
    delta.check_forward_args(x, (torch.zeros(2, 6, 2), torch.zeros(2, 6, 4)), None)
    with pytest.raises(RuntimeError, match=r"Expected hidden\[1\] size \(2, 6, 4\)"):
        delta.check_forward_args(x, (torch.zeros(2, 6, 2), torch.zeros(2, 6, 2)), None)


@BOTH
@THRESHOLDS
@pytest.mark.parametrize("dynamo", [False, True])
def test_onnx_export_runs_in_onnx_runtime(kind: str, thresholds: dict[str, float], dynamo: bool, tmp_path: Path):
    onnxruntime = pytest.importorskip("onnxruntime")
    if dynamo:
        pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    layer = CELLS[kind](3, 4, 2, batch_first=True, **thresholds).eval()
    x = smooth_input(6, 2, 3, dtype=torch.float32).transpose(0, 1).contiguous()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(layer, (x,), tmp_path / "layer.onnx", dynamo=dynamo, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "layer.onnx", providers=["CPUExecutionProvider"])
    output, *states = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    expected, state = layer(x)
    assert relative_error(output, expected) < 1e-5
    for actual, wanted in zip(states, (state,) if kind == "GRU" else state, strict=True):
        assert relative_error(actual, wanted) < 1e-5
