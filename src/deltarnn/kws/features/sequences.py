"""Made-up recordings for training: features of scenes of words, sentences and noises, with a target for every frame.

    feat/DATASET/NAME/versions/DIGEST-K.safetensors          version K: features and targets
    feat/DATASET/NAME/versions/DIGEST-K-taught.safetensors   and a teacher's scores of it

As with clips (`deltarnn.kws.features.versions`), several versions are made once and kept; an epoch takes one of them.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from deltarnn.kws.config.resolve import Config
from deltarnn.kws.data.audio import read_audio
from deltarnn.kws.data.compose import Spoken
from deltarnn.kws.data.description import read_description
from deltarnn.kws.data.prepare import load_noise
from deltarnn.kws.data.reading import make_readings
from deltarnn.kws.data.scenes import Material, SceneMaker, SceneOptions
from deltarnn.kws.features.array_cache import ArrayCache, half
from deltarnn.kws.features.masking import Mask, mask_for
from deltarnn.kws.features.pipeline import FeaturePipeline
from deltarnn.kws.features.store import FeatureSet, load_audio
from deltarnn.kws.features.teacher import Teacher, mean_posteriors
from deltarnn.kws.features.versions import Batch
from deltarnn.kws.network.losses import IGNORED
from deltarnn.kws.workers import processes

BEFORE, AFTER = 0.1, 0.25
"""Seconds before a keyword's end from which it is the target, and after a word's end until which it is."""


class Version(NamedTuple):
    """B recordings, side by side: features (T, B, I), targets (T, B), and a teacher's scores (T, B, C) of them, or
    None."""

    features: Tensor
    targets: Tensor
    taught: Tensor | None = None

    def to(self, device: torch.device) -> "Version":
        """The same on a device."""
        taught = None if self.taught is None else self.taught.to(device)
        return Version(self.features.to(device), self.targets.to(device), taught)

    def part(self, frames: slice, rows: slice) -> "Version":
        """Those frames of those recordings, in the types that training takes."""
        taught = None if self.taught is None else self.taught[frames, rows].float()
        return Version(self.features[frames, rows].float(), self.targets[frames, rows].long(), taught)


class Sequences:
    """Versions of the recordings, of which an epoch takes one.

    chunk: frames of a training step. mask: SpecAugment of a chunk; or None. All on one device, as the batches are.
    """

    def __init__(self, versions: list[Version], chunk: int, mask: Mask | None = None) -> None:
        self.versions, self.chunk, self.mask = versions, chunk, mask

    def to(self, device: torch.device) -> "Sequences":
        """The same on a device."""
        return Sequences([version.to(device) for version in self.versions], self.chunk, self.mask)

    @property
    def labels(self) -> Tensor:
        """Targets of all frames that have one."""
        flat = torch.cat([version.targets.flatten() for version in self.versions]).long()
        return flat[flat != IGNORED]

    def steps(self, batch_size: int, processes: int = 1) -> int:
        """Training steps of an epoch."""
        return len(self.versions[0].targets) // self.chunk - 1

    def batches(
        self, batch_size: int, order: torch.Generator, changes: torch.Generator, rank: int = 0, processes: int = 1
    ) -> Iterator[Batch]:
        """One version's recordings, those of process `rank`, from somewhere near their beginning to their end."""
        version = self.versions[int(torch.randint(len(self.versions), (), generator=order))]
        first = int(torch.randint(self.chunk, (), generator=order))
        for step in range(self.steps(batch_size)):
            frames = slice(first + step * self.chunk, first + (step + 1) * self.chunk)
            features, targets, taught = version.part(frames, slice(rank, None, processes))
            if self.mask is not None:
                features = self.mask(features, changes)
            yield Batch(features, targets, goes_on=step > 0, taught=taught)


def frame_targets(words: list[Spoken], frames: int, hop: int, length: int, sample_rate: int) -> NDArray[np.int8]:
    """Targets (frames,): silence, but each keyword from BEFORE its end until AFTER it, and other words from 0.1 s after
    their beginning until AFTER their end. IGNORED from a word's beginning until its own frames begin.

    hop, length: of frames, in samples. Frame t is there once sample t·hop + length is.
    """
    targets = np.zeros(frames, np.int8)
    ends = np.arange(frames) * hop + length
    before, after = round(BEFORE * sample_rate), round(AFTER * sample_rate)
    for word in words:
        lead = max(word.start, word.end - before) if word.label > 1 else word.start + before
        first, begin, last = np.searchsorted(ends, [word.start, lead, word.end + after])
        undecided = targets[first:begin]
        undecided[undecided == 0] = IGNORED
        targets[begin:last] = word.label
    return targets


