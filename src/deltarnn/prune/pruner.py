"""Column-balanced targeted dropout during training: a companion of a module, called once per epoch (MATH §7)."""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deltarnn.fixed.qformat import QFormat
from deltarnn.prune.column_balanced import balanced_sparsity, check_balance, column_balanced_dropout


class PruningError(RuntimeError):
    """The sparsity that was asked for was not achieved."""


@dataclass(frozen=True)
class TensorSparsity:
    """Sparsity of one weight: γ as requested, what its floors leave of it, and the fraction of zeros now."""

    name: str
    requested: float
    target: float
    achieved: float


@dataclass(frozen=True)
class PruningReport:
    """What one call of `after_epoch` did: the probability α and the sparsity of every weight."""

    alpha: float
    tensors: tuple[TensorSparsity, ...]

    def __str__(self) -> str:
        rows = [f"  {t.name}: {t.achieved:.2%} zero (target {t.target:.2%})" for t in self.tensors]
        return "\n".join([f"CBTD, alpha = {self.alpha:.3f}", *rows])


class ColumnBalancedPruner:
    """Prunes the recurrent and dense weights of `module` after each epoch; biases are left alone.

    Parameters
    ----------
    module: its recurrent weights are those named weight_ih_l*, weight_hh_l* (and weight_hr_l*), its dense weights
        those of torch.nn.Linear.
    gamma_rnn: γ of the recurrent weights; 0 leaves them alone.
    gamma_fc: γ of the dense weights; 0 leaves them alone.
    num_pe: processing elements M.
    anneal_epochs: E_α: α = min(epoch / (E_α − 1), 1), epoch counted from 0. 0 or 1 prunes fully from the start, as
        delta retraining of a pruned network does.
    weight_format: W: weights are rounded to it before they are pruned. None leaves rounding to the caller.
    generator: source of the draws while α < 1.

    Examples
    --------
    >>> pruner = ColumnBalancedPruner(model, gamma_rnn=0.7, gamma_fc=0, num_pe=16, anneal_epochs=10)  # doctest: +SKIP
    >>> for epoch in range(20):                                                                       # doctest: +SKIP
    ...     train_one_epoch()
    ...     print(pruner.after_epoch(epoch))
    >>> pruner.verify()                                                                               # doctest: +SKIP
    """

    def __init__(
        self,
        module: nn.Module,
        gamma_rnn: float,
        gamma_fc: float,
        num_pe: int,
        anneal_epochs: int = 0,
        weight_format: QFormat | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        check_balance(gamma_rnn, num_pe)
        check_balance(gamma_fc, num_pe)
        if anneal_epochs < 0:
            raise ValueError(f"anneal_epochs={anneal_epochs}: must be 0 (no annealing) or a number of epochs")
        self.num_pe = num_pe
        self.anneal_epochs = anneal_epochs
        self.weight_format = weight_format
        self.generator = generator
        self._module = module
        self._gammas = {
            name: gamma for name, gamma in _weights(module, gamma_rnn, gamma_fc).items() if self._prunable(name, gamma)
        }
        if not self._gammas:
            raise ValueError(
                f"nothing to prune with gamma_rnn={gamma_rnn:g}, gamma_fc={gamma_fc:g}, num_pe={num_pe}: "
                "raise a gamma, or use fewer processing elements so that each owns more rows"
            )

    def alpha(self, epoch: int) -> float:
        """The probability with which candidates are dropped after `epoch` (from 0)."""
        return 1.0 if self.anneal_epochs <= 1 else min(epoch / (self.anneal_epochs - 1), 1.0)

    @torch.no_grad()
    def after_epoch(self, epoch: int) -> PruningReport:
        """Round and prune the weights in place; call after the epoch's last optimiser step.

        Raises
        ------
        PruningError
            If α is 1 and a weight is less sparse than its target.
        """
        alpha = self.alpha(epoch)
        for name, gamma in self._gammas.items():
            weight = self._module.get_parameter(name)
            if self.weight_format is not None:
                weight.copy_(_round(weight, self.weight_format))
            weight.copy_(column_balanced_dropout(weight, gamma, self.num_pe, alpha, self.generator))
        report = self.report(alpha)
        if alpha == 1:
            self.verify()
        return report

    def report(self, alpha: float) -> PruningReport:
        """The sparsity of every pruned weight as it is now."""
        return PruningReport(alpha, tuple(self._sparsity(name) for name in self._gammas))

    def verify(self) -> None:
        """Raise PruningError unless every weight has its full column-balanced sparsity.

        Call it on the module that is to be deployed: the best epoch may lie before the annealing ended.
        """
        for name, gamma in self._gammas.items():
            weight = self._module.get_parameter(name).detach()
            # Pruning a weight that is already balanced changes nothing.
            if not torch.equal(column_balanced_dropout(weight, gamma, self.num_pe), weight):
                found = self._sparsity(name)
                raise PruningError(
                    f"{name} is {found.achieved:.2%} zero where gamma={gamma:g} over {self.num_pe} processing elements "
                    f"asks for {found.target:.2%} in every sub-column: train past the annealing "
                    f"({self.anneal_epochs} epochs), or lower gamma"
                )

    def _sparsity(self, name: str) -> TensorSparsity:
        weight, gamma = self._module.get_parameter(name), self._gammas[name]
        target = balanced_sparsity(weight.shape[0], gamma, self.num_pe)
        return TensorSparsity(name, gamma, target, float((weight == 0).double().mean()))

    def _prunable(self, name: str, gamma: float) -> bool:
        rows = self._module.get_parameter(name).shape[0]
        if gamma > 0 and balanced_sparsity(rows, gamma, self.num_pe) == 0:
            warnings.warn(
                f"{name} stays dense: its {rows} rows over {self.num_pe} processing elements leave sub-columns too "
                f"short to drop a fraction {gamma:g} of",
                stacklevel=3,
            )
            return False
        return gamma > 0


def _weights(module: nn.Module, gamma_rnn: float, gamma_fc: float) -> dict[str, float]:
    gammas = {}
    linears = {name for name, child in module.named_modules() if isinstance(child, nn.Linear)}
    for name, parameter in module.named_parameters():
        owner, _, leaf = name.rpartition(".")
        if leaf.startswith(("weight_ih_l", "weight_hh_l", "weight_hr_l")) and parameter.ndim == 2:
            gammas[name] = gamma_rnn
        elif leaf == "weight" and owner in linears:
            gammas[name] = gamma_fc
    return gammas


def _round(weight: Tensor, target: QFormat) -> Tensor:
    integers = torch.round(weight.double() * target.scale).clamp(target.int_min, target.int_max)
    return (integers / target.scale).to(weight.dtype)
