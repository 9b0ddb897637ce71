"""The data description of a tiny corpus: groups, labels, speakers, what is left out, and doing it again."""

import csv
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from deltarnn.kws.config.resolve import Config, resolve
from deltarnn.kws.data.audio import AudioError, fit, read_audio, speaker_of, write_wav
from deltarnn.kws.data.corpus import SourceClip, find_corpus
from deltarnn.kws.data.description import read_description
from deltarnn.kws.data.prepare import mix, prepare
from deltarnn.kws.data.selection import balanced
from deltarnn.kws.data.words import FURTHER_WORDS, OTHER_WORDS, further_unknown_words

TRAIN, TEST = "speech_commands_v0.02", "speech_commands_test_set_v0.02"


def configure(corpus: Path, **flags: object) -> Config:
    values = {"step": "prepare", "data_dir": str(corpus), "work_dir": str(corpus / "work"), "keywords": "yes,no"}
    return resolve({**values, "workers": 1, **flags})


def table(corpus: Path) -> list[dict[str, str]]:
    """The rows of the description, their paths whole: those inside the work folder are relative to it."""
    with (corpus / "work/data/gscdv2/description.csv").open() as file:
        return [{**row, "path": str(corpus / "work" / row["path"])} for row in csv.DictReader(file)]


def test_groups_labels_and_balance(tiny_corpus):
    prepare(configure(tiny_corpus))
    rows = table(tiny_corpus)
    assert list(rows[0]) == ["group", "keyword", "label", "path"]
    counts = Counter((r["group"], r["keyword"], int(r["label"])) for r in rows)
    assert counts == {
        ("train", "yes", 2): 12, ("train", "no", 3): 12, ("train", "bed", 1): 6, ("train", "cat", 1): 6,
        ("train", "_silence_", 0): 12,
        ("validation", "yes", 2): 4, ("validation", "no", 3): 4, ("validation", "bed", 1): 4,
        ("validation", "cat", 1): 4, ("validation", "_silence_", 0): 4,
        ("test", "yes", 2): 2, ("test", "no", 3): 2, ("test", "_unknown_", 1): 4, ("test", "_silence_", 0): 1,
    }  # fmt: skip
    assert all(Path(r["path"]).is_file() for r in rows)


def test_validation_and_test_speakers_never_train(tiny_corpus, capsys):
    heard_in_test = tiny_corpus / TRAIN / "cat" / "b0000001_nohash_7.wav"
    write_wav(heard_in_test, np.arange(16000).astype(np.int16))
    heard_in_validation = tiny_corpus / TRAIN / "bed" / "a0000007_nohash_9.wav"  # not in the list, its speaker is
    write_wav(heard_in_validation, np.arange(15000).astype(np.int16))
    prepare(configure(tiny_corpus, unknown_ratio=100))
    speakers = {group: {speaker_of(r["path"]) for r in table(tiny_corpus) if r["group"] == group} - {None}
                for group in ("train", "validation", "test")}  # fmt: skip
    assert not speakers["train"] & (speakers["validation"] | speakers["test"])
    assert not speakers["validation"] & speakers["test"]
    assert speakers["train"] == {f"a000000{i}" for i in range(6)}
    out = capsys.readouterr().out
    assert "left out 1 clips: of test speakers in train" in out
    assert "left out 1 clips: of validation speakers in train" in out


def test_the_testing_list_takes_clips_out_of_training(tiny_corpus):
    (tiny_corpus / TRAIN / "testing_list.txt").write_text("yes/a0000003_nohash_0.wav\nno/a0000007_nohash_1.wav\n")
    prepare(configure(tiny_corpus))
    counts = Counter((r["group"], r["keyword"]) for r in table(tiny_corpus))
    assert (counts["train", "yes"], counts["train", "no"]) == (11, 12)
    assert counts["validation", "no"] == 3
    assert not any("yes/a0000003_nohash_0" in r["path"] for r in table(tiny_corpus))


