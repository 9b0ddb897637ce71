"""The feature store, and the cache of audio it is made from.

    feat/DATASET/NAME/{train,validation,test}.safetensors      features of one group, with labels and file names
    data/DATASET/audio/{group}.npy                             its clips, int16 (N, samples per second), memory-mapped

Each file records what it was made from; `feature(config)` makes only those that are missing or out of date.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from tqdm import tqdm

from deltarnn.files import replacing, write_text
from deltarnn.kws.config.options_data import FeatureConfig
from deltarnn.kws.config.resolve import Config, digest
from deltarnn.kws.data.audio import Audio, fit, read_audio
from deltarnn.kws.data.corpus import GROUPS
from deltarnn.kws.data.prepare import Description, read_description
from deltarnn.kws.features.pipeline import FeaturePipeline, Features

_CHUNK = 256
"""Clips that one worker takes at a time."""


@dataclass(frozen=True)
class FeatureSet:
    """Features of one group of clips.

    features: (N, T, F) float32, before normalisation. lengths: (N,) int64, frames that count of each clip.
    labels: (N,) int64. paths: (N,) file names. class_names: by label. pipeline: what made the features, and normalises
    them. source: a digest of the audio and labels.
    """

    features: Features
    lengths: NDArray[np.int64]
    labels: NDArray[np.int64]
    paths: list[str]
    class_names: list[str]
    pipeline: FeaturePipeline
    source: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def normalised(self) -> Features:
        """The network's input (N, T, F) float32."""
        return self.pipeline.normalise(self.features)


def feature(config: Config) -> Path:
    """Make the features of all groups; the folder feat/DATASET/NAME that holds them."""
    description = read_description(config)
    folder = config.folder("feat") / config.feature_name
    pipeline = None
    for group in GROUPS:
        source = _source(description, group, config.features)
        path = folder / f"{group}.safetensors"
        made = _peek(path)
        if made and made["source"] == source:
            pipeline = FeaturePipeline.from_dict(made["features"])
            print(f"{path} is up to date: {len(made['paths'])} clips")
            continue
        clips = load_audio(config, description, group)
        rows = description.group(group)
        labels = np.array([row.label for row in rows], dtype=np.int64)
        if pipeline is None:  # the training set comes first: its statistics belong to the pipeline
            pipeline = _fitted(FeaturePipeline(config.features), clips, labels, config.run.workers)
            features = _compute(pipeline, clips, config.run.workers, "features of train")
            mean, std = float(features.mean(dtype=np.float64)), float(features.std(dtype=np.float64))
            pipeline = pipeline.with_statistics(mean=mean, std=std or 1.0)
        else:
            features = _compute(pipeline, clips, config.run.workers, f"features of {group}")
        lengths = np.full(len(rows), features.shape[1], dtype=np.int64)
        paths = [row.path for row in rows]
        made_set = FeatureSet(features, lengths, labels, paths, description.class_names, pipeline, source)
        save_features(path, made_set)
        print(f"wrote {path}: {features.shape[0]} clips x {features.shape[1]} frames x {features.shape[2]} features")
    return folder


def feature_paths(config: Config) -> dict[str, Path]:
    """The feature file of each group. ValueError says how to make them where they are missing or out of date."""
    description = read_description(config)
    folder = config.folder("feat") / config.feature_name
    for group in GROUPS:
        made = _peek(folder / f"{group}.safetensors")
        if made is None or made["source"] != _source(description, group, config.features):
            state = "missing" if made is None else "older than the data description"
            raise ValueError(
                f"{folder / f'{group}.safetensors'} is {state}: type python main.py --dataset {config.data.dataset} "
                f"--step feature --cfg_feat {config.features.cfg_feat}"
            )
    return {group: folder / f"{group}.safetensors" for group in GROUPS}


def save_features(path: Path, features: FeatureSet) -> None:
    """Write a feature file (safetensors, JSON metadata), atomically."""
    header = {
        "source": features.source,
        "class_names": features.class_names,
        "features": features.pipeline.to_dict(),
        "paths": features.paths,
    }
    tensors: dict[str, NDArray[Any]] = {
        "features": features.features,
        "lengths": features.lengths,
        "labels": features.labels,
    }
    with replacing(path) as part:
        save_file(tensors, part, metadata={"deltarnn.features": json.dumps(header)})


