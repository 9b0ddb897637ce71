"""Recording: fractions, weights, blocks, and what is asked of what did not run."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from deltarnn import DeltaGRU, DeltaLSTM, record_activity


def test_fractions_by_hand():
    layer = DeltaGRU(2, 1, thx=0.5, thh=10.0)
    x = torch.tensor([[0.6, 0.1], [0.7, 0.2], [0.8, 0.7], [1.2, 0.7]]).unsqueeze(1)  # fires: 0 · - · 1 · 0
    with record_activity(layer, events=True) as activity:
        layer(x)
    assert activity.sparsity_x == 5 / 8
    assert activity.sparsity_h == 1.0
    assert activity.sparsity == 9 / 12
    assert activity.events[0][0][:, 0].tolist() == [[True, False], [False, False], [False, True], [True, False]]
    assert activity.per_layer[0].events[1].shape == (4, 1, 1)


def test_effective_sparsity_weighs_by_the_weights_fetched():
    model = nn.Sequential(DeltaGRU(1, 2, thx=9.0, thh=9.0))
    model.append(DeltaLSTM(1, 5))
    x = torch.ones(3, 1, 1)
    with record_activity(model) as activity:
        model[0](x)
        model[1](x.cumsum(0))
    gru, lstm = activity.per_layer
    assert (gru.name, lstm.name) == ("0.l0", "1.l0")
    assert (gru.gate_rows, lstm.gate_rows) == (6, 20)
    assert (gru.sparsity, lstm.sparsity_x, lstm.sparsity_h) == (1.0, 0.0, 1 / 3)  # the first Δh is 0: h starts at ĥ
    zeros, numel = (9, 5), (9, 18)
    assert activity.sparsity == sum(zeros) / sum(numel)
    assert activity.effective_sparsity == (6 * 9 + 20 * 5) / (6 * 9 + 20 * 18)


def test_l1_trains_the_activity_down():
    torch.manual_seed(0)
    layer = DeltaGRU(4, 8, thh=0.01)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.005)
    x = torch.randn(10, 4, 4)
    values = []
    for _ in range(20):
        with record_activity(layer) as activity:
            layer(x)
        values.append(activity.l1_delta_h.item())
        optimizer.zero_grad()
        activity.l1_delta_h.backward()
        optimizer.step()
    assert values[-1] < 0.8 * values[0]


def test_calls_of_a_block_add_up_and_blocks_nest():
    layer = DeltaGRU(3, 4, thx=0.3, thh=0.3)
    a, b = torch.randn(5, 2, 3), torch.randn(7, 2, 3)
    with record_activity(layer, events=True) as outer:
        layer(a)
        with record_activity(nn.Sequential(layer)) as inner:
            layer(b)
    layer(a)
    calls = outer.per_layer[0].calls
    assert len(calls) == 2
    assert len(inner.per_layer[0].calls) == 1
    assert inner.per_layer[0].name == "0.l0"
    assert outer.events[0][1].shape == (12, 2, 4)
    assert outer.sparsity_x == 1 - outer.events[0][0].double().mean()
    assert layer.recorders == []


def test_a_block_left_by_an_error_stops_recording():
    layer = DeltaGRU(3, 4)
    with pytest.raises(KeyError), record_activity(layer):
        raise KeyError
    assert layer.recorders == []


def test_directions_are_reported_apart_and_padding_is_not_counted():
    layer = DeltaLSTM(3, 4, num_layers=2, bidirectional=True)
    with record_activity(layer, events=True) as activity:
        layer(pack_sequence([torch.ones(5, 3), torch.ones(2, 3)]))
    assert [entry.name for entry in activity.per_layer] == ["l0", "l0_reverse", "l1", "l1_reverse"]
    assert [int(entry.calls[0].counts[2]) for entry in activity.per_layer] == [21, 21, 56, 56]
    assert not activity.events[1][0][2:, 1].any()


@pytest.mark.parametrize("backend", ["eager", "auto"])
def test_events_are_in_the_callers_order(backend):
    """Of samples and, backwards in time, of steps: x changes at step 1 of the short sample, at step 3 of the long."""
    layer = DeltaGRU(2, 3, bidirectional=True, thx=0.5, thh=9.0, backend=backend)
    short, long = torch.zeros(2, 2), torch.zeros(5, 2)
    short[1:], long[3:] = 1.0, 1.0
    with record_activity(layer, events=True) as activity:
        layer(pack_sequence([short, long], enforce_sorted=False))
    (forwards, _), (backwards, _) = activity.events
    assert forwards.any(2).nonzero().tolist() == [[1, 0], [3, 1]]
    assert backwards.any(2).nonzero().tolist() == [[0, 0], [1, 0], [2, 1], [4, 1]]


def test_totals_are_of_the_layers_that_ran():
    model = nn.ModuleDict({"used": DeltaGRU(2, 3, thx=0.5), "idle": DeltaGRU(2, 3)})
    with record_activity(model) as activity:
        model["used"](torch.zeros(4, 1, 2))
    assert activity.sparsity_x == 1.0
    assert activity.l1_delta_h.item() > 0
    with pytest.raises(RuntimeError, match=r"idle\.l0 did not run"):
        _ = activity.per_layer[1].sparsity


def test_nothing_to_report_is_an_error():
    layer = DeltaGRU(3, 4)
    with record_activity(layer) as activity:
        pass
    with pytest.raises(RuntimeError, match="l0 did not run"):
        _ = activity.sparsity
    with record_activity(layer) as activity:
        layer(torch.zeros(1, 1, 3))
        layer(torch.zeros(1, 2, 3))
    with pytest.raises(RuntimeError, match="events=True"):
        _ = activity.events
    with (
        pytest.raises(ValueError, match=r"no DeltaGRU or DeltaLSTM in this GRU: see deltarnn.convert"),
        record_activity(nn.GRU(3, 4)),
    ):
        pass


def test_events_of_several_batch_sizes_cannot_be_joined():
    layer = DeltaGRU(3, 4)
    with record_activity(layer, events=True) as activity:
        layer(torch.zeros(1, 1, 3))
        layer(torch.zeros(1, 2, 3))
    with pytest.raises(RuntimeError, match=r"batch sizes \[1, 2\]"):
        _ = activity.events
