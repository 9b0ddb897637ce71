"""SpecAugment: one run and one band of every clip, of every length; the rest is spared."""

import dataclasses

import torch

from deltarnn.kws.config.options import AugmentationConfig
from deltarnn.kws.config.options_data import FeatureConfig
from deltarnn.kws.features.masking import Mask, mask_for
from deltarnn.kws.features.pipeline import FeaturePipeline
from deltarnn.kws.features.versions import VersionedClips

FEATURES = torch.ones(61, 400, 16)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_run_of_frames_in_every_place_and_length():
    masked = Mask(10, 0, value=-3.0)(FEATURES, generator()) == -3.0
    frames = masked.all(2)
    assert (masked == frames[:, :, None]).all()
    assert set(frames.sum(0).tolist()) == set(range(11))
    edges = frames.int().diff(dim=0, prepend=torch.zeros(1, 400, dtype=torch.int))
    assert (edges == 1).sum(0).max() == 1
    assert frames[0].any()
    assert frames[-1].any()


def test_a_band_of_features_for_all_frames():
    masked = Mask(0, 4)(FEATURES, generator()) == 0
    bands = masked.all(0)
    assert (masked == bands).all()
    assert set(bands.sum(1).tolist()) == set(range(5))
    assert bands[:, 0].any()
    assert bands[:, -1].any()


def test_masks_longer_than_a_clip_and_the_same_for_the_same_seed():
    mask = Mask(1000, 1000)
    first = mask(FEATURES, generator(3))
    assert torch.equal(first, mask(FEATURES, generator(3)))
    assert not torch.equal(first, mask(FEATURES, generator(4)))
    assert FEATURES.all()


def test_batches_are_masked_and_versions_spared():
    clips = VersionedClips(torch.ones(2, 50, 8, 3), torch.arange(50), Mask(8, 0))
    batch = clips.batch(torch.arange(50), generator())
    assert set((batch.features == 0).all(2).sum(0).tolist()) == set(range(9))
    assert clips.versions.all()


def test_none_is_asked_for_or_one_at_the_mean():
    pipeline = FeaturePipeline(FeatureConfig())
    assert mask_for(AugmentationConfig(), pipeline) is None
    assert mask_for(AugmentationConfig(aug_freq_mask=2), pipeline) == Mask(0, 2)
    plain = FeaturePipeline(dataclasses.replace(pipeline.config, norm_feat=False), pipeline.statistics)
    assert mask_for(AugmentationConfig(aug_time_mask=2), plain) == Mask(2, 0, plain.statistics.mean)
