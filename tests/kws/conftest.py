"""A tiny corpus in the layout of Speech Commands: tones instead of words, a few speakers."""

from pathlib import Path

import numpy as np
import pytest

from deltarnn.kws.data.audio import write_wav

WORDS = ("yes", "no", "bed", "cat")


def tone(word: str, speaker: str, take: int, samples: int = 16000) -> np.ndarray:
    """A tone that differs from clip to clip, int16 (samples,)."""
    frequency = 300 + 400 * WORDS.index(word) + int(speaker, 16) % 97 + take
    return (6000 * np.sin(2 * np.pi * frequency / 16000 * np.arange(samples))).astype(np.int16)


def write_tiny_corpus(destination: Path) -> Path:
    """Folder with speech_commands_v0.02 and the test set: words yes, no, bed, cat; 6 + 2 + 2 speakers."""
    root, test = destination / "speech_commands_v0.02", destination / "speech_commands_test_set_v0.02"
    listed = []
    for word in WORDS:
        for number in range(8):
            for take in range(2):
                name = f"a{number:07x}_nohash_{take}.wav"
                write_wav(root / word / name, tone(word, f"a{number:07x}", take, 16000 - 100 * take))
                if number >= 6:
                    listed.append(f"{word}/{name}")
        for number in range(2):
            folder, prefix = (word, "") if word in ("yes", "no") else ("_unknown_", f"{word}_")
            name = f"{prefix}b{number:07x}_nohash_0.wav"
            write_wav(test / folder / name, tone(word, f"b{number:07x}", 5))
    rng = np.random.default_rng(0)
    for number, name in enumerate(("hiss", "rumble")):
        noise = (500 * rng.standard_normal(16000 * (20 + number))).astype(np.int16)
        write_wav(root / "_background_noise_" / f"{name}.wav", noise)
    write_wav(test / "_silence_" / "0.wav", (100 * rng.standard_normal(16000)).astype(np.int16))
    (root / "validation_list.txt").write_text("\n".join(listed) + "\n")
    (root / "testing_list.txt").write_text("")
    return destination


@pytest.fixture
def tiny_corpus(tmp_path) -> Path:
    """The tiny corpus in a folder of the test's own."""
    return write_tiny_corpus(tmp_path)


@pytest.fixture(scope="session")
def tiny_corpus_of():
    """Writes the tiny corpus to a folder."""
    return write_tiny_corpus
