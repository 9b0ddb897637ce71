"""A user's long recordings: WAV files with a label file beside each."""

from pathlib import Path

import numpy as np

from deltarnn.kws.data.audio import read_audio
from deltarnn.kws.data.stream import Recording, Section, Word


def read_recordings(paths: list[Path], keywords: tuple[str, ...], sample_rate: int) -> Recording:
    """Recordings one after another, with what PATH.txt beside each says is spoken in it.

    A label file has a line for every keyword: start, end (seconds) and the word, separated by tabs or blanks, as
    Audacity exports labels; other words may be there and count as not asked for. Lines may be in any order.

    Raises
    ------
    ValueError
        If a label file is missing or a line is no label; the message names file and line.
    """
    pieces, words, sections, position = [], [], [], 0
    for path in paths:
        audio = read_audio(path, sample_rate)
        for number, (start, end, name) in enumerate(sorted(read_labels(path.with_suffix(".txt")))):
            if name in keywords:
                first, last = (position + round(seconds * sample_rate) for seconds in (start, end))
                words.append(Word(keywords.index(name), first, last, path.stem, f"{path.stem}-{number}"))
        sections.append(Section(path.stem, position, position + len(audio)))
        pieces.append(audio)
        position += len(audio)
    return Recording(np.concatenate(pieces), words, sections, sample_rate)


def read_labels(path: Path) -> list[tuple[float, float, str]]:
    """Start and end in seconds, and the word, of every line of a label file. ValueError names the line that is none."""
    if not path.is_file():
        raise ValueError(f"no file {path}: it must say what is spoken, a line “start end word” in seconds for each")
    labels = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fields = line.split(maxsplit=2)
        if not fields or line.startswith("\\"):  # Audacity's frequency ranges
            continue
        try:
            start, end, name = float(fields[0]), float(fields[1]), fields[2].strip()
            if not 0 <= start <= end < np.inf:
                raise ValueError
        except (IndexError, ValueError):
            raise ValueError(f"{path}, line {number}: {line!r} is not “start end word”, in seconds") from None
        labels.append((start, end, name))
    return labels
