"""With thresholds 0 a delta layer is nn.GRU or nn.LSTM: outputs, states and gradients, for every option they have."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.layers import CELLS, DENSE, relative_error
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence


def pair(kind: str, *sizes: int, dtype=torch.float64, **options):
    """A dense and a delta layer with the same parameters."""
    dense = DENSE[kind](*sizes, dtype=dtype, **options)
    delta = CELLS[kind](*sizes, dtype=dtype, **options)
    delta.load_state_dict(dense.state_dict())
    return dense, delta


def flatten(result) -> list[torch.Tensor]:
    if isinstance(result, PackedSequence):
        return [result.data]
    if isinstance(result, torch.Tensor):
        return [result]
    return [tensor for part in result for tensor in flatten(part)]


def assert_equal_with_gradients(dense, delta, make_input, hx, tolerance=1e-12):
    """Outputs, final states and the gradients of a random functional of them."""
    gradients = []
    outputs = []
    for layer in (dense, delta):
        layer.zero_grad()
        leaves = [tensor.detach().clone().requires_grad_() for tensor in hx or []]
        x, leaf = make_input()
        arguments = () if hx is None else (leaves[0] if len(leaves) == 1 else tuple(leaves),)
        result = flatten(layer(x, *arguments))
        weights = torch.Generator().manual_seed(1)
        loss = sum((part * torch.randn(part.shape, generator=weights).to(part.dtype)).sum() for part in result)
        loss.backward()
        outputs.append(result)
        gradients.append([leaf.grad, *(tensor.grad for tensor in leaves), *(p.grad for p in layer.parameters())])
    for actual, expected in zip(outputs[1], outputs[0], strict=True):
        assert relative_error(actual, expected) < tolerance
    for actual, expected in zip(gradients[1], gradients[0], strict=True):
        assert relative_error(actual, expected) < tolerance


@pytest.mark.parametrize(("kind", "proj_size"), [("GRU", 0), ("LSTM", 0), ("LSTM", 3)])
@pytest.mark.parametrize(
    ("num_layers", "bias", "bidirectional", "given_state"),
    list(itertools.product((1, 3), (True, False), (True, False), (True, False))),
)
def test_all_options(kind, proj_size, num_layers, bias, bidirectional, given_state):
    options = {"num_layers": num_layers, "bias": bias, "bidirectional": bidirectional}
    if proj_size:
        options["proj_size"] = proj_size
    dense, delta = pair(kind, 5, 7, **options)
    x = torch.randn(9, 4, 5, dtype=torch.float64)
    width = num_layers * (1 + bidirectional)
    h_0 = torch.randn(width, 4, proj_size or 7, dtype=torch.float64)
    c_0 = torch.randn(width, 4, 7, dtype=torch.float64)
    hx = ([h_0] if kind == "GRU" else [h_0, c_0]) if given_state else None

    def make_input():
        leaf = x.clone().requires_grad_()
        return leaf, leaf

    assert_equal_with_gradients(dense, delta, make_input, hx)


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
@pytest.mark.parametrize("enforce_sorted", [True, False])
@pytest.mark.parametrize("bidirectional", [True, False])
@settings(max_examples=10, deadline=None)
@given(lengths=st.lists(st.integers(1, 8), min_size=1, max_size=5))
def test_packed_sequences(kind, enforce_sorted, bidirectional, lengths):
    lengths = sorted(lengths, reverse=True) if enforce_sorted else lengths
    dense, delta = pair(kind, 3, 4, num_layers=2, bidirectional=bidirectional)
    x = torch.randn(max(lengths), len(lengths), 3, dtype=torch.float64)
    state = torch.randn(2, 2 + 2 * bidirectional, len(lengths), 4, dtype=torch.float64)

    def make_input():
        leaf = x.clone().requires_grad_()
        return pack_padded_sequence(leaf, torch.tensor(lengths), enforce_sorted=enforce_sorted), leaf

    assert_equal_with_gradients(dense, delta, make_input, list(state)[: 1 if kind == "GRU" else 2])
    packed, _ = make_input()
    out_dense, out_delta = dense(packed)[0], delta(packed)[0]
    assert torch.equal(out_delta.batch_sizes, out_dense.batch_sizes)
    for indices in ("sorted_indices", "unsorted_indices"):
        a, b = getattr(out_delta, indices), getattr(out_dense, indices)
        assert (a is None and b is None) or torch.equal(a, b)


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
@pytest.mark.parametrize("batch_first", [True, False])
def test_unbatched_and_batch_first(kind, batch_first):
    dense, delta = pair(kind, 3, 4, num_layers=2, batch_first=batch_first)
    x = torch.randn(6, 2, 3, dtype=torch.float64)
    x = x.transpose(0, 1).contiguous() if batch_first else x

    def batched():
        leaf = x.clone().requires_grad_()
        return leaf, leaf

    def unbatched():
        leaf = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
        return leaf, leaf

    assert_equal_with_gradients(dense, delta, batched, None)
    state = torch.randn(2, 2, 4, dtype=torch.float64)
    assert_equal_with_gradients(dense, delta, unbatched, list(state)[: 1 if kind == "GRU" else 2])
    assert [t.shape for t in flatten(delta(unbatched()[0]))] == [t.shape for t in flatten(dense(unbatched()[0]))]


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_dropout_draws_as_the_dense_layer_does(kind):
    dense, delta = pair(kind, 3, 8, num_layers=3, dropout=0.5)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    outputs = []
    for layer in (dense, delta):
        torch.manual_seed(3)
        outputs.append(layer(x)[0])
    assert relative_error(outputs[1], outputs[0]) < 1e-12
    assert relative_error(delta.eval()(x)[0], dense.eval()(x)[0]) < 1e-12


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_lower_precision(kind, dtype, tolerance):
    dense, delta = pair(kind, 5, 7, num_layers=2, dtype=dtype)
    x = torch.randn(9, 4, 5, dtype=dtype)
    y, states = delta(x)
    assert y.dtype == dtype
    assert {tensor.dtype for tensor in flatten(states)} == {dtype}
    exact = DENSE[kind](5, 7, num_layers=2, dtype=torch.float64)
    exact.load_state_dict(dense.state_dict())
    assert relative_error(y.double(), exact(x.double())[0]) < tolerance


def test_checkpoints_load_both_ways():
    for kind in CELLS:
        dense, delta = pair(kind, 3, 4, num_layers=2, bidirectional=True)
        assert list(delta.state_dict()) == list(dense.state_dict())
        assert not dense.load_state_dict(delta.state_dict()).missing_keys


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_autocast_keeps_the_precision_of_the_weights(kind):
    dense, delta = pair(kind, 3, 4, dtype=torch.float32)
    x = torch.randn(6, 2, 3)
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = delta(x.bfloat16())
    assert y.dtype == torch.float32
    assert relative_error(y, dense(x.bfloat16().float())[0]) < 1e-5
