"""Recordings of your own: a folder with one folder of recordings per word, and nothing else."""

import hashlib
from collections import Counter
from pathlib import Path

from deltarnn.kws.config.resolve import Config
from deltarnn.kws.data.acoustics import NOISE_KINDS, background
from deltarnn.kws.data.audio import SUFFIXES, to_int16, write_wav
from deltarnn.kws.data.corpus import NOISE_FOLDER, SILENCE, TRAIN_FOLDER, UNKNOWN, Corpus, SourceClip
from deltarnn.kws.draw import rng_of

HELD_OUT_SHARE = 0.1
"""Of each word's recordings, for validation and for test each; at least one."""
NOISE_SECONDS = 30
NOISE_LEVEL = 2000
"""Deviation of made noises, int16 counts."""


def is_own(config: Config) -> bool:
    """Whether --data_dir holds word folders, and not Speech Commands or data laid out as it is."""
    return config.data.dataset not in ("gscdv2", "synth") and not (Path(config.data.data_dir) / TRAIN_FOLDER).is_dir()


def own_words(data_dir: Path) -> tuple[str, ...]:
    """The words that have a folder. ValueError says what to put where."""
    if not data_dir.is_dir():
        raise ValueError(f"--data_dir {data_dir}: no such folder; it must hold one folder of recordings per word")
    words = tuple(word for word in Corpus().word_folders(data_dir) if word not in (UNKNOWN, SILENCE))
    if not words:
        raise ValueError(
            f"--data_dir {data_dir}: holds no folders; put the recordings of each word into one, such as "
            f"{data_dir / 'yes' / '1.wav'}"
        )
    return words


def find_own_corpus(config: Config) -> Corpus:
    """The recordings under --data_dir, in groups by speaker, or by a hash where names tell none; noises made if there
    are none. ValueError where a keyword has no folder, or too few recordings."""
    data_dir, corpus = Path(config.data.data_dir), Corpus()
    words = own_words(data_dir)
    missing = [word for word in config.data.keywords if word not in words]
    if missing:
        raise ValueError(f"--keywords: {data_dir} has no folder for {', '.join(missing)}; it has {', '.join(words)}")
    folders = [*words, *(name for name in (UNKNOWN, SILENCE) if (data_dir / name).is_dir())]
    clips = [SourceClip(word, path) for word in folders for path in corpus.audio_files(data_dir / word)]
    counts = Counter(clip.word for clip in clips)
    unread = {word: note for word in folders if (note := _unread(data_dir / word))}
    scarce = next((word for word in config.data.keywords if counts[word] < 3), None)
    if scarce:
        raise ValueError(
            f"{data_dir / scarce} holds {counts[scarce]} recordings: each keyword needs at least 3, one to train, one "
            "to validate and one to test" + (f"; it {unread[scarce]}" if scarce in unread else "")
        )
    corpus.notes += [f"{data_dir / word} {note}" for word, note in unread.items()]
    for clip, group in zip(clips, draw_groups(clips), strict=True):
        corpus.clips[group].append(clip)
    if set(config.data.keywords) == set(counts) - {SILENCE}:
        corpus.notes.append(
            "every word is a keyword, so nothing teaches what is none: add folders of other words and name the "
            "keywords with --keywords, or let --synth_unknown N speak some"
        )
    corpus.noises = corpus.audio_files(data_dir / NOISE_FOLDER) if (data_dir / NOISE_FOLDER).is_dir() else []
    if not corpus.noises:
        corpus.noises = _made_noises(config)
        corpus.notes.append(f"no {NOISE_FOLDER} in {data_dir}: {len(corpus.noises)} noises are made for silence")
    return corpus


def _unread(folder: Path) -> str:
    """What else than recordings a word's folder holds, or nothing; hidden files do not count."""
    others = (path for path in folder.iterdir() if path.suffix.lower() not in SUFFIXES and path.name[0] != ".")
    kinds = Counter("folder" if path.is_dir() else path.suffix or "file" for path in others)
    listed = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items(), reverse=True))
    return (
        f"holds {listed} that are not read: recordings are {', '.join(SUFFIXES)} in the folder itself" if kinds else ""
    )


def draw_groups(clips: list[SourceClip]) -> list[str]:
    """The group of each clip: whole speakers, in an order by hash, until every word has its share, HELD_OUT_SHARE, in
    validation and in test; the rest trains. A recording without a speaker in its name is a speaker of its own."""
    owners = [clip.speaker or f"{clip.word}/{clip.path.stem}" for clip in clips]
    spoken: dict[str, Counter[str]] = {owner: Counter() for owner in owners}
    for owner, clip in zip(owners, clips, strict=True):
        spoken[owner][clip.word] += 1
    total = Counter(clip.word for clip in clips)
    groups: dict[str, str] = {}
    for group in ("validation", "test"):
        wanted = Counter({word: max(1, round(HELD_OUT_SHARE * count)) for word, count in total.items()})
        for owner in sorted(spoken.keys() - groups.keys(), key=_hash):
            if any(wanted[word] > 0 for word in spoken[owner]):
                groups[owner] = group
                wanted.subtract(spoken[owner])
    return [groups.get(owner, "train") for owner in owners]


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _made_noises(config: Config) -> list[Path]:
    rate, paths = config.features.sample_rate, []
    for kind in NOISE_KINDS:
        path = config.folder("data") / "noise" / f"{kind}-{config.training.seed}-{rate}.wav"
        if not path.is_file():
            noise = background(kind, NOISE_SECONDS * rate, rng_of(config.training.seed, "noise", kind), rate)
            write_wav(path, to_int16(NOISE_LEVEL * noise), rate)
        paths.append(path)
    return paths
