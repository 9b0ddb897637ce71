"""Evaluation, schedules, averages, finishing, sweeps: against plain loops and closed forms."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deltarnn.fixed.qformat import QFormat
from deltarnn.kws.commands.evaluate import precisions
from deltarnn.kws.commands.sweep import Point, best_point, pareto_front
from deltarnn.kws.config.grid import Grid
from deltarnn.kws.data.splice import splice
from deltarnn.kws.evaluation.metrics import Confusion
from deltarnn.kws.evaluation.scoring import Clips, Evaluation, Sparsity, evaluate, evaluate_carried
from deltarnn.kws.features.versions import VersionedClips
from deltarnn.kws.network.averaging import AveragedModel
from deltarnn.kws.network.decision import DecisionRule
from deltarnn.kws.network.losses import LossOptions
from deltarnn.kws.network.model import Architecture, KeywordModel, load_keyword_model
from deltarnn.kws.training.finishing import Finisher, hold_hidden_bias, zero_fraction
from deltarnn.kws.training.outcome import model_metrics, operations_per_second
from deltarnn.kws.training.schedule import LearningRate, warmed_up

RULE, LOSS = DecisionRule(), LossOptions()


@pytest.fixture
def model():
    torch.manual_seed(0)
    return KeywordModel(Architecture(5, 4, hidden_size=8, num_layers=2)).to_delta((0.2,), (0.05, 0.1)).eval()


@pytest.fixture
def clips():
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(9, 10, 5, generator=generator)
    return Clips(features, torch.randint(4, (10,), generator=generator), ["_silence_", "_unknown_", "yes", "no"])


def test_evaluation_does_not_depend_on_the_batch_size(model, clips):
    whole, parts = (evaluate(model, clips, RULE, LOSS, batch_size=size) for size in (10, 3))
    assert whole.confusion == parts.confusion
    assert whole.sparsity == parts.sparsity
    assert whole.loss == pytest.approx(parts.loss, rel=1e-5)


def test_confusion_counts_by_hand():
    confusion = Confusion.of(torch.tensor([0, 1, 1, 0]), torch.tensor([0, 1, 0, 0]), ["a", "b", "c"])
    assert confusion.counts == ((2, 1, 0), (0, 1, 0), (0, 0, 0))
    assert confusion.accuracy == 0.75
    assert confusion.per_class == {"a": 2 / 3, "b": 1.0}


def test_carried_state_is_one_long_stream(model, clips, monkeypatch):
    one = Clips(clips.features[:, :3], clips.labels[:3], clips.class_names)
    order = torch.randperm(3, generator=torch.Generator().manual_seed(0))
    # Three clips in three streams do not meet; in one stream they are one sequence.
    monkeypatch.setattr("deltarnn.kws.evaluation.scoring.STREAMS", 1)
    carried = evaluate_carried(model, one, RULE, LOSS)
    with torch.no_grad():
        scores, _ = model(one.features[:, order].transpose(0, 1).reshape(-1, 1, 5))
    decided = RULE(scores.view(3, 9, 4).transpose(0, 1))
    assert carried.confusion == Confusion.of(decided, one.labels[order], one.class_names)
    assert (
        carried.confusion != evaluate(model, one, RULE, LOSS).confusion
        or carried.sparsity != evaluate(model, one, RULE, LOSS).sparsity
    )


def test_model_files_keep_everything(model, clips, tmp_path):
    model.save(tmp_path / "model.safetensors", labels=clips.class_names)
    loaded, header = load_keyword_model(tmp_path / "model.safetensors")
    assert torch.equal(loaded(clips.features)[0], model(clips.features)[0])
    assert header["thh"] == [0.05, 0.1]
    assert header["labels"] == clips.class_names


def test_operations_count_weights_fetched():
    model = KeywordModel(Architecture(16, 12, hidden_size=64))
    recurrent, head = 3 * 64 * (16 + 64), 64 * 12
    assert operations_per_second(model, 0.01, 0.75) == pytest.approx(2 * (recurrent / 4 + head) * 100)


def test_metrics_are_of_the_last_group():
    """Accuracies of each; sparsity and operations of the test group, the operations at its effective sparsity."""
    model = KeywordModel(Architecture(16, 2, hidden_size=64)).to_delta()
    results = {}
    for group, right, sparsity in (
        ("validation", 3, Sparsity(0.1, 0.2, 0.3, 0.4)),
        ("test", 1, Sparsity(0.5, 0.6, 0.7, 0.8)),
    ):
        results[group] = Evaluation(Confusion(("a", "b"), ((right, 4 - right), (0, 0))), 0.0, sparsity)
    metrics = model_metrics(model, results, 0.01)
    assert (metrics["validation_accuracy"], metrics["test_accuracy"]) == (0.75, 0.25)
    assert [metrics[name] for name in ("sparsity_x", "sparsity_h", "sparsity", "effective_sparsity")] == [
        0.5,
        0.6,
        0.7,
        0.8,
    ]
    assert metrics["operations_per_second"] == operations_per_second(model, 0.01, 0.8)
    assert metrics["operations_per_second_dense"] == operations_per_second(model, 0.01)
    assert metrics["test"]["confusion"] == [[1, 3], [0, 0]]


def test_zero_fraction_is_of_weights_alone(model):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "bias" in name or name == "rnn.weight_hh_l1":
                parameter.zero_()
    weights = {name: p.numel() for name, p in model.named_parameters() if "weight" in name}
    assert zero_fraction(model) == weights["rnn.weight_hh_l1"] / sum(weights.values())


def test_a_held_hidden_bias_stays_0(model, clips):
    hold_hidden_bias(model)
    before = [model.rnn.get_parameter(f"bias_hh_l{layer}").detach().clone() for layer in range(2)]
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model.train()(clips.features)[0].square().sum().backward()
    optimizer.step()
    for layer, start in enumerate(before):
        bias = model.rnn.get_parameter(f"bias_hh_l{layer}")
        assert not bias[16:].any()
        assert (bias[:16] != start[:16]).any()


@pytest.mark.parametrize(("largest", "bits"), [(0.9, 1), (1.1, 2), (5.0, 4)])
def test_fixed_point_weights_have_no_integer_bit_too_many_or_too_few(model, largest, bits):
    with torch.no_grad():
        for parameter in model.rnn.parameters():
            parameter.clamp_(-0.5, 0.5)
        model.rnn.weight_hh_l1[3, 2] = -largest
    variants = precisions(model)
    assert variants["float"].delta.quantization is None
    assert variants["fixed"].delta.quantization.weight == QFormat(bits, 8 - bits)


def test_cosine_rate_rises_then_falls():
    rate = LearningRate(1.0, 0.1, 200, "cosine")
    values = [rate.at(step) for step in range(200)]
    assert values[0] == pytest.approx(0.1)
    assert max(values) == values[10] == pytest.approx(1.0)
    assert values[105] == pytest.approx(0.55, abs=0.01)
    assert values[-1] == pytest.approx(0.1, abs=1e-3)
    assert all(a > b for a, b in pairwise(values[10:]))


def test_plateau_waits_then_reduces_down_to_the_end():
    rate = LearningRate(1.0, 0.5, 100, "plateau", factor=0.6, patience=1)
    seen = []
    for loss in (3.0, 2.0, 2.5, 2.5, 2.5, 2.5, 1.0):
        rate.after_epoch(loss)
        seen.append(rate.at(0))
    assert seen == [1.0, 1.0, 1.0, 0.6, 0.6, 0.5, 0.5]


def test_thresholds_warm_up_linearly_on_the_grid():
    assert warmed_up((0.4, 0.2), 5, 10) == pytest.approx((0.2, 0.1))
    assert warmed_up((0.4,), 10, 10) == (0.4,)
    assert warmed_up((0.4,), 0, 0) == (0.4,)
    assert warmed_up((0.375,), 4, 10, QFormat(3, 5)) == (0.15625,)


def test_average_follows_the_recursion():
    layer = torch.nn.Linear(1, 1)
    average = AveragedModel(layer, 0.9)
    expected = layer.weight.item()
    for update in range(1, 12):
        with torch.no_grad():
            layer.weight += 1.0
        decay = min(0.9, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * layer.weight.item()
        average.update(layer, update)
    assert average.module.weight.item() == pytest.approx(expected, rel=1e-5)


def test_scores_are_scaled_into_their_format_and_decisions_stay(model, clips):
    with torch.no_grad():
        model.head[0].weight *= 100
        model.head[0].bias *= 100
    before = model(clips.features)[0].detach()
    scores = Grid(QFormat(3, 5), "nearest")
    finisher = Finisher(dense=Grid(QFormat(4, 20), "nearest"), scores=scores, calibration=clips.features)
    finisher.evaluate(model, 0)
    model.score_grid = None
    after = model(clips.features)[0].detach()
    assert after.abs().max() == pytest.approx(scores.format.max, rel=1e-3)
    assert torch.allclose(after / after.abs().max(), before / before.abs().max(), atol=1e-4)


def test_batches_hold_versions_of_the_right_clips():
    versions = torch.arange(2 * 5 * 3 * 1, dtype=torch.float16).view(2, 5, 3, 1)
    clips = VersionedClips(
        versions, torch.arange(5), taught=torch.stack([versions[:, :, 0, 0], -versions[:, :, 1, 0]], 2)
    )
    batch = clips.batch(torch.tensor([4, 0, 2]), torch.Generator().manual_seed(1))
    assert batch.targets.tolist() == [4, 0, 2]
    assert batch.features.dtype == torch.float32
    for column, clip in enumerate((4, 0, 2)):
        taken = [v for v in range(2) if torch.equal(batch.features[:, column], versions[v, clip].float())]
        assert batch.taught[column].tolist() == clips.taught[taken[0], clip].tolist()


def test_spliced_clips_are_made_of_two_words():
    rng = np.random.default_rng(0)
    clips = np.stack([np.full(16000, level, np.int16) for level in (0, 100, 900)])
    spliced = splice(clips, np.array([0, 2, 3]), 40, rng)
    assert spliced.shape == (40, 16000)
    # Levels are matched, so a join of the two constant words is constant; silence is never taken.
    assert set(np.unique(spliced[:, 0])) <= {100, 900}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_pareto_front_is_what_no_point_dominates(pairs):
    points = [Point(i, 0, {"validation_accuracy": a, "validation_sparsity": s}) for i, (a, s) in enumerate(pairs)]

    def dominated(p):
        return any(
            q.accuracy >= p.accuracy
            and q.sparsity >= p.sparsity
            and (q.accuracy, q.sparsity) != (p.accuracy, p.sparsity)
            for q in points
        )

    expected = {(p.accuracy, p.sparsity) for p in points if not dominated(p)}
    front = pareto_front(points)
    assert {(p.accuracy, p.sparsity) for p in front} == expected
    assert all(p.sparsity < q.sparsity and p.accuracy > q.accuracy for p, q in pairwise(front))
    best = best_point(points, 3)
    allowed = [p.sparsity for p in points if p.accuracy >= 3]
    assert (best is None) == (not allowed)
    assert best is None or best.sparsity == max(allowed)
