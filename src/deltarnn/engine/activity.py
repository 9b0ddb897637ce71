"""The temporal sparsity of a stream, with the fields of `deltarnn.record_activity` (MATH §1)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from deltarnn.sparsity import DeltaCount, Sparsity

COUNTS = ("steps", "zeros_x", "zeros_h", "numel_x", "numel_h", "zeros_rh", "numel_rh")
"""Fields of a LayerActivity that grow with a stream."""


class Counted(Sparsity):
    """Fractions over the counts of `layers`."""

    @property
    def layers(self) -> Sequence["LayerActivity"]:
        """Whose counts are added up."""
        raise NotImplementedError

    def delta_counts(self) -> Iterator[DeltaCount]:
        for layer in self.layers:
            if layer.steps == 0:
                raise RuntimeError("no step since the start or the last reset: there is nothing to report")
            yield DeltaCount("x", layer.zeros_x, layer.numel_x, layer.gate_rows)
            # A column of h or r ∘ h of a GRU that resets before its product holds only the gates it feeds.
            yield DeltaCount("h", layer.zeros_h, layer.numel_h, layer.gate_rows - layer.reset_rows)
            yield DeltaCount("h", layer.zeros_rh, layer.numel_rh, layer.reset_rows)


@dataclass(frozen=True)
class LayerActivity(Counted):
    """Exact counts of one layer since its stream's start or last reset.

    zeros_x, zeros_h: deltas equal to 0, of numel_x, numel_h. gate_rows: weights that one delta fetches, 3H or 4H.
    With reset_after=False, zeros_rh and numel_rh count the deltas of r ∘ h, each of which fetches reset_rows weights,
    H, and a delta of h the other 2H.
    """

    steps: int
    zeros_x: int
    zeros_h: int
    numel_x: int
    numel_h: int
    gate_rows: int
    zeros_rh: int = 0
    numel_rh: int = 0
    reset_rows: int = 0

    @property
    def layers(self) -> Sequence["LayerActivity"]:
        return (self,)

    @classmethod
    def total(cls, streams: Sequence["LayerActivity"]) -> "LayerActivity":
        """Of several streams of one layer."""
        counts = {name: sum(getattr(stream, name) for stream in streams) for name in COUNTS}
        return replace(streams[0], **counts)


@dataclass(frozen=True)
class Activity(Counted):
    """Activity of all layers; per_layer has the same fields for each."""

    per_layer: tuple[LayerActivity, ...]

    @property
    def layers(self) -> Sequence[LayerActivity]:
        return self.per_layer

    @classmethod
    def of(cls, a: dict[str, Any], reset_after: bool, counts: Iterable[tuple[int, int, int, int]]) -> "Activity":
        """From a model file's architecture, and per layer the steps and how often x, h and r ∘ h fired."""
        outputs = a["proj_size"] or a["hidden_size"]
        gate_rows = (3 if a["cell"] == "GRU" else 4) * a["hidden_size"]
        reset_rows = 0 if reset_after else a["hidden_size"]
        layers = []
        for index, (steps, fired_x, fired_h, fired_rh) in enumerate(counts):
            numel_x, numel_h = steps * (a["input_size"] if index == 0 else outputs), steps * outputs
            numel_rh = steps * reset_rows
            zeros = numel_x - fired_x, numel_h - fired_h, numel_rh - fired_rh
            layers.append(LayerActivity(steps, *zeros[:2], numel_x, numel_h, gate_rows, zeros[2], numel_rh, reset_rows))
        return cls(tuple(layers))

    def since(self, earlier: "Activity") -> "Activity":
        """What was counted after `earlier`, a snapshot of the same stream."""
        return Activity(
            tuple(
                replace(now, **{name: getattr(now, name) - getattr(before, name) for name in COUNTS})
                for now, before in zip(self.per_layer, earlier.per_layer, strict=True)
            )
        )
