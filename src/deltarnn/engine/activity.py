"""How much of a stream stood still, in the terms of `deltarnn.record_activity` (MATH §1)."""

from collections.abc import Sequence
from dataclasses import dataclass

from deltarnn.sparsity import Sparsity


class _Counted(Sparsity):
    @property
    def layers(self) -> Sequence["LayerActivity"]:
        raise NotImplementedError

    def _zero_fraction(self, signals: str, weigh: bool = False) -> float:
        zeros = numel = 0
        for layer in self.layers:
            if layer.steps == 0:
                raise RuntimeError("no step since the start or the last reset: there is nothing to report")
            weight = layer.gate_rows if weigh else 1
            zeros += weight * sum(getattr(layer, f"zeros_{signal}") for signal in signals)
            numel += weight * sum(getattr(layer, f"numel_{signal}") for signal in signals)
        return zeros / numel


@dataclass(frozen=True)
class LayerActivity(_Counted):
    """Exact counts of one layer since its stream's start or last reset.

    zeros_x, zeros_h: deltas equal to 0, of numel_x, numel_h. gate_rows: weights that one delta fetches, 3H or 4H.
    """

    steps: int
    zeros_x: int
    zeros_h: int
    numel_x: int
    numel_h: int
    gate_rows: int

    @property
    def layers(self) -> Sequence["LayerActivity"]:
        return (self,)


@dataclass(frozen=True)
class Activity(_Counted):
    """Activity of all layers; per_layer has the same fields for each."""

    per_layer: tuple[LayerActivity, ...]

    @property
    def layers(self) -> Sequence[LayerActivity]:
        return self.per_layer
