"""deltarnn.distill: learning, what is left alone, and going on after an interruption."""

import copy

import pytest
import torch
from tests.adapt.models import Tagger, output_error, walks
from torch import nn

import deltarnn
from deltarnn import QFormat, Quantization
from deltarnn.adapt.checkpoint import CheckpointError
from deltarnn.adapt.distillation import Training
from deltarnn.files import WriteError

EPOCHS, LR, THETA = 6, 3e-3, 0.3


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.fixture(scope="module")
def student():
    return deltarnn.distill(Tagger(), walks(8), thresholds=THETA, epochs=EPOCHS, lr=LR)


def test_held_out_error_falls_at_the_same_thresholds(student):
    dense, others = Tagger(), walks(4, seed=9)
    untrained = deltarnn.convert(Tagger(), thx=THETA, thh=THETA)
    assert student.rnn.thx == student.rnn.thh == (THETA, THETA)
    assert output_error(student, dense, others) < 0.7 * output_error(untrained, dense, others)
    assert not student.training
    assert all(p.requires_grad and p.grad is None for p in student.parameters())


def test_the_rest_is_frozen_unless_asked_for(student):
    dense = state(Tagger())
    moved = {name for name, value in state(student).items() if not torch.equal(value, dense[name])}
    assert moved == {name for name in dense if name.startswith("rnn.")}
    whole = deltarnn.distill(Tagger(), walks(8), thresholds=THETA, epochs=2, lr=LR, freeze=False)
    assert {name for name, value in state(whole).items() if not torch.equal(value, dense[name])} == set(dense)


def test_the_model_given_is_left_alone():
    model = Tagger().train()
    before = state(model)
    deltarnn.distill(model, walks(2), thresholds=THETA, epochs=1, lr=LR)
    assert type(model.rnn) is nn.GRU
    assert all(torch.equal(value, before[name]) for name, value in state(model).items())


def test_a_seed_gives_the_same_weights_again(student):
    again = deltarnn.distill(Tagger(), walks(8), thresholds=THETA, epochs=EPOCHS, lr=LR)
    other = deltarnn.distill(Tagger(), walks(8), thresholds=THETA, epochs=EPOCHS, lr=LR, seed=1)
    assert all(torch.equal(value, state(student)[name]) for name, value in state(again).items())
    assert not torch.equal(other.rnn.weight_hh_l0, student.rnn.weight_hh_l0)


def test_an_interrupted_call_goes_on_and_ends_the_same(student, tmp_path, monkeypatch):
    path = tmp_path / "distill.safetensors"
    arguments = {"thresholds": THETA, "epochs": EPOCHS, "lr": LR, "checkpoint": path}
    step, steps = Training._step, []

    def interrupted(self, index, progress):
        steps.append(index)
        if len(steps) == 20:  # in the third epoch of 8 steps
            raise KeyboardInterrupt
        return step(self, index, progress)

    monkeypatch.setattr(Training, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        deltarnn.distill(Tagger(), walks(8), **arguments)
    assert path.exists()
    with pytest.raises(CheckpointError, match="made with other settings"):
        deltarnn.distill(Tagger(), walks(8), **{**arguments, "lr": 1e-3})
    with pytest.raises(CheckpointError, match="made with other settings"):
        deltarnn.distill(Tagger(), walks(8, seed=5), **arguments)
    resumed = deltarnn.distill(Tagger(), walks(8), **arguments)
    assert len(steps) == 20 + (EPOCHS - 2) * 8
    assert all(torch.equal(value, state(student)[name]) for name, value in state(resumed).items())
    assert not path.exists()


def test_a_checkpoint_that_cannot_be_written_is_found_before_the_first_step(tmp_path, monkeypatch):
    monkeypatch.setattr(Training, "_step", lambda *_: pytest.fail("reached"))
    with pytest.raises(WriteError, match="a folder is in its place"):
        deltarnn.distill(Tagger(), walks(2), thresholds=THETA, checkpoint=tmp_path)


def test_thresholds_rise_over_the_first_half(monkeypatch):
    seen = []
    step = Training._step

    def watched(self, index, progress):
        error = step(self, index, progress)
        seen.append(self.student.module.rnn.thx[0])
        return error

    monkeypatch.setattr(Training, "_step", watched)
    deltarnn.distill(Tagger(), walks(2, 10), thresholds=0.2, epochs=4, lr=LR)
    assert seen == pytest.approx([0, 0.05, 0.1, 0.15, 0.2, 0.2, 0.2, 0.2])


def test_another_teacher_is_followed():
    teacher, others = Tagger(seed=1), walks(4, seed=9)
    student = deltarnn.distill(Tagger(), walks(8), teacher=teacher, thresholds=0.05, epochs=4, lr=1e-2, freeze=False)
    assert output_error(student, teacher, others) < 0.5 * output_error(Tagger(), teacher, others)


def test_quantised_layers_learn_towards_the_float_network():
    layer = deltarnn.DeltaGRU(6, 12, quantization=Quantization(QFormat(8, 8), QFormat(1, 7), QFormat(2, 6)))
    dense = nn.GRU(6, 12)
    dense.load_state_dict(layer.state_dict())
    untrained = copy.deepcopy(layer).eval()
    untrained.thx = untrained.thh = 0.25
    student = deltarnn.distill(layer, walks(8), thresholds={"": [(0.25, 0.25)]}, epochs=EPOCHS, lr=LR)

    def error(model):
        with torch.no_grad():
            return sum(float((model(x)[0] - dense(x)[0]).square().sum()) for x in walks(2, seed=9))

    assert error(student) < error(untrained)


def test_training_that_does_not_help_is_undone_and_told():
    with pytest.warns(UserWarning, match="distillation did not help"):
        student = deltarnn.distill(Tagger(), walks(4), thresholds=0.01, epochs=1, lr=3.0)
    assert all(torch.equal(value, state(Tagger())[name]) for name, value in state(student).items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "all thresholds are 0: there is nothing to adapt to"),
        ({"thresholds": 0.1, "epochs": 0}, r"epochs=0, lr=0\.001: must be at least 1"),
        ({"thresholds": 0.1, "lr": float("nan")}, "lr=nan"),
        ({"thresholds": {"gru": [(0.1, 0.1)]}}, r"thresholds names 'gru', which is no recurrent module: 'rnn'"),
        ({"thresholds": {"rnn": [(0.1, 0.1)]}}, "1 values: give one number, or one for each of the 2 layers"),
    ],
)
def test_wrong_input_gives_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        deltarnn.distill(Tagger(), walks(2), **{"lr": 0.001, **arguments})
    with pytest.raises(ValueError, match="sequences is empty"):
        deltarnn.distill(Tagger(), [], thresholds=0.1)
    with pytest.raises(TypeError, match="model is a OrderedDict: must be a torch module"):
        deltarnn.distill(Tagger().state_dict(), walks(2))
