"""`deltarnn feature --from FOLDER`: features that were made elsewhere become a data set (deltarnn.kws.data.arrays)."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltarnn.files import sha256_of
from deltarnn.kws.config.resolve import Config, feature_config
from deltarnn.kws.data.arrays import ArrayClips, Levels, read_arrays
from deltarnn.kws.data.corpus import GROUPS, SILENCE, TEST_FOLDER, UNKNOWN, Corpus, SourceClip
from deltarnn.kws.data.description import (
    Description,
    Row,
    load_description,
    ordered,
    text_digest,
    write_description,
)
from deltarnn.kws.data.prepare import NOISE_TRAIN_SHARE, spoken_rows
from deltarnn.kws.data.selection import class_size, drop_same_samples, separate_speakers
from deltarnn.kws.draw import rng_of
from deltarnn.kws.features.levels import front_end_of, is_whole, of_files, save_levels, unpooled
from deltarnn.kws.features.log_mel import LogScale
from deltarnn.kws.paths import portable

DESCRIPTION = "features.json"

SILENCE_DECIBELS = (3.0, -37.0)
"""Loudest and softest gain of training silence, made of noises."""

_Clips = dict[str, list[SourceClip]]


def import_levels(config: Config) -> Description:
    """Take in the arrays of --from as the data set --dataset, once. ValueError says what is wrong with them."""
    source, folder = Path(config.data.from_folder), config.folder("data")
    if not source.is_dir():
        raise ValueError(f"--from {source}: no such folder")
    _check_front_end(config, source)
    recordings = _test_recordings(config, source)
    files = sorted([*source.glob("*.npz"), *(clip.path for clip in recordings)])
    stats = ((str(path), path.stat()) for path in files)
    settings: dict[str, Any] = {
        "dataset": config.data.dataset,
        "from": portable(source, Path(config.run.work_dir).resolve()),
        "keywords": list(config.data.keywords),
        "seed": config.training.seed,
        "sample_rate": config.features.sample_rate,
        "clip_seconds": config.data.clip_seconds,
        "unknown_ratio": config.data.unknown_ratio,
        "front_end": front_end_of(config.features),
        "files": text_digest("\n".join(f"{path} {stat.st_size} {stat.st_mtime_ns}" for path, stat in stats)),
    }
    done = load_description(folder)
    if done is not None and "front_end" not in done.settings:
        raise ValueError(
            f"{folder} describes recordings: give the features of --from {source} a data set of their own, with "
            "--dataset NAME"
        )
    same = done is not None and {k: v for k, v in done.settings.items() if k != "levels"} == settings
    if done is not None and same and all(is_whole(folder / "levels" / f"{n}.npy", done) for n in (*GROUPS, "noise")):
        print(f"{folder / 'description.csv'} is up to date: {done}")
        return done
    taken = _Intake(config, folder, source, recordings)
    rows, left_out = taken.rows()
    settings["levels"] = taken.write(rows)
    description = write_description(folder, rows, config.data.keywords, [], settings, {"left_out": left_out})
    for reason, count in sorted(left_out.items()):
        print(f"left out {count} clips: {reason}")
    print(f"wrote {folder / 'description.csv'}: {description}")
    return description


def silence(powers: NDArray[Any], count: int, rng: np.random.Generator) -> NDArray[Any]:
    """Powers (count, T, F) of silence: two of the noises (N, T, F) each, in a random mixture, at a random gain."""
    one, other = rng.integers(len(powers), size=(2, count))
    share = rng.random((count, 1, 1), np.float32)
    loudest, softest = SILENCE_DECIBELS
    decibels = loudest + (softest - loudest) * np.square(rng.random((count, 1, 1), np.float32))
    mixed: NDArray[Any] = (share * powers[one] + (1 - share) * powers[other]) * 10 ** (decibels / 10)
    return mixed


def _check_front_end(config: Config, source: Path) -> None:
    """ValueError unless FOLDER's own description of its front end is that of the configuration."""
    if config.features.feat_type != "logmel":
        raise ValueError(
            f"--from takes features of --feat_type logmel, not {config.features.feat_type}: noise is added to their "
            "powers; --cfg_feat feat_logmel is one"
        )
    path = source / DESCRIPTION
    if not path.is_file():
        print(f"note: {source} has no {DESCRIPTION}: its arrays count as made by {config.features.cfg_feat}")
        return
    described = front_end_of(feature_config(config.data.dataset, str(path)))
    for name, value in front_end_of(config.features).items():
        if described[name] != value:
            raise ValueError(
                f"{path}: the arrays were made with {name} {described[name]}, not {value}: give --cfg_feat {path}, "
                f"or --{name} {described[name]}"
            )


def _test_recordings(config: Config, source: Path) -> list[SourceClip]:
    """Test clips that are recordings: of --from and, if it was given, of --data_dir."""
    homes = [source, *([Path(config.data.data_dir)] if "data_dir" in config.given else [])]
    corpus, clips = Corpus(), []
    for home in dict.fromkeys(home.resolve() for home in homes):
        for word in (*config.data.keywords, UNKNOWN, SILENCE):
            if (home / TEST_FOLDER / word).is_dir():
                clips += [SourceClip(word, path) for path in corpus.audio_files(home / TEST_FOLDER / word)]
    for sentence in corpus.unusable:
        print(f"warning: skipped {sentence}")
    return clips


