"""Made-up recordings for training: features of scenes of words, sentences and noises, with a target for every frame.

    feat/DATASET/NAME/versions/DIGEST-K.safetensors

As with clips (`deltarnn.kws.features.versions`), several versions are made once and kept; an epoch takes one of them.
"""

import dataclasses
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from deltarnn.kws.config.resolve import Config, digest
from deltarnn.kws.data.audio import read_audio
from deltarnn.kws.data.compose import Spoken
from deltarnn.kws.data.prepare import load_noise, read_description
from deltarnn.kws.data.reading import make_readings
from deltarnn.kws.data.scenes import Material, SceneMaker, SceneOptions
from deltarnn.kws.features.augment import Augmenter, Masking
from deltarnn.kws.features.pipeline import FeaturePipeline, Features
from deltarnn.kws.features.store import FeatureSet, load_audio
from deltarnn.kws.files import replacing

IGNORED = -1
"""Target of frames at which nothing is asked of the network."""

BEFORE, AFTER = 0.1, 0.25
"""Seconds before a keyword's end from which it is the target, and after a word's end until which it is."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """A training step's features (T, B, I) and targets: classes (B,) of clips, or (T, B) of frames; `goes_on`: it
    continues the step before."""

    features: Tensor
    targets: Tensor
    goes_on: bool = False


class Sequences:
    """Versions of B recordings, side by side: features (T, B, I) and targets (T, B) each.

    chunk: frames of a training step. gain: ± what is added to all features of a recording, drawn anew for every epoch: a
    level in the units of normalised log features. mask: SpecAugment of features (B, T, I), in place; or None.
    """

    def __init__(
        self, versions: list[tuple[Tensor, Tensor]], chunk: int, gain: float = 0.0, mask: Masking | None = None
    ) -> None:
        self.versions, self.chunk, self.gain, self.mask = versions, chunk, gain, mask

    @property
    def steps(self) -> int:
        """Training steps of an epoch."""
        return (len(self.versions[0][1]) - self.chunk) // self.chunk

    def batches(self, generator: torch.Generator) -> Iterator[Batch]:
        """One version's recordings from somewhere near their beginning to their end."""
        features, targets = self.versions[int(torch.randint(len(self.versions), (), generator=generator))]
        first = int(torch.randint(self.chunk, (), generator=generator))
        gain = self.gain * (2 * torch.rand(features.shape[1], 1, generator=generator) - 1)
        for step in range(self.steps):
            part = slice(first + step * self.chunk, first + (step + 1) * self.chunk)
            chunk = features[part].float() + gain
            if self.mask is not None:
                seed = int(torch.randint(2**62, (), generator=generator))
                self.mask(chunk.numpy().transpose(1, 0, 2), np.random.default_rng(seed))
            yield Batch(chunk, targets[part].long(), goes_on=step > 0)


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


def training_sequences(config: Config, features: FeatureSet) -> Sequences:
    """The recordings that a configuration asks for; versions that are not there yet are made and kept."""
    augmentation, stream = config.augmentation, config.stream
    pipeline, rows = features.pipeline, config.training.batch_size
    frames = round(60 * stream.stream_minutes / pipeline.config.frame_stride / rows)
    if frames < 2 * stream.stream_chunk:
        raise ValueError(
            f"--stream_minutes {stream.stream_minutes:g}: gives {rows} recordings of {frames} frames, --batch_size of "
            f"them; each needs at least two --stream_chunk of {stream.stream_chunk}"
        )
    job = _Job(config, features.labels, pipeline, rows, frames)
    settings = {"features": features.source, "seed": config.training.seed, "frames": [rows, frames], **_changes(config)}
    folder = config.folder("feat") / config.feature_name / "versions"
    paths = [folder / f"{digest(settings)}-{number}.safetensors" for number in range(augmentation.aug_versions)]
    missing = [(number, path) for number, path in enumerate(paths) if _stored(path) is None]
    if missing:
        _readings(config)  # before the workers need them
        with ProcessPoolExecutor(min(config.run.workers, len(missing))) as pool:
            bar = tqdm(pool.map(job.write, *zip(*missing, strict=True)), desc="recordings", total=len(missing))
            list(bar)
    stored = [_stored(path) for path in paths]
    masks = augmentation.aug_time_mask > 0 or augmentation.aug_freq_mask > 0
    mask = Augmenter(augmentation, pipeline, load_noise(read_description(config)), 0).mask if masks else None
    return Sequences([pair for pair in stored if pair is not None], stream.stream_chunk, 0.0, mask)
