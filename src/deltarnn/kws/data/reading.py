"""Whole sentences that hold no keyword, read aloud in many synthetic voices: what a spotter must not answer to."""

from pathlib import Path

import numpy as np

from deltarnn.kws.config.resolve import digest
from deltarnn.kws.data.acoustics import tilted
from deltarnn.kws.data.audio import Audio, resample, to_int16, write_wav
from deltarnn.kws.data.espeak import Espeak
from deltarnn.kws.data.synthetic import SAMPLE_RATE, Speaker, cast_speakers, run_in_fresh_processes
from deltarnn.kws.data.words import DIGITS, spoken_words
from deltarnn.kws.draw import rng_of

LONGEST_NAME = 200
"""Bytes of a folder's name that the keywords may take: file systems allow some 255 in all."""

SENTENCES = 12
"""Sentences in one reading, about half a minute."""


def make_readings(
    folder: Path, group: str, keywords: tuple[str, ...], count: int, seed: int, workers: int, digits: bool = False
) -> list[Path]:
    """`count` readings in the voices of a group, as folder/GROUP/NUMBER.wav; those that are there are kept.

    digits: numbers, one digit after another, instead of sentences.
    """
    kind = "digits" if digits else "sentences"
    named = "-".join(keywords)
    named = named if len(named.encode()) <= LONGEST_NAME else digest(keywords)
    # The count is in the path: it decides which voices read.
    own = folder / f"{kind}-{named}-{count}-{seed}" / group
    voices = cast_speakers(group, (), seed, 4.0)
    paths = [own / f"{number}.wav" for number in range(count)]
    jobs = [
        (path, voices[number % len(voices)], keywords, seed, digits)
        for number, path in enumerate(paths)
        if not path.is_file()
    ]
    run_in_fresh_processes(_read_aloud, jobs, workers, f"{kind} for {group}")
    return paths


def sentence(words: list[str], rng: np.random.Generator) -> str:
    """Four to eleven words, a comma now and then."""
    chosen = [words[i] for i in rng.integers(len(words), size=rng.integers(4, 12))]
    return " ".join(word + ("," if rng.random() < 0.12 else "") for word in chosen).rstrip(",") + "."


def _read_aloud(path: Path, speaker: Speaker, keywords: tuple[str, ...], seed: int, digits: bool) -> None:
    rng = rng_of(seed, "reading", speaker.group, path.stem, str(digits))
    espeak = Espeak(seed=int(rng.integers(2**31)))
    words = sorted(set(DIGITS) - set(keywords)) if digits else spoken_words(keywords)
    said: list[Audio] = [
        espeak.say(sentence(words, rng), speaker.voice, speaker.rate, speaker.pitch, speaker.pitch_range)
        for _ in range(SENTENCES)
    ]
    speech = tilted(resample(np.concatenate(said), espeak.sample_rate, SAMPLE_RATE).astype(np.float64), rng)
    write_wav(path, to_int16(speech * 16000 / np.abs(speech).max()), SAMPLE_RATE)
