"""Losses and decision rules against closed forms and by hand."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from deltarnn.kws.network.decision import DecisionRule, clip_scores, last_active_frame, smoothed_posteriors
from deltarnn.kws.network.losses import LossOptions, balanced_class_weights, frame_targets, loss_of


@pytest.fixture
def scores():
    return torch.randn(7, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_clip_scores_are_the_log_of_the_mean_evidence(scores):
    assert torch.allclose(clip_scores(scores), scores.exp().mean(0).log())


def test_frame_loss_is_cross_entropy_with_silent_ends(scores):
    labels = torch.tensor([1, 3, 2])
    expected = 0.0
    for clip, label in enumerate([1, 3, 2]):
        for frame in range(7):
            target = 0 if frame < 2 or frame >= 5 else label
            expected -= float(scores[frame, clip].log_softmax(-1)[target])
    loss = loss_of(scores, labels, LossOptions(target="frame"))
    assert float(loss) == pytest.approx(expected / 21)


def test_frame_targets_without_ends_are_the_labels():
    assert frame_targets(torch.tensor([2, 1]), 3, 0, 0).tolist() == [[2, 1]] * 3


def test_ctc_is_the_sum_over_all_alignments():
    # Two frames, one label: the paths are (label, blank), (blank, label), (label, label).
    scores = torch.randn(2, 1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    p = scores.softmax(-1)[:, 0]
    likelihood = p[0, 2] * p[1, 0] + p[0, 0] * p[1, 2] + p[0, 2] * p[1, 2]
    loss = loss_of(scores, torch.tensor([2]), LossOptions(name="ctc"))
    assert float(loss) == pytest.approx(-math.log(float(likelihood)) / 2)


@pytest.mark.parametrize(("name", "error"), [("mse", torch.square), ("l1", torch.abs)])
def test_posterior_losses(scores, name, error):
    labels = torch.tensor([0, 1, 3])
    hot = F.one_hot(labels, 4)
    expected = error(clip_scores(scores).softmax(-1) - hot).mean()
    assert torch.allclose(loss_of(scores, labels, LossOptions(name=name)), expected)


@pytest.mark.parametrize("name", ["crossentropy", "mse", "ctc"])
def test_weights_of_one_class_leave_only_its_clips(scores, name):
    labels, options = torch.tensor([1, 2, 1]), LossOptions(name=name)
    only = torch.tensor([0.0, 0.0, 1.0, 0.0], dtype=torch.float64)
    assert torch.allclose(loss_of(scores, labels, options, only), loss_of(scores[:, 1:2], labels[1:2], options))


def test_balanced_weights_give_every_class_the_same_total():
    labels = torch.tensor([0, 0, 0, 2, 2, 1])
    weights = balanced_class_weights(labels, 4)
    totals = [float(weights[labels[labels == k]].sum()) for k in range(3)]
    assert totals == pytest.approx([2.0, 2.0, 2.0])
    assert weights[3] == 0


def test_ctc_of_silence_is_blanks_alone(scores):
    loss = loss_of(scores, torch.tensor([0, 0, 0]), LossOptions(name="ctc"))
    assert torch.allclose(loss, -scores.log_softmax(-1)[..., 0].mean())


@pytest.mark.parametrize("name", ["crossentropy", "mse", "l1"])
def test_smoothing_spreads_its_share_of_the_target_evenly(scores, name):
    labels = torch.tensor([1, 3, 2])
    target = 0.7 * F.one_hot(labels, 4) + 0.3 / 4
    pooled = clip_scores(scores)
    expected = {
        "crossentropy": -(target * pooled.log_softmax(-1)).sum(-1).mean(),
        "mse": (pooled.softmax(-1) - target).square().mean(),
        "l1": (pooled.softmax(-1) - target).abs().mean(),
    }[name]
    assert torch.allclose(loss_of(scores, labels, LossOptions(name=name, label_smoothing=0.3)), expected)


def test_a_teacher_that_agrees_adds_nothing(scores):
    labels = torch.tensor([1, 2, 3])
    plain = loss_of(scores, labels, LossOptions())
    taught = loss_of(scores, labels, LossOptions(teacher_weight=0.25), taught=clip_scores(scores))
    assert torch.allclose(taught, 0.75 * plain)


def test_a_teacher_pulls_towards_its_posteriors(scores):
    own = scores.clone().requires_grad_()
    taught, labels, options = clip_scores(scores.flip(2)), torch.tensor([0, 0, 0]), LossOptions(teacher_weight=1.0)
    loss = loss_of(own, labels, options, taught=taught)
    (gradient,) = torch.autograd.grad(loss, own)
    closer = loss_of(own - 0.1 * gradient, labels, options, taught=taught)
    assert closer < loss


def test_a_teacher_adds_its_divergence_at_the_temperature(scores):
    """T² KL(softmax(l'/T) ‖ softmax(l/T)), the mean over clips, beside what is left of the labels' loss."""
    labels, taught, options = torch.tensor([1, 3, 2]), scores[0], LossOptions(teacher_weight=0.3, temperature=3.0)
    theirs, own = (taught / 3).softmax(-1), (clip_scores(scores) / 3).softmax(-1)
    divergence = 9 * (theirs * (theirs / own).log()).sum(-1).mean()
    expected = 0.7 * loss_of(scores, labels, LossOptions()) + 0.3 * divergence
    assert torch.allclose(loss_of(scores, labels, options, taught=taught), expected)


def test_last_active_frame_skips_silence():
    decided = torch.tensor([[0, 2, 0], [1, 0, 0], [3, 0, 0], [0, 0, 0]])  # (T, B)
    scores = F.one_hot(decided, 4).double()
    assert last_active_frame(scores).tolist() == [3, 2, 0]
    assert DecisionRule(smooth=False)(scores).tolist() == [3, 2, 0]
    assert DecisionRule(confidence_window=1)(scores).tolist() == [0, 0, 0]  # smoothing would see mostly silence


@pytest.mark.parametrize("target", ["frame", "clip"])
def test_smoothing_over_the_whole_clip_is_the_mean(scores, target):
    evidence = scores.softmax(-1) if target == "frame" else scores.exp()
    mean = evidence.mean(0)
    expected = mean / mean.sum(-1, keepdim=True)
    assert torch.allclose(smoothed_posteriors(scores, 7, target)[-1], expected)


def test_smoothing_over_one_frame_is_the_frame(scores):
    assert torch.allclose(smoothed_posteriors(scores, 1, "clip"), scores.softmax(-1))


def test_decision_takes_the_surest_moment_of_the_window():
    scores = torch.full((6, 1, 3), -5.0, dtype=torch.float64)
    scores[:, :, 0] = 2.0
    scores[1, 0, 1] = 9.0
    early = DecisionRule(smoothing_window=1, confidence_window=6, target="frame")
    late = DecisionRule(smoothing_window=1, confidence_window=3, target="frame")
    assert early(scores).tolist() == [1]
    assert late(scores).tolist() == [0]


@pytest.mark.parametrize(("window", "expected"), [(3, 1), (4, 2)])
def test_the_first_full_window_counts_and_none_before(window, expected):
    """Class 1 is surest over the first three frames; of four frames on, class 2 is."""
    scores = torch.full((6, 1, 3), -9.0, dtype=torch.float64)
    scores[:3, 0, 1] = 3.0
    scores[3:, 0, 2] = 4.0
    scores[4:, 0, 0] = 4.0
    posteriors = smoothed_posteriors(scores, window)[window - 1 :, 0]
    assert int(posteriors.amax(0).argmax()) == expected  # by the definition: the windows that are full
    assert DecisionRule(smoothing_window=window)(scores).tolist() == [expected]


def test_sure_silence_before_a_word_does_not_outvote_it():
    scores = torch.zeros(6, 1, 3, dtype=torch.float64)
    scores[:3, 0, 0] = 4.0  # alone, these frames are silence with more certainty than the whole clip is a word
    scores[4, 0, 2] = 6.0
    assert smoothed_posteriors(scores, 60)[0, 0, 0] > smoothed_posteriors(scores, 60)[-1, 0, 2]
    assert DecisionRule()(scores).tolist() == [2]


def test_below_the_fire_threshold_is_silence(scores):
    sure = DecisionRule(fire_threshold=0.999999)(scores)
    assert sure.tolist() == [0, 0, 0]
    assert (DecisionRule()(scores) != 0).any()


def test_huge_scores_do_not_overflow():
    scores = torch.tensor([[[1000.0, -1000.0]], [[-2000.0, 3000.0]]])
    assert DecisionRule()(scores).tolist() == [1]
    assert torch.isfinite(smoothed_posteriors(scores, 60)).all()


def test_word_loss_is_cross_entropy_where_nothing_is_weighed(scores):
    targets = torch.tensor([[0, 1, 3], [2, -1, 1], [1, 3, 0], [-1, -1, 2], [2, 0, 0], [3, 1, 1], [0, 2, 2]])
    expected = F.cross_entropy(scores.flatten(0, 1), targets.flatten(), ignore_index=-1, label_smoothing=0.1)
    assert torch.allclose(loss_of(scores, targets, LossOptions(target="word", label_smoothing=0.1)), expected)


def test_word_loss_weighs_what_passes_for_a_keyword(scores):
    scores, targets = scores[:2, :1], torch.tensor([[1], [2]])
    p = scores.softmax(-1)[:, 0]
    neither = p[0, 0] + p[0, 1]
    weight = (1.02 - neither) ** 2
    other = -0.25 * p[0, 1].log() - 0.75 * neither.log()
    expected = (weight * other - p[1, 2].log()) / (weight + 1)
    options = LossOptions(target="word", focus=2.0, tell_silence=0.25)
    assert torch.allclose(loss_of(scores, targets, options), expected)


def test_words_named_as_they_end_are_silence_only_where_nothing_fires():
    scores = torch.full((30, 3, 4), -9.0)
    scores[:, :, 0] = 9.0
    scores[10:20, 0] = torch.tensor([-9.0, -9.0, 9.0, -9.0])
    scores[10:12, 1] = torch.tensor([-9.0, -9.0, -9.0, 9.0])
    rule = DecisionRule(smoothing_window=8, confidence_window=99, fire_threshold=0.5, target="word")
    assert rule(scores).tolist() == [2, 0, 0]


def test_a_keyword_may_begin_as_another_word_does():
    posteriors = torch.tensor([0.0, 1.0, 0.0]).repeat(40, 2, 1)  # sure of another word, then less sure of a keyword
    posteriors[20:, 0] = torch.tensor([0.1, 0.0, 0.9])
    posteriors[20:, 1] = torch.tensor([0.4, 0.0, 0.6])
    scores = posteriors.clamp(min=1e-6).log()
    rule = DecisionRule(smoothing_window=5, confidence_window=99, fire_threshold=0.2, target="word")
    assert rule(scores).tolist() == [1, 1]
    assert replace(rule, unknown_weight=0.7)(scores).tolist() == [2, 1]
