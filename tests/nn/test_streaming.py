"""Chunks through the delta state equal the whole; samples of a batch do not influence each other."""

import warnings

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.layers import CELLS, guarded, relative_error, smooth_input
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from deltarnn import DeltaGRU, DeltaLSTM, QFormat, Quantization, record_activity
from deltarnn.nn.backends import choose
from deltarnn.nn.state import LayerOptions, LayerParameters

KINDS = st.sampled_from(["GRU", "LSTM"])


def counts(activity):
    return [call.counts[:2].tolist() for entry in activity.per_layer for call in entry.calls]


def total_counts(activity):
    return torch.tensor(counts(activity)).sum(0).tolist()


def in_chunks(layer, x, sizes):
    state, outputs = layer.initial_state(x.shape[1]), []
    for chunk in x.split(sizes):
        y, state = layer(chunk, state)
        outputs.append(y)
    return torch.cat(outputs), state


@st.composite
def chunk_sizes(draw, total=14):
    cuts = sorted(draw(st.sets(st.integers(1, total - 1))))
    return [b - a for a, b in zip([0, *cuts], [*cuts, total], strict=True)]


@settings(max_examples=20, deadline=None)
@given(kind=KINDS, sizes=chunk_sizes(), seed=st.integers(0, 10**6), thx=st.sampled_from([0.0, 0.2]))
def test_float_chunks(kind, sizes, seed, thx):
    torch.manual_seed(seed)
    layer = CELLS[kind](3, 5, num_layers=2, thx=thx, thh=0.1)
    x = smooth_input(14, 2, 3, seed, torch.float32)
    assume(guarded(layer, x))
    with record_activity(layer) as whole:
        y, state = layer(x, layer.initial_state(2))
    with record_activity(layer) as parts:
        y_chunks, state_chunks = in_chunks(layer, x, sizes)
    assert relative_error(y_chunks, y) < 1e-5
    assert total_counts(parts) == total_counts(whole)
    for a, b in zip(state_chunks, state, strict=True):
        for field in a._fields:
            assert relative_error(getattr(a, field), getattr(b, field)) < 1e-5, field


@settings(max_examples=20, deadline=None)
@given(
    kind=KINDS,
    sizes=chunk_sizes(),
    seed=st.integers(0, 10**6),
    fraction_bits=st.integers(2, 8),
    proj_size=st.sampled_from([0, 3]),
    rounding=st.sampled_from(["nearest", "floor"]),
)
def test_quantised_chunks_bit_for_bit(kind, sizes, seed, fraction_bits, proj_size, rounding):
    torch.manual_seed(seed)
    formats = Quantization(activation=QFormat(3, fraction_bits), rounding=rounding)
    options = {"proj_size": proj_size} if kind == "LSTM" else {}
    layer = CELLS[kind](3, 5, num_layers=2, thx=0.25, thh=0.25, quantization=formats, **options).eval()
    x = smooth_input(14, 2, 3, seed, torch.float32)
    y, state = layer(x, layer.initial_state(2))
    y_chunks, state_chunks = in_chunks(layer, x, sizes)
    assert torch.equal(y_chunks, y)
    for a, b in zip(state_chunks, state, strict=True):
        assert all(torch.equal(p, q) for p, q in zip(a, b, strict=True))
    assert torch.equal(formats_grid(y, fraction_bits), y)


def formats_grid(values, fraction_bits):
    return torch.round(values * 2**fraction_bits) / 2**fraction_bits


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_gradients_flow_through_the_carried_state(kind):
    torch.manual_seed(0)
    layer = CELLS[kind](3, 5, thx=0.1, thh=0.05, dtype=torch.float64)
    x = smooth_input(12, 2, 3)
    assert guarded(layer, x)
    gradients = []
    for sizes in ([12], [5, 1, 6]):
        leaf = x.clone().requires_grad_()
        layer.zero_grad()
        y, _ = in_chunks(layer, leaf, sizes)
        y.square().sum().backward()
        gradients.append([leaf.grad, *(p.grad for p in layer.parameters())])
    for chunked, whole in zip(*reversed(gradients), strict=True):
        assert relative_error(chunked, whole) < 1e-10


