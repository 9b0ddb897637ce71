"""How well a keyword network does on a set of clips: accuracy, confusion, sparsity; state reset, or carried on."""

import json
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from deltarnn.fixed.front_end import clip_features
from deltarnn.fixed.spotter import IntegerSpotter
from deltarnn.kws.config.resolve import Config
from deltarnn.kws.data.audio import fit, read_audio
from deltarnn.kws.evaluation.integers import IntegerScoring
from deltarnn.kws.evaluation.metrics import Confusion
from deltarnn.kws.features.store import FeatureSet
from deltarnn.kws.network.decision import DecisionRule
from deltarnn.kws.network.losses import LossName, LossOptions, loss_of
from deltarnn.kws.network.model import KeywordModel
from deltarnn.nn.activity import record_activity
from deltarnn.sparsity import Sparsity as Fractions

STREAMS = 16
"""Streams into which the clips are dealt when the state is carried from clip to clip."""


_CHUNK = 64
"""Clips whose audio is in memory at once."""


@dataclass(frozen=True)
class Clips:
    """A set to evaluate on: normalised features (T, N, I), classes (N,), class names."""

    features: Tensor
    labels: Tensor
    class_names: list[str]

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "Clips":
        """The same on a device."""
        return replace(self, features=self.features.to(device), labels=self.labels.to(device))


@dataclass(frozen=True)
class Sparsity:
    """Fractions of deltas that were 0 (MATH §1), over all clips and frames."""

    sparsity_x: float
    sparsity_h: float
    sparsity: float
    effective_sparsity: float

    @classmethod
    def of(cls, activity: Fractions) -> "Sparsity":
        """As recorded."""
        return cls(activity.sparsity_x, activity.sparsity_h, activity.sparsity, activity.effective_sparsity)


@dataclass(frozen=True)
class Evaluation:
    """Result on one set of clips; `sparsity` None for a dense network."""

    confusion: Confusion
    loss: float
    sparsity: Sparsity | None

    @property
    def accuracy(self) -> float:
        """Fraction of clips decided right."""
        return self.confusion.accuracy

    def fields(self) -> dict[str, Any]:
        """As JSON: accuracy, sparsities, per-class accuracy, confusion matrix."""
        return {
            "accuracy": self.accuracy,
            **(vars(self.sparsity) if self.sparsity is not None else {}),
            "per_class": self.confusion.per_class,
            "confusion": [list(row) for row in self.confusion.counts],
        }


@torch.no_grad()
def evaluate(
    model: KeywordModel | IntegerScoring, clips: Clips, rule: DecisionRule, loss: LossOptions, batch_size: int = 256
) -> Evaluation:
    """Every clip from a fresh state; model and clips are on one device."""
    loss = _of_clips(loss)
    predicted, losses = [], []
    with _recording(model) as activity:
        for start in range(0, len(clips), batch_size):
            part = slice(start, start + batch_size)
            scores, _ = model(clips.features[:, part])
            labels = clips.labels[part]
            losses.append(loss_of(scores, labels, loss) * len(labels))
            predicted.append(rule(scores))
    return _result(predicted, clips, clips.labels, float(sum(losses)) / max(1, len(clips)), activity)


@torch.no_grad()
def evaluate_carried(
    model: KeywordModel | IntegerScoring, clips: Clips, rule: DecisionRule, loss: LossOptions, seed: int = 0
) -> Evaluation:
    """Clips one after another in a few long streams, the state carried from each to the next, in an order from `seed`.

    Clips that do not fill the last round of the streams are left out. Model and clips are on one device.
    """
    loss = _of_clips(loss)
    streams = min(STREAMS, len(clips))
    rounds = len(clips) // streams
    order = torch.randperm(len(clips), generator=torch.Generator().manual_seed(seed))[: rounds * streams]
    predicted, losses = [], []
    state = model.initial_state(streams)
    with _recording(model) as activity:
        for chosen in order.view(rounds, streams).to(clips.labels.device):
            scores, state = model(clips.features[:, chosen], state)
            losses.append(loss_of(scores, clips.labels[chosen], loss))
            predicted.append(rule(scores))
    return _result(predicted, clips, clips.labels[order], float(sum(losses)) / rounds, activity)


def clips_of(features: FeatureSet) -> Clips:
    """A feature set as the network takes it."""
    frames = np.ascontiguousarray(features.normalised.transpose(1, 0, 2))
    return Clips(torch.from_numpy(frames), torch.from_numpy(features.labels), features.class_names)


def device_clips(features: FeatureSet, spotter: IntegerSpotter) -> Clips:
    """A feature set's clips, read again and taken by the front end of a device; what the network takes, as numbers."""
    rate, count = spotter.sample_rate, features.features.shape[1]
    samples, padding = round(rate * features.clip_seconds), features.pipeline.config.zero_padding
    if padding == "centre":
        raise ValueError("a device hears recordings as they come: it cannot put the frames of short ones in the middle")
    frames = np.empty((count, len(features), spotter.front_end.num_features), np.float32)
    for start in range(0, len(features), _CHUNK):
        paths = features.paths[start : start + _CHUNK]
        audio = np.stack([fit(read_audio(Path(path), rate), samples, padding) for path in paths])
        integers = clip_features(spotter.front_end, audio, count)
        frames[:, start : start + len(paths)] = np.moveaxis(integers, 0, 1)
    frames /= spotter.network.quantization.activation.scale
    return Clips(torch.from_numpy(frames), torch.from_numpy(features.labels), features.class_names)


def fits(header: dict[str, Any], features: FeatureSet) -> bool:
    """Whether the model of a file's header takes these features and knows these classes."""
    described = json.loads(json.dumps(features.pipeline.to_dict()))
    return bool(header.get("features") == described and header.get("labels") == features.class_names)


def decision_rule(config: Config) -> DecisionRule:
    """The decision rule of a configuration."""
    scoring = config.scoring
    return DecisionRule(
        scoring.smooth,
        scoring.smooth_window_size,
        scoring.confidence_window_size,
        scoring.fire_threshold,
        "frame" if config.training.loss == "ctc" else config.training.target,
        scoring.unknown_weight,
    )


def loss_options(config: Config) -> LossOptions:
    """The loss of a configuration."""
    training = config.training
    return LossOptions(
        cast(LossName, training.loss),
        training.target,
        config.features.label_head,
        config.features.label_tail,
        training.label_smoothing,
        training.teacher_weight if training.teacher else 0.0,
        training.temperature,
        training.focus,
        training.tell_silence,
    )


def _of_clips(loss: LossOptions) -> LossOptions:
    """The loss of whole clips: where words are to be named as they end, no clip says when that is."""
    return replace(loss, target="clip") if loss.target == "word" else loss


def _recording(model: KeywordModel | IntegerScoring) -> Any:
    if isinstance(model, IntegerScoring):
        return model.recorded()
    return nullcontext(None) if model.delta is None else record_activity(model)


def _result(
    predicted: list[Tensor], clips: Clips, targets: Tensor, loss: float, activity: Fractions | None
) -> Evaluation:
    confusion = Confusion.of(torch.cat(predicted).cpu(), targets.cpu(), clips.class_names)
    return Evaluation(confusion, loss, None if activity is None else Sparsity.of(activity))