class _Intake:
    """Clips of --from and their levels, on the way to the rows of a data description."""

    def __init__(self, config: Config, folder: Path, source: Path, recordings: list[SourceClip]) -> None:
        self.config, self.folder = config, folder
        self.pipeline = unpooled(config.features)
        self.scale: LogScale = self.pipeline.log_mel.scale
        self.samples = round(config.data.clip_seconds * config.features.sample_rate)
        self.clips: _Clips = {}
        self.levels: dict[str, Levels] = {}
        """Of the clip at a path, or the silence or noise of that name."""
        for group in GROUPS:
            path = source / f"{group}.npz"
            if path.is_file():
                self._take(group, path, self._read(path))
            elif group != "test" or not recordings:
                raise ValueError(f"no file {path}: --from names a folder with {group}.npz (docs/data.md)")
            else:
                self.clips[group] = []
        self._record(recordings)
        noise = source / "noise.npz"
        self.noise = self._noises(self._read(noise).levels) if noise.is_file() else {}

    def rows(self) -> tuple[list[Row], dict[str, int]]:
        """The data description's rows, silence included, and how many clips are left out, by reason."""
        clips, apart = separate_speakers(self.clips)
        every = [clip for group in GROUPS for clip in clips[group]]
        digests = {clip: _digest(self.levels[str(clip.path)]) for clip in every}
        clips, doubles = drop_same_samples(clips, digests)
        rows = spoken_rows(clips, self.config)
        for group in GROUPS:
            if not any(row.group == group and row.keyword == SILENCE for row in rows):
                rows += self._silence(group, class_size(clips[group], self.config.data.keywords))
        return ordered(rows), dict(apart + doubles)

    def write(self, rows: list[Row]) -> dict[str, str]:
        """Write the levels of every group's rows, and training's noises; the checksum of each file."""
        groups = {group: [self.levels[row.path] for row in rows if row.group == group] for group in GROUPS}
        groups["noise"] = list(self.noise.get("train", ()))
        checksums = {}
        for group, levels in groups.items():
            path = self.folder / "levels" / f"{group}.npy"
            kinds = {array.dtype for array in levels}
            shape = (0, self.pipeline.num_frames(self.samples), self.pipeline.num_features)
            stacked = np.stack(levels) if levels else np.zeros(shape, np.uint8)
            save_levels(path, stacked.astype(np.float32) if len(kinds) > 1 else stacked)
            checksums[group] = sha256_of(path)
        return checksums

    def _read(self, path: Path) -> ArrayClips:
        arrays = read_arrays(path)
        expected = (self.pipeline.num_frames(self.samples), self.pipeline.num_features)
        if arrays.levels.shape[1:] != expected:
            frames, bands = arrays.levels.shape[1:]
            raise ValueError(
                f"{path}: has {frames} frames of {bands} bands; {self.config.features.cfg_feat} makes {expected[0]} of "
                f"{expected[1]} from clips of {self.config.data.clip_seconds:g} s"
            )
        return arrays

    def _take(self, group: str, path: Path, arrays: ArrayClips) -> None:
        self.clips[group] = []
        for word, name, levels in zip(arrays.words, arrays.names, arrays.levels, strict=True):
            clip = SourceClip(word, self._named(group, word, name))
            self.clips[group].append(clip)
            self.levels[str(clip.path)] = levels

    def _named(self, *parts: str) -> Path:
        """A path that stands for an array."""
        return Path((self.folder / "levels").resolve(), *parts)

    def _record(self, recordings: list[SourceClip]) -> None:
        """Take test clips that are recordings."""
        paths = [str(clip.path) for clip in recordings]
        self.clips["test"] += recordings
        levels = of_files(self.pipeline, paths, self.samples, self.config.run.workers, "levels of test")
        self.levels |= dict(zip(paths, levels, strict=True))

    def _noises(self, levels: Levels) -> dict[str, Levels]:
        """Noises for training and for validation, the same noise always on the same side."""
        early = np.array([_digest(noise)[0] < 256 * NOISE_TRAIN_SHARE for noise in levels], bool)
        return {"train": levels[early], "validation": levels[~early]}

    def _silence(self, group: str, count: int) -> list[Row]:
        """Silence for a group: for training made of its noises, for validation its noises as they are."""
        noises = self.noise.get(group, np.zeros(0))
        if group == "test" or not len(noises):
            raise ValueError(
                f"no silence for {group}: add clips of the word {SILENCE} to {group}.npz"
                + ("" if group == "test" else ", or more noises as noise.npz")
            )
        rng = rng_of(self.config.training.seed, "silence", group)
        if group == "train":
            levels = self.scale(silence(self.scale.powers(noises), count, rng))
            levels = _as_type(levels, noises.dtype)
        else:
            levels = noises[np.sort(rng.permutation(len(noises))[:count])]
        rows = []
        for number, clip in enumerate(levels):
            path = str(self._named(group, SILENCE, f"{number:05d}"))
            self.levels[path] = clip
            rows.append(Row(group, SILENCE, 0, path))
        return rows


def _as_type(levels: NDArray[Any], kind: np.dtype[Any]) -> Levels:
    """Levels as the given type holds them: rounded and clipped to an integer type."""
    if kind.kind == "f":
        return levels.astype(kind)
    limits = np.iinfo(kind)
    rounded: Levels = np.clip(np.rint(levels), limits.min, limits.max).astype(kind)
    return rounded


def _digest(levels: Levels) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(levels).data, digest_size=16).digest()
