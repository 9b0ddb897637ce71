"""Made-up recordings: words are where the labels say, at the SNR they are to have, the same for the same seed."""

import dataclasses
import itertools

import numpy as np
import pytest

from deltarnn.kws.data.audio import write_wav
from deltarnn.kws.data.compose import active_span, lay, level_of
from deltarnn.kws.data.labels import read_labels, read_recordings
from deltarnn.kws.data.scenes import Material, SceneMaker, SceneOptions
from deltarnn.kws.data.stream import CONDITIONS, SNR, StreamBuilder, StreamMaterial

RATE = 16000


def burst(start: int, end: int, samples: int = RATE, level: float = 8000.0, floor: float = 5.0) -> np.ndarray:
    """A tone from `start` to `end` over faint noise, int16 (samples,)."""
    clip = floor * np.random.default_rng(start).standard_normal(samples)
    clip[start:end] += level * np.sin(0.3 * np.arange(end - start))
    return clip.astype(np.int16)


@pytest.mark.parametrize(("start", "end"), [(4000, 9000), (0, 3200), (11000, 16000)])
def test_the_spoken_part_is_found_to_30_ms(start, end):
    first, last = active_span(burst(start, end))
    assert abs(first - start) <= 600
    assert abs(last - end) <= 600


def test_padding_and_a_distant_click_are_no_part_of_the_word():
    clip = np.concatenate([np.zeros(8000, np.int16), burst(2000, 6000, 8000)])
    clip[500:660] = 3000
    first, last = active_span(clip)
    assert abs(first - 10000) <= 600
    assert abs(last - 14000) <= 600


def test_a_word_is_laid_at_its_place_and_level():
    recording, clip = np.zeros(RATE, np.float32), burst(4000, 9000, floor=0.0)
    lay(recording, clip, (4000, 9000), 6000, 500.0)
    assert level_of(recording[6000:11000]) == pytest.approx(500.0, rel=1e-3)
    assert not recording[:6000].any()
    assert not recording[11000:].any()


def material() -> Material:
    clips = np.stack([burst(3000 + 500 * i, 9000 + 300 * i) for i in range(8)])
    noise = (900 * np.random.default_rng(0).standard_normal(30 * RATE)).astype(np.int16)
    return Material(clips, np.array([2, 3, 2, 3, 1, 1, 1, 0]), noise)


def test_scenes_say_what_is_said_when():
    options = SceneOptions(snr=(40.0, 40.0), quiet=0.0, rooms=0.0, splices=0.0, noise_only=0.0, level=(-20.0, -20.0))
    recording, words = SceneMaker(material(), options, np.random.default_rng(3)).recording(60 * RATE)
    assert recording.shape == (60 * RATE,)
    assert {word.label for word in words} == {1, 2, 3}
    for word, following in itertools.pairwise(words):
        assert word.end <= following.start
        between = recording[word.end + 480 : following.start - 480].astype(float)
        if 800 < len(between) < RATE:  # within a scene
            assert level_of(recording[word.start : word.end]) > 10 * level_of(between)


@pytest.mark.parametrize(("labels", "said"), [([2, 3, 2, 3, 2, 3, 2, 0], {1, 2, 3}), ([2, 2, 0, 0, 0, 0, 0, 0], {2})])
def test_scenes_of_keywords_alone_have_spliced_words_beside_them(labels, said):
    scarce = dataclasses.replace(material(), labels=np.array(labels))
    _, words = SceneMaker(scarce, SceneOptions(), np.random.default_rng(3)).recording(60 * RATE)
    assert {word.label for word in words} == said


def test_scenes_are_the_same_for_the_same_seed_only():
    made = [SceneMaker(material(), SceneOptions(), np.random.default_rng(s)).recording(5 * RATE)[0] for s in (1, 1, 2)]
    assert np.array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])


@pytest.fixture(scope="module")
def stream():
    source = material()
    clips = np.concatenate([source.clips] * 3)
    labels = np.tile(source.labels, 3)
    readings = [burst(0, 4 * RATE, 4 * RATE) for _ in range(4)]
    whole = StreamMaterial(clips, labels, [f"clip-{i}" for i in range(24)], [source.noise], readings, readings)
    return StreamBuilder(whole, 7, RATE).build(noise_seconds=60.0, silence_seconds=10.0)


