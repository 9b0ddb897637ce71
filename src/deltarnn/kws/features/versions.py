"""Clips for training: versions of every clip, with its audio changed at random, among which each batch draws.

    feat/DATASET/NAME/versions/DIGEST-K.safetensors

A version is made once and kept: runs with the same features, augmentation and seed share it.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from deltarnn.kws.config.resolve import Config, digest
from deltarnn.kws.data.description import read_description
from deltarnn.kws.data.prepare import load_noise
from deltarnn.kws.data.splice import splice
from deltarnn.kws.features.augment import Augmenter
from deltarnn.kws.features.pipeline import Features
from deltarnn.kws.features.store import FeatureSet, load_audio
from deltarnn.stored import DamagedFileError, load_stored, save_stored

UNKNOWN = 1
"""The class of words that are no keywords."""

_KEY = "deltarnn.version"

Masking = Callable[[Features, np.random.Generator], Features]


@dataclass(frozen=True)
class Batch:
    """A training step's features (T, B, I) and targets: classes (B,) of clips, or (T, B) of frames. goes_on: its
    sequences continue those of the step before."""

    features: Tensor
    targets: Tensor
    goes_on: bool = False


class VersionedClips:
    """Labelled clips of which several versions exist; every clip of every batch takes one of them at random.

    versions: normalised features (V, T, N, I). labels: classes (N,). mask: SpecAugment of features (B, T, I), in place,
    drawn anew for every batch; or None.
    """

    def __init__(self, versions: Tensor, labels: Tensor, mask: Masking | None = None) -> None:
        self.versions, self.labels, self.mask = versions, labels, mask

    def steps(self, batch_size: int, processes: int = 1) -> int:
        """Training steps of an epoch, with `batch_size` clips each over all processes."""
        return math.ceil(self._usable(processes) / batch_size)

    def batches(
        self, batch_size: int, order: torch.Generator, changes: torch.Generator, rank: int = 0, processes: int = 1
    ) -> Iterator[Batch]:
        """All clips once, in an order from one generator and changed by another: the share of process `rank`."""
        shuffled = torch.randperm(len(self.labels), generator=order)[: self._usable(processes)]
        for start in range(0, len(shuffled), batch_size):
            clips = shuffled[start : start + batch_size][rank::processes]
            yield Batch(self.batch(clips, changes), self.labels[clips])

    def _usable(self, processes: int) -> int:
        """Clips of an epoch: as many as divide evenly among the processes."""
        return len(self.labels) - len(self.labels) % processes

    def batch(self, clips: Tensor, generator: torch.Generator) -> Tensor:
        """Normalised features (T, B, I) of clips (B,), given by their numbers."""
        versions = torch.randint(len(self.versions), clips.shape, generator=generator)
        frames = torch.arange(self.versions.shape[1])[:, None]
        features = self.versions[versions, frames, clips]
        if self.mask is not None:
            seed = int(torch.randint(2**62, (), generator=generator))
            self.mask(features.numpy().transpose(1, 0, 2), np.random.default_rng(seed))
        return features


def training_clips(config: Config, features: FeatureSet) -> VersionedClips:
    """The training clips that a configuration asks for; versions that are not there yet are made and kept."""
    augmentation, seed = config.augmentation, config.training.seed
    masks = augmentation.aug_time_mask > 0 or augmentation.aug_freq_mask > 0
    masks_alone = dataclasses.replace(augmentation, aug_noise=0.0)
    mask = Augmenter(masks_alone, features.pipeline, np.zeros(0, np.int16), seed).mask if masks else None
    if not (augmentation.changes_audio or augmentation.aug_splice):
        return VersionedClips(time_major(features.normalised)[None], torch.from_numpy(features.labels), mask)
    description = read_description(config)
    audio = load_audio(config, description, "train")
    audio_alone = dataclasses.replace(augmentation, aug_time_mask=0, aug_freq_mask=0)
    augmenter = Augmenter(audio_alone, features.pipeline, load_noise(description), seed)
    folder = config.folder("feat") / config.feature_name / "versions"
    settings = {"features": features.source, "seed": seed, **_audio_changes(config)}
    versions = []
    for number in tqdm(
        range(augmentation.aug_versions), desc="augmented clips", unit="version", leave=False, disable=None
    ):
        path = folder / f"{digest(settings)}-{number}.safetensors"
        version = _stored(path)
        if version is None:
            rng = np.random.default_rng([seed, number])
            spliced = splice(audio, features.labels, augmentation.aug_splice, rng)
            made = [augmenter.features(clips, number, config.run.workers) for clips in (audio, spliced) if len(clips)]
            version = np.concatenate(made).astype(np.float16)
            save_stored(path, _KEY, {"features": version}, settings)
        versions.append(time_major(version.astype(np.float32)))
    labels = np.concatenate([features.labels, np.full(augmentation.aug_splice, UNKNOWN)])
    return VersionedClips(torch.stack(versions), torch.from_numpy(labels), mask)


def time_major(features: Features) -> Tensor:
    """(N, T, I) as a contiguous tensor (T, N, I)."""
    return torch.from_numpy(np.ascontiguousarray(features.transpose(1, 0, 2)))


def _audio_changes(config: Config) -> dict[str, float]:
    """The augmentation options on which stored versions depend: all but the masks and how many versions there are."""
    options = dataclasses.asdict(config.augmentation)
    return {name: value for name, value in options.items() if not name.endswith("_mask") and name != "aug_versions"}


def _stored(path: Path) -> NDArray[np.float16] | None:
    """The features of a stored version, or None where it is missing or damaged."""
    try:
        features: NDArray[np.float16] = load_stored(path, _KEY)[0]["features"]
    except (FileNotFoundError, DamagedFileError, KeyError):
        return None
    return features
