"""The feature store, and the cache of audio it is made from.

    feat/DATASET/NAME/{train,validation,test}.safetensors      features of one group, with labels and file names
    data/DATASET/audio/{group}.npy                             its clips, int16 (N, samples per second), memory-mapped

Each file records what it was made from; `feature(config)` makes only those that are missing or out of date.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from deltarnn.files import check_file, read_json, replacing, reserve, sha256_of, write_json
from deltarnn.kws.config.options_data import FeatureConfig
from deltarnn.kws.config.resolve import Config, digest
from deltarnn.kws.data.audio import Audio, fit, read_audio
from deltarnn.kws.data.corpus import GROUPS
from deltarnn.kws.data.description import Description, read_description
from deltarnn.kws.features.intake import import_levels
from deltarnn.kws.features.levels import load_levels, takes_levels
from deltarnn.kws.features.pipeline import FeaturePipeline, Features
from deltarnn.kws.paths import portable, work_folder
from deltarnn.stored import Arrays, DamagedFileError, load_stored, peek_stored, save_stored

_KEY = "deltarnn.features"
_UNSIGNED = ("source", "class_names", "features", "paths")
"""Fields of files of version 0.1.0, which had no checksum."""

_CHUNK = 256
"""Clips that one worker takes at a time."""


@dataclass(frozen=True)
class FeatureSet:
    """Features of one group of clips.

    features: (N, T, F) float32, before normalisation. lengths: (N,) int64, frames that count of each clip.
    labels: (N,) int64. paths: (N,) file names. class_names: by label. pipeline: what made the features, and normalises
    them. source: a digest of the audio and labels. clip_seconds: length of the clips.
    """

    features: Features
    lengths: NDArray[np.int64]
    labels: NDArray[np.int64]
    paths: list[str]
    class_names: list[str]
    pipeline: FeaturePipeline
    source: str = ""
    clip_seconds: float = 1.0

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def normalised(self) -> Features:
        """The network's input (N, T, F) float32."""
        return self.pipeline.normalise(self.features)


def feature(config: Config) -> Path:
    """Make the features of all groups; the folder feat/DATASET/NAME that holds them."""
    description = import_levels(config) if config.data.from_folder else read_description(config)
    folder = config.folder("feat") / config.feature_name
    pipeline = None
    for group in GROUPS:
        source = _source(description, group, config.features)
        path = folder / f"{group}.safetensors"
        made = _made(path, source)
        if made is not None:
            pipeline = made.pipeline
            print(f"{path} is up to date: {len(made)} clips")
            continue
        check_file(path)
        clips = load_clips(config, description, group)
        rows = description.group(group)
        labels = np.array([row.label for row in rows], dtype=np.int64)
        if pipeline is None:  # the training set comes first: its statistics belong to the pipeline
            pipeline = _fitted(FeaturePipeline(config.features), clips, labels, config.run.workers)
            features = _compute(pipeline, clips, config.run.workers, "features of train")
            mean, std = float(features.mean(dtype=np.float64)), float(features.std(dtype=np.float64))
            pipeline = pipeline.with_statistics(mean=mean, std=std or 1.0)
        else:
            features = _compute(pipeline, clips, config.run.workers, f"features of {group}")
        if not np.isfinite(features).all():
            first = int(np.flatnonzero(~np.isfinite(features).all(axis=(1, 2)))[0])
            raise ValueError(
                f"{rows[first].path}: its features are no finite numbers: check the options of the front end"
            )
        lengths = np.full(len(rows), features.shape[1], dtype=np.int64)
        paths, names = [row.path for row in rows], description.class_names
        made = FeatureSet(features, lengths, labels, paths, names, pipeline, source, description.clip_seconds)
        save_features(path, made)
        print(f"wrote {path}: {features.shape[0]} clips x {features.shape[1]} frames x {features.shape[2]} features")
    return folder


def feature_paths(config: Config) -> dict[str, Path]:
    """The feature file of each group. ValueError says how to make them where they are missing or out of date."""
    description = read_description(config)
    folder = config.folder("feat") / config.feature_name
    for group in GROUPS:
        path = folder / f"{group}.safetensors"
        made = peek_stored(path, _KEY)
        if made is None or made.get("source") != _source(description, group, config.features):
            state = "damaged" if path.exists() else "missing"
            raise ValueError(
                f"{path} is {state if made is None else 'older than the data description'}: "
                f"type {config.command('feature')}"
            )
    return {group: folder / f"{group}.safetensors" for group in GROUPS}


def save_features(path: Path, features: FeatureSet) -> None:
    """Write a feature file (safetensors, JSON metadata, a checksum), atomically."""
    root = work_folder(path, "feat")
    record = {
        "source": features.source,
        "class_names": features.class_names,
        "features": features.pipeline.to_dict(),
        "paths": [portable(name, root) for name in features.paths],
        "clip_seconds": features.clip_seconds,
    }
    arrays: Arrays = {"features": features.features, "lengths": features.lengths, "labels": features.labels}
    save_stored(path, _KEY, arrays, record)


