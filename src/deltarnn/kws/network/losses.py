"""Losses of keyword networks: of whole clips or of single frames, with soft targets, class weights and a teacher."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from deltarnn.kws.network.decision import SILENCE, Target, clip_scores

IGNORED = -1
"""Target of frames at which nothing is asked of the network."""

MINIMUM = 0.02
"""Least weight, to the power of `focus`, of a frame that is no keyword for sure."""

LossName = Literal["crossentropy", "ctc", "mse", "l1"]


@dataclass(frozen=True)
class LossOptions:
    """What the scores are compared with.

    name: "crossentropy"; "mse" and "l1" between posteriors and one-hot targets; "ctc" with silence as the blank and
        the clip's word as its one label (A. Graves et al., "Connectionist temporal classification", ICML 2006).
    target: "clip" pools the scores over time first, log mean exp; "frame" compares every frame with the clip's label,
        and with silence the first `label_head` and the last −`label_tail` ones; "word" every frame with a target of its
        own, but for those that are IGNORED.
    label_smoothing: share of the target that is spread evenly over all classes.
    focus, tell_silence: of `word_loss`.
    teacher_weight, temperature: share of the loss that pulls towards the teacher's clip posteriors, both softened by
        the temperature (G. Hinton, O. Vinyals, J. Dean, "Distilling the knowledge in a neural network",
        arXiv:1503.02531).
    """

    name: LossName = "crossentropy"
    target: Target = "clip"
    label_head: int = 2
    label_tail: int = -2
    label_smoothing: float = 0.0
    teacher_weight: float = 0.0
    temperature: float = 2.0
    focus: float = 0.0
    tell_silence: float = 1.0


def loss_of(
    scores: Tensor, labels: Tensor, options: LossOptions, class_weights: Tensor | None = None,
    taught: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Mean loss (0-dim) of scores (T, B, C) against classes (B,), or (T, B) where the target is "word".

    class_weights: (C,), the weight of each class's clips, or None. taught: a teacher's scores of the clips (B, C), or
    None; where the target is "word", of their frames (T, B, C).
    """
    if options.name == "ctc":
        weights = torch.ones_like(labels, dtype=scores.dtype) if class_weights is None else class_weights[labels]
        return (_ctc(scores, labels) * weights).sum() / weights.sum()
    if options.target == "word":
        return word_loss(scores, labels, options, taught)
    pooled, targets = _compared(scores, labels, options)
    loss = _pointwise(pooled, targets, options, class_weights)
    if taught is None:
        return loss
    softened = (taught / options.temperature).softmax(-1)
    own = (clip_scores(scores) / options.temperature).log_softmax(-1)
    pull = F.kl_div(own, softened, reduction="batchmean") * options.temperature**2
    return (1 - options.teacher_weight) * loss + options.teacher_weight * pull


def word_loss(scores: Tensor, targets: Tensor, options: LossOptions, taught: Tensor | None = None) -> Tensor:
    """Weighted mean loss (0-dim) of scores (T, B, C) against the classes (T, B) of frames, but for those IGNORED.

    Frames of a keyword count −log p_k. The others count, with silence 0, other words 1 and a = `tell_silence`,

        −(1 − p)^focus · ( a log p_c + (1 − a) log p )        p = p_0 + p_1

    where the first factor is a weight without a gradient: what is no keyword for sure is left alone, so that the few
    frames that pass for one are heard (T.-Y. Lin et al., "Focal loss for dense object detection", ICCV 2017), and
    whether it is silence or another word matters less. Targets are smoothed by `label_smoothing`; a teacher's share
    pulls towards its posteriors of the same frames.
    """
    posteriors = scores.log_softmax(-1)
    neither = torch.logaddexp(posteriors[..., 0], posteriors[..., 1])
    smoothing, share = options.label_smoothing, options.tell_silence
    named = posteriors.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    exact = -(1 - smoothing) * named - smoothing * posteriors.mean(-1)
    joint = -(1 - smoothing) * neither - smoothing * posteriors[..., 2:].mean(-1)
    weights = (1.0 + MINIMUM - neither.detach().exp()).clamp(MINIMUM, 1.0) ** options.focus
    spoken = targets > 1
    weights = torch.where(spoken, 1.0, weights) * (targets != IGNORED)
    each = torch.where(spoken, exact, share * exact + (1 - share) * joint)
    if taught is not None:
        own = (scores / options.temperature).log_softmax(-1)
        softened = (taught / options.temperature).softmax(-1)
        pull = F.kl_div(own, softened, reduction="none").sum(-1) * options.temperature**2
        each = (1 - options.teacher_weight) * each + options.teacher_weight * pull
    return (each * weights).sum() / weights.sum()


def frame_targets(labels: Tensor, frames: int, head: int, tail: int) -> Tensor:
    """Classes (T, B): each clip's own, silence in the first `head` and the last −`tail` frames."""
    targets = labels.expand(frames, -1).clone()
    targets[:head] = SILENCE
    targets[frames + tail :] = SILENCE
    return targets


def balanced_class_weights(labels: Tensor, classes: int) -> Tensor:
    """Weights (C,) under which every class counts the same: N / (C · N_c); 0 for classes without clips."""
    counts = torch.bincount(labels, minlength=classes).double()
    present = counts > 0
    weights = torch.zeros(classes, dtype=torch.float64)
    weights[present] = counts.sum() / (present.sum() * counts[present])
    return weights.float()


def _compared(scores: Tensor, labels: Tensor, options: LossOptions) -> tuple[Tensor, Tensor]:
    """Scores (N, C) and classes (N,) that are compared."""
    if options.target == "clip":
        return clip_scores(scores), labels
    targets = frame_targets(labels, len(scores), options.label_head, options.label_tail)
    return scores.flatten(0, 1), targets.flatten()


def _pointwise(scores: Tensor, targets: Tensor, options: LossOptions, class_weights: Tensor | None) -> Tensor:
    if options.name == "crossentropy":
        return F.cross_entropy(scores, targets, class_weights, label_smoothing=options.label_smoothing)
    hot = F.one_hot(targets, scores.shape[-1]).to(scores)
    hot = hot * (1 - options.label_smoothing) + options.label_smoothing / scores.shape[-1]
    error = scores.softmax(-1) - hot
    each = (error.square() if options.name == "mse" else error.abs()).mean(-1)
    if class_weights is None:
        return each.mean()
    weights = class_weights[targets]
    return (each * weights).sum() / weights.sum()


def _ctc(scores: Tensor, labels: Tensor) -> Tensor:
    frames, clips, _ = scores.shape
    spoken = (labels != SILENCE).long()
    lengths = torch.full((clips,), frames, dtype=torch.long)
    losses = F.ctc_loss(
        scores.log_softmax(-1), labels[:, None], lengths, spoken.cpu(), blank=SILENCE, reduction="none",
        zero_infinity=True,
    )  # fmt: skip
    return losses / frames