def load_features(path: str | Path) -> FeatureSet:
    """Read a feature file. ValueError where it is none."""
    header = _peek(Path(path))
    if header is None:
        raise ValueError(f"{path}: no feature file; make it with --step feature")
    with safe_open(path, framework="numpy") as file:
        features, lengths, labels = (file.get_tensor(name) for name in ("features", "lengths", "labels"))
    pipeline = FeaturePipeline.from_dict(header["features"])
    return FeatureSet(features, lengths, labels, header["paths"], header["class_names"], pipeline, header["source"])


def load_audio(config: Config, description: Description, group: str) -> Audio:
    """The clips of a group (N, samples per second) int16, memory-mapped; read from their files when first asked for."""
    rows = description.group(group)
    rate, padding = config.features.sample_rate, config.features.zero_padding
    path = config.folder("data") / "audio" / f"{group}-{padding}-{rate}.npy"
    source = digest({"description": description.digest, "rate": rate, "padding": padding, "group": group})
    note = path.with_suffix(".source")
    if not (path.is_file() and note.is_file() and note.read_text() == source):
        with replacing(path) as part:
            clips = np.lib.format.open_memmap(part, "w+", np.int16, (len(rows), rate))

            def read_into(index: int) -> None:
                clips[index] = fit(read_audio(rows[index].path, rate), rate, padding)

            with ThreadPoolExecutor(config.run.workers) as pool:
                jobs = pool.map(read_into, range(len(rows)), chunksize=_CHUNK)
                for _ in tqdm(jobs, total=len(rows), desc=f"reading {group}", unit="clip"):
                    pass
            clips.flush()
        write_text(note, source)
    loaded: Audio = np.load(path, mmap_mode="r")
    return loaded


def _compute(pipeline: FeaturePipeline, clips: Audio, workers: int, what: str) -> Features:
    """Features (N, T, F) of clips (N, samples), a chunk per thread at a time."""
    features = np.empty((len(clips), pipeline.num_frames(clips.shape[1]), pipeline.num_features), np.float32)

    def compute(start: int) -> int:
        chunk = slice(start, min(start + _CHUNK, len(clips)))
        features[chunk] = pipeline(clips[chunk])
        return chunk.stop - chunk.start

    with ThreadPoolExecutor(workers) as pool, tqdm(total=len(clips), desc=what, unit="clip") as bar:
        for count in pool.map(compute, range(0, len(clips), _CHUNK)):
            bar.update(count)
    return features


def _fitted(pipeline: FeaturePipeline, clips: Audio, labels: NDArray[np.int64], workers: int) -> FeaturePipeline:
    """The pipeline with what its front end must know of the training set: microphone's range, features' maximum."""
    if pipeline.config.feat_type == "iir" and pipeline.config.sim_mic:
        count, total, squares = 0, 0.0, 0.0
        for start in range(0, len(clips), _CHUNK):
            spoken = clips[start : start + _CHUNK][labels[start : start + _CHUNK] != 0].astype(np.float64)
            count, total, squares = count + spoken.size, total + spoken.sum(), squares + float((spoken**2).sum())
        mean = total / count
        pipeline = pipeline.with_statistics(
            mic_mean=mean, mic_full_scale=5.0 * float(np.sqrt(squares / count - mean**2))
        )
    if pipeline.config.qf:
        starts = range(0, len(clips), _CHUNK)
        with ThreadPoolExecutor(workers) as pool:
            largest = max(pool.map(lambda start: float(pipeline.raw(clips[start : start + _CHUNK]).max()), starts))
        pipeline = pipeline.with_statistics(max=largest)
    return pipeline


def _source(description: Description, group: str, config: FeatureConfig) -> str:
    """Stands for everything that features depend on: the clips (training's too, for the statistics) and the options."""
    options = {name: value for name, value in asdict(config).items() if name != "cfg_feat"}
    return digest({"description": description.digest, "group": group, "options": options})


def _peek(path: Path) -> dict[str, Any] | None:
    """The metadata of a feature file, or None where there is no such file."""
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads(file.metadata()["deltarnn.features"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
    return header if isinstance(header, dict) else None
