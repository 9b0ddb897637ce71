"""What one training step leaves to the next: the states in which its clips or sequences ended."""

from typing import Any

import torch
from torch import Tensor

from deltarnn.kws.features.versions import Batch
from deltarnn.kws.network.model import KeywordModel
from deltarnn.nn.refresh import refreshed


class CarriedStates:
    """The states of `model` after the latest step.

    share: of the batch's clips, which begin in a state that clips of the step before left behind (`--carry_state`).
    fresh: share of the sequences that begin anew all the same (`--stream_fresh`).
    """

    def __init__(self, model: KeywordModel, share: float, fresh: float) -> None:
        self.model, self.share, self.fresh = model, share, fresh
        self.left: Any = None

    def forget(self) -> None:
        """Let the next step begin from fresh states."""
        self.left = None

    def states(self, batch: Batch, generator: torch.Generator) -> Any:
        """Initial states: of sequences the full ones, carried on; of a share of the clips those that others left."""
        size = batch.features.shape[1]
        if batch.targets.dim() > 1:
            going_on = _share(size, 1 - self.fresh, generator) if self.fresh else None
            return self._continued(going_on) if batch.goes_on else self.model.initial_state(size)
        if not self.share or self.left is None:
            return None
        left = self.left if isinstance(self.left, tuple) else (self.left,)
        chosen = torch.randint(left[0].shape[1], (size,), generator=generator, device=generator.device)
        carries = _share(size, self.share, generator)
        parts = tuple(part.detach()[:, chosen] * carries for part in left)
        return parts if len(parts) > 1 else parts[0]

    def _continued(self, going_on: Tensor | None) -> Any:
        """The state with which sequences go on, all or those of (B, 1), the others being fresh: all zeros but for what
        follows from the parameters. The step before had other parameters, and has its own gradient."""
        if self.model.delta is None:
            parts = self.left if isinstance(self.left, tuple) else (self.left,)
            kept = tuple(_of(going_on, part.detach()) for part in parts)
            return kept if isinstance(self.left, tuple) else kept[0]
        held = [type(state)(*(_of(going_on, part) for part in state)) for state in self.left]
        return refreshed(self.model.delta, held)


def _share(size: int, share: float, generator: torch.Generator) -> Tensor:
    """True (B, 1) for that share of the batch."""
    return torch.rand(size, 1, generator=generator, device=generator.device) < share


def _of(going_on: Tensor | None, part: Tensor) -> Tensor:
    """A part of a state (…, B, H), 0 where it does not go on."""
    return part if going_on is None else part * going_on
