"""`deltarnn resynthesise`: recordings made of log-mel levels, one folder per word, to train on with --more_train."""

import argparse
import os
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from deltarnn.files import read_json, sha256_of, write_json
from deltarnn.kws.config.arguments import add_number
from deltarnn.kws.config.resolve import feature_config
from deltarnn.kws.data.arrays import read_arrays
from deltarnn.kws.data.audio import write_wav
from deltarnn.kws.draw import rng_of
from deltarnn.kws.features.intake import DESCRIPTION
from deltarnn.kws.features.levels import front_end_of
from deltarnn.kws.features.log_mel import LogMelFilterBank
from deltarnn.kws.features.pipeline import FeatureStatistics, make_front_end
from deltarnn.kws.features.resynthesis import Resynthesis
from deltarnn.kws.workers import processes

MARKER = "resynthesised.json"
_BATCH = 32
"""Clips that a process takes at a time."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `deltarnn resynthesise`."""
    parser.add_argument(
        "levels", type=Path, metavar="FILE.npz",
        help="levels as x (clips, frames, bands), word and name (clips,); the front end that made them is described by "
        f"{DESCRIPTION} beside the file, or else is that of feat_logmel",
    )  # fmt: skip
    parser.add_argument("out", type=Path, metavar="DIR", help="folder that receives WORD/NAME.wav")
    add_number(parser, "clips", int, 0, 10**6, "at most this many clips of each word; 0: all", default=0)
    add_number(parser, "seed", int, 0, 2**31 - 1, "seed of the choice of clips and of their phases", default=0)
    workers = os.cpu_count() or 1
    add_number(parser, "workers", int, 1, 1024, "clips made at a time", default=workers)


def run(arguments: argparse.Namespace) -> int:
    """Make the recordings that are not there yet."""
    path, out = arguments.levels, arguments.out
    clips = read_arrays(path)
    described = path.with_name(DESCRIPTION)
    config = feature_config("gscdv2", str(described) if described.is_file() else "feat_logmel")
    if config.feat_type != "logmel":
        raise ValueError(f"{described}: only levels of --feat_type logmel can be made into recordings")
    made = Resynthesis(cast(LogMelFilterBank, make_front_end(config, FeatureStatistics())))
    make = partial(_write, made, arguments.seed, config.sample_rate)
    made_of = {"levels": sha256_of(path), "front_end": front_end_of(config)}
    settings = {**made_of, "clips": arguments.clips, "seed": arguments.seed}
    if (read_json(out / MARKER) or settings) != settings:
        raise ValueError(f"{out}: holds recordings of other levels or settings, see {MARKER}; name an empty folder")
    write_json(out / MARKER, settings)
    names = [out / word / f"{name}.wav" for word, name in zip(clips.words, clips.names, strict=True)]
    chosen = [i for i in _chosen(clips.words, arguments.clips, arguments.seed) if not names[i].is_file()]

    with processes(arguments.workers) as pool:
        jobs = pool.map(make, (names[i] for i in chosen), (clips.levels[i : i + 1] for i in chosen), chunksize=_BATCH)
        for _ in tqdm(jobs, total=len(chosen), desc="recordings", unit="clip", disable=None):
            pass
    words = len(set(clips.words))
    print(f"made {len(chosen)} recordings of {words} words; to train on them: prepare --more_train {out}")
    return 0


def _write(made: Resynthesis, seed: int, sample_rate: int, path: Path, levels: NDArray[Any]) -> None:
    """One recording, of levels (1, frames, bands)."""
    word, name = path.parts[-2:]
    write_wav(path, made(levels, rng_of(seed, word, name))[0], sample_rate)


def _chosen(words: list[str], most: int, seed: int) -> list[int]:
    """Numbers of at most `most` clips of each word (0: of all), in order."""
    if not most:
        return list(range(len(words)))
    numbers = defaultdict(list)
    for number, word in enumerate(words):
        numbers[word].append(number)
    drawn = (rng_of(seed, "resynthesis", word).permutation(own)[:most] for word, own in numbers.items())
    return sorted(int(number) for some in drawn for number in np.atleast_1d(some))