def test_silence_is_noise_at_three_levels_apart_for_validation(tiny_corpus):
    prepare(configure(tiny_corpus))
    for row in table(tiny_corpus):
        if row["keyword"] != "_silence_" or row["group"] == "test":
            continue
        name, start, level = Path(row["path"]).stem.split("_")
        noise = read_audio(tiny_corpus / TRAIN / "_background_noise_" / f"{name}.wav")
        cut = noise[int(start) : int(start) + 16000] * 10 ** (float(level.removesuffix("dB")) / 20)
        np.testing.assert_array_equal(read_audio(row["path"]), np.rint(cut).astype(np.int16))
        inside_training = int(start) + 16000 <= 0.8 * len(noise)
        assert inside_training == (row["group"] == "train")
        assert level in ("0dB", "-5dB", "-10dB")


def test_again_does_nothing_and_other_options_do(tiny_corpus, capsys):
    first = prepare(configure(tiny_corpus))
    path = tiny_corpus / "work/data/gscdv2/description.csv"
    before = path.stat().st_mtime_ns
    capsys.readouterr()
    assert prepare(configure(tiny_corpus)) == first
    assert "is up to date" in capsys.readouterr().out
    assert path.stat().st_mtime_ns == before
    other = prepare(configure(tiny_corpus, seed=1))
    assert other.digest != first.digest
    assert prepare(configure(tiny_corpus)) == first  # the same seed draws the same clips
    Path(first.group("train")[0].path).unlink()  # a silence clip it made itself
    assert prepare(configure(tiny_corpus)) == first
    assert Path(first.group("train")[0].path).is_file()


def test_a_killed_run_leaves_no_description_and_starts_again(tiny_corpus, monkeypatch):
    from deltarnn.kws.data import prepare as module

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "_silence_rows", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare(configure(tiny_corpus))
    with pytest.raises(ValueError, match="type deltarnn prepare --dataset gscdv2 --data_dir"):
        read_description(configure(tiny_corpus))
    assert len(prepare(configure(tiny_corpus)).rows) == 77


def test_unusable_audio_is_skipped_by_name_and_counted(tiny_corpus, capsys):
    yes = tiny_corpus / TRAIN / "yes"
    (yes / "c0000001_nohash_0.wav").write_bytes(b"")
    (yes / "c0000002_nohash_0.wav").write_bytes(b"RIFF\x00\x00no wave at all")
    write_wav(yes / "c0000003_nohash_0.wav", np.zeros(16000, np.int16))
    write_wav(yes / "c0000004_nohash_0.wav", np.zeros(0, np.int16))
    prepare(configure(tiny_corpus))
    out = capsys.readouterr().out
    for number, reason in ((1, "cannot be decoded"), (2, "cannot be decoded"), (3, "only zeros"), (4, "no samples")):
        assert any(f"c000000{number}_nohash_0.wav" in line and reason in line for line in out.splitlines())
    assert "skipped 4 of 77 clips" in out
    assert not any("c000000" in row["path"] for row in table(tiny_corpus))


def test_duplicates_count_once(tiny_corpus, capsys):
    yes = tiny_corpus / TRAIN / "yes"
    samples = read_audio(yes / "a0000000_nohash_0.wav")
    soundfile.write(yes / "a0000000_nohash_0.flac", samples, 16000)  # the same clip in another file type
    write_wav(yes / "a0000001_nohash_8.wav", samples)  # the same samples under another name
    prepare(configure(tiny_corpus))
    out = capsys.readouterr().out
    assert "left out 1 clips: also there as another file type" in out
    assert "left out 1 clips: the same samples as another clip, in train" in out
    assert sum(r["keyword"] == "yes" and r["group"] == "train" for r in table(tiny_corpus)) == 12


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda c: shutil.rmtree(c / TEST), r"no folder .*test_set_v0.02: --data_dir must name .* Add --download"),
        (lambda c: shutil.rmtree(c / TRAIN / "no"), r"v0.02 has no folder for no. To use .*type --keywords yes$"),
        (lambda c: shutil.rmtree(c / TEST / "no"), r"test_set_v0.02 has no folder for no. To use"),
        (
            lambda c: (c / TRAIN / "validation_list.txt").unlink(),
            "validation_list.txt: it decides which clips validate",
        ),
        (lambda c: shutil.rmtree(c / TRAIN / "_background_noise_"), "no background noises in"),
    ],
)
def test_what_is_missing_is_named_with_the_remedy(tiny_corpus, break_it, message):
    break_it(tiny_corpus)
    with pytest.raises(ValueError, match=message):
        prepare(configure(tiny_corpus))


