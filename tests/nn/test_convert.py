"""Conversion of dense modules in place."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from deltarnn import DeltaGRU, DeltaLSTM, convert, record_activity


class Shared(nn.Module):
    """One layer under two names, in nested containers."""

    def __init__(self):
        super().__init__()
        self.first = nn.LSTM(4, 4, batch_first=True, proj_size=2)
        self.blocks = nn.ModuleList([nn.ModuleDict({"rnn": nn.GRU(2, 2)})])
        self.again = self.blocks[0]["rnn"]


def test_every_layer_is_replaced_over_the_same_parameters():
    model = Shared()
    parameters = dict(model.named_parameters())
    names = [name for name, _ in model.named_modules()]
    assert convert(model, thx=0.1, thh=0.2) is model
    assert isinstance(model.first, DeltaLSTM)
    assert (model.first.proj_size, model.first.batch_first, model.first.thx, model.first.thh) == (
        2,
        True,
        (0.1,),
        (0.2,),
    )
    assert isinstance(model.again, DeltaGRU)
    assert model.again is model.blocks[0]["rnn"]
    assert [name for name, _ in model.named_modules()] == names
    assert {name: id(p) for name, p in model.named_parameters()} == {name: id(p) for name, p in parameters.items()}


@pytest.mark.parametrize("dense_type", [nn.GRU, nn.LSTM])
def test_a_converted_layer_computes_the_same(dense_type):
    torch.manual_seed(0)
    dense = dense_type(3, 4, num_layers=2, dropout=0.5, bidirectional=True).eval()
    delta = convert(copy.deepcopy(dense))
    assert not delta.training
    assert delta.dropout == 0.5
    x = torch.randn(5, 2, 3)
    assert torch.allclose(delta(x)[0], dense(x)[0], atol=1e-6)
    delta.weight_ih_l0.data.zero_()
    assert delta.all_weights[0][0].abs().max() == 0
    assert not torch.allclose(delta(x)[0], dense(x)[0], atol=1e-3)


def test_one_layer_under_two_names_of_one_parent():
    model = nn.Module()
    model.a = model.b = nn.GRU(2, 2)
    convert(model)
    assert type(model.a) is DeltaGRU
    assert model.b is model.a


def test_the_dense_layer_keeps_its_own_registry():
    dense = nn.GRU(3, 4)
    weight = dense.weight_hh_l0
    delta = convert(dense)
    delta.weight_hh_l0 = nn.Parameter(torch.zeros(12, 4))
    assert dense.weight_hh_l0 is weight


def test_hooks_training_mode_and_optimisers_keep_working():
    gru = nn.GRU(3, 4)
    gru.note = "mine"
    calls = []
    gru.register_forward_hook(lambda module, args, output: calls.append(type(module).__name__))
    model = nn.Sequential(gru)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    convert(model)
    before = model[0].weight_hh_l0.detach().clone()
    model(torch.randn(5, 2, 3))[0].sum().backward()
    optimizer.step()
    assert calls == ["DeltaGRU"]
    assert model[0].note == "mine"
    assert not torch.equal(model[0].weight_hh_l0, before)


def test_tied_parameters_stay_tied():
    a, b = nn.GRU(4, 4), nn.GRU(4, 4)
    b.weight_hh_l0 = a.weight_hh_l0
    model = convert(nn.ModuleList([a, b]))
    assert model[0].weight_hh_l0 is model[1].weight_hh_l0


def test_what_cannot_be_converted_is_named():
    class Custom(nn.GRU):
        pass

    with pytest.raises(
        ValueError, match=r"0 \(Custom\) cannot be converted: .* put an nn\.GRU with its state_dict\(\)"
    ):
        convert(nn.Sequential(Custom(2, 2)))
    with pytest.raises(ValueError, match=r"no nn\.GRU or nn\.LSTM in this Linear, nor a cell .* its ONNX export"):
        convert(nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"nothing to convert; 0 is a delta layer already: .* thresholds=\{'0': …\}"):
        convert(convert(nn.Sequential(nn.GRU(2, 2))), thx=0.1)
    with pytest.raises(TypeError, match=r"there is a OrderedDict to convert: .* build the module first"):
        convert(nn.GRU(2, 2).state_dict())
    with pytest.warns(UserWarning, match=r"1 \(RNN\) has no delta form"):
        model = convert(nn.ModuleList([nn.GRU(2, 2), nn.RNN(2, 2)]))
    assert isinstance(model[0], DeltaGRU)
    assert type(model[1]) is nn.RNN


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:torch.quantize_per_tensor")
def test_quantised_modules_are_named():
    model = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.LSTM(2, 2)), {nn.LSTM})
    with pytest.raises(ValueError, match=r"0 is a torch\.ao\..*\.LSTM: build the model with the float layers of torch"):
        convert(model)


@pytest.mark.parametrize(("dense_type", "name"), [(nn.GRU, "weight_hh_l1"), (nn.LSTMCell, "weight_ih")])
def test_parametrisations_stay_in_force(dense_type, name):
    """Weight norm of a pretrained network: same outputs, gradients and checkpoints, and the very same parameters."""
    torch.manual_seed(0)
    dense = dense_type(3, 4, **({"num_layers": 2} if dense_type is nn.GRU else {}))
    parametrizations.weight_norm(dense, name)
    model = nn.Sequential(copy.deepcopy(dense))
    parameters = {key: id(p) for key, p in model.named_parameters()}
    convert(model)
    assert {key: id(p) for key, p in model.named_parameters()} == parameters
    assert list(model[0].state_dict()) == list(dense.state_dict())
    x = torch.randn(5, 3) if dense_type is nn.LSTMCell else torch.randn(5, 2, 3)
    with torch.no_grad():
        for layer in (dense, model[0]):
            layer.parametrizations[name].original0.mul_(2)
    for layer in (dense, model[0]):
        layer(x)[0].sum().backward()
    assert torch.allclose(model[0](x)[0], dense(x)[0], atol=1e-6)
    for one, other in zip(model[0].parameters(), dense.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-5)
    parametrize.remove_parametrizations(model[0], name)
    assert torch.allclose(model[0](x)[0], dense(x)[0], atol=1e-6)


class ByOtherWays(nn.Module):
    """Calls its layers through lists, mappings and methods that it keeps, as older code does."""

    def __init__(self):
        super().__init__()
        self.grus, self.named, self.nested = [], {}, ([],)
        for n in range(2):
            setattr(self, f"gru{n}", nn.GRU(3, 3))
            self.grus.append(getattr(self, f"gru{n}"))
        self.lstm, self.cell, self.last = nn.LSTM(3, 3), nn.GRUCell(3, 3), nn.GRU(3, 3)
        self.named["lstm"] = self.lstm
        self.step = self.cell.forward
        self.nested[0].append((self.last, "last"))
        self.itself = [self.grus]
        self.itself.append(self.itself)

    def forward(self, x):
        for gru in self.grus:
            x, _ = gru(x)
        x, _ = self.named["lstm"](x)
        h, steps = x.new_zeros(x.shape[1:]), []
        for frame in x:
            h = self.step(frame, h)
            steps.append(h)
        return self.nested[0][0][0](torch.stack(steps))[0]


def test_layers_that_the_code_calls_by_other_ways():
    torch.manual_seed(0)
    dense, x = ByOtherWays(), torch.randn(9, 2, 3)
    model = convert(copy.deepcopy(dense), thx=0.1, thh=0.1)
    with record_activity(model) as activity:
        model(x)
    assert all(layer.calls for layer in activity.per_layer)
    assert len(activity.per_layer) == 5
    assert torch.allclose(convert(copy.deepcopy(dense))(x), dense(x), atol=1e-6)
    assert type(dense.grus[0]) is nn.GRU


def test_a_refused_threshold_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.GRU(2, 2), nn.GRU(2, 2, num_layers=2))
    with pytest.raises(ValueError, match="1 values"):
        convert(model, thx=(0.1,))
    assert [type(layer) for layer in model] == [nn.GRU, nn.GRU]


def test_one_line_migration():
    """The README's promise: change the class, load the old checkpoint, see the sparsity."""
    checkpoint = nn.GRU(16, 64).state_dict()
    layer = DeltaGRU(16, 64, thx=0.1, thh=0.1)
    layer.load_state_dict(checkpoint)
    with record_activity(layer) as activity:
        layer(torch.randn(100, 1, 16).cumsum(0) * 0.05)
    assert 0.3 < activity.sparsity < 1
