"""The data description: which clips train, validate and test, with their labels (docs/data.md).

`prepare(config)` writes data/DATASET/description.csv with the columns group, keyword, label, path, beside it
description.json (settings, class names, what was left out and why), and the clips that it makes itself: silence cut
from background noise, and noisy copies. Done again with the same options and files, it does nothing.
"""

import hashlib
import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from deltarnn.files import check_writable
from deltarnn.kws.config.resolve import Config
from deltarnn.kws.data.audio import Audio, AudioError, fit, read_audio, read_recording, to_int16, write_wav
from deltarnn.kws.data.corpus import GROUPS, SILENCE, Corpus, SourceClip, add_training_words, find_corpus
from deltarnn.kws.data.description import (
    Description,
    Row,
    load_description,
    text_digest,
    write_description,
)
from deltarnn.kws.data.own_words import find_own_corpus, is_own, own_words
from deltarnn.kws.data.selection import balanced, class_size, drop_same_samples, label_of, separate_speakers
from deltarnn.kws.data.words import further_unknown_words
from deltarnn.kws.draw import rng_of
from deltarnn.kws.paths import portable

SILENCE_LEVELS_DB = (0.0, -5.0, -10.0)
UNKNOWN_VALIDATION_CLIPS = 400
NOISE_TRAIN_SHARE = 0.8
"""Training hears the first 80 % of each background noise, as silence and in noisy clips; validation the rest, or, where
the test group has no silence of its own, half of the rest and test the other half."""
NAMED = 5
"""Clips of one kind of fault that are named on the screen; description.json names all."""


def prepare(config: Config) -> Description:
    """Make the data description of --dataset from the files under --data_dir, and return it."""
    folder, data_dir = config.folder("data"), Path(config.data.data_dir)
    root = Path(config.run.work_dir).resolve()
    own = is_own(config)
    if own and "keywords" not in config.given:
        config = config.replace(keywords=own_words(data_dir))
    corpus = find_own_corpus(config) if own else find_corpus(data_dir, config.data.keywords)
    if config.data.more_train:
        add_training_words(corpus, Path(config.data.more_train))
    settings = {
        "dataset": config.data.dataset,
        "data_dir": portable(data_dir, root),
        "keywords": list(config.data.keywords),
        "seed": config.training.seed,
        "sample_rate": config.features.sample_rate,
        "clip_seconds": config.data.clip_seconds,
        "unknown_ratio": config.data.unknown_ratio,
        "synth_unknown": config.data.synth_unknown,
        "synth_keywords": config.data.synth_keywords,
        "noisy_copies_snr": config.data.target_snr if config.data.augment_noise else None,
        "files": _listing_digest(corpus, root),
    }
    for note in corpus.notes:
        print(f"note: {note}")
    done = load_description(folder)
    if done and done.settings == settings and all(Path(row.path).is_file() for row in done.rows):
        print(f"{folder / 'description.csv'} is up to date: {done}")
        return done
    check_writable(folder)
    clips, digests, faults = _check_files(corpus, config)
    clips, apart = separate_speakers(clips)
    clips, doubles = drop_same_samples(clips, digests)
    left_out = apart + doubles
    if corpus.duplicates:
        left_out["also there as another file type"] = len(corpus.duplicates)
    rows = spoken_rows(clips, config)
    rows += _silence_rows(corpus, clips, config, folder)
    rows += _synthetic_rows(config, folder)
    if config.data.augment_noise:
        rows += _noisy_rows(rows, corpus, config, folder)
    description = write_description(
        folder, rows, config.data.keywords, corpus.noises, settings, {**faults, "left_out": dict(left_out)}
    )
    for reason, count in sorted(left_out.items()):
        print(f"left out {count} clips: {reason}")
    print(f"wrote {folder / 'description.csv'}: {description}")
    return description


def load_noise(description: Description) -> Audio:
    """The training share of all background noises, one after another, (N,) int16."""
    rate = description.settings["sample_rate"]
    pieces = [read_audio(path, rate) for path in description.noises]
    return np.concatenate([piece[: int(NOISE_TRAIN_SHARE * len(piece))] for piece in pieces])


