"""The training loop, on a tiny delta network: thresholds, steps, the best epoch, states, a run that is interrupted."""

import copy
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric

from deltarnn.kws.features.versions import Batch, VersionedClips
from deltarnn.kws.network.decision import clip_scores
from deltarnn.kws.network.losses import LossOptions, loss_of
from deltarnn.kws.network.model import Architecture, KeywordModel
from deltarnn.kws.training.carried import CarriedStates
from deltarnn.kws.training.finishing import Finisher, PruningPlan
from deltarnn.kws.training.schedule import LearningRate
from deltarnn.kws.training.trainer import Plan, Trainer
from deltarnn.nn.activity import record_activity


class FewClips(VersionedClips):
    """Eight fixed clips, which note the order they are asked for."""

    def __init__(self) -> None:
        self.features = torch.randn(6, 8, 3, generator=torch.Generator().manual_seed(1))
        super().__init__(self.features.transpose(0, 1)[None], torch.arange(8) % 2)
        self.order: list[int] = []

    def batch(self, clips: torch.Tensor, generator: torch.Generator) -> Batch:
        self.order += clips.tolist()
        return super().batch(clips, generator)


class SmallRun:
    """A Trainer of a tiny delta network, four clips to a step and two steps to an epoch, and a record of what it did.

    steps: at each forward pass in training the thresholds and the carried state. weights: all parameters as one vector,
    before the first step and after each. validated: those of the model that each epoch evaluates.
    """

    def __init__(self, folder: Path, scores=(), finisher=None, optimizer=torch.optim.SGD, rate=None, **plan):
        torch.manual_seed(0)
        self.model = KeywordModel(Architecture(3, 2, hidden_size=4)).to_delta()
        fabric = Fabric(accelerator="cpu", devices=1)
        fabric.launch()
        self.clips, self.scores, self.steps, self.validated = FewClips(), list(scores), [], []
        rate = rate or (lambda steps: LearningRate(0.1, 0.1, steps, None))
        plan = {"epochs": 2, "batch_size": 4, "loss": LossOptions(), **plan}
        plan = Plan(optimizer=lambda parameters: optimizer(parameters, lr=0.1), rate=rate, **plan)
        path, finisher = folder / "checkpoint.safetensors", finisher or Finisher()
        self.trainer = Trainer(
            fabric, self.model, self.clips, plan, self.validate, finisher, path, "", lambda progress, model: None
        )
        self.weights = [vector(self.model)]
        self.model.register_forward_pre_hook(
            lambda model, given: self.steps.append((model.delta.thx, model.delta.thh, given[1]))
        )
        self.trainer.optimizer.optimizer.register_step_post_hook(lambda *_: self.weights.append(vector(self.model)))

    def validate(self, model: KeywordModel) -> dict[str, float]:
        self.validated.append((model.delta.thx, model.delta.thh, vector(model)))
        score = self.scores[len(self.validated) - 1] if self.scores else 0.0
        if isinstance(score, Exception):
            raise score
        return {"score": score, "validation_loss": 1 - score}


def vector(model: torch.nn.Module) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def test_thresholds_warm_up_in_training_and_are_whole_in_validation(tmp_path):
    run = SmallRun(tmp_path, thx=(0.4,), thh=(0.2,), threshold_warmup=0.5)
    run.trainer.fit()
    assert [(thx[0], thh[0]) for thx, thh, _ in run.steps] == [(0.0, 0.0), (0.2, 0.1), (0.4, 0.2), (0.4, 0.2)]
    assert [(thx[0], thh[0]) for thx, thh, _ in run.validated] == [(0.4, 0.2)] * 2


