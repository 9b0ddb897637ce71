"""Several keyword networks as one teacher."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from deltarnn.kws.network.decision import clip_scores
from deltarnn.kws.network.model import KeywordModel, State


class Ensemble:
    """The mean of the clip posteriors of one or more networks that take the same features and know the same classes."""

    def __init__(self, models: Sequence[KeywordModel]) -> None:
        self.models = [model.eval() for model in models]

    @torch.no_grad()
    def frame_scores(self, features: Tensor, states: list[State] | None = None) -> tuple[Tensor, list[State]]:
        """Log of the mean posteriors (T, B, C) at every frame of features (T, B, I), and the networks' states after it.

        states: those that an earlier call gave, to go on from; None for fresh ones.
        """
        states = states or [model.initial_state(features.shape[1]) for model in self.models]
        each = [model(features, state) for model, state in zip(self.models, states, strict=True)]
        posteriors = torch.stack([scores.log_softmax(-1) for scores, _ in each]).logsumexp(0)
        return posteriors - math.log(len(each)), [state for _, state in each]

    @torch.no_grad()
    def clip_scores(self, features: Tensor) -> Tensor:
        """Log of the mean posteriors (B, C) of features (T, B, I)."""
        each = [clip_scores(model(features)[0]).log_softmax(-1) for model in self.models]
        return torch.stack(each).logsumexp(0) - math.log(len(each))