def test_missing_default_words_suggest_those_that_are_there(tiny_corpus):
    with pytest.raises(ValueError, match=r"no folder for down, go, left, off, on, right, stop, up; .*keywords no,yes$"):
        find_corpus(tiny_corpus, Config().data.keywords)


def test_another_word_list_than_prepared_is_an_error(tiny_corpus):
    prepare(configure(tiny_corpus))
    assert read_description(configure(tiny_corpus)).class_names == ["_silence_", "_unknown_", "yes", "no"]
    with pytest.raises(ValueError, match="was prepared for yes,no"):
        read_description(configure(tiny_corpus, keywords="bed,cat"))


def test_noisy_copies_have_the_asked_snr(tiny_corpus):
    prepare(configure(tiny_corpus, augment_noise=1, target_snr=3))
    rows = table(tiny_corpus)
    copies = [r for r in rows if "/noisy/" in r["path"]]
    assert len(copies) == 2 * 36
    assert {Path(r["path"]).parent.name for r in copies} == {"8dB", "3dB"}
    assert {r["group"] for r in copies} == {"train"}
    for row in copies[:6]:
        word, _, name = Path(row["path"]).name.partition("_")
        clean = read_audio(tiny_corpus / TRAIN / word / name).astype(float)
        noise = read_audio(row["path"]) - clean
        snr = 10 * np.log10((clean**2).mean() / (noise**2).mean())
        assert snr == pytest.approx(float(Path(row["path"]).parent.name.removesuffix("dB")), abs=0.05)


def test_clips_of_one_name_have_noisy_copies_of_their_own(tiny_corpus, tmp_path):
    """As recordings have that were made of features, beside the original ones."""
    name, more = "a0000000_nohash_0.wav", tmp_path / "more"
    write_wav(more / "yes" / name, read_audio(tiny_corpus / TRAIN / "yes" / name)[::-1])
    prepare(configure(tiny_corpus, augment_noise=1, more_train=str(more)))
    copies = [r["path"] for r in table(tiny_corpus) if "/noisy/" in r["path"]]
    assert len(set(copies)) == len(copies) == 2 * (36 + 1)


def test_synthetic_clips_join_training_only(tiny_corpus):
    prepare(configure(tiny_corpus, synth_unknown=3, synth_keywords=4))
    added = [r for r in table(tiny_corpus) if "/synthetic_" in r["path"]]
    assert Counter((r["group"], r["label"]) for r in added) == {("train", "1"): 3, ("train", "2"): 2, ("train", "3"): 2}
    assert {r["keyword"] for r in added if r["label"] != "1"} == {"yes", "no"}
    assert all(r["keyword"] in FURTHER_WORDS for r in added if r["label"] == "1")


def test_mix_scales_down_rather_than_clips():
    loud = np.full(1000, 32000, np.int16)
    mixed = mix(loud, np.tile(np.array([1, -1], np.int16), 500), 0.0)
    assert mixed.max() == 32767
    np.testing.assert_allclose(mixed[1::2], 0, atol=1)


def test_unknown_words_are_balanced_over_scarce_words():
    clips = [SourceClip(w, Path(f"{w}{i}")) for w, n in (("a", 2), ("b", 50), ("c", 50)) for i in range(n)]
    chosen = balanced(clips, 22, np.random.default_rng(0))
    assert Counter(c.word for c in chosen) == {"a": 2, "b": 10, "c": 10}
    assert balanced(clips, 1000, np.random.default_rng(0)) == sorted(clips, key=lambda c: c.path)


def test_read_audio_takes_other_formats(tmp_path):
    time = np.arange(44100) / 44100
    stereo = np.stack([0.5 * np.sin(2 * np.pi * 1000 * time), 0.25 * np.sin(2 * np.pi * 1000 * time)], axis=1)
    for name in ("clip.flac", "clip.wav"):
        soundfile.write(tmp_path / name, stereo, 44100)
        read = read_audio(tmp_path / name)
        assert read.dtype == np.int16
        assert len(read) == 16000
        expected = 0.375 * 32768 * np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
        np.testing.assert_allclose(read[200:-200], expected[200:-200], atol=30)
    soundfile.write(tmp_path / "float.wav", np.array([0.5, -0.25, 2.0]), 16000, subtype="FLOAT")
    np.testing.assert_array_equal(read_audio(tmp_path / "float.wav"), [16384, -8192, 32767])


