"""The training companion: annealing, what it prunes, and that it fails loudly."""

import pytest
import torch
from torch import nn

from deltarnn import DeltaGRU, DeltaLSTM, QFormat
from deltarnn.prune import ColumnBalancedPruner, PruningError, balanced_sparsity


class Model(nn.Module):
    def __init__(self, cell=DeltaGRU):
        super().__init__()
        torch.manual_seed(0)
        self.rnn = cell(10, 30, 2)
        self.head = nn.Sequential(nn.Linear(30, 40), nn.ReLU(), nn.Linear(40, 10))


def regrow(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))


@pytest.mark.parametrize("cell", [DeltaGRU, DeltaLSTM])
def test_weights_reach_their_target_and_stay_there(cell):
    model = Model(cell)
    pruner = ColumnBalancedPruner(model, gamma_rnn=0.7, gamma_fc=0.5, num_pe=4, anneal_epochs=5)
    alphas, overall = [], []
    for epoch in range(8):
        regrow(model)
        report = pruner.after_epoch(epoch)
        alphas.append(report.alpha)
        overall.append(sum(t.achieved for t in report.tensors))
    assert alphas == [0, 0.25, 0.5, 0.75, 1, 1, 1, 1]
    assert overall[0] == 0
    assert overall[:5] == sorted(overall[:5])
    names = {t.name: t for t in report.tensors}
    recurrent = {f"rnn.weight_{w}_l{layer}" for w in ("ih", "hh") for layer in (0, 1)}
    assert set(names) == recurrent | {"head.0.weight", "head.2.weight"}
    rows = model.rnn.weight_ih_l0.shape[0]
    for tensor in report.tensors:
        assert tensor.achieved == pytest.approx(tensor.target)
    assert names["rnn.weight_hh_l1"].target == pytest.approx(balanced_sparsity(rows, 0.7, 4))
    assert names["head.0.weight"].target == 0.5
    assert (model.rnn.bias_ih_l0 != 0).all()
    pruner.verify()


def test_retraining_prunes_fully_from_the_first_epoch():
    model = Model()
    pruner = ColumnBalancedPruner(model, 0.7, 0, num_pe=5, anneal_epochs=0)
    assert pruner.after_epoch(0).alpha == 1
    assert (model.head[0].weight != 0).all()


def test_weights_are_rounded_before_they_are_pruned():
    model, fmt = Model(), QFormat(1, 4)
    ColumnBalancedPruner(model, 0.5, 0.5, 3, weight_format=fmt).after_epoch(0)
    for weight in (model.rnn.weight_hh_l0, model.head[0].weight):
        assert torch.equal(weight, torch.tensor(fmt.quantize(weight.detach()), dtype=weight.dtype))


def test_verify_fails_on_an_epoch_before_the_annealing_ended():
    model = Model()
    pruner = ColumnBalancedPruner(model, 0.7, 0, num_pe=5, anneal_epochs=10)
    pruner.after_epoch(3)
    with pytest.raises(PruningError, match=r"rnn.weight_ih_l0 is \d+.\d+% zero where gamma=0.7 over 5.*10 epochs"):
        pruner.verify()


def test_verify_sees_one_weight_that_regrew():
    model = Model()
    pruner = ColumnBalancedPruner(model, 0.7, 0, num_pe=5)
    pruner.after_epoch(0)
    pruner.verify()
    with torch.no_grad():
        weight = model.rnn.weight_hh_l1
        row, column = (weight == 0).nonzero()[0].tolist()
        weight[row, column] = 1e-6
    with pytest.raises(PruningError, match="weight_hh_l1"):
        pruner.verify()


def test_layers_too_small_to_prune_are_named():
    model = Model()
    with pytest.warns(UserWarning, match=r"head.2.weight stays dense: its 10 rows over 16"):
        report = ColumnBalancedPruner(model, 0.7, 0.75, num_pe=16).after_epoch(0)
    assert "head.2.weight" not in {t.name for t in report.tensors}


def test_a_request_that_would_do_nothing_is_an_error():
    with pytest.raises(ValueError, match="nothing to prune"):
        ColumnBalancedPruner(Model(), 0.0, 0.0, num_pe=4)
    with pytest.raises(ValueError, match="nothing to prune"), pytest.warns(UserWarning, match="stays dense"):
        ColumnBalancedPruner(nn.Linear(4, 3), 0.7, 0.5, num_pe=16)
    with pytest.raises(ValueError, match="anneal_epochs=-1"):
        ColumnBalancedPruner(Model(), 0.7, 0.5, num_pe=4, anneal_epochs=-1)


def test_the_report_reads_well():
    model = Model()
    text = str(ColumnBalancedPruner(model, 0.5, 0, num_pe=5).after_epoch(0))
    assert "alpha = 1.000" in text
    assert "rnn.weight_hh_l0: 50.00% zero (target 50.00%)" in text


def test_weights_that_are_not_numbers_do_not_count_as_pruned():
    model = Model()
    pruner = ColumnBalancedPruner(model, 0.7, 0, num_pe=5)
    with torch.no_grad():
        model.rnn.weight_hh_l0[3] = torch.nan
    with pytest.raises(PruningError, match="weight_hh_l0"):
        pruner.after_epoch(0)
