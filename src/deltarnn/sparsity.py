"""The fractions by which activity is told, in the layers and in the engine alike (MATH §1)."""

from abc import ABC, abstractmethod


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
    def _zero_fraction(self, signals: str, weigh: bool = False) -> float:
        """Of the deltas of `signals` ("x", "h" or both), weighed by the rows they fetch or not."""
