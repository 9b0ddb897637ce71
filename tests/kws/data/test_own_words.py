"""Recordings of one's own: one folder per word, and nothing else."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltarnn.cli import main
from deltarnn.kws.config.resolve import Config, resolve
from deltarnn.kws.data.audio import fit, read_audio, speaker_of, write_wav
from deltarnn.kws.data.corpus import SourceClip
from deltarnn.kws.data.own_words import draw_groups
from deltarnn.kws.data.prepare import prepare


def record(folder: Path, word: str, names: list[str]) -> None:
    for number, name in enumerate(names):
        samples = 3000 * np.sin(np.arange(9000 + number) * (0.02 * len(word) ** 2 + 0.001 * number))
        write_wav(folder / word / f"{name}.wav", samples.astype(np.int16))


@pytest.fixture
def words(tmp_path) -> Path:
    """Two words, twelve recordings each, whose names tell no speaker."""
    for word in ("lumos", "hey nox"):
        record(tmp_path / "mine", word, [f"take {i}" for i in range(12)])
    return tmp_path / "mine"


def configure(folder: Path, **flags: object) -> Config:
    values = {"step": "prepare", "dataset": "mine", "data_dir": str(folder), "work_dir": str(folder.parent / "work")}
    return resolve({**values, "workers": 1, **flags})


def test_word_folders_are_all_that_is_needed(words, capsys):
    description = prepare(configure(words))
    assert description.class_names == ["_silence_", "_unknown_", "hey nox", "lumos"]
    counts = Counter((row.group, row.keyword) for row in description.rows)
    for word in ("hey nox", "lumos"):
        assert [counts[group, word] for group in ("train", "validation", "test")] == [10, 1, 1]
    assert all(counts[group, "_silence_"] for group in ("train", "validation", "test"))
    out = capsys.readouterr().out
    assert "noises are made for silence" in out
    assert "every word is a keyword" in out
    assert prepare(configure(words)) == description
    for group in ("train", "validation", "test"):
        silence = {Path(row.path).name for row in description.group(group) if row.label == 0}
        assert not silence & {Path(row.path).name for row in description.rows if row.group != group}


def test_all_four_steps_and_predict_run_on_them(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    common = ["--dataset", "mine", "--workers", "1"]
    assert main(["prepare", *common, "--data_dir", str(words)]) == 0
    assert main(["feature", *common]) == 0
    train = ["--rnn_size", "8", "--batch_size", "8", "--threads", "1", "--lr", "0.02", "--class_weights", "1"]
    assert main(["pretrain", *common, *train, "--epochs_pretrain", "40"]) == 0
    assert main(["retrain", *common, *train, "--epochs_retrain", "3", "--thx", "0.1", "--thh", "0.1"]) == 0
    assert (tmp_path / "save/mine/latest/model.safetensors").is_file()
    capsys.readouterr()
    recordings = [str(words / "lumos" / "take 3.wav"), str(words / "hey nox" / "take 4.wav")]
    assert main(["predict", *recordings]) == 0
    printed = capsys.readouterr()
    assert "latest" not in printed.err
    assert "model: save/mine/retrain-" in printed.err  # standard output has a line for each recording, and no other
    first, second = printed.out.splitlines()
    assert first.startswith(f"{recordings[0]}: lumos (")
    assert second.startswith(f"{recordings[1]}: hey nox (")
    noise = read_audio("data/mine/noise/pink-0-16000.wav")
    long = np.concatenate([noise[:24000], fit(read_audio(recordings[0]), 16000), noise[-24000:]])
    write_wav(tmp_path / "long.wav", long)
    (tmp_path / "text.wav").write_text("no audio")
    assert main(["predict", "save/mine/latest", "text.wav", "long.wav"]) == 1
    bad, good = capsys.readouterr().out.splitlines()
    assert bad.startswith("text.wav: not read: cannot be decoded")
    assert good.startswith("long.wav: lumos (")
    assert ", from 1" in good
    assert main(["evaluate"]) == 0
    assert "the newest" in capsys.readouterr().err


def test_predict_without_a_model_or_files_says_what_to_type(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["predict", "yes.wav"]) == 1
    assert "no finished run under save: train one" in capsys.readouterr().err
    assert main(["predict"]) == 1
    assert "name one or more recordings" in capsys.readouterr().err


def test_other_words_are_unknown_and_own_noise_is_used(words, capsys):
    record(words, "other", [f"o{i}" for i in range(6)])
    rng = np.random.default_rng(0)
    write_wav(words / "_background_noise_" / "fan.wav", (300 * rng.standard_normal(16000 * 20)).astype(np.int16))
    description = prepare(configure(words, keywords="lumos"))
    assert description.class_names == ["_silence_", "_unknown_", "lumos"]
    assert {row.keyword for row in description.rows if row.label == 1} == {"other", "hey nox"}
    assert [Path(name).name for name in description.noises] == ["fan.wav"]
    assert "made for silence" not in capsys.readouterr().out


def test_files_that_are_not_read_are_named(words, capsys):
    """Recordings of a telephone, and those in folders of their own."""
    (words / "lumos" / "take 0.m4a").write_bytes(b"")
    record(words / "lumos", "monday", ["take 0"])
    (words / "lumos" / ".hidden").touch()
    prepare(configure(words))
    note = f"note: {words / 'lumos'} holds 1 folder, 1 .m4a that are not read: recordings are .wav, "
    assert note in capsys.readouterr().out
    for path in words.glob("lumos/*.wav"):
        path.rename(path.with_suffix(".m4a"))
    with pytest.raises(
        ValueError, match=r"lumos holds 0 recordings: .*; it holds 1 folder, 12 \.m4a that are not read"
    ):
        prepare(configure(words))


def test_speakers_are_never_in_two_groups(tmp_path):
    for word in ("lumos", "nox"):
        record(tmp_path / "mine", word, [f"{who}_nohash_{take}" for who in "abcdefghij" for take in range(3)])
    description = prepare(configure(tmp_path / "mine"))
    speakers = {
        group: {speaker_of(row.path) for row in description.group(group)} - {None}
        for group in ("train", "validation", "test")
    }
    assert [len(speakers[group]) for group in ("train", "validation", "test")] == [8, 1, 1]
    assert set.union(*speakers.values()) == set("abcdefghij")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 40)), unique=True, max_size=60))
def test_drawn_groups_hold_every_word_and_do_not_depend_on_the_order(pairs):
    clips = [SourceClip(word, Path(f"{word}/{number}.wav")) for word, number in pairs]
    groups = draw_groups(clips)
    assert dict(zip(clips[::-1], draw_groups(clips[::-1]), strict=True)) == dict(zip(clips, groups, strict=True))
    counts = Counter((clip.word, group) for clip, group in zip(clips, groups, strict=True))
    for word, total in Counter(clip.word for clip in clips).items():
        share = max(1, round(0.1 * total))
        assert counts[word, "validation"] == share
        assert counts[word, "test"] == min(share, total - share)


@pytest.mark.parametrize(
    ("break_it", "flags", "message"),
    [
        (lambda mine: shutil.rmtree(mine), {}, r"--data_dir .*mine: no such folder; it must hold one folder of record"),
        (lambda mine: [shutil.rmtree(p) for p in mine.iterdir()], {}, r"holds no folders; put the recordings of each"),
        (lambda mine: None, {"keywords": "lumos,accio"}, r"has no folder for accio; it has hey nox, lumos$"),
        (
            lambda mine: [p.unlink() for p in sorted((mine / "lumos").iterdir())[2:]],
            {},
            r"lumos holds 2 recordings: each keyword needs at least 3",
        ),
    ],
)
def test_what_is_missing_is_said_in_terms_of_own_folders(words, break_it, flags, message):
    break_it(words)
    with pytest.raises(ValueError, match=message) as caught:
        prepare(configure(words, **flags))
    assert "archive" not in str(caught.value)
    assert "speech_commands" not in str(caught.value)