def load_features(path: str | Path) -> FeatureSet:
    """Read a feature file. ValueError where it is none, or is damaged."""
    try:
        arrays, record = load_stored(path, _KEY, _UNSIGNED)
        return _checked(Path(path), arrays, record)
    except FileNotFoundError:
        raise ValueError(f"{path}: no feature file is there; make it with --step feature") from None
    except (DamagedFileError, KeyError, TypeError) as error:
        reason = error if isinstance(error, DamagedFileError) else f"{path}: damaged ({error!r} in its record)"
        raise ValueError(f"{reason}; no feature file that can be used: make it with --step feature") from None


def _checked(path: Path, arrays: dict[str, NDArray[Any]], record: dict[str, Any]) -> FeatureSet:
    """The feature set that a file describes. DamagedFileError where its parts do not belong together."""
    names, paths, seconds = record["class_names"], record["paths"], record.get("clip_seconds", 1.0)
    features, lengths, labels = (arrays[name] for name in ("features", "lengths", "labels"))
    try:
        pipeline = FeaturePipeline.from_dict(record["features"])
    except ValueError as error:
        raise DamagedFileError(f"{path}: {error}") from None
    count = len(labels)
    sound = {
        "class_names": isinstance(names, list) and all(isinstance(name, str) for name in names),
        "paths": isinstance(paths, list) and len(paths) == count and all(isinstance(name, str) for name in paths),
        "clip_seconds": isinstance(seconds, (int, float)) and seconds > 0,
        "source": isinstance(record["source"], str),
        "features": features.dtype == np.float32
        and features.shape[::2] == (count, pipeline.num_features)
        and bool(np.isfinite(features).all()),
        "lengths": lengths.shape == (count,) and lengths.dtype == np.int64,
        "labels": labels.shape == (count,)
        and labels.dtype == np.int64
        and bool(((labels >= 0) & (labels < len(names))).all()),
    }
    wrong = [part for part, right in sound.items() if not right]
    if wrong:
        raise DamagedFileError(f"{path}: damaged ({wrong[0]} is not what a feature file holds)")
    root = work_folder(path, "feat") or Path()
    whole = [str(root / name) for name in paths]
    return FeatureSet(features, lengths, labels, whole, names, pipeline, record["source"], float(seconds))


def load_clips(config: Config, description: Description, group: str) -> NDArray[Any]:
    """What a group's features are made of, memory-mapped: audio (N, samples), or levels (N, frames, bands)."""
    return (load_levels if takes_levels(config, description) else load_audio)(config, description, group)


def load_audio(config: Config, description: Description, group: str) -> Audio:
    """The clips of a group (N, samples) int16, memory-mapped; read from their files when first asked for.

    ValueError where a data set has no recordings, but features that were made elsewhere.
    """
    if description.of_levels:
        raise ValueError(f"{config.data.dataset} has features that were made elsewhere: this needs recordings")
    rows = description.group(group)
    rate, padding = config.features.sample_rate, config.features.zero_padding
    if padding == "centre":  # of frames; here it is samples that are joined and changed
        padding = "head"
    samples = round(rate * description.clip_seconds)
    path = config.folder("data") / "audio" / f"{group}-{padding}-{rate}.npy"
    source = digest({"description": description.digest, "rate": rate, "padding": padding, "group": group})
    note = path.with_suffix(".source")
    if not (path.is_file() and read_json(note) == {"source": source, "sha256": sha256_of(path)}):
        note.unlink(missing_ok=True)
        with replacing(path, len(rows) * samples * 2) as part:
            clips = np.lib.format.open_memmap(part, "w+", np.int16, (len(rows), samples))
            reserve(part, part.stat().st_size)

            def read_into(index: int) -> None:
                clips[index] = fit(read_audio(rows[index].path, rate), samples, padding)

            with ThreadPoolExecutor(config.run.workers) as pool:
                jobs = pool.map(read_into, range(len(rows)), chunksize=_CHUNK)
                for _ in tqdm(jobs, total=len(rows), desc=f"reading {group}", unit="clip", disable=None):
                    pass
            clips.flush()
        write_json(note, {"source": source, "sha256": sha256_of(path)})
    loaded: Audio = np.load(path, mmap_mode="r")
    return loaded


def _compute(pipeline: FeaturePipeline, clips: NDArray[Any], workers: int, what: str) -> Features:
    """Features (N, T, F) of clips, a chunk per thread at a time."""
    features = np.empty((len(clips), *pipeline.clip_shape(clips)), np.float32)

    def compute(start: int) -> int:
        chunk = slice(start, min(start + _CHUNK, len(clips)))
        features[chunk] = pipeline(clips[chunk])
        return chunk.stop - chunk.start

    with ThreadPoolExecutor(workers) as pool, tqdm(total=len(clips), desc=what, unit="clip", disable=None) as bar:
        for count in pool.map(compute, range(0, len(clips), _CHUNK)):
            bar.update(count)
    return features


def _fitted(pipeline: FeaturePipeline, clips: NDArray[Any], labels: NDArray[np.int64], workers: int) -> FeaturePipeline:
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
    options = {name: value for name, value in config.record().items() if name != "cfg_feat"}
    return digest({"description": description.digest, "group": group, "options": options})


def _made(path: Path, source: str) -> FeatureSet | None:
    """The feature file at `path`, or None where it is missing, damaged or made from something else."""
    if (peek_stored(path, _KEY) or {}).get("source") != source:
        return None
    try:
        return load_features(path)
    except ValueError as error:
        print(f"warning: {error}; making it anew")
        return None
