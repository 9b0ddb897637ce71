"""Readings hold no keyword."""

import numpy as np
import pytest

from deltarnn.kws.data import reading
from deltarnn.kws.data.synthetic import cast_speakers
from deltarnn.kws.data.words import DIGITS


@pytest.fixture
def said(monkeypatch) -> list[str]:
    """What is given to the synthesiser."""
    texts: list[str] = []

    class Listener:
        sample_rate = reading.SAMPLE_RATE

        def __init__(self, seed: int) -> None:
            pass

        def say(self, text: str, *_: object) -> np.ndarray:
            texts.append(text)
            return np.ones(reading.SAMPLE_RATE, np.int16)

    monkeypatch.setattr(reading, "Espeak", Listener)
    return texts


@pytest.mark.parametrize(("digits", "keywords"), [(True, ("seven", "yes", "zero")), (False, ("water", "yes", "and"))])
def test_a_keyword_is_never_read(said, tmp_path, digits, keywords):
    speaker = cast_speakers("test", (), 1, 4.0)[0]
    for number in range(3):
        reading._read_aloud(tmp_path / f"{number}.wav", speaker, keywords, 1, digits)
    words = {word.strip(",.") for text in said for word in text.split()}
    assert words
    assert not words & set(keywords)
    if digits:
        assert words == set(DIGITS) - set(keywords)


def test_readings_without_many_keywords_have_a_folder(tmp_path, monkeypatch):
    """Whose name a file system takes, and which those without other keywords do not share."""
    monkeypatch.setattr(reading, "run_in_fresh_processes", lambda *_: None)
    many = tuple(f"schlüssel {number}" for number in range(60))
    made = [reading.make_readings(tmp_path, "test", words, 1, 0, 1)[0].parent for words in (many, many[1:], ("yes",))]
    for folder in made:
        folder.mkdir(parents=True)
    assert len(set(made)) == 3
    assert made[2] == tmp_path / "sentences-yes-1-0" / "test"
