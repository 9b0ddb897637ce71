"""`deltarnn resynthesise` and what prepare makes of its recordings."""

import json

import numpy as np
import pytest
import soundfile

from deltarnn.cli import main
from deltarnn.kws.data.description import load_description
from deltarnn.kws.features.log_mel import LogMelFilterBank


@pytest.fixture
def levels(tmp_path):
    """Two clips each of two words, by a speaker each, as levels in a file."""
    noise = np.random.default_rng(0).normal(0, 1000, (4, 16000)).astype(np.int16)
    path = tmp_path / "levels" / "train.npz"
    path.parent.mkdir()
    names = ["c1_nohash_0", "c2_nohash_0", "c1_nohash_0", "c3_nohash_0"]
    np.savez(path, x=LogMelFilterBank()(noise), word=np.array(["yes", "yes", "house", "house"]), name=np.array(names))
    return path


def test_makes_recordings_once_and_prepare_trains_on_them(levels, tmp_path, tiny_corpus, capsys):
    out = tmp_path / "more"
    assert main(["resynthesise", str(levels), str(out)]) == 0
    assert "made 4 recordings of 2 words" in capsys.readouterr().out
    samples, rate = soundfile.read(out / "house" / "c3_nohash_0.wav", dtype="int16")
    assert (rate, len(samples)) == (16000, 16000)
    assert 500 < samples.std() < 2000
    (out / "house" / "c3_nohash_0.wav").unlink()
    assert main(["resynthesise", str(levels), str(out)]) == 0
    assert "made 1 recordings" in capsys.readouterr().out
    again, _ = soundfile.read(out / "house" / "c3_nohash_0.wav", dtype="int16")
    np.testing.assert_array_equal(again, samples)

    held = next((tiny_corpus / "speech_commands_test_set_v0.02" / "yes").glob("*.wav"))
    speaker = held.name.split("_nohash_")[0]
    (out / "yes" / "c2_nohash_0.wav").rename(out / "yes" / f"{speaker}_nohash_7.wav")
    flags = ["--data_dir", tiny_corpus, "--work_dir", tmp_path / "work", "--keywords", "yes,no", "--workers", 1]
    assert main(["prepare", *map(str, [*flags, "--unknown_ratio", 100, "--more_train", out])]) == 0
    rows = [row for row in load_description(tmp_path / "work/data/gscdv2").rows if str(out) in row.path]
    assert {(row.group, row.keyword) for row in rows} == {("train", "yes"), ("train", "house")}
    assert len(rows) == 3  # the test speaker's is left out


def test_takes_some_of_each_word(levels, tmp_path):
    assert main(["resynthesise", str(levels), str(tmp_path / "more"), "--clips", "1"]) == 0
    assert sorted(p.parent.name for p in (tmp_path / "more").glob("*/*.wav")) == ["house", "yes"]


def test_says_what_is_wrong(levels, tmp_path, tiny_corpus, capsys):
    out = tmp_path / "more"
    assert main(["resynthesise", str(levels), str(out), "--clips", "1"]) == 0
    assert main(["resynthesise", str(levels), str(out)]) == 1
    assert "holds recordings of other levels or settings" in capsys.readouterr().err
    other = tmp_path / "elsewhere" / levels.name
    other.parent.mkdir()
    np.savez(other, **{**np.load(levels), "x": np.ones((4, 98, 40), np.uint8)})
    assert main(["resynthesise", str(other), str(out), "--clips", "1"]) == 1
    assert "holds recordings of other levels or settings" in capsys.readouterr().err
    levels.with_name("features.json").write_text(json.dumps({"feat_type": "iir"}))
    assert main(["resynthesise", str(levels), str(tmp_path / "other")]) == 1
    assert "only levels of --feat_type logmel" in capsys.readouterr().err
    for folder, sentence in ((tmp_path / "nowhere", "no such folder"), (levels.parent, "holds no recordings")):
        prepare = ["prepare", "--data_dir", tiny_corpus, "--work_dir", tmp_path, "--keywords", "yes,no", "--more_train"]
        assert main([*map(str, prepare), str(folder)]) == 1
        assert f"--more_train {folder}: {sentence}" in capsys.readouterr().err
