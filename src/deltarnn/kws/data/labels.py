"""A user's long recordings: WAV files with a label file beside each."""

import sys
from collections import Counter
from pathlib import Path

import numpy as np

from deltarnn.kws.data.audio import read_recording
from deltarnn.kws.data.stream import Recording, Section, Word

ROUNDING = 0.1
"""Seconds by which a label may end after its recording."""


def read_recordings(paths: list[Path], keywords: tuple[str, ...], sample_rate: int) -> Recording:
    """Recordings one after another, with what PATH.txt beside each says is spoken in it.

    A label file has a line for every keyword: start, end (seconds) and the word, separated by tabs or blanks, as
    Audacity exports labels; other words may be there and do not count. Lines may be in any order. Overlapping keywords
    are used, with a warning.

    Raises
    ------
    ValueError
        If a label file is missing, a line is no label, a keyword has no length, or a word ends after its recording;
        the message names file and line or word.
    """
    pieces, words, sections, position = [], [], [], 0
    others: Counter[str] = Counter()
    for path in paths:
        read = read_recording(path, sample_rate)
        audio, labels = read.samples, path.with_suffix(".txt")
        if read.cut_off:
            print(f"warning: {path}: ends before the length that it claims", file=sys.stderr)
        last_end, overlapping = 0.0, []
        for number, (start, end, name) in enumerate(sorted(read_labels(labels))):
            seconds = len(audio) / sample_rate
            if end > seconds + ROUNDING:
                raise ValueError(f"{labels}: {name!r} ends at {end:g} s, after the recording, which has {seconds:g} s")
            if name not in keywords:
                others[name] += 1
            elif start == end:
                raise ValueError(
                    f"{labels}: {name!r} at {start:g} s has no length, a point: label it from beginning to end"
                )
            else:
                if start < last_end:
                    overlapping.append(f"{name!r} at {start:g} s")
                last_end = max(last_end, end)
                first, last = (position + round(seconds * sample_rate) for seconds in (start, end))
                words.append(Word(keywords.index(name), first, last, path.stem, f"{path.stem}-{number}"))
        if overlapping:
            print(
                f"warning: {labels}: {len(overlapping)} keywords begin before the one before ends, the first "
                f"{overlapping[0]}: a detection counts for one of them",
                file=sys.stderr,
            )
        sections.append(Section(path.stem, position, position + len(audio)))
        pieces.append(audio)
        position += len(audio)
    if not words:
        named = f"only {', '.join(sorted(others))}" if others else "nothing"
        print(
            f"warning: no keyword is labelled, {named}: all detections are false alarms; the model knows "
            f"{', '.join(keywords)}",
            file=sys.stderr,
        )
    elif others:
        counted = ", ".join(f"{name} ({count})" for name, count in others.most_common())
        print(f"labels that are no keywords of the model, not asked for: {counted}", file=sys.stderr)
    return Recording(np.concatenate(pieces), words, sections, sample_rate)


def read_labels(path: Path) -> list[tuple[float, float, str]]:
    """Start and end in seconds, with a point or a comma, and the word, of every line of a label file. ValueError names
    the line that is none."""
    if not path.is_file():
        raise ValueError(f"no file {path}: it must say what is spoken, a line “start end word” in seconds for each")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: no UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None
    labels = []
    for number, line in enumerate(lines, 1):
        fields = line.split(maxsplit=2)
        if not fields or line.startswith("\\"):  # Audacity's frequency ranges
            continue
        try:
            start, end = (float(field.replace(",", ".")) for field in fields[:2])
            name = fields[2].strip()
            if not 0 <= start <= end < np.inf:
                raise ValueError
        except (IndexError, ValueError):
            raise ValueError(
                f"{path}, line {number}: {line!r} is not “start end word”: times in seconds and a word, between tabs "
                "or blanks"
            ) from None
        labels.append((start, end, name))
    return labels