def test_every_keyword_is_said_once_and_found_where_it_is_said(stream):
    assert sorted(word.name for word in stream.words) == sorted(f"clip-{i}" for i in range(24) if i % 8 < 4)
    assert {word.condition for word in stream.words} == set(CONDITIONS)
    kinds = [section.kind for section in stream.sections]
    assert kinds == ["keywords", "other words", "reading", "digits", "noise", "silence"]
    assert stream.sections[-1].end == len(stream.audio)
    assert all(word.end <= stream.sections[0].end for word in stream.words)


def test_words_have_the_snr_of_their_condition(stream):
    for word in stream.words:
        spoken = stream.audio[word.start + 800 : word.end - 800].astype(float)
        before = stream.audio[word.start - 8000 : word.start - 800].astype(float)
        snr = 10 * np.log10(max(np.mean(spoken**2) / np.mean(before**2) - 1, 1e-9))
        if word.condition == "clean":
            assert snr > 40
        else:
            assert snr == pytest.approx(SNR[word.condition], abs=1.5)


def test_label_files_say_which_line_is_wrong(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("1.5\t2.0\tyes\n\n0.2 0.9 two words\n")
    assert read_labels(path) == [(1.5, 2.0, "yes"), (0.2, 0.9, "two words")]
    path.write_text("1.5\t2.0\tyes\n2.0 1.0 no\n")
    with pytest.raises(ValueError, match=r"a\.txt, line 2"):
        read_labels(path)
    with pytest.raises(ValueError, match="start end word"):
        read_labels(tmp_path / "missing.txt")
    path.write_bytes("﻿1.5\t2.0\tyes\n".encode())  # as some editors begin a file
    assert read_labels(path) == [(1.5, 2.0, "yes")]
    path.write_text("1,5\t2,25\tyes\n")  # as Audacity writes it where decimals have a comma
    assert read_labels(path) == [(1.5, 2.25, "yes")]
    path.write_text("1.5,2.0,yes\n")
    with pytest.raises(ValueError, match=r"a\.txt, line 1: .*between tabs or blanks"):
        read_labels(path)
    path.write_bytes(b"1.5\t2.0\t\xff\xfe\n")
    with pytest.raises(ValueError, match=r"a\.txt: no UTF-8 text"):
        read_labels(path)


def test_recordings_of_ones_own_follow_one_another(tmp_path):
    for name in ("a", "b"):
        write_wav(tmp_path / f"{name}.wav", burst(4000, 9000))
        (tmp_path / f"{name}.txt").write_text("0.25 0.55 yes\n0.7 0.8 other\n")
    recording = read_recordings([tmp_path / "a.wav", tmp_path / "b.wav"], ("no", "yes"), RATE)
    assert [(w.keyword, w.start, w.end, w.condition) for w in recording.words] == [
        (1, 4000, 8800, "a"), (1, 20000, 24800, "b"),
    ]  # fmt: skip
    assert [tuple(s) for s in recording.sections] == [("a", 0, 16000), ("b", 16000, 32000)]


def test_labels_that_cannot_count_are_told(tmp_path, capsys):
    path, labels = tmp_path / "a.wav", tmp_path / "a.txt"
    write_wav(path, burst(4000, 9000))
    labels.write_text("0.2 1.05 yes\n0.5 0.6 Yes\n")  # an editor's rounding
    assert len(read_recordings([path], ("no", "yes"), RATE).words) == 1
    assert "no keywords of the model, not asked for: Yes (1)" in capsys.readouterr().err
    labels.write_text("0.2 0.3 yes\n7 7.5 no\n")
    with pytest.raises(ValueError, match=r"a\.txt: 'no' ends at 7\.5 s, after the recording, which has 1 s"):
        read_recordings([path], ("no", "yes"), RATE)
    labels.write_text("0.2 0.2 mark\n0.2 0.2 yes\n")
    with pytest.raises(ValueError, match=r"a\.txt: 'yes' at 0\.2 s has no length"):
        read_recordings([path], ("no", "yes"), RATE)
    labels.write_text("0.1 0.5 yes\n0.5 0.6 no\n0.55 0.7 yes\n0.65 0.9 no\n")
    assert len(read_recordings([path], ("no", "yes"), RATE).words) == 4
    assert "a.txt: 2 keywords begin before the one before ends, the first 'yes' at 0.55 s" in capsys.readouterr().err
    labels.write_text("0.2 0.3 Yes\n")
    assert read_recordings([path], ("no", "yes"), RATE).words == []
    assert "no keyword is labelled, only Yes" in capsys.readouterr().err
    path.write_bytes(path.read_bytes()[:20000])
    read_recordings([path], ("no", "yes"), RATE)
    assert "a.wav: ends before the length that it claims" in capsys.readouterr().err
