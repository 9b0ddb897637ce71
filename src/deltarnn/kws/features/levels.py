"""Levels: what a log-mel front end gives before bands and frames are pooled, kept as what features are made of.

    data/DATASET/description.csv                                  a path without a file names an array
    data/DATASET/levels/{train,validation,test,noise}.npy         (clips, frames, bands), in the order of the rows
    data/DATASET/levels/DIGEST-{train,validation,test,noise}.npy  the same of a data set of recordings

`deltarnn feature --from FOLDER` takes in levels that were made elsewhere as a data set. Those of recordings serve where
`--zero_padding centre` asks for them.
"""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from deltarnn.files import read_json, replacing, sha256_of, write_json
from deltarnn.kws.config.options_data import FeatureConfig
from deltarnn.kws.config.resolve import Config, digest
from deltarnn.kws.data.arrays import Levels
from deltarnn.kws.data.audio import read_audio
from deltarnn.kws.data.description import Description
from deltarnn.kws.data.prepare import load_noise
from deltarnn.kws.features.pipeline import FeaturePipeline

FRONT_END = (
    *("feat_type", "n_filt", "freq_low", "freq_high", "frame_size", "frame_stride", "nfft", "sample_rate", "log_feat"),
    *("log_offset", "log_factor", "log_bias", "log_low", "log_high"),
)
"""Options that decide what levels are; the others act on them later."""


def load_levels(config: Config, description: Description, group: str) -> Levels:
    """Levels (N, T, F), memory-mapped, of the rows of a group; of training's noises, in no order, for "noise".

    Those of recordings are computed when first asked for. ValueError where a data set has others than the features to
    be made start from, or its file is not as it was written.
    """
    if not description.of_levels:
        return _levels_of_recordings(config, description, group)
    made, asked = description.settings["front_end"], front_end_of(config.features)
    for name, value in made.items():
        if asked[name] != value:
            raise ValueError(
                f"--{name} {asked[name]}: the features of {config.data.dataset} were made with {value}; give --{name} "
                f"{value}, or a --cfg_feat that does"
            )
    path = config.folder("data") / "levels" / f"{group}.npy"
    if not is_whole(path, description):
        raise ValueError(
            f"{path} is {'damaged' if path.is_file() else 'missing'}: type "
            f"{config.command('feature', from_folder=description.settings['from'])}"
        )
    levels: Levels = np.load(path, mmap_mode="r")
    return levels


def is_whole(path: Path, description: Description) -> bool:
    """Whether a file of levels that were made elsewhere is as it was written."""
    return path.is_file() and sha256_of(path) == description.settings["levels"][path.stem]


def takes_levels(config: Config, description: Description) -> bool:
    """Whether features are made of levels, and not of audio."""
    return description.of_levels or config.features.zero_padding == "centre"


def front_end_of(features: FeatureConfig) -> dict[str, Any]:
    """The options that decide what levels are."""
    return {name: getattr(features, name) for name in FRONT_END}


def unpooled(features: FeatureConfig) -> FeaturePipeline:
    """What makes levels."""
    return FeaturePipeline(dataclasses.replace(features, pool_bands=1, pool_frames=1, qf=False, logf="none"))


def _levels_of_recordings(config: Config, description: Description, group: str) -> Levels:
    """Levels of the recordings of a group, or of the training share of the noises, second by second."""
    front_end, rate = front_end_of(config.features), config.features.sample_rate
    source = digest({"description": description.digest, "front_end": front_end, "group": group})
    path = config.folder("data") / "levels" / f"{digest(front_end)}-{group}.npy"
    note = path.with_suffix(".source")
    if not (path.is_file() and read_json(note) == {"source": source, "sha256": sha256_of(path)}):
        note.unlink(missing_ok=True)
        pipeline, samples = unpooled(config.features), round(rate * description.clip_seconds)
        if group == "noise":
            noise = load_noise(description)
            levels = pipeline(noise[: len(noise) // samples * samples].reshape(-1, samples))
        else:
            clips = [row.path for row in description.group(group)]
            levels = np.stack(of_files(pipeline, clips, samples, config.run.workers, f"levels of {group}"))
        save_levels(path, levels)
        write_json(note, {"source": source, "sha256": sha256_of(path)})
    loaded: Levels = np.load(path, mmap_mode="r")
    return loaded


def of_files(pipeline: FeaturePipeline, paths: list[str], samples: int, workers: int, what: str) -> list[Levels]:
    """Levels of recordings, each brought to a number of samples."""

    def compute(path: str) -> Levels:
        return pipeline.of_clip(read_audio(path, pipeline.config.sample_rate), samples)

    with ThreadPoolExecutor(workers) as pool:
        jobs = pool.map(compute, paths)
        return list(tqdm(jobs, total=len(paths), desc=what, unit="clip", disable=None))


def save_levels(path: Path, levels: Levels) -> None:
    """Write levels, atomically."""
    with replacing(path, levels.nbytes) as part, part.open("wb") as file:
        np.save(file, levels)
