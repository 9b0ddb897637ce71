"""Averaged parameters: an exponential moving average over training steps, which evaluates better than the last step."""

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)


class AveragedModel(Generic[Model]):
    """A copy of a model whose parameters follow: p̄ ← d p̄ + (1 − d) p with d = min(decay, (1 + k)/(10 + k)).

    k counts the updates, so that the first epochs are not held back by the random start. decay 0 follows at once.
    B. T. Polyak, A. B. Juditsky, "Acceleration of stochastic approximation by averaging", SIAM J. Control Optim., 1992.
    """

    def __init__(self, model: Model, decay: float) -> None:
        self.module: Model = copy.deepcopy(model).eval()
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, updates: int) -> None:
        """Take in the parameters of `model` after its step number `updates` (from 1)."""
        decay = min(self.decay, (1 + updates) / (10 + updates))
        for averaged, current in zip(self.module.parameters(), model.parameters(), strict=True):
            averaged.lerp_(current.to(averaged), 1 - decay)
