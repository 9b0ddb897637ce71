"""Odd lists, odd files and odd recordings: nothing is lost without a word, nothing stops the rest."""

import csv
import json
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from deltarnn.cli import main
from deltarnn.kws.config.resolve import Config, resolve
from deltarnn.kws.data.audio import AudioError, read_audio, read_recording, write_wav
from deltarnn.kws.data.description import read_description
from deltarnn.kws.data.prepare import prepare
from deltarnn.kws.features.store import feature, feature_paths, load_audio, load_features

TRAIN, TEST = "speech_commands_v0.02", "speech_commands_test_set_v0.02"


def configure(corpus: Path, **flags: object) -> Config:
    values = {"step": "prepare", "data_dir": str(corpus), "work_dir": str(corpus / "work"), "keywords": "yes,no"}
    return resolve({**values, "workers": 1, **flags})


def groups(corpus: Path, word: str) -> Counter[str]:
    with (corpus / "work/data/gscdv2/description.csv").open(encoding="utf-8") as file:
        return Counter(row["group"] for row in csv.DictReader(file) if row["keyword"] == word)


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("/", "\\"),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\n" + text.replace("yes/", "./yes/") + "\n\n",
        lambda text: text.replace(".wav", ".flac"),
    ],
    ids=["byte order mark", "back slashes", "carriage returns", "dots and blank lines", "other suffix"],
)
def test_lists_are_read_however_they_are_written(tiny_corpus, capsys, rewrite):
    path = tiny_corpus / TRAIN / "validation_list.txt"
    path.write_bytes(rewrite(path.read_text()).encode())
    prepare(configure(tiny_corpus))
    assert groups(tiny_corpus, "yes") == {"train": 12, "validation": 4, "test": 2}
    assert "name no clip" not in capsys.readouterr().out


def test_a_keyword_of_two_words_keeps_its_clips(tiny_corpus):
    for root in (TRAIN, TEST):
        (tiny_corpus / root / "yes").rename(tiny_corpus / root / "hey jarvis")
    path = tiny_corpus / TRAIN / "validation_list.txt"
    path.write_text(path.read_text().replace("yes/", "hey jarvis/"))
    prepare(configure(tiny_corpus, keywords="hey jarvis,no"))
    assert groups(tiny_corpus, "hey jarvis") == {"train": 12, "validation": 4, "test": 2}


def test_lines_that_name_no_clip_are_counted_and_the_first_is_named(tiny_corpus, capsys):
    path = tiny_corpus / TRAIN / "validation_list.txt"
    path.write_text("yess/a0000006_nohash_0.wav\nyess/a0000006_nohash_1.wav\n" + path.read_text())
    (tiny_corpus / TRAIN / "testing_list.txt").write_text("no/none.wav\n")
    prepare(configure(tiny_corpus))
    out = capsys.readouterr().out
    assert (
        "validation_list.txt: 2 of 18 lines name no clip that is there, the first 'yess/a0000006_nohash_0.wav'" in out
    )
    assert "testing_list.txt: 1 of 1 lines name no clip that is there, the first 'no/none.wav'" in out


@pytest.mark.parametrize("group", ["train", "validation", "test"])
def test_a_keyword_without_clips_in_a_group_is_an_error(tiny_corpus, group):
    path = tiny_corpus / TRAIN / "validation_list.txt"
    if group == "test":
        (tiny_corpus / TEST / "yes" / "b0000000_nohash_0.wav").unlink()
        (tiny_corpus / TEST / "yes" / "b0000001_nohash_0.wav").unlink()
    elif group == "validation":
        path.write_text(path.read_text().replace("yes/", "yess/"))
    else:
        names = "\n".join(f"yes/{clip.name}" for clip in (tiny_corpus / TRAIN / "yes").iterdir())
        (tiny_corpus / TRAIN / "testing_list.txt").write_text(names)
        path.write_text(path.read_text().replace("yes/", "yess/"))
    # Training comes first: without training clips the others lack too.
    with pytest.raises(ValueError, match=rf"no {group} clip of yes can be used: "):
        prepare(configure(tiny_corpus))


def test_a_list_that_is_no_text_is_named(tiny_corpus):
    (tiny_corpus / TRAIN / "validation_list.txt").write_bytes(b"yes/\xe4.wav\n")
    with pytest.raises(ValueError, match=r"validation_list\.txt: is not UTF-8"):
        prepare(configure(tiny_corpus))


def test_folders_whose_name_is_not_utf_8_are_named(tiny_corpus_of, tmp_path, capsys):
    folder = tiny_corpus_of(Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")))
    assert main(["prepare", "--data_dir", str(folder), "--work_dir", str(tmp_path), "--keywords", "yes,no"]) == 1
    assert "caf\\udce9/" in (error := capsys.readouterr().err)
    assert error.endswith(": its name is not UTF-8; rename it\n")


def test_whatever_is_no_regular_readable_audio_is_skipped_named_and_counted(tiny_corpus, capsys):
    yes = tiny_corpus / TRAIN / "yes"
    (yes / "link.wav").symlink_to(yes / "nowhere.wav")
    (yes / "folder.wav").mkdir()
    (yes / "endless.wav").symlink_to("/dev/zero")
    os.mkfifo(yes / "pipe.wav")
    shutil.copy(yes / "a0000000_nohash_0.wav", os.fsencode(yes) + b"/latin_\xe4.wav")
    (tiny_corpus / TRAIN / "gone").symlink_to(tiny_corpus / "nowhere")
    assert main(
        ["prepare", "--data_dir", str(tiny_corpus), "--work_dir", str(tiny_corpus / "work"), "--keywords", "yes,no"]
    ) == 0  # fmt: skip
    out = capsys.readouterr().out
    for name, reason in (
        ("link.wav", "a link to nothing"),
        ("folder.wav", "no regular file"),
        ("endless.wav", "no regular file"),
        ("pipe.wav", "no regular file"),
        ("gone", "a link to nothing"),
        ("latin_\\udce4.wav", "its name is not UTF-8"),
    ):
        assert f"{name}: {reason}" in out
    assert "skipped 6 of 79 clips" in out
    assert groups(tiny_corpus, "yes") == {"train": 12, "validation": 4, "test": 2}


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir])
def test_reading_no_regular_file_is_an_error_at_once(tmp_path, make):
    make(tmp_path / "a.wav")
    with pytest.raises((AudioError, IsADirectoryError), match=r"no regular file|Is a directory"):
        read_audio(tmp_path / "a.wav")


