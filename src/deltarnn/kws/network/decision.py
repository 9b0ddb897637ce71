"""From the scores of every frame to one class per clip: the decision rules.

Scores are (T, B, C), any real numbers; class 0 is silence, class 1 other words. Frame posteriors are
p_c(t) = softmax_c(l(t)).
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

SILENCE, UNKNOWN = 0, 1
Target = Literal["clip", "frame", "word"]


@dataclass(frozen=True)
class DecisionRule:
    """How a clip is decided.

    smooth: False takes the class of the last frame that is not silence. True smooths the posteriors over time:

        q_c(t) = Σ_{s = t−w+1 … t} e_c(s)          P_c(t) = q_c(t) / Σ_k q_k(t)

    and takes the class with the largest P_c(t) over the last `confidence_window` frames at which the window w is full
    (the last frame of a shorter clip): a few frames of silence before a word are no evidence against it. e are the
    frame posteriors of a network that was trained frame by frame ("frame"; G. Chen, C. Parada, G. Heigold,
    "Small-footprint keyword spotting using deep neural networks", ICASSP 2014); or e_c(s) = exp(l_c(s)), the evidence
    itself, of one that was trained by the clip ("clip": log Σ_s exp(l_c(s)) is the score that its loss saw). One that
    was trained to name words as they end ("word") says silence before and after, so that is taken only where nothing
    else reaches `fire_threshold`; e are its frame posteriors, and P of other words counts `unknown_weight` times, as
    a keyword's beginning passes for one of them.
    smoothing_window: w, frames. confidence_window: frames.
    fire_threshold: a clip whose best P_c is below it is silence. unknown_weight: of "word" alone.
    """

    smooth: bool = True
    smoothing_window: int = 60
    confidence_window: int = 80
    fire_threshold: float = 0.0
    target: Target = "clip"
    unknown_weight: float = 1.0

    def __call__(self, scores: Tensor) -> Tensor:
        """Classes (B,) of scores (T, B, C)."""
        return self.smoothed(scores) if self.smooth else last_active_frame(scores)

    def smoothed(self, scores: Tensor) -> Tensor:
        """Classes (B,) by smoothed posteriors."""
        best = self.best(scores)
        if self.target == "word":
            best[:, SILENCE] = self.fire_threshold
            best[:, UNKNOWN] *= self.unknown_weight
        confidence, classes = best.max(-1)
        return torch.where(confidence < self.fire_threshold, SILENCE, classes)

    def best(self, scores: Tensor) -> Tensor:
        """The largest P_c(t) of the frames that count (B, C)."""
        posteriors = smoothed_posteriors(scores, self.smoothing_window, self.target)
        full = min(self.smoothing_window, len(scores)) - 1
        return posteriors[full:][-self.confidence_window :].amax(0)


def last_active_frame(scores: Tensor) -> Tensor:
    """Classes (B,): of each clip's last frame that is not silence; silence where all frames are."""
    classes = scores.argmax(-1)
    steps = torch.arange(1, len(classes) + 1, device=scores.device)[:, None]
    last = (steps * (classes != SILENCE)).amax(0)
    chosen = classes.gather(0, (last - 1).clamp(min=0)[None])[0]
    return torch.where(last > 0, chosen, SILENCE)


def smoothed_posteriors(scores: Tensor, window: int, target: Target = "clip") -> Tensor:
    """P (T, B, C) of `DecisionRule`: at every frame the posteriors smoothed over the `window` frames that end there."""
    evidence = scores.double() if target == "clip" else scores.double().log_softmax(-1)
    # Relative to the clip's largest score the exponentials cannot overflow.
    weights = (evidence - evidence.amax((0, 2), keepdim=True)).exp()
    padded = F.pad(weights.permute(1, 2, 0), (window - 1, 0))
    sums = F.avg_pool1d(padded, window, stride=1).permute(2, 0, 1).clamp(min=torch.finfo(torch.float64).tiny)
    return sums / sums.sum(-1, keepdim=True)


def clip_scores(scores: Tensor) -> Tensor:
    """Scores (B, C) of whole clips: log of the mean over frames of exp(l_c(t))."""
    return scores.logsumexp(0) - math.log(len(scores))
