"""The fractions by which activity is told, in the layers and in the engine alike (MATH §1)."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Literal, NamedTuple


class DeltaCount(NamedTuple):
    """Deltas of one signal: how many are 0, how many there are, and the weights (rows) that each fetches.

    r ∘ h, whose deltas feed the candidate of a GRU that resets before its product, counts as "h".
    """

    signal: Literal["x", "h"]
    zeros: int
    numel: int
    rows: int


class Sparsity(ABC):
    """Fractions of deltas equal to 0; padding is not counted. Each raises RuntimeError if nothing ran."""

    @property
    def sparsity_x(self) -> float:
        """Γ_Δx: of the input deltas."""
        return self._zero_fraction("x")

    @property
    def sparsity_h(self) -> float:
        """Γ_Δh: of the hidden-state deltas."""
        return self._zero_fraction("h")

    @property
    def sparsity(self) -> float:
        """Of all deltas."""
        return self._zero_fraction("xh")

    @property
    def effective_sparsity(self) -> float:
        """Γ_eff: of all deltas, each weighed by the weights it would have fetched."""
        return self._zero_fraction("xh", weigh=True)

    @abstractmethod
    def delta_counts(self) -> Iterator[DeltaCount]:
        """The counts of all that ran."""

    def _zero_fraction(self, signals: str, weigh: bool = False) -> float:
        zeros = numel = 0
        for count in self.delta_counts():
            if count.signal in signals:
                weight = count.rows if weigh else 1
                zeros += weight * count.zeros
                numel += weight * count.numel
        return zeros / numel
