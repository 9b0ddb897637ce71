"""What one training step leaves to the next: the states in which its clips or sequences ended."""

from typing import Any

import torch
from torch import Tensor

from deltarnn.kws.features.versions import Batch
from deltarnn.kws.network.ensemble import Ensemble
from deltarnn.kws.network.model import KeywordModel
from deltarnn.nn.refresh import refreshed


class CarriedStates:
    """The states of `model`, and of its teacher, after the latest step.

    share: of the batch's clips, which begin in a state that clips of the step before left behind (`--carry_state`).
    """

    def __init__(self, model: KeywordModel, teacher: Ensemble | None, share: float) -> None:
        self.model, self.teacher, self.share = model, teacher, share
        self.left: Any = None
        self._teachers_left: list[Any] | None = None

    def forget(self) -> None:
        """Let the next step begin from fresh states."""
        self.left = None

    def taught(self, features: Tensor, batch: Batch) -> Tensor | None:
        """The teacher's scores of clips (B, C), those made in advance if there are any, or of the frames of sequences
        (T, B, C); None without one."""
        if batch.taught is not None:
            return batch.taught
        if self.teacher is None or batch.targets.dim() == 1:
            return None if self.teacher is None else self.teacher.clip_scores(features)
        left = self._teachers_left if batch.goes_on else None
        scores, self._teachers_left = self.teacher.frame_scores(features, left)
        return scores

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
