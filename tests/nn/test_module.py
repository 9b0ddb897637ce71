"""The layers as modules: compile, export, copies, pickles, replicas, moves, initialisation, text."""

import copy
import inspect
import io
import pickle

import pytest
import torch
from tests.layers import CELLS, DENSE, relative_error, smooth_input
from torch import nn

from deltarnn import DeltaGRU, DeltaLSTM, Quantization, record_activity

BOTH = pytest.mark.parametrize("kind", ["GRU", "LSTM"])


@BOTH
def test_signature_extends_the_dense_layer(kind):
    delta = inspect.signature(CELLS[kind].__init__).parameters
    options = [name for name, parameter in delta.items() if parameter.kind is inspect.Parameter.KEYWORD_ONLY]
    forms = ["reset_after", "candidate"] if kind == "GRU" else []
    assert options == ["thx", "thh", "quantization", "hard_activations", *forms, "backend"]
    order = ["input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional"]
    order += (["proj_size"] if kind == "LSTM" else []) + ["device", "dtype"]
    assert list(delta)[1 : 1 + len(order)] == order
    positional = (3, 4, 2, False, True, 0.5, True)
    assert repr(DENSE[kind](*positional))[:-1] == repr(CELLS[kind](*positional)).split(", thx")[0].removeprefix("Delta")


@BOTH
def test_same_seed_same_parameters_as_the_dense_layer(kind):
    layers = []
    for layer_type in (DENSE[kind], CELLS[kind]):
        torch.manual_seed(7)
        layers.append(layer_type(3, 4, num_layers=2))
    for (name, dense), (other, delta) in zip(*(layer.named_parameters() for layer in layers), strict=True):
        assert name == other
        assert torch.equal(dense, delta)


@BOTH
def test_compile(kind):
    torch.manual_seed(0)
    layer = CELLS[kind](3, 4, bidirectional=True, thx=0.1, thh=0.05)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = smooth_input(3, 2, 3, dtype=torch.float32).requires_grad_()
    y, _ = compiled(x)
    expected, _ = layer(x)
    assert relative_error(y, expected) < 1e-6
    (gradient,) = torch.autograd.grad(y.square().sum(), x)
    (expected_gradient,) = torch.autograd.grad(expected.square().sum(), x)
    assert relative_error(gradient, expected_gradient) < 1e-5


@BOTH
@pytest.mark.parametrize("quantization", [None, Quantization()])
def test_export(kind, quantization):
    torch.manual_seed(0)
    layer = CELLS[kind](3, 4, thx=0.125, thh=0.0625, quantization=quantization).eval()
    x = smooth_input(6, 2, 3, dtype=torch.float32)
    program = torch.export.export(layer, (x,))
    assert relative_error(program.module()(x)[0], layer(x)[0]) < 1e-6


@BOTH
def test_export_with_the_delta_state(kind):
    layer = CELLS[kind](3, 4, thx=0.1, thh=0.05).eval()
    x = smooth_input(6, 2, 3, dtype=torch.float32)
    _, state = layer(x, layer.initial_state(2))
    # torch 2.13 writes its input guards by replacing text: the field "h" inside "h_hat" breaks them.
    y, (final,) = torch.export.export(layer, (x, state)).module(check_guards=False)(x, state)
    expected, (expected_final,) = layer(x, state)
    assert relative_error(y, expected) < 1e-6
    assert relative_error(final[-1], expected_final[-1]) < 1e-6


@BOTH
def test_copies_and_pickles_are_independent_and_equal(kind):
    layer = CELLS[kind](3, 4, num_layers=2, thx=(0.1, 0.2), thh=0.3, hard_activations=True)
    x = torch.randn(5, 2, 3)
    expected = layer(x)[0]
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    with record_activity(layer) as activity:
        copies = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), torch.load(buffer, weights_only=False)]
        for other in copies:
            assert torch.equal(other(x)[0], expected)
            assert (other.thx, other.thh) == (layer.thx, layer.thh)
            other.weight_hh_l0.data.zero_()
    assert torch.equal(layer(x)[0], expected)
    with pytest.raises(RuntimeError, match="did not run"):
        _ = activity.sparsity


def test_moving_and_casting():
    layer = DeltaGRU(3, 4, thx=0.1).to(torch.float64)
    assert layer(torch.zeros(2, 1, 3, dtype=torch.float64))[0].dtype == torch.float64
    meta = DeltaLSTM(3, 4, thx=0.1, thh=0.1, device="meta")
    assert meta(torch.zeros(2, 1, 3, device="meta"))[0].shape == (2, 1, 4)


