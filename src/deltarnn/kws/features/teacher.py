"""Teachers: the scores of their networks over training material, computed once, in advance and without masks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deltarnn.kws.features.pipeline import FeaturePipeline
from deltarnn.kws.network.decision import clip_scores
from deltarnn.kws.network.model import KeywordModel, State

_CLIPS_AT_ONCE = 256
_FRAMES_AT_ONCE = 1000
"""How much a teacher hears in one call, so that memory is bounded."""


@dataclass(frozen=True)
class Teacher:
    """A network trained on the same classes; the pipeline that makes its features; a name that stands for it.

    It computes where its model is.
    """

    model: KeywordModel
    pipeline: FeaturePipeline
    name: str

    @torch.no_grad()
    def of_clips(self, clips: NDArray[np.floating]) -> NDArray[np.float32]:
        """Scores (N, C) of clips (N, T, I), pooled over time as the loss pools them."""
        parts = torch.split(torch.from_numpy(clips), _CLIPS_AT_ONCE)
        return torch.cat([clip_scores(self._hear(part.transpose(0, 1))[0]) for part in parts]).cpu().numpy()

    @torch.no_grad()
    def of_frames(self, recordings: Tensor) -> NDArray[np.float16]:
        """Scores (T, B, C) of the frames of recordings (T, B, I) side by side, its state carried from their beginning
        to their end."""
        scores, state = [], None
        for part in torch.split(recordings, _FRAMES_AT_ONCE):
            heard, state = self._hear(part, state)
            scores.append(heard.cpu().half())
        return torch.cat(scores).numpy()

    def _hear(self, features: Tensor, state: State = None) -> tuple[Tensor, State]:
        """The network's scores of features (T, B, I), and its state after them."""
        device = next(self.model.parameters()).device
        heard: tuple[Tensor, State] = self.model.eval()(features.to(device).float().contiguous(), state)
        return heard


def mean_posteriors(scores: Sequence[NDArray[np.floating]]) -> Tensor:
    """Log of the mean posteriors (…, C) of one or more teachers' scores (…, C)."""
    each = torch.stack([torch.from_numpy(one).float().log_softmax(-1) for one in scores])
    return each.logsumexp(0) - math.log(len(scores))
