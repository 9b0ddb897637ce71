"""GRUs that reset before the recurrent product, and ReLU candidates (MATH §2)."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.layers import assert_equals_its_definition, guarded, reference_runs, smooth_input
from torch.nn.utils.rnn import pack_sequence, unpack_sequence

from deltarnn import DeltaGRU, DeltaGRUResetBeforeState, QFormat, Quantization, convert, record_activity
from deltarnn.engine import Engine, UnsupportedModelError
from deltarnn.fixed.network import IntegerNetwork

FORMS = [{"reset_after": r, "candidate": c} for r, c in itertools.product([True, False], ["tanh", "relu"])][1:]
EACH_FORM = pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form['reset_after']}-{form['candidate']}")


def gru(*sizes, seed=0, **options):
    torch.manual_seed(seed)
    return DeltaGRU(*sizes, **{"dtype": torch.float64, **options})


@settings(max_examples=40, deadline=None)
@given(
    form=st.sampled_from(FORMS),
    sizes=st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(1, 3)),
    batch=st.integers(1, 4),
    thx=st.sampled_from([0.0, 0.05, 0.3]),
    thh=st.sampled_from([0.0, 0.02, 0.2]),
    seed=st.integers(0, 10**6),
)
def test_every_form_is_its_definition(form, sizes, batch, thx, thh, seed):
    layer = gru(*sizes, seed=seed, thx=thx, thh=thh, **form)
    x = smooth_input(9, batch, sizes[0], seed)
    assume(min(run.margin for run in reference_runs(layer, x)) > 1e-9)
    assert_equals_its_definition(layer, x)


@pytest.mark.parametrize("bidirectional", [False, True])
@EACH_FORM
def test_with_thresholds_0_it_is_the_onnx_operator(form, bidirectional):
    onnxruntime, onnx = pytest.importorskip("onnxruntime"), pytest.importorskip("onnx")
    layer = gru(5, 7, bidirectional=bidirectional, dtype=torch.float32, **form)
    directions = 1 + bidirectional
    sizes = {"X": (6, 2, 5), "W": (directions, 21, 5), "R": (directions, 21, 7), "B": (directions, 42)}
    sizes["initial_h"] = (directions, 2, 7)
    inputs = ["X", "W", "R", "B", "", "initial_h"]
    node = onnx.helper.make_node(
        *("GRU", inputs, ["Y", "Y_h"]),
        hidden_size=7,
        direction="bidirectional" if bidirectional else "forward",
        linear_before_reset=int(form["reset_after"]),
        activations=["Sigmoid", form["candidate"].title()] * directions,
    )
    values = [onnx.helper.make_tensor_value_info(name, 1, shape) for name, shape in sizes.items()]
    outputs = [onnx.helper.make_tensor_value_info(name, 1, None) for name in ("Y", "Y_h")]
    graph = onnx.helper.make_graph([node], "gru", values, outputs)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)

    def stacked(name):  # ONNX's gates are z, r, h
        tensors = [getattr(layer, f"{name}_{suffix}").detach() for suffix in layer.layer_names]
        return np.stack([torch.cat([t[7:14], t[:7], t[14:]]).numpy() for t in tensors])

    x, h_0 = torch.randn(6, 2, 5), torch.randn(directions, 2, 7)
    feeds = {"X": x.numpy(), "W": stacked("weight_ih"), "R": stacked("weight_hh"), "initial_h": h_0.numpy()}
    feeds["B"] = np.concatenate([stacked("bias_ih"), stacked("bias_hh")], axis=1)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    y, y_h = session.run(None, feeds)
    with torch.no_grad():
        output, h_n = layer(x, h_0)
    np.testing.assert_allclose(output.numpy(), y.transpose(0, 2, 1, 3).reshape(6, 2, -1), rtol=0, atol=1e-6)
    np.testing.assert_allclose(h_n.numpy(), y_h, rtol=0, atol=1e-6)


@EACH_FORM
def test_chunks_and_packed_samples_are_the_whole(form):
    layer = gru(3, 5, 2, thx=0.2, thh=0.1, **form)
    x = smooth_input(12, 1, 3, seed=3)
    assert guarded(layer, x)
    whole, state = layer(x)[0], layer.initial_state(1)
    outputs = []
    for chunk in x.split([1, 4, 7]):
        output, state = layer(chunk, state)
        outputs.append(output)
    assert torch.allclose(torch.cat(outputs), whole, atol=1e-12)
    packed, _ = layer(pack_sequence([x[:5, 0], x[:, 0]], enforce_sorted=False))
    for part, length in zip(unpack_sequence(packed), (5, 12), strict=True):
        assert torch.allclose(part, whole[:length, 0], atol=1e-12)


@EACH_FORM
def test_gradcheck(form):
    layer = gru(3, 4, thx=0.3, thh=0.1, **form)
    x = smooth_input(6, 2, 3, seed=4)
    assert guarded(layer, x)
    state = [part.detach() + 0.05 * torch.randn_like(part) for part in layer.initial_state(2)[0]]
    names = [name for name, _ in layer.named_parameters()]

    def run(x, *tensors):
        weights = dict(zip(names, tensors[len(state) :], strict=True))
        carried = (layer.state_type(*tensors[: len(state)]),)
        with record_activity(layer) as activity:
            y, (final,) = torch.func.functional_call(layer, weights, (x, carried))
        return (y, *final, activity.l1_delta_h)

    inputs = [x, *state, *(p.detach() for p in layer.parameters())]
    assert torch.autograd.gradcheck(run, [tensor.clone().requires_grad_() for tensor in inputs], eps=1e-7, atol=1e-5)


def test_effective_sparsity_weighs_each_delta_by_its_own_column():
    layer = gru(1, 2, thx=9.0, thh=0.0, reset_after=False)
    with record_activity(layer, events=True) as activity:
        layer(torch.zeros(3, 1, 1, dtype=torch.float64))
    ((_, fired_h),) = activity.events
    zeros_h, zeros_rh = (~fired_h[..., :2]).sum().item(), (~fired_h[..., 2:]).sum().item()
    assert activity.effective_sparsity == (6 * 3 + 4 * zeros_h + 2 * zeros_rh) / (6 * 3 + 4 * 6 + 2 * 6)
    assert activity.per_layer[0].delta_rows == (6, 4, 2)


def test_what_does_not_combine_is_refused_by_name():
    with pytest.raises(ValueError, match=r"candidate='elu': must be one of 'tanh', 'relu'"):
        DeltaGRU(2, 3, candidate="elu")
    for form, name in (({"reset_after": False}, "reset_after=False"), ({"candidate": "relu"}, "candidate='relu'")):
        with pytest.raises(ValueError, match=f"quantization does not combine with {name}"):
            DeltaGRU(2, 3, quantization=Quantization(), **form)
        layer = DeltaGRU(2, 3, **form)
        assert name in repr(layer)
        with pytest.raises(ValueError, match=f"native' cannot compute this call: {name} is eager"):
            DeltaGRU(2, 3, backend="native", **form)(torch.zeros(1, 1, 2))
        layer(torch.zeros(1, 1, 2))
        assert layer.backend_used == f"eager ({name} is eager)"
        with pytest.raises(UnsupportedModelError, match=f"precision='int8' does not combine with {name}"):
            Engine.compile(layer, "int8", Quantization(QFormat(8, 8)))
        with pytest.raises(ValueError, match=f"the GRU has {name}"):
            IntegerNetwork.convert(layer)


def test_a_state_of_the_other_form_is_refused():
    before, after = gru(2, 3, reset_after=False), gru(2, 3)
    assert isinstance(before.initial_state(1)[0], DeltaGRUResetBeforeState)
    with pytest.raises(TypeError, match="must be DeltaGRUResetBeforeState"):
        before(torch.zeros(1, 1, 2, dtype=torch.float64), after.initial_state(1))


def test_convert_leaves_delta_layers_alone():
    model = torch.nn.ModuleList([gru(2, 3, reset_after=False), torch.nn.GRU(2, 3)])
    convert(model, thx=0.5)
    assert not model[0].reset_after
    assert (model[0].thx, model[1].thx) == ((0.0,), (0.5,))
