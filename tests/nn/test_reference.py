"""The layers against MATH §1–3 and §5 written down to the letter (tests/reference.py)."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests import reference
from tests.layers import CELLS, assert_equals_its_definition, guarded, reference_runs, relative_error, smooth_input

from deltarnn import DeltaGRU, DeltaLSTM, record_activity

CASES = {
    "kind": st.sampled_from(["GRU", "LSTM"]),
    "inputs": st.integers(1, 6),
    "hidden": st.integers(1, 9),
    "steps": st.integers(1, 12),
    "batch": st.integers(1, 4),
    "thx": st.sampled_from([0.0, 0.05, 0.3, 2.0]),
    "thh": st.sampled_from([0.0, 0.02, 0.2, 2.0]),
    "seed": st.integers(0, 10**6),
}


@settings(max_examples=40, deadline=None)
@given(**CASES, num_layers=st.integers(1, 3))
def test_forward(kind, inputs, hidden, steps, batch, thx, thh, seed, num_layers):
    torch.manual_seed(seed)
    layer = CELLS[kind](inputs, hidden, num_layers, thx=thx, thh=thh, dtype=torch.float64)
    x = smooth_input(steps, batch, inputs, seed)
    assume(min(run.margin for run in reference_runs(layer, x)) > 1e-9)
    assert_equals_its_definition(layer, x)


@settings(max_examples=40, deadline=None)
@given(**CASES)
def test_autograd_equals_the_suffix_sums_of_the_events(kind, inputs, hidden, steps, batch, thx, thh, seed):
    torch.manual_seed(seed)
    layer = CELLS[kind](inputs, hidden, thx=thx, thh=thh, dtype=torch.float64)
    x = smooth_input(steps, batch, inputs, seed).requires_grad_()
    (run,) = reference_runs(layer, x)
    assume(run.margin > 1e-9)
    grad_y = torch.randn(steps, batch, hidden, dtype=torch.float64)
    with record_activity(layer) as activity:
        y, _ = layer(x)
    ((y * grad_y).sum() + 0.1 * activity.l1_delta_h).backward()

    gradients = reference.gru_gradients if kind == "GRU" else reference.lstm_gradients
    weights = (layer.weight_ih_l0.detach().numpy(), layer.weight_hh_l0.detach().numpy())
    expected = gradients(run, *weights, grad_y.numpy(), 0.1)
    actual = {"x": x.grad} | {name.removesuffix("_l0"): p.grad for name, p in layer.named_parameters()}
    for name, value in expected.items():
        assert relative_error(actual[name], value) < 1e-9, name


@pytest.mark.parametrize("layer_type", [DeltaGRU, DeltaLSTM])
@pytest.mark.parametrize("hard", [True, False])
def test_gradcheck_through_inputs_weights_and_initial_state(layer_type, hard):
    torch.manual_seed(5)
    layer = layer_type(3, 4, thx=0.3, thh=0.1, hard_activations=hard, dtype=torch.float64)
    x = smooth_input(6, 2, 3, seed=4)
    if not hard:
        assert guarded(layer, x)
    state = [part.detach().clone() for part in layer.initial_state(2)[0]]
    state = [part + 0.05 * torch.randn_like(part) for part in state]
    names = [name for name, _ in layer.named_parameters()]

    def run(x, *tensors):
        parts, weights = tensors[: len(state)], dict(zip(names, tensors[len(state) :], strict=True))
        carried = (layer.state_type(*parts),)
        with record_activity(layer) as activity:
            y, (final,) = torch.func.functional_call(layer, weights, (x, carried))
        return (y, *final, activity.l1_delta_h)

    inputs = [x, *state, *(p.detach() for p in layer.parameters())]
    assert torch.autograd.gradcheck(run, [tensor.clone().requires_grad_() for tensor in inputs], eps=1e-7, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), threshold=st.floats(0.01, 1), step=st.floats(0.001, 1))
def test_one_step_of_a_higher_threshold_never_adds_events(seed, threshold, step):
    generator = torch.Generator().manual_seed(seed)
    layers = [DeltaGRU(8, 8, thx=th, thh=th) for th in (threshold, threshold + step)]
    x = torch.randn(1, 1, 8, generator=generator)
    state = DeltaGRU.state_type(*(torch.randn(1, width, generator=generator) for width in (8, 8, 8, 32)))
    events = []
    for layer in layers:
        with record_activity(layer, events=True) as activity:
            layer(x, (state,))
        events.append(activity.events[0])
    for lower, higher in zip(*events, strict=True):
        assert not (higher & ~lower).any()


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_what_did_not_fire_is_within_the_threshold(kind):
    layer = CELLS[kind](4, 6, thx=0.3, thh=0.1)
    state = layer.initial_state(3)
    for x in smooth_input(30, 3, 4, seed=1, dtype=torch.float32):
        before = state[0]
        with record_activity(layer, events=True) as activity:
            _, state = layer(x[None], state)
        ((fired_x, fired_h),) = activity.events
        assert ((x - state[0].x_hat).abs()[~fired_x[0]] < 0.3).all()
        assert ((before.h - state[0].h_hat).abs()[~fired_h[0]] < 0.1).all()
        assert torch.equal(state[0].x_hat[fired_x[0]], x[fired_x[0]])


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_exactly_at_the_threshold_fires(kind):
    layer = CELLS[kind](1, 1, thx=0.25)
    x = torch.tensor([0.25, 0.375, 0.5, 0.75]).reshape(-1, 1, 1)
    with record_activity(layer, events=True) as activity:
        layer(x)
    assert activity.events[0][0].flatten().tolist() == [True, False, True, True]


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_a_nan_is_not_hidden(kind):
    layer = CELLS[kind](2, 3, thx=0.5, thh=0.5)
    x = torch.zeros(4, 1, 2)
    x[1, 0, 0] = torch.nan
    y, _ = layer(x)
    assert y[0].isfinite().all()
    assert y[1:].isnan().all()