def mix(clip: Audio, noise: Audio, snr_db: float) -> Audio:
    """A clip (N,) with noise (N,) at a signal-to-noise ratio of mean powers, in dB; scaled down where it would clip."""
    power, noise_power = np.mean(clip.astype(np.float64) ** 2), np.mean(noise.astype(np.float64) ** 2)
    gain = np.sqrt(power / (noise_power * 10 ** (snr_db / 10))) if noise_power else 0.0
    mixed = clip + gain * noise
    return to_int16(mixed * min(1.0, 32767 / max(1.0, float(np.abs(mixed).max()))))


def _check_files(
    corpus: Corpus, config: Config
) -> tuple[dict[str, list[SourceClip]], dict[SourceClip, bytes], dict[str, list[str]]]:
    """The readable clips by group, a digest of each one's samples; and, by kind of fault, which are skipped (with the
    reason), cut off, or longer than --clip_seconds."""
    every = [clip for group in GROUPS for clip in corpus.clips[group]]
    digests: dict[SourceClip, bytes] = {}
    faults: dict[str, list[str]] = {"skipped": [*corpus.unusable], "cut_off": [], "too_long": []}
    longest = round(config.data.clip_seconds * config.features.sample_rate)

    def examine(clip: SourceClip) -> tuple[bytes, bool, bool] | str:
        try:
            recording = read_recording(clip.path, config.features.sample_rate)
        except (AudioError, OSError) as error:
            return str(error)
        digest = hashlib.blake2b(recording.samples.tobytes(), digest_size=16).digest()
        return digest, recording.cut_off, len(recording.samples) > longest

    with ThreadPoolExecutor(config.run.workers) as pool:
        jobs = pool.map(examine, every, chunksize=64)
        results = tqdm(jobs, total=len(every), desc="reading", unit="clip", disable=None)
        for clip, result in zip(every, results, strict=True):
            if isinstance(result, str):
                faults["skipped"].append(result)
                continue
            digests[clip], cut_off, too_long = result
            faults["cut_off"] += [str(clip.path)] * cut_off
            faults["too_long"] += [str(clip.path)] * too_long
    _tell(faults, len(every) + len(corpus.unusable), config.data.clip_seconds)
    return {group: [c for c in corpus.clips[group] if c in digests] for group in GROUPS}, digests, faults


def _tell(faults: dict[str, list[str]], every: int, seconds: float) -> None:
    """Say what is wrong with which clips."""
    for sentence in faults["skipped"]:
        print(f"warning: skipped {sentence}")
    if faults["skipped"]:
        print(f"skipped {len(faults['skipped'])} of {every} clips")
    for kind, what in (
        ("cut_off", "are cut off: their files end before the length that they claim"),
        ("too_long", f"are longer than {seconds:g} s and count by their first {seconds:g} s; see --clip_seconds"),
    ):
        if faults[kind]:
            named = ", ".join(faults[kind][:NAMED]) + (", …" if len(faults[kind]) > NAMED else "")
            print(f"warning: {len(faults[kind])} of {every} clips {what}: {named}")


def spoken_rows(clips: dict[str, list[SourceClip]], config: Config) -> list[Row]:
    """Rows of all keywords, and of other words drawn evenly over the words; the whole test-set folder."""
    keywords = config.data.keywords
    rows = []
    for group in GROUPS:
        chosen = [clip for clip in clips[group] if clip.word in keywords]
        lacking = [word for word in keywords if word not in {clip.word for clip in chosen}]
        if lacking:
            remedy = {"validation": "name some in validation_list.txt", "test": "put some into the test set's folder"}
            raise ValueError(
                f"no {group} clip of {', '.join(lacking)} can be used: "
                + ("record more speakers" if is_own(config) else remedy.get(group, "too many are named in the lists"))
                + "; warnings above tell what was left out"
            )
        others = [clip for clip in clips[group] if clip.word not in keywords]
        if group != "test":
            count = UNKNOWN_VALIDATION_CLIPS
            if group == "train":
                count = round(class_size(chosen, keywords) * config.data.unknown_ratio)
            silent = [clip for clip in others if clip.word == SILENCE]
            others = [clip for clip in others if clip.word != SILENCE]
            others = [*balanced(others, count, rng_of(config.training.seed, "unknown", group)), *silent]
        rows += [Row(group, c.word, label_of(c.word, keywords), str(c.path.resolve())) for c in [*chosen, *others]]
    return rows


