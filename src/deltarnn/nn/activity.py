"""Records the temporal sparsity of delta networks while they run: how many deltas are 0, and which (MATH §1)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from deltarnn.nn.delta_module import DeltaModule
from deltarnn.nn.options import ActivityRecorder
from deltarnn.nn.state import SequenceActivity
from deltarnn.sparsity import DeltaCount, Sparsity


class _Recorded(Sparsity):
    """Over the calls of the `layers` that ran."""

    @property
    def layers(self) -> Sequence["LayerActivity"]:
        raise NotImplementedError

    @property
    def l1_delta_h(self) -> Tensor:
        """Σ|Δh|, a 0-dim tensor through which the activity can be trained down."""
        sums = [call.l1_delta_h for layer in self._active for call in layer.calls]
        return torch.stack(sums).sum() if len(sums) > 1 else sums[0]

    @property
    def _active(self) -> list["LayerActivity"]:
        ran = [layer for layer in self.layers if layer.calls]
        if not ran:
            names = ", ".join(layer.name for layer in self.layers)
            raise RuntimeError(f"{names} did not run inside the record_activity block: there is nothing to report")
        return ran

    def delta_counts(self) -> Iterator[DeltaCount]:
        for layer in self._active:
            for call in layer.calls:
                counts = call.counts.tolist()
                signals = len(counts) // 2
                for index, (zeros, numel) in enumerate(zip(counts[:signals], counts[signals:], strict=True)):
                    yield DeltaCount("h" if index else "x", zeros, numel, layer.delta_rows[index])


@dataclass
class LayerActivity(_Recorded):
    """Activity of one layer and direction.

    name: where it stands in the recorded module, such as "rnn.l0" or "rnn.l0_reverse".
    delta_rows: how many weights a delta of x, of h and, with reset_after=False, of r ∘ h fetches.
    """

    name: str
    delta_rows: tuple[int, ...]
    calls: list[SequenceActivity] = field(default_factory=list, repr=False)

    @property
    def gate_rows(self) -> int:
        """Rows of its weight matrices: 3H or 4H."""
        return self.delta_rows[0]

    @property
    def layers(self) -> Sequence["LayerActivity"]:
        return (self,)

    @property
    def events(self) -> tuple[Tensor, Tensor]:
        """(fired_x (T, B, I), fired_h (T, B, H)): bool, where deltas are not 0; several calls joined along T.

        With reset_after=False fired_h is (T, B, 2H): h, then r ∘ h.
        """
        calls = [call for layer in self._active for call in layer.calls]
        if calls[0].fired_x is None:
            raise RuntimeError("events were not recorded: use record_activity(module, events=True)")
        batch_sizes = {call.fired_x.shape[1] for call in calls if call.fired_x is not None}
        if len(batch_sizes) > 1:
            raise RuntimeError(f"calls with batch sizes {sorted(batch_sizes)}: events of one batch size can be joined")
        fired_x = [call.fired_x for call in calls if call.fired_x is not None]
        fired_h = [call.fired_h for call in calls if call.fired_h is not None]
        return torch.cat(fired_x), torch.cat(fired_h)


@dataclass
class Activity(_Recorded):
    """Activity of all delta layers of a module, over all calls inside a `record_activity` block.

    per_layer: one LayerActivity per layer and direction, in the order of the module tree, then of the weights.
    """

    per_layer: list[LayerActivity]

    @property
    def layers(self) -> Sequence[LayerActivity]:
        return self.per_layer

    @property
    def events(self) -> list[tuple[Tensor, Tensor]]:
        """(fired_x, fired_h) of each entry of `per_layer`."""
        return [layer.events for layer in self.per_layer]


@contextmanager
def record_activity(module: nn.Module, events: bool = False) -> Iterator[Activity]:
    """Record the activity of every delta layer in `module` while the block runs.

    >>> import torch; from deltarnn import DeltaGRU, record_activity
    >>> layer = DeltaGRU(16, 64, thx=0.1, thh=0.1)
    >>> with record_activity(layer) as activity:
    ...     output, h_n = layer(torch.zeros(61, 1, 16))
    >>> activity.sparsity_x
    1.0

    Parameters
    ----------
    module: a delta layer, or any module that holds some.
    events: keep which elements fired at which step too, in `activity.events`.

    The Σ|Δh| of every call is kept with its graph: in training, record one batch at a time.

    Raises
    ------
    ValueError
        If there is no delta layer in `module`.
    """
    recorders: list[tuple[DeltaModule, ActivityRecorder]] = []
    per_layer: list[LayerActivity] = []
    for name, layer in module.named_modules():
        if isinstance(layer, DeltaModule):
            names = [".".join(filter(None, (name, suffix))) or "cell" for suffix in layer.layer_names]
            entries = [LayerActivity(entry, layer.delta_rows) for entry in names]
            recorders.append((layer, ActivityRecorder([entry.calls for entry in entries], events)))
            per_layer += entries
    if not recorders:
        raise ValueError(f"there is no DeltaGRU or DeltaLSTM in this {type(module).__name__}: see deltarnn.convert")
    for layer, recorder in recorders:
        layer.recorders.append(recorder)
    try:
        yield Activity(per_layer)
    finally:
        for layer, recorder in recorders:
            layer.recorders.remove(recorder)
