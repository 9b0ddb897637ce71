"""deltarnn.tune: what it promises of models, figures, warnings and errors."""

import copy
import json
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from tests.adapt.models import Tagger, output_error, walks
from torch import nn
from torch.nn.utils import parametrizations, prune

import deltarnn
from deltarnn import QFormat, Quantization, record_activity
from deltarnn.adapt.tuned import frontier


@pytest.fixture(scope="module")
def tuned():
    return deltarnn.tune(Tagger(), walks(6), budget=0.02, held_out=walks(3, seed=9))


def test_figures_are_those_of_the_model_that_is_returned(tuned):
    dense = Tagger()
    for prefix, items in (("", walks(6)), ("held_out_", walks(3, seed=9))):
        with record_activity(tuned.model) as activity:
            error = output_error(tuned.model, dense, items)
        assert getattr(tuned, f"{prefix}loss") == pytest.approx(error, rel=1e-4)
        assert getattr(tuned, f"{prefix}sparsity") == activity.sparsity
        assert getattr(tuned, f"{prefix}effective_sparsity") == pytest.approx(activity.effective_sparsity)
    assert tuned.loss <= 0.02
    assert tuned.dense_loss == 0
    assert tuned.effective_sparsity > 0.5


def test_thresholds_go_by_module_name_and_layer(tuned):
    layer = tuned.model.rnn
    assert tuned.thresholds == {"rnn": list(zip(layer.thx, layer.thh, strict=True))}
    assert [signal.name for signal in tuned.signals] == ["rnn.l0 x", "rnn.l0 h", "rnn.l1 x", "rnn.l1 h"]
    again = deltarnn.convert(Tagger(), thx=layer.thx, thh=layer.thh)
    x = walks(1)[0]
    assert torch.equal(again(x), tuned.model(x))


def test_the_model_given_stays_as_it_was():
    model = Tagger().train()
    before = copy.deepcopy(model.state_dict())
    tuned = deltarnn.tune(model, walks(4), budget=0.05)
    assert type(model.rnn) is nn.GRU
    assert model.training
    assert not tuned.model.training
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())