def test_cut_off_long_and_absurd_recordings_are_counted_and_named(tiny_corpus, capsys):
    yes = tiny_corpus / TRAIN / "yes"
    whole = read_audio(yes / "a0000000_nohash_0.wav")
    long = np.concatenate([whole, whole[::-1] // 2])
    write_wav(yes / "c0000000_nohash_0.wav", long)
    content = (yes / "a0000001_nohash_0.wav").read_bytes()
    (yes / "a0000001_nohash_0.wav").write_bytes(content[:-1001])
    soundfile.write(yes / "c0000001_nohash_0.wav", np.ones(9) / 2, 1)
    config = configure(tiny_corpus)
    description = prepare(config)
    out = capsys.readouterr().out
    assert "c0000001_nohash_0.wav: claims a sample rate of 1 Hz; 1000 to 768000 are taken" in out
    assert f"1 of 75 clips are longer than 1 s and count by their first 1 s; see --clip_seconds: {yes}/c0000000" in out
    assert f"1 of 75 clips are cut off: their files end before the length that they claim: {yes}/a0000001" in out
    facts = json.loads((tiny_corpus / "work/data/gscdv2/description.json").read_text())
    assert facts["too_long"] == [str(yes / "c0000000_nohash_0.wav")]
    assert facts["cut_off"] == [str(yes / "a0000001_nohash_0.wav")]
    assert len(facts["skipped"]) == 1
    (row,) = [i for i, row in enumerate(description.group("train")) if "c0000000" in row.path]
    np.testing.assert_array_equal(load_audio(config, description, "train")[row], long[:16000])


def test_clips_are_as_long_as_asked(tiny_corpus, capsys):
    yes = tiny_corpus / TRAIN / "yes"
    whole = read_audio(yes / "a0000000_nohash_0.wav")
    long = np.concatenate([whole, whole[::-1] // 2])
    write_wav(yes / "c0000000_nohash_0.wav", long)
    config = configure(tiny_corpus, clip_seconds=2)
    description = prepare(config)
    assert "longer" not in capsys.readouterr().out
    feature(config)
    (row,) = [i for i, row in enumerate(description.group("train")) if "c0000000" in row.path]
    clips = load_audio(configure(tiny_corpus, step="feature"), read_description(config), "train")
    assert clips.shape[1] == 32000
    np.testing.assert_array_equal(clips[row], long)
    stored = load_features(feature_paths(config)["train"])
    assert stored.clip_seconds == 2.0
    assert stored.features.shape[1] == stored.pipeline.num_frames(32000)
    silence = next(row for row in description.group("train") if row.keyword == "_silence_")
    assert len(read_audio(silence.path)) == 32000


@pytest.mark.parametrize(
    ("size", "cut_off"), [(None, False), (40000, True), (0xFFFFFFFF, False)], ids=["true", "beyond", "of a stream"]
)
def test_a_header_that_claims_more_than_there_is(tmp_path, size, cut_off):
    path = tmp_path / "a.wav"
    write_wav(path, np.arange(1, 16001).astype(np.int16))
    content = path.read_bytes()
    if size is not None:
        path.write_bytes(content[:40] + size.to_bytes(4, "little") + content[44:])
    recording = read_recording(path)
    assert recording.cut_off == cut_off
    np.testing.assert_array_equal(recording.samples, np.arange(1, 16001))


def test_a_moved_work_folder_goes_on(tiny_corpus, tmp_path_factory, capsys):
    config = configure(tiny_corpus, step="feature")
    prepare(config)
    feature(config)
    load_audio(config, read_description(config), "train")
    for name in ("description.csv", "description.json"):
        text = (tiny_corpus / "work/data/gscdv2" / name).read_text()
        assert str(tiny_corpus / "work") not in text
    assert (
        str(tiny_corpus / "work").encode()
        not in (tiny_corpus / "work/feat/gscdv2/feat_fft/test.safetensors").read_bytes()
    )
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "moved"
    shutil.move(tiny_corpus / "work", elsewhere)
    moved = config.replace(work_dir=str(elsewhere))
    capsys.readouterr()
    prepare(moved)
    feature(moved)
    assert capsys.readouterr().out.count("is up to date") == 4
    description = read_description(moved)
    assert all(Path(row.path).is_file() for row in description.rows)
    stored = load_features(feature_paths(moved)["train"])
    assert stored.paths == [row.path for row in description.group("train")]


def test_a_damaged_description_is_made_anew(tiny_corpus):
    config = configure(tiny_corpus)
    first = prepare(config)
    path = tiny_corpus / "work/data/gscdv2/description.json"
    path.write_text(path.read_text().replace('"yes"', '"yex"'))
    with pytest.raises(ValueError, match="no data description"):
        read_description(config)
    assert prepare(config) == first