@settings(max_examples=20, deadline=None)
@given(kind=KINDS, seed=st.integers(0, 10**6))
def test_permuting_the_batch_permutes_the_result(kind, seed):
    torch.manual_seed(seed)
    layer = CELLS[kind](3, 5, num_layers=2, bidirectional=True, thx=0.2, thh=0.1, dtype=torch.float64)
    x, order = smooth_input(9, 4, 3, seed), torch.randperm(4)
    assert relative_error(layer(x[:, order])[0], layer(x)[0][:, order]) < 1e-12


@settings(max_examples=20, deadline=None)
@given(kind=KINDS, seed=st.integers(0, 10**6), bidirectional=st.booleans(), quantized=st.booleans())
def test_a_packed_batch_equals_its_samples_alone(kind, seed, bidirectional, quantized):
    torch.manual_seed(seed)
    formats = Quantization() if quantized else None
    options = {"thx": 0.25, "thh": 0.125, "quantization": formats, "dtype": torch.float64}
    layer = CELLS[kind](3, 5, num_layers=2, bidirectional=bidirectional, **options).eval()
    lengths = torch.randint(1, 10, (4,))
    x = smooth_input(int(lengths.max()), 4, 3, seed)
    x_padded = x.clone()
    for sample, length in enumerate(lengths):
        x_padded[length:, sample] = torch.nan if not quantized else 3.0
    packed = pack_padded_sequence(x_padded, lengths, enforce_sorted=False)
    with record_activity(layer) as activity:
        output, final = layer(packed)
    y, _ = pad_packed_sequence(output)
    alone_counts = torch.zeros(2, dtype=torch.int64)
    for sample, length in enumerate(lengths):
        with record_activity(layer) as alone:
            y_alone, final_alone = layer(x[:length, sample])
        alone_counts += torch.tensor(total_counts(alone))
        assert relative_error(y[:length, sample], y_alone) < 1e-12
        finals = zip(final, final_alone, strict=True) if kind == "LSTM" else [(final, final_alone)]
        for batched, single in finals:
            assert relative_error(batched[:, sample], single) < 1e-12
    assert total_counts(activity) == alone_counts.tolist()
    entry = activity.per_layer[0]
    assert sum(int(call.counts[2]) for call in entry.calls) == int(lengths.sum()) * 3


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_a_backend_returns_zeros_past_a_samples_length(kind):
    layer = CELLS[kind](3, 5)
    parameters, options = LayerParameters(layer.weight_ih_l0, layer.weight_hh_l0), LayerOptions(0.0, 0.0, False, None)
    x, lengths = torch.randn(4, 2, 3), torch.tensor([4, 2])
    output = (
        choose("auto", kind, x, parameters, options)
        .run(x, layer.initial_state(2)[0], parameters, options, lengths, False)
        .output
    )
    assert output[2:, 1].abs().max() == 0
    assert output[2:, 0].abs().min() > 0


def test_packed_state_is_carried_in_the_callers_order():
    torch.manual_seed(0)
    layer = DeltaLSTM(3, 5, thx=0.2, thh=0.1, dtype=torch.float64)
    x = smooth_input(6, 3, 3)
    state = layer.initial_state(3)
    lengths = torch.tensor([2, 4, 3])
    _, state = layer(pack_padded_sequence(x[:4], lengths, enforce_sorted=False), state)
    for sample, length in enumerate(lengths):
        _, (alone,) = layer(x[:length, sample], layer.initial_state(1))
        for field in alone._fields:
            assert relative_error(getattr(state[0], field)[sample], getattr(alone, field)[0]) < 1e-12


@pytest.mark.parametrize("kind", [DeltaGRU, DeltaLSTM])
def test_steps_from_dense_states_are_warned_of(kind):
    """Each begins a memory, so that nothing is skipped; the remedy that the warning names skips."""
    layer = kind(4, 6, thx=0.1, thh=0.1)
    frames = torch.randn(20, 1, 1, 4).cumsum(0) * 0.02 + 1

    def skipped(state, chunks=frames):
        with record_activity(layer) as activity:
            for chunk in chunks:
                _, state = layer(chunk, state)
        return activity.sparsity_x

    with pytest.warns(UserWarning, match="one step from a dense state, again"):
        from_dense = skipped(None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert skipped(layer.initial_state(1)) > from_dense + 0.2
        skipped(None, frames[:2])  # as a decoder begins
        skipped(None, frames.reshape(10, 2, 1, 4))
        layer.thx = layer.thh = 0
        skipped(None)