def test_plain_wav_equals_the_decoder(tmp_path):
    samples = np.random.default_rng(0).integers(-32768, 32768, 40000).astype(np.int16)  # more than one block
    write_wav(tmp_path / "clip.wav", samples)
    np.testing.assert_array_equal(read_audio(tmp_path / "clip.wav"), samples)
    np.testing.assert_array_equal(soundfile.read(tmp_path / "clip.wav", dtype="int16")[0], samples)
    content = (tmp_path / "clip.wav").read_bytes()
    listed = content[:36] + b"LIST\x03\x00\x00\x00abc\x00" + content[36:]  # an odd chunk before the samples
    (tmp_path / "list.wav").write_bytes(listed)
    np.testing.assert_array_equal(read_audio(tmp_path / "list.wav"), samples)
    (tmp_path / "short.wav").write_bytes(content[:-1001])
    assert len(read_audio(tmp_path / "short.wav")) == 39499
    (tmp_path / "head.wav").write_bytes(content[:40])
    with pytest.raises(AudioError, match=r"head\.wav"):
        read_audio(tmp_path / "head.wav")


def test_fit_pads_and_cuts():
    np.testing.assert_array_equal(fit(np.array([1, 2], np.int16), 4, "head"), [0, 0, 1, 2])
    np.testing.assert_array_equal(fit(np.array([1, 2], np.int16), 4, "tail"), [1, 2, 0, 0])
    np.testing.assert_array_equal(fit(np.array([1, 2, 3], np.int16), 2), [1, 2])


def test_speaker_of_file_names():
    assert speaker_of("x/0a7c2a8d_nohash_3.wav") == "0a7c2a8d"
    assert speaker_of("backward_0cb74144_nohash_2.wav") == "0cb74144"
    assert speaker_of("1041.wav") is None


def test_further_unknown_words_avoid_keywords_and_their_sound_alikes():
    words = further_unknown_words(("no", "right", "happy"))
    assert not {"no", "know", "now", "note", "write", "right"} & set(words)
    assert len(words) > 300
    assert "know" not in further_unknown_words(("no",))
    assert set(words) <= {*FURTHER_WORDS, *OTHER_WORDS}


SHARED = Path(__file__).parents[4] / "shared" / "speech"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real-speech subset is not here")
def test_real_subset_names_its_missing_words(tmp_path):
    """Folders as the subset's archives have them; its audio is not needed for this."""
    import tarfile

    for tar_name, folder in (("train.tar", TRAIN), ("test.tar", TEST)):
        with tarfile.open(SHARED / tar_name) as tar:
            for word in {Path(member.name).parts[0] for member in tar}:
                (tmp_path / folder / word).mkdir(parents=True)
    with pytest.raises(ValueError, match=r"--keywords down,go,left,no,right,stop,up,yes$"):
        find_corpus(tmp_path, Config().data.keywords)


def test_a_description_of_version_0_1_0_is_read(tiny_corpus):
    """It had no digest of its own, and clips were of one second."""
    config = configure(tiny_corpus)
    prepare(config)
    now = read_description(config)
    file = config.folder("data") / "description.json"
    facts = json.loads(file.read_text(encoding="utf-8"))
    settings = {name: value for name, value in facts["settings"].items() if name != "clip_seconds"}
    old = {"settings": settings, **{name: facts[name] for name in ("class_names", "noises", "rows")}}
    file.write_text(json.dumps({**old, "skipped": [], "left_out": {}}), encoding="utf-8")
    then = read_description(config)
    assert (then.rows, then.class_names, then.clip_seconds) == (now.rows, now.class_names, 1.0)
    file.write_text(json.dumps({**old, "skipped": []}), encoding="utf-8")
    with pytest.raises(ValueError, match="no data description"):
        read_description(config)
