"""What is done to the parameters after every epoch: rounding to their Q formats, and column-balanced pruning."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deltarnn.adapt.checkpoint import cpu_generator
from deltarnn.kws.config.grid import Grid
from deltarnn.kws.network.model import KeywordModel
from deltarnn.prune import ColumnBalancedPruner

PRUNING = 3
"""Purpose of a random generator, beside those of `deltarnn.kws.training.trainer`."""


@dataclass(frozen=True)
class PruningPlan:
    """Column-balanced targeted dropout (MATH §7), as of `ColumnBalancedPruner`."""

    gamma_rnn: float
    gamma_fc: float
    num_pe: int
    anneal_epochs: int


@dataclass(frozen=True)
class Finisher:
    """Rounds and prunes.

    recurrent: grid of the recurrent layer's weights and biases, or None.
    dense: grid of the head's weights and biases, or None; before rounding its last layer is scaled down so that no
        score of `calibration` (T, B, I) leaves the range of `scores`. Scaling all scores alike changes no decision
        between classes.
    pruning: or None.
    """

    recurrent: Grid | None = None
    dense: Grid | None = None
    scores: Grid | None = None
    calibration: Tensor | None = None
    pruning: PruningPlan | None = None
    seed: int = 0

    def train(self, model: KeywordModel, epoch: int) -> None:
        """Round and prune the model in training, after its last step of `epoch` (from 0)."""
        if self.recurrent is not None:
            _round(model.rnn, self.recurrent)
        self._prune(model, epoch)

    def evaluate(self, model: KeywordModel, epoch: int) -> None:
        """Round and prune the copy that is evaluated and kept; its head and scores too."""
        self.train(model, epoch)
        if self.dense is not None:
            self._scale(model)
            _round(model.head, self.dense)
        model.score_grid = self.scores

    def complete(self, epoch: int) -> bool:
        """Whether everything is in force after `epoch`, so that it may be the best one."""
        return self.pruning is None or self.alpha(epoch) == 1.0

    def alpha(self, epoch: int) -> float:
        """Probability with which small weights are dropped after `epoch`."""
        assert self.pruning is not None
        last = self.pruning.anneal_epochs - 1
        return 1.0 if last <= 0 else min(epoch / last, 1.0)

    def _prune(self, model: KeywordModel, epoch: int) -> None:
        if self.pruning is None:
            return
        plan = self.pruning
        generator = cpu_generator(self.seed, epoch, PRUNING)
        pruner = ColumnBalancedPruner(
            model, plan.gamma_rnn, plan.gamma_fc, plan.num_pe, plan.anneal_epochs, generator=generator
        )
        pruner.after_epoch(epoch)

    @torch.no_grad()
    def _scale(self, model: KeywordModel) -> None:
        if self.scores is None or self.calibration is None:
            return
        model.score_grid = None
        peak = float(model.eval()(self.calibration)[0].abs().max())
        limit = self.scores.format.max
        if peak > limit:
            last = model.head[-1]
            assert isinstance(last, nn.Linear)
            last.weight.mul_(limit / peak)
            last.bias.mul_(limit / peak)


def hold_hidden_bias(model: KeywordModel) -> None:
    """Set b_hn of every GRU layer to 0, and its gradient from now on: training leaves it there."""
    rnn = model.rnn
    for layer in range(rnn.num_layers):
        bias = rnn.get_parameter(f"bias_hh_l{layer}")
        kept = torch.ones_like(bias)
        kept[2 * rnn.hidden_size :] = 0
        with torch.no_grad():
            bias.mul_(kept)
        bias.register_hook(lambda gradient, kept=kept: gradient * kept.to(gradient.device))  # type: ignore[no-untyped-call]


def zero_fraction(model: KeywordModel) -> float:
    """Fraction of zeros among the weights (not the biases) of the model."""
    weights = [p for name, p in model.named_parameters() if "weight" in name]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


@torch.no_grad()
def _round(module: nn.Module, grid: Grid) -> None:
    for parameter in module.parameters():
        parameter.copy_(grid(parameter))