def test_report_json_and_picture_tell_the_same(tuned, tmp_path):
    text = str(tuned)
    assert f"{tuned.effective_sparsity:.1%}" in text
    assert f"{tuned.held_out_loss:.5g}" in text
    tuned.save(tmp_path / "tuned.json")
    record = json.loads((tmp_path / "tuned.json").read_text())
    assert record["held_out_sparsity"] == tuned.held_out_sparsity
    assert record["thresholds"]["rnn"][1] == list(tuned.thresholds["rnn"][1])
    tuned.plot(tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes()[:4] == b"\x89PNG"


def test_the_curve_joins_the_points_to_which_none_is_better():
    points = [(0.5, 0.1), (0.6, 0.05), (0.6, 0.2), (0.7, 0.3), (0.65, 0.3), (0.1, 0.0)]
    assert frontier(points) == [(0.1, 0.0), (0.6, 0.05), (0.7, 0.3)]


def test_noise_that_never_stands_still_is_told_as_a_result():
    generator = torch.Generator().manual_seed(0)
    noise = [torch.randn(60, 2, 6, generator=generator) for _ in range(4)]
    tuned = deltarnn.tune(Tagger(layers=1), noise, budget=1e-5, held_out=noise)
    assert tuned.loss <= 1e-5
    assert 0 < tuned.effective_sparsity < 0.25
    assert str(tuned).startswith(f"nothing to skip here: {tuned.effective_sparsity:.0%} at the budget.")
    for signal in tuned.signals:
        assert f"{signal.name} {1 - signal.sparsity:.0%}" in tuned.finding
    assert deltarnn.tune(Tagger(layers=1), noise, budget=0.0, held_out=noise).effective_sparsity < 0.02


def test_a_quarter_is_set_aside_where_nothing_is_held_out():
    seen = []

    def loss(model, items):
        seen.append(len(items))
        return 0.0

    deltarnn.tune(Tagger(), walks(8, 20), loss, 0.1)
    assert set(seen) == {6, 2}
    assert seen[-1] == 2


def test_the_users_loss_decides_and_is_asked_rarely():
    dense = Tagger()
    calls = []

    def disagreement(model, items):
        calls.append(1)
        with torch.no_grad():
            return float(np.mean([(model(x).argmax(-1) != dense(x).argmax(-1)).float().mean() for x in items]))

    items, others = walks(4), walks(2, seed=9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tuned = deltarnn.tune(dense, items, disagreement, 0.03, held_out=others)
    assert tuned.loss == disagreement(tuned.model, items) <= 0.03
    assert tuned.held_out_loss == disagreement(tuned.model, others)
    assert tuned.loss_name == "disagreement"
    assert len(calls) < 60
    assert tuned.loss_calls < tuned.runs


def test_warnings_where_held_out_data_does_not_bear_the_figures_out():
    with pytest.warns(UserWarning, match=r"the loss leaves the budget on held-out data: .*, budget 0\.01"):
        deltarnn.tune(Tagger(), walks(3), budget=0.01, held_out=[0.05 * x for x in walks(3)])
    with pytest.warns(UserWarning, match="held-out data moves more"):
        deltarnn.tune(Tagger(), walks(3), budget=0.1, held_out=[torch.randn(80, 2, 6)])
    with pytest.warns(UserWarning, match="one item of calibration data"):
        assert np.isnan(deltarnn.tune(Tagger(), walks(1), budget=0.1).held_out_loss)
    with pytest.warns(UserWarning, match="brings its own data"):
        tuned = deltarnn.tune(Tagger(), walks(4), lambda model: 0.0, 0.1)
    assert np.isnan(tuned.held_out_loss)
    assert tuned.held_out_sparsity > 0.5
    assert not tuned.within_budget


@pytest.mark.parametrize(
    ("cell", "options"),
    [(nn.LSTM, {"batch_first": True, "bidirectional": True}), (nn.GRU, {"bidirectional": True, "num_layers": 2})],
)
def test_a_bare_layer_of_any_layout(cell, options):
    layer = cell(6, 8, **options)
    tuned = deltarnn.tune(layer, [x.transpose(0, 1).contiguous() for x in walks(4)], budget=0.05)
    assert isinstance(tuned.model, (deltarnn.DeltaGRU, deltarnn.DeltaLSTM))
    assert list(tuned.thresholds) == [""]
    assert tuned.loss <= 0.05
    with record_activity(tuned.model) as activity, torch.no_grad():
        for x in walks(4)[:3]:  # the fourth is set aside
            tuned.model(x.transpose(0, 1).contiguous())
    assert [signal.name for signal in tuned.signals[:4]] == ["l0 x", "l0 h", "l0_reverse x", "l0_reverse h"]
    assert len(tuned.thresholds[""]) == 2 * layer.num_layers
    assert tuned.effective_sparsity == pytest.approx(activity.effective_sparsity)


def test_cells_in_a_loop():
    class Stepper(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.cell, self.head = nn.LSTMCell(6, 12), nn.Linear(12, 3)

        def forward(self, x):
            state, outputs = None, []
            for frame in x:
                state = self.cell(frame, state)
                outputs.append(self.head(state[0]))
            return torch.stack(outputs)

    tuned = deltarnn.tune(Stepper(), walks(2, 20), budget=0.02)
    assert list(tuned.thresholds) == ["cell"]
    assert tuned.loss == pytest.approx(output_error(tuned.model, Stepper(), walks(2, 20)[:1]), rel=1e-4)
    assert tuned.effective_sparsity > 0.4


def test_quantised_layers_get_thresholds_on_their_grid():
    layer = deltarnn.DeltaGRU(6, 8, quantization=Quantization(QFormat(8, 8), QFormat(1, 7), QFormat(2, 6)))
    tuned = deltarnn.tune(layer, walks(2, 15), budget=0.05)
    assert all(th * 256 == round(th * 256) for pair in tuned.thresholds[""] for th in pair)
    assert tuned.sparsity > 0.3


def test_items_are_arguments_mappings_or_functions_of_the_model():
    items = walks(2, 30)
    expected = deltarnn.tune(Tagger(), items, budget=0.02).thresholds
    assert deltarnn.tune(Tagger(), [(x,) for x in items], budget=0.02).thresholds == expected
    assert deltarnn.tune(Tagger(), [{"x": x} for x in items], budget=0.02).thresholds == expected
    assert deltarnn.tune(Tagger(), [lambda m, x=x: m(x) for x in items], budget=0.02).thresholds == expected


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((Tagger(), torch.ones(5, 1, 6)), TypeError, r"calibration is a Tensor: give a list of inputs, such as \[x\]"),
        ((Tagger(), []), ValueError, "calibration is empty"),
        ((Tagger(), walks(2), None, -1.0), ValueError, r"budget=-1\.0: must be a finite number of at least 0"),
        ((Tagger(), walks(2), None, float("nan")), ValueError, "budget=nan"),
        ((Tagger(), walks(2), 0.1), TypeError, "loss is a float: must be a function"),
        ((Tagger(), walks(2), lambda m: "x"), TypeError, "loss returned a str: must return a number"),
        ((Tagger(), walks(2), lambda m: float("inf")), ValueError, "loss returned inf"),
        ((nn.Linear(6, 2), walks(2)), ValueError, "nothing to convert"),
        (("model.onnx", walks(2)), TypeError, "model is a str: must be a torch module, or a network of deltarnn.onnx"),
        ((nn.GRU(6, 4), [torch.full((5, 1, 6), torch.nan)]), ValueError, "output for item 0 is not finite"),
    ],
)
def test_wrong_input_gives_one_sentence(arguments, error, message):
    with pytest.raises(error, match=message):
        deltarnn.tune(*arguments)


class Wrapped(nn.Module):
    """A layer, and a function of it and the input."""

    def __init__(self, forward, layer=None):
        super().__init__()
        torch.manual_seed(0)
        self.rnn = layer or nn.GRU(6, 8)
        self.function = forward

    def forward(self, x):
        return self.function(self.rnn, x)


def pruned(module):
    prune.l1_unstructured(module, "weight_hh_l0", 0.5)
    return module


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm`")
@pytest.mark.parametrize(
    "layer",
    [
        lambda: pruned(nn.GRU(6, 8)),
        lambda: torch.nn.utils.weight_norm(nn.GRU(6, 8), "weight_hh_l0"),
        lambda: parametrizations.weight_norm(nn.GRU(6, 8), "weight_hh_l0"),
    ],
)
def test_weights_that_are_computed_from_others(layer):
    """As they are after a forward pass with gradients: torch itself copies no such module."""
    model, items = Wrapped(lambda rnn, x: rnn(x)[0], layer()), walks(4)
    expected = model(items[0]).detach()
    tuned = deltarnn.tune(model, items, budget=0.02)
    student = deltarnn.distill(tuned.model, items, epochs=1)
    assert tuned.effective_sparsity > 0.2
    deltarnn.convert(tuned.model, thresholds={"rnn": 0.0})
    torch.testing.assert_close(tuned.model(items[0]).detach(), expected, rtol=0, atol=1e-6)
    assert dict(student.named_parameters()).keys() == dict(model.named_parameters()).keys()


def test_a_parametrised_cell_that_ran_is_copied():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.cell = parametrizations.weight_norm(nn.GRUCell(6, 8), "weight_hh")

        def forward(self, x):
            states = [x.new_zeros(x.shape[1], 8)]
            for frame in x:
                states.append(self.cell(frame, states[-1]))
            return torch.stack(states[1:])

    model = deltarnn.convert(Loop())
    model(walks(1)[0]).sum().backward()
    assert deltarnn.tune(model, walks(4), budget=0.02).effective_sparsity > 0.2


@dataclass
class Output:
    y: torch.Tensor


@pytest.mark.parametrize(
    "output", [lambda y: torch.complex(y, y), lambda y: torch.complex(y, -y).conj(), Output, lambda y: y.bfloat16()]
)
def test_outputs_of_other_kinds(output):
    model = Wrapped(lambda rnn, x: output(rnn(x)[0]))
    plain = deltarnn.tune(Wrapped(lambda rnn, x: rnn(x)[0]), walks(4), budget=0.02)
    tuned = deltarnn.tune(model, walks(4), budget=0.02)
    assert tuned.thresholds["rnn"][0] == pytest.approx(plain.thresholds["rnn"][0], rel=0.1)


def test_models_that_keep_a_state_are_told():
    class Stateful(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.rnn, self.h = nn.GRU(6, 8), None

        def forward(self, x):
            y, self.h = self.rnn(x, self.h)
            return y

    def from_the_start(model, x):
        model.h = None
        return model(x)

    with pytest.warns(UserWarning, match="called again .* it keeps a state .* functions of the model, which reset it"):
        deltarnn.tune(Stateful(), walks(4))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="called again")
        deltarnn.tune(Stateful(), [lambda model, x=x: from_the_start(model, x) for x in walks(4)])


def test_a_layer_that_the_model_does_not_call():
    def bypass(rnn, x):
        zero = x.new_zeros(1, x.shape[1], 8)
        return torch._VF.gru(x, zero, list(rnn.parameters()), True, 1, 0.0, False, False, False)[0]

    with pytest.raises(ValueError, match="no recurrent layer ran over this data: there is 'rnn', which the model does"):
        deltarnn.tune(Wrapped(bypass), walks(4))


class ByClass(nn.Module):
    """Asks of which class its layer is. fails: in a way that ends in an error, else in other numbers."""

    def __init__(self, fails):
        super().__init__()
        self.fails, self.rnn, self.head = fails, nn.LSTM(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        if self.fails and not isinstance(self.rnn, nn.LSTM):
            return self.rnn(x, x.new_zeros(1, x.shape[1], 4))[0]
        y, state = self.rnn(x)
        h = state[0] if isinstance(self.rnn, nn.LSTM) else state
        return y + self.head(h[-1])


@pytest.mark.parametrize(
    ("fails", "message"),
    [
        (True, r"fails where the model itself runs \(TypeError: hx is a Tensor.*let it ask layer\.mode == 'LSTM'"),
        (False, r"computes something else than the model; .*let it ask layer\.mode == 'LSTM'"),
    ],
)
def test_a_model_that_converted_is_another(fails, message):
    items = [torch.randn(9, 2, 4) for _ in range(4)]
    with pytest.raises(ValueError, match=message):
        deltarnn.tune(ByClass(fails), items)
    with pytest.raises(ValueError, match=message):
        deltarnn.distill(ByClass(fails), items, thresholds=0.1)


def test_a_model_that_draws_random_numbers_is_no_other():
    class Noisy(Tagger):
        def forward(self, x):
            y = super().forward(x)
            return y + torch.randn_like(y)

    with pytest.warns(UserWarning, match="the model gives other outputs"):
        deltarnn.tune(Noisy(), walks(4), budget=5.0)


def test_one_number_per_recording():
    """Of one recording held out there is no variance: the scale is that of the others."""
    model = Wrapped(lambda rnn, x: rnn(x)[0][-1, :, :1].sum(0))
    tuned = deltarnn.tune(model, walks(4), budget=0.2)
    items = walks(4)
    with torch.no_grad():
        dense = torch.stack([model(x) for x in items]).double()
        error = (tuned.model(items[3]) - dense[3]).double().square()
    variance = (dense[:3] - dense[:3].mean()).square().mean()
    assert tuned.held_out_loss == pytest.approx(float(error / variance), rel=1e-3)


def test_outputs_without_scale_are_refused():
    model = nn.Sequential(nn.GRU(6, 4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    with pytest.raises(ValueError, match="outputs do not vary"):
        deltarnn.tune(model, walks(2))