def training_sequences(config: Config, features: FeatureSet, teachers: Sequence[Teacher] = ()) -> Sequences:
    """The recordings that a configuration asks for, with the scores that teachers give them unmasked: the log of their
    mean posteriors. Versions and scores that are not there yet are made and kept."""
    augmentation, stream = config.augmentation, config.stream
    pipeline, rows = features.pipeline, config.training.batch_size
    frames = round(60 * stream.stream_minutes / pipeline.config.frame_seconds / rows)
    if frames < 2 * stream.stream_chunk:
        raise ValueError(
            f"--stream_minutes {stream.stream_minutes:g}: gives {rows} recordings of {frames} frames, --batch_size of "
            f"them; each needs at least two --stream_chunk of {stream.stream_chunk}"
        )
    seed = read_description(config).settings["seed"]  # the data's: runs of several seeds share them
    settings = {"features": features.source, "seed": seed, "frames": [rows, frames], **_changes(config)}
    kept = ArrayCache(config.folder("feat") / config.feature_name / "versions", settings)
    job = _Job(config, features.labels, pipeline.to_dict(), rows, frames, kept)
    numbers = range(augmentation.aug_versions)
    missing = [number for number in numbers if kept.read(f"{number}") is None]
    if missing:
        _readings(config)  # before the workers need them
        with processes(min(config.run.workers, len(missing))) as pool:
            list(tqdm(pool.map(job.write, missing), desc="recordings", total=len(missing), disable=None))
    stored = [_version(kept, number) for number in numbers]
    listening = tqdm(stored, desc="taught", unit="version", leave=False, disable=None if teachers else True)
    for number, version in enumerate(listening):
        scores = [
            kept(f"{number}-taught", partial(teacher.of_frames, version.features), teacher=teacher.name)
            for teacher in teachers
        ]
        if scores:
            stored[number] = version._replace(taught=mean_posteriors(scores).half())
    return Sequences(stored, stream.stream_chunk, mask_for(augmentation, pipeline))


@dataclasses.dataclass(frozen=True)
class _Job:
    """What a worker needs to make a version."""

    config: Config
    labels: NDArray[np.int64]
    pipeline: dict[str, Any]
    rows: int
    frames: int
    kept: ArrayCache

    def write(self, number: int) -> None:
        """Make version `number` and keep it."""
        config, pipeline = self.config, FeaturePipeline.from_dict(self.pipeline)
        description, rate = read_description(config), pipeline.config.sample_rate
        readings = [read_audio(reading, rate) for reading in _readings(config)]
        audio = load_audio(config, description, "train")
        material = Material(audio, self.labels, load_noise(description), readings)
        hop, length = pipeline.framing.hop, pipeline.framing.length
        features = np.empty((self.frames, self.rows, pipeline.num_features), np.float16)
        targets = np.empty((self.frames, self.rows), np.int8)
        for row in range(self.rows):
            rng = np.random.default_rng([description.settings["seed"], number, row])
            maker = SceneMaker(material, SceneOptions.of(config.augmentation, rate), rng)
            recording, words = maker.recording((self.frames - 1) * hop + length + 1)
            features[:, row] = half(pipeline.normalise(pipeline(recording[None]))[0, : self.frames])
            targets[:, row] = frame_targets(words, self.frames, hop, length, rate)
        self.kept.write(f"{number}", {"features": features, "targets": targets})


def _readings(config: Config) -> list[Path]:
    """Recordings of sentences for training, made where they are missing."""
    folder, seed = config.folder("data") / "readings", read_description(config).settings["seed"]
    return make_readings(folder, "train", config.data.keywords, config.stream.stream_readings, seed, config.run.workers)


def _changes(config: Config) -> dict[str, float]:
    """The options on which stored versions depend beside their size."""
    options = dataclasses.asdict(config.augmentation) | {"readings": config.stream.stream_readings}
    return {name: value for name, value in options.items() if not name.endswith("_mask") and name != "aug_versions"}


def _version(kept: ArrayCache, number: int) -> Version:
    """A version that is there."""
    found = kept.read(f"{number}")
    assert found is not None
    return Version(torch.from_numpy(found["features"]), torch.from_numpy(found["targets"]))