@BOTH
def test_replicas_share_the_recording(kind):
    """What DataParallel does on each device: a replica runs with copied parameters."""
    layer = CELLS[kind](3, 4, thx=0.1, thh=0.1)
    x = torch.randn(5, 2, 3)
    expected = layer(x)[0]
    replica = layer._replicate_for_data_parallel()
    for name, parameter in layer.named_parameters():
        setattr(replica, name, parameter.detach().clone().requires_grad_())
    with record_activity(layer) as activity:
        assert torch.equal(replica(x)[0], expected)
    assert activity.per_layer[0].calls


@BOTH
def test_functional_call_uses_the_given_parameters(kind):
    layer = CELLS[kind](3, 4)
    zeros = {name: torch.zeros_like(p) for name, p in layer.named_parameters()}
    y, _ = torch.func.functional_call(layer, zeros, (torch.randn(5, 2, 3),))
    assert y.abs().max() == 0


@BOTH
def test_orthogonal_initialisation_gate_by_gate(kind):
    torch.manual_seed(0)
    layer = CELLS[kind](5, 8, num_layers=2)
    layer.reset_parameters("orthogonal")
    for name, parameter in layer.named_parameters():
        if name.startswith("bias"):
            assert parameter.abs().max() == 0
            continue
        for gate in parameter.chunk(layer.gates):
            if name == "weight_ih_l0":
                bound = (6 / (5 + 8)) ** 0.5
                assert bound * 0.7 < gate.abs().max() <= bound
            else:
                assert torch.allclose(gate @ gate.T, torch.eye(8), atol=1e-5)
    with pytest.raises(ValueError, match=r"scheme='xavier'.*'uniform' or 'orthogonal'"):
        layer.reset_parameters("xavier")


def test_text_tells_the_options():
    layer = DeltaGRU(16, 64, 2, thx=0.25, thh=(0.125, 0.25), quantization=Quantization(), backend="eager")
    options = [
        "num_layers=2",
        "thx=0.25",
        "thh=(0.125, 0.25)",
        "quantization=Q3.5/Q1.7/Q2.6 nearest",
        "backend='eager'",
    ]
    assert repr(layer) == f"DeltaGRU(16, 64, {', '.join(options)})"


def test_what_ran_is_visible():
    layer = DeltaGRU(3, 4, backend="eager")
    assert layer.backend_used is None
    layer(torch.zeros(2, 1, 3))
    assert layer.backend_used.startswith("eager")
    layer = DeltaGRU(3, 4, dtype=torch.float64)
    layer(torch.zeros(2, 1, 3, dtype=torch.float64))
    assert layer.backend_used.startswith("eager (")
    native = DeltaGRU(3, 4, dtype=torch.float64, backend="native")
    with pytest.raises(ValueError, match="backend='native' cannot compute this call"):
        native(torch.zeros(2, 1, 3, dtype=torch.float64))


def test_top_level_import_does_not_load_torch():
    import subprocess
    import sys

    code = "import sys, deltarnn, deltarnn.fixed.qformat; deltarnn.QFormat; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@BOTH
def test_module_is_a_recurrent_module(kind):
    layer = CELLS[kind](3, 4)
    assert isinstance(layer, nn.RNNBase)
    layer.flatten_parameters()
    assert [len(weights) for weights in layer.all_weights] == [4]


@pytest.mark.parametrize("cell", ["GRU", "LSTM"])
def test_each_direction_can_have_its_own_thresholds(cell):
    """Each direction computes what a layer of its own does."""
    torch.manual_seed(0)
    layer = CELLS[cell](5, 7, bidirectional=True, thx=[0.1, 0.3], thh=[0.2, 0.05]).eval()
    x = smooth_input(40, 2, 5, dtype=torch.float32)
    output, _ = layer(x)
    for index, suffix in enumerate(["", "_reverse"]):
        one = CELLS[cell](5, 7, thx=layer.thx[index], thh=layer.thh[index]).eval()
        one.load_state_dict({name: getattr(layer, name + suffix).detach() for name in one.state_dict()})
        expected = one(x if index == 0 else x.flip(0))[0]
        torch.testing.assert_close(output[..., 7 * index : 7 * index + 7], expected if index == 0 else expected.flip(0))
    with pytest.raises(ValueError, match="3 values: give one number, or one for each of the 1 layers, or for each of"):
        layer.thx = [0.1, 0.2, 0.3]
    with pytest.raises(ValueError, match=r"2 values: give one number, or one for each of the 1 layers$"):
        CELLS[cell](5, 7, thx=[0.1, 0.2])