def test_steps_are_as_long_as_rate_and_limit_say(tmp_path):
    """Plain descent along gradients that are all cut to one length."""
    run = SmallRun(tmp_path, gradient_limit=1e-3, rate=lambda steps: LearningRate(1.0, 0.1, steps, "cosine"))
    run.trainer.fit()
    lengths = [float((after - before).norm()) for before, after in pairwise(run.weights)]
    assert lengths == pytest.approx([1e-3 * run.trainer.rate.at(step) for step in range(4)], rel=1e-3)
    assert len(set(lengths)) > 1


def test_every_epoch_takes_all_clips_in_an_order_of_its_own(tmp_path):
    run = SmallRun(tmp_path)
    run.trainer.fit()
    first, second = run.clips.order[:8], run.clips.order[8:]
    assert sorted(first) == sorted(second) == list(range(8))
    assert first != second


def test_the_average_is_what_is_validated(tmp_path):
    run = SmallRun(tmp_path, average=0.5)
    run.trainer.fit()
    expected, after_step = run.weights[0], []
    for update, weights in enumerate(run.weights[1:], 1):
        decay = min(0.5, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * weights
        after_step.append(expected)
    for (_, _, validated), average in zip(run.validated, after_step[1::2], strict=True):
        assert torch.allclose(validated, average, atol=1e-6)


def test_the_best_epoch_has_the_highest_score(tmp_path):
    run = SmallRun(tmp_path, epochs=3, scores=[0.3, 0.8, 0.5])
    assert run.trainer.fit().best_epoch == 1
    assert torch.equal(vector(run.trainer.best()), run.validated[1][2])


def test_the_last_epoch_is_kept_where_scores_tell_little(tmp_path):
    run = SmallRun(tmp_path, epochs=3, scores=[0.3, 0.8, 0.5], keep_last=True)
    assert run.trainer.fit().best_epoch == 2
    assert torch.equal(vector(run.trainer.best()), run.validated[2][2])


def test_an_epoch_before_pruning_is_complete_is_never_the_best(tmp_path):
    pruning = Finisher(pruning=PruningPlan(gamma_rnn=0.5, gamma_fc=0.0, num_pe=2, anneal_epochs=3))
    assert SmallRun(tmp_path, epochs=4, scores=[0.9, 0.8, 0.5, 0.6], finisher=pruning).trainer.fit().best_epoch == 3


def test_an_epoch_before_thresholds_are_in_full_force_is_never_the_best(tmp_path):
    scores = [0.9, 0.8, 0.5, 0.6]
    late = SmallRun(tmp_path / "late", epochs=4, scores=scores, thh=(0.1,), threshold_warmup=0.5)
    assert late.trainer.fit().best_epoch == 3
    never = SmallRun(tmp_path / "never", epochs=4, scores=scores, thh=(0.1,), threshold_warmup=1.0)
    assert never.trainer.fit().best_epoch == 0


def test_the_plateau_is_one_of_the_validation_loss(tmp_path):
    """It rises from epoch to epoch, while the training loss falls."""
    rate = lambda steps: LearningRate(0.1, 0.0, steps, "plateau", factor=0.5, patience=0)  # noqa: E731
    run = SmallRun(tmp_path, epochs=4, scores=[0.9, 0.8, 0.7, 0.6], rate=rate)
    history = run.trainer.fit().history
    assert [row["lr"] for row in history] == pytest.approx([0.1, 0.1, 0.05, 0.025])
    assert history[-1]["train_loss"] < history[0]["train_loss"]


def test_the_loss_is_the_sum_of_its_parts(tmp_path):
    """Of one step over all clips: class weights, a teacher, and β times Σ|Δh| for each frame and clip."""
    teacher = KeywordModel(Architecture(3, 2, hidden_size=5))
    weights, options = torch.tensor([0.2, 1.0]), LossOptions(teacher_weight=0.4)
    plan = {"epochs": 1, "batch_size": 8, "loss": options, "class_weights": weights, "beta": 2.0, "thh": (0.05,)}
    run = SmallRun(tmp_path, **plan)
    model, clips = copy.deepcopy(run.trainer.evaluated), run.clips
    clips.taught = clip_scores(teacher(clips.features)[0]).detach()[None]
    model.set_thresholds((0.0,), (0.05,))
    with torch.no_grad(), record_activity(model) as activity:
        scores, _ = model(clips.features)
    loss = loss_of(scores, clips.labels, options, weights, clips.taught[0])
    cost = float(activity.l1_delta_h) / (6 * 8)
    assert loss > 1.01 * (1 - options.teacher_weight) * loss_of(scores, clips.labels, LossOptions(), weights)
    (row,) = run.trainer.fit().history
    assert row["l1_delta_h"] == pytest.approx(cost, rel=1e-4)
    assert row["train_loss"] == pytest.approx(float(loss) + 2.0 * cost, rel=1e-4)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_carried_states_are_what_the_step_before_left(tmp_path, share):
    """Within an epoch alone: a run that goes on from a checkpoint has no clips before."""
    run, left = SmallRun(tmp_path, carry_state=share), []
    run.model.register_forward_hook(lambda model, given, result: left.append(result[1][0].detach()))
    run.trainer.fit()
    starts = [carried for *_, carried in run.steps]
    assert starts[0] is None
    assert starts[2] is None
    if share == 0:
        assert starts[1] is None
    else:
        assert all(any(torch.equal(row, kept) for kept in left[0]) for row in starts[1][0])


@pytest.mark.parametrize("cell", ["GRU", "LSTM"])
@pytest.mark.parametrize("delta", [False, True])
def test_sequences_go_on_or_begin_anew(cell, delta):
    """A row's state after the second step is that of a whole pass, or of a pass over the second step alone."""
    torch.manual_seed(0)
    model = KeywordModel(Architecture(3, 2, cell=cell, hidden_size=4, num_layers=2))
    model = model.to_delta((0.1,), (0.1,)) if delta else model
    carried, chunks = CarriedStates(model, share=0.0, fresh=0.4), torch.randn(2, 9, 40, 3)
    for step, chunk in enumerate(chunks):
        batch = Batch(chunk, torch.zeros(9, 40, dtype=torch.long), goes_on=step > 0)
        scores, carried.left = model(chunk, carried.states(batch, torch.Generator().manual_seed(1)))
    whole, alone = (model(part)[0][-9:] for part in (chunks.flatten(0, 1), chunks[1]))
    goes_on = [torch.allclose(scores[:, row], whole[:, row], atol=1e-5) for row in range(40)]
    anew = [torch.allclose(scores[:, row], alone[:, row], atol=1e-5) for row in range(40)]
    assert all(one != other for one, other in zip(goes_on, anew, strict=True))
    assert 8 <= sum(anew) <= 24


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD])
def test_an_interrupted_run_goes_on_to_the_same_result(tmp_path, optimizer):
    """The optimiser's moments, the average, the schedule and the best epoch so far all come from the checkpoint."""
    rate = lambda steps: LearningRate(0.1, 0.0, steps, "plateau", factor=0.5, patience=1)  # noqa: E731
    options = {"epochs": 4, "rate": rate, "optimizer": optimizer, "average": 0.9}
    scores = [0.9, 0.8, 0.7, 0.6]
    whole = SmallRun(tmp_path / "whole", scores, **options)
    expected = whole.trainer.fit()
    with pytest.raises(InterruptedError):
        SmallRun(tmp_path / "part", [*scores[:2], InterruptedError()], **options).trainer.fit()
    rest = SmallRun(tmp_path / "part", scores[2:], **options)
    actual = rest.trainer.fit()
    assert (actual.resumed_from, actual.best_epoch, actual.best_score) == (2, 0, 0.9)
    for row, other in zip(actual.history, expected.history, strict=True):
        assert {**row, "seconds": 0} == {**other, "seconds": 0}
    assert torch.equal(rest.validated[-1][2], whole.validated[-1][2])
    assert torch.equal(vector(rest.trainer.best()), vector(whole.trainer.best()))
