"""Clips for training: versions of every clip, changed at random, among which each batch draws.

    feat/DATASET/NAME/versions/DIGEST-K.safetensors          version K of the clips: their features
    feat/DATASET/NAME/versions/DIGEST-K-taught.safetensors   and a teacher's scores of them

A version is made once and kept: runs with the same features, augmentation and seed share it. Those made of levels are
shared by all seeds.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from deltarnn.kws.config.resolve import Config
from deltarnn.kws.data.description import read_description
from deltarnn.kws.data.prepare import load_noise
from deltarnn.kws.data.splice import splice
from deltarnn.kws.features.array_cache import ArrayCache, half
from deltarnn.kws.features.augment import Augmenter
from deltarnn.kws.features.augment_levels import LevelAugmenter
from deltarnn.kws.features.levels import load_levels, takes_levels
from deltarnn.kws.features.masking import Mask, mask_for
from deltarnn.kws.features.pipeline import FeaturePipeline
from deltarnn.kws.features.store import FeatureSet, load_audio
from deltarnn.kws.features.teacher import Teacher, mean_posteriors
from deltarnn.kws.network.decision import UNKNOWN


@dataclass(frozen=True)
class Batch:
    """A training step's features (T, B, I) and targets: classes (B,) of clips, or (T, B) of frames. goes_on: its
    sequences continue those of the step before. taught: a teacher's scores (B, C) of the clips, (T, B, C) of the frames
    of sequences; None without one."""

    features: Tensor
    targets: Tensor
    goes_on: bool = False
    taught: Tensor | None = None


class VersionedClips:
    """Labelled clips of which several versions exist; every clip of every batch takes one of them at random.

    versions: normalised features (V, N, T, I) of any floating-point type. labels: classes (N,). mask: SpecAugment,
    drawn anew for every batch; or None. taught: a teacher's scores (V, N, C); or None. All are on one device, and so
    are the batches.
    """

    def __init__(
        self, versions: Tensor, labels: Tensor, mask: Mask | None = None, taught: Tensor | None = None
    ) -> None:
        self.versions, self.labels, self.mask, self.taught = versions, labels, mask, taught

    def to(self, device: torch.device) -> "VersionedClips":
        """The same on a device."""
        taught = None if self.taught is None else self.taught.to(device)
        return VersionedClips(self.versions.to(device), self.labels.to(device), self.mask, taught)

    def steps(self, batch_size: int, processes: int = 1) -> int:
        """Training steps of an epoch, with `batch_size` clips each over all processes."""
        return math.ceil(self._usable(processes) / batch_size)

    def batches(
        self, batch_size: int, order: torch.Generator, changes: torch.Generator, rank: int = 0, processes: int = 1
    ) -> Iterator[Batch]:
        """All clips once, in an order from one generator and changed by another, which is on the clips' device: the
        share of process `rank`."""
        shuffled = torch.randperm(len(self.labels), generator=order)[: self._usable(processes)].to(self.labels.device)
        for start in range(0, len(shuffled), batch_size):
            yield self.batch(shuffled[start : start + batch_size][rank::processes], changes)

    def _usable(self, processes: int) -> int:
        """Clips of an epoch: as many as divide evenly among the processes."""
        return len(self.labels) - len(self.labels) % processes

    def batch(self, clips: Tensor, generator: torch.Generator) -> Batch:
        """Clips (B,), given by their numbers, each in a version drawn from the generator."""
        versions = torch.randint(len(self.versions), clips.shape, generator=generator, device=clips.device)
        features = self.versions[versions, clips].float().transpose(0, 1).contiguous()
        if self.mask is not None:
            features = self.mask(features, generator)
        taught = None if self.taught is None else self.taught[versions, clips]
        return Batch(features, self.labels[clips], taught=taught)


def training_clips(config: Config, features: FeatureSet, teachers: Sequence[Teacher] = ()) -> VersionedClips:
    """The training clips that a configuration asks for, with the scores that teachers give them unmasked: the log of
    their mean posteriors.

    Versions and scores that are not there yet are made and kept. A teacher of features that are pooled otherwise hears
    the same changes. ValueError where clips cannot be changed as asked: levels are not spliced, the bands of
    samples not moved.
    """
    augmentation = config.augmentation
    changed = augmentation.changes_audio or augmentation.aug_splice > 0
    make, seed = _maker(config, features, changed)
    kept = ArrayCache(config.folder("feat") / config.feature_name / "versions",
                 {"features": features.source, "seed": seed, **_changes(config)})  # fmt: skip

    def taught_by(teacher: Teacher, number: int, version: NDArray[np.floating]) -> NDArray[np.float32]:
        same = teacher.pipeline.to_dict() == features.pipeline.to_dict()
        return teacher.of_clips(version if same else make(teacher.pipeline, number))

    versions, taught = [], []
    count = range(augmentation.aug_versions if changed else 1)
    for number in tqdm(count, desc="augmented clips", unit="version", leave=False, disable=None):
        version = kept(f"{number}", partial(make, features.pipeline, number)) if changed else features.normalised
        versions.append(torch.from_numpy(version))
        scores = [
            kept(f"{number}-taught", partial(taught_by, teacher, number, version), teacher=teacher.name)
            for teacher in teachers
        ]
        if scores:
            taught.append(mean_posteriors(scores))
    labels = np.concatenate([features.labels, np.full(augmentation.aug_splice, UNKNOWN)])
    scores_of_all = torch.stack(taught) if taught else None
    mask = mask_for(augmentation, features.pipeline)
    return VersionedClips(torch.stack(versions), torch.from_numpy(labels), mask, scores_of_all)


Make = Callable[[FeaturePipeline, int], NDArray[np.float16]]
"""Normalised features (N, T, I), by a pipeline, of all clips as they sound in version K."""


def _maker(config: Config, features: FeatureSet, changes: bool) -> tuple[Make, int]:
    """What makes versions, and the seed of their choices."""
    augmentation, description = config.augmentation, read_description(config)
    seed, workers = config.training.seed, config.run.workers
    if takes_levels(config, description):
        if augmentation.aug_splice:
            raise ValueError(
                "--aug_splice joins samples: leave it out with --zero_padding centre and with features made elsewhere"
            )
        levels, noise = (load_levels(config, description, group) for group in ("train", "noise"))
        seed = description.settings["seed"]

        def change(pipeline: FeaturePipeline, number: int) -> NDArray[np.float16]:
            return half(LevelAugmenter(augmentation, pipeline, noise, seed).features(levels, number, workers))

        return change, seed
    if not changes:
        return lambda _, number: half(features.normalised), seed
    if augmentation.aug_warp:
        raise ValueError("--aug_warp moves bands: it needs --zero_padding centre, or features made elsewhere (--from)")
    audio = load_audio(config, description, "train")
    noises = load_noise(description)

    def make(pipeline: FeaturePipeline, number: int) -> NDArray[np.float16]:
        augmenter = Augmenter(augmentation, pipeline, noises, seed)
        spliced = splice(audio, features.labels, augmentation.aug_splice, np.random.default_rng([seed, number]))
        made = [augmenter.features(clips, number, workers) for clips in (audio, spliced) if len(clips)]
        return half(np.concatenate(made))

    return make, seed


def _changes(config: Config) -> dict[str, float]:
    """The augmentation options on which stored versions depend: all but the masks and how many versions there are."""
    options = dataclasses.asdict(config.augmentation)
    return {name: value for name, value in options.items() if not name.endswith("_mask") and name != "aug_versions"}
