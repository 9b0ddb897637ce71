"""SpecAugment: of every clip a run of frames and a band of features are masked, drawn anew for every batch."""

from dataclasses import dataclass

import torch
from torch import Tensor

from deltarnn.kws.config.options import AugmentationConfig
from deltarnn.kws.features.pipeline import FeaturePipeline


@dataclass(frozen=True)
class Mask:
    """At most `frames` frames and `bands` features in a row become `value`: each number from 0 on is as likely."""

    frames: int
    bands: int
    value: float = 0.0

    def __call__(self, features: Tensor, generator: torch.Generator) -> Tensor:
        """Features (T, B, I), masked; on the device of the generator."""
        for axis, longest in ((0, self.frames), (2, self.bands)):
            if not longest:
                continue
            size, batch = features.shape[axis], features.shape[1]
            width = torch.randint(min(longest, size) + 1, (batch, 1), generator=generator, device=features.device)
            share = torch.rand(batch, 1, generator=generator, device=features.device)
            first = (share * (size - width + 1)).long()
            positions = torch.arange(size, device=features.device)
            masked = (positions >= first) & (positions < first + width)
            features = features.masked_fill(masked.t()[:, :, None] if axis == 0 else masked, self.value)
        return features


def mask_for(augmentation: AugmentationConfig, pipeline: FeaturePipeline) -> Mask | None:
    """The masks that a configuration asks for, at the training set's mean; None where it asks for none."""
    value = 0.0 if pipeline.config.norm_feat else pipeline.statistics.mean
    mask = Mask(augmentation.aug_time_mask, augmentation.aug_freq_mask, value)
    return mask if mask.frames or mask.bands else None
