"""What one training step leaves to the next: the states in which its clips or sequences ended."""

from typing import Any

import torch

from deltarnn.kws.features.versions import Batch
from deltarnn.kws.network.model import KeywordModel
from deltarnn.nn.refresh import refreshed


class CarriedStates:
    """The states of `model` after the latest step.

    share: of the batch's clips, which begin in a state that clips of the step before left behind (`--carry_state`).
    """

    def __init__(self, model: KeywordModel, share: float) -> None:
        self.model, self.share = model, share
        self.left: Any = None

    def forget(self) -> None:
        """Let the next step begin from fresh states."""
        self.left = None

    def states(self, batch: Batch, generator: torch.Generator) -> Any:
        """Initial states: of sequences the full ones, carried on; of a share of the clips those that others left."""
        if batch.targets.dim() > 1:
            return self._continued() if batch.goes_on else self.model.initial_state(batch.targets.shape[1])
        if not self.share or self.left is None:
            return None
        left = self.left if isinstance(self.left, tuple) else (self.left,)
        device = generator.device
        chosen = torch.randint(left[0].shape[1], (len(batch.targets),), generator=generator, device=device)
        carries = torch.rand(len(chosen), 1, generator=generator, device=device) < self.share
        parts = tuple(part.detach()[:, chosen] * carries for part in left)
        return parts if len(parts) > 1 else parts[0]

    def _continued(self) -> Any:
        """The state with which sequences go on: the step before had other parameters, and has its own gradient."""
        if self.model.delta is not None:
            return refreshed(self.model.delta, self.left)
        return tuple(part.detach() for part in self.left) if isinstance(self.left, tuple) else self.left.detach()
