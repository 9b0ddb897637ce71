"""How the learning rate and the thresholds change over a training run."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from deltarnn.fixed.qformat import QFormat

RateDecay = Literal["plateau", "cosine"]


@dataclass
class LearningRate:
    """The learning rate of every step.

    decay: "plateau" multiplies the rate by `factor`, not below `end`, whenever the validation loss has not improved for
    more than `patience` epochs; "cosine" raises it linearly over the first 5 % of all steps and lets it fall to `end`
    along half a cosine (I. Loshchilov, F. Hutter, "SGDR", arXiv:1608.03983); None keeps it.
    """

    start: float
    end: float
    total_steps: int
    decay: RateDecay | None
    factor: float = 0.8
    patience: int = 4
    plateau_rate: float = field(init=False)
    best_loss: float = math.inf
    bad_epochs: int = 0

    def __post_init__(self) -> None:
        self.plateau_rate = self.start

    def at(self, step: int) -> float:
        """The rate of a step, counted from 0 over the whole run."""
        if self.decay != "cosine":
            return self.plateau_rate
        warmup = max(1, round(0.05 * self.total_steps))
        if step < warmup:
            return self.start * (step + 1) / warmup
        progress = (step - warmup) / max(1, self.total_steps - warmup)
        return self.end + (self.start - self.end) * 0.5 * (1 + math.cos(math.pi * progress))

    def after_epoch(self, validation_loss: float) -> None:
        """Take note of an epoch's validation loss."""
        if validation_loss < self.best_loss:
            self.best_loss, self.bad_epochs = validation_loss, 0
            return
        self.bad_epochs += 1
        if self.decay == "plateau" and self.bad_epochs > self.patience:
            self.plateau_rate = max(self.end, self.plateau_rate * self.factor)
            self.bad_epochs = 0

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to keep."""
        return {"plateau_rate": self.plateau_rate, "best_loss": self.best_loss, "bad_epochs": self.bad_epochs}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.plateau_rate = state["plateau_rate"]
        self.best_loss = state["best_loss"]
        self.bad_epochs = state["bad_epochs"]


def warmed_up(
    thresholds: tuple[float, ...], step: int, warmup_steps: int, grid: QFormat | None = None
) -> tuple[float, ...]:
    """Thresholds of a training step: they rise linearly from 0 over `warmup_steps`, so that the network adapts.

    grid: the format whose values thresholds must be, rounded to it on the way up; or None.
    """
    if step >= warmup_steps:
        return thresholds
    raised = [threshold * step / warmup_steps for threshold in thresholds]
    return tuple(raised if grid is None else map(float, grid.quantize(raised)))