def _silence_rows(corpus: Corpus, clips: dict[str, list[SourceClip]], config: Config, folder: Path) -> list[Row]:
    """Silence for the groups without, about one class's size each: clips of background noise at three levels."""
    rate = config.features.sample_rate
    length = round(rate * config.data.clip_seconds)
    noises = {path.stem: read_audio(path, rate) for path in corpus.noises}
    borders = {"train": (0.0, NOISE_TRAIN_SHARE), "validation": (NOISE_TRAIN_SHARE, 1.0)}
    if is_own(config):
        half = (1.0 + NOISE_TRAIN_SHARE) / 2
        borders |= {"validation": (NOISE_TRAIN_SHARE, half), "test": (half, 1.0)}
    rows = []
    for group, shares in borders.items():
        if any(clip.word == SILENCE for clip in clips[group]):
            continue
        pieces = []
        for name, samples in noises.items():
            first, last = (int(share * len(samples)) for share in shares)
            starts = range(first, max(first + 1, last - length + 1), length // 2)
            pieces += [(name, start, level) for start in starts for level in SILENCE_LEVELS_DB]
        count = min(len(pieces), class_size(clips[group], config.data.keywords))
        drawn = rng_of(config.training.seed, "silence", group).permutation(len(pieces))[:count]
        chosen = [pieces[i] for i in sorted(drawn)]
        for name, start, level in tqdm(chosen, desc=f"silence, {group}", unit="clip", disable=None):
            path = folder / "silence" / group / f"{name}_{start}_{level:g}dB.wav"
            piece = fit(noises[name][start : start + length], length, "tail")
            write_wav(path, to_int16(piece * 10 ** (level / 20)), rate)
            rows.append(Row(group, SILENCE, 0, str(path.resolve())))
    return rows


def _noisy_rows(rows: list[Row], corpus: Corpus, config: Config, folder: Path) -> list[Row]:
    """Two copies of every spoken training clip, with background noise at --target_snr and 5 dB above."""
    rate, snr = config.features.sample_rate, config.data.target_snr
    noise = np.concatenate([x[: int(NOISE_TRAIN_SHARE * len(x))] for x in (read_audio(p, rate) for p in corpus.noises)])
    named: dict[str, Row] = {}
    for row in (row for row in rows if row.group == "train" and row.label):
        name = f"{row.keyword}_{Path(row.path).stem}"
        others = (f"{name}-{i}" for i in itertools.count(2))  # clips of one name, of --more_train for instance
        named[next(n for n in itertools.chain([name], others) if n not in named)] = row
    jobs = [(name, row, level) for name, row in named.items() for level in (snr + 5, snr)]

    def write_copy(job: tuple[str, Row, float]) -> Row:
        name, row, level = job
        path = folder / "noisy" / f"{level:g}dB" / f"{name}.wav"
        clip = read_audio(row.path, rate)
        start = int(rng_of(config.training.seed, *path.parts[-2:]).integers(len(noise)))
        write_wav(path, mix(clip, np.take(noise, np.arange(start, start + len(clip)), mode="wrap"), level), rate)
        return Row(row.group, row.keyword, row.label, str(path.resolve()))

    with ThreadPoolExecutor(config.run.workers) as pool:
        return list(tqdm(pool.map(write_copy, jobs), total=len(jobs), desc="noisy copies", unit="clip", disable=None))


def _synthetic_rows(config: Config, folder: Path) -> list[Row]:
    """Further words for the unknown class, and keywords in the same voices, from a synthesiser; for training only."""
    from deltarnn.kws.data.synthetic import make_words

    data, rows = config.data, []
    for name, words, count in (
        ("unknown", further_unknown_words(data.keywords), data.synth_unknown),
        ("keywords", list(data.keywords), data.synth_keywords),
    ):
        if not count:
            continue
        # The count is in the path: what a voice says before a word colours it, so another number gives other samples.
        own = folder / f"synthetic_{name}" / str(count)
        clips = make_words(own, words, count, config.training.seed, config.run.workers)
        rows += [Row("train", word, label_of(word, data.keywords), str(path.resolve())) for word, path in clips]
    return rows


def _listing_digest(corpus: Corpus, root: Path) -> str:
    """Stands for the names, sizes and times of every source file, the lists' effect on the groups included."""
    paths = [(group, clip.path) for group in GROUPS for clip in corpus.clips[group]]
    paths += [("noise", path) for path in corpus.noises]
    stats = ((group, portable(path, root), path.stat()) for group, path in paths)
    return text_digest("\n".join(f"{group} {path} {stat.st_size} {stat.st_mtime_ns}" for group, path, stat in stats))
