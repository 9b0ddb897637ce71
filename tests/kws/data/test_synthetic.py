"""Synthetic speech: layout, voices kept apart, and the same samples from the same seed."""

import hashlib
import signal
from pathlib import Path

import numpy as np
import pytest

from deltarnn.cli import main
from deltarnn.files import WriteError
from deltarnn.kws.config.resolve import resolve
from deltarnn.kws.data.acoustics import NOISE_KINDS, background, coloured_noise, in_room
from deltarnn.kws.data.audio import read_audio, speaker_of
from deltarnn.kws.data.description import read_description
from deltarnn.kws.data.espeak import Espeak
from deltarnn.kws.data.synthetic import VARIANTS, cast_speakers, make_corpus, make_words, run_in_fresh_processes

WORDS = ("yes", "no")


def contents(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*.wav")}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("synth")
    make_corpus(folder, WORDS, seed=0, scale=0.01, workers=2)
    return folder


def test_same_seed_gives_the_same_samples_whatever_the_processes(corpus, tmp_path):
    make_corpus(tmp_path, WORDS, seed=0, scale=0.01, workers=1)
    assert contents(tmp_path) == contents(corpus)
    make_corpus(tmp_path, WORDS, seed=1, scale=0.01, workers=2)
    assert not set(contents(tmp_path).values()) & set(contents(corpus).values())


def test_interrupted_synthesis_goes_on(corpus, capsys):
    before = contents(corpus)
    lost = sorted(corpus.rglob("*/yes/*.wav"))[:3]
    for path in lost:
        path.unlink()
    marker = corpus / "synthetic.json"
    marker.write_text(marker.read_text().replace("true", "false"))
    make_corpus(corpus, WORDS, seed=0, scale=0.01, workers=2)
    assert contents(corpus) == before
    make_corpus(corpus, WORDS, seed=0, scale=0.01, workers=2)
    assert "is complete" in capsys.readouterr().out


def test_clips_are_speech_of_up_to_a_second(corpus):
    for path in (corpus / "speech_commands_v0.02" / "yes").glob("*.wav"):
        clip = read_audio(path)
        assert 11000 <= len(clip) <= 16000
        power = np.add.reduceat(clip.astype(float) ** 2, np.arange(0, len(clip), 400)) / 400
        assert power.max() > 4 * np.median(power)  # a word, not noise alone


def test_test_speech_differs_from_training(corpus):
    train = {speaker_of(p) for p in (corpus / "speech_commands_v0.02" / "no").glob("*.wav")}
    test = {speaker_of(p) for p in (corpus / "speech_commands_test_set_v0.02" / "no").glob("*.wav")}
    assert None not in train | test
    assert not train & test


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_variant_speaks_in_two_groups(seed):
    variants = {
        group: {speaker.voice.split("+")[1] for speaker in cast_speakers(group, WORDS, seed, 4.0)}
        for group in ("train", "validation", "test")
    }
    assert sum(map(len, variants.values())) == len(set().union(*variants.values())) == len(VARIANTS)


def test_a_folder_with_other_data_is_never_overwritten(tiny_corpus):
    before = contents(tiny_corpus)
    with pytest.raises(ValueError, match="holds another data set"):
        make_corpus(tiny_corpus, WORDS, seed=0, scale=0.01, workers=1)
    assert contents(tiny_corpus) == before


def test_both_steps_from_the_command_line(tmp_path, capsys):
    line = ["--dataset", "synth", "--work_dir", str(tmp_path), "--keywords", "yes,no", "--synth_scale", "0.01"]
    assert main(["--step", "prepare", *line]) == 0
    assert main(["--step", "feature", "--dataset", "synth", "--work_dir", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert "warning" not in captured.err
    description = read_description(resolve({"dataset": "synth", "work_dir": str(tmp_path)}))
    assert {row.label for row in description.group("train")} == {0, 1, 2, 3}
    assert {row.label for row in description.group("test")} == {0, 1, 2, 3}


def test_further_unknown_words_keep_out_of_held_out_voices(tmp_path):
    clips = make_words(tmp_path, ["apple", "river", "stone"], 7, seed=0, workers=2)
    assert [word for word, _ in clips] == ["apple", "river", "stone", "apple", "river", "stone", "apple"]
    assert all(path.is_file() and path.parent.name == word for word, path in clips)
    assert len({path for _, path in clips}) == 7
    voices = {speaker.code for group in ("validation", "test") for speaker in cast_speakers(group, (), 0, 4.0)}
    assert not {speaker_of(path) for _, path in clips} & voices


def test_a_word_that_is_not_spoken_is_named():
    with pytest.raises(ValueError, match="espeak-ng says nothing to '-'"):
        Espeak().say("-", "en-us")


@pytest.mark.parametrize("kind", NOISE_KINDS)
def test_noises_have_unit_deviation(kind):
    noise = background(kind, 32000, np.random.default_rng(0))
    assert noise.std() == pytest.approx(1)
    assert (noise != background(kind, 32000, np.random.default_rng(1))).all()
    assert all(np.isfinite(background(kind, samples, np.random.default_rng(0))).all() for samples in (1, 2, 3))


def test_coloured_noise_falls_as_asked():
    for slope in (0.0, 1.0, 2.0):
        power = np.abs(np.fft.rfft(coloured_noise(1 << 16, slope, np.random.default_rng(0)))) ** 2
        bins = np.arange(len(power))
        octaves = [power[(bins >= 2**k) & (bins < 2 ** (k + 1))].mean() for k in range(6, 14)]
        assert np.polyfit(np.arange(8), np.log2(octaves), 1)[0] == pytest.approx(-slope, abs=0.1)


def test_a_room_adds_a_tail_and_keeps_the_direct_sound():
    click = np.zeros(16000)
    click[100] = 1.0
    heard = in_room(click, np.random.default_rng(0))
    assert heard[100] == pytest.approx(1.0)
    assert not np.abs(heard[:100]).max() > 1e-9
    assert 1e-6 < (heard[101:] ** 2).sum() < 0.3
    assert (heard[101:2000] ** 2).sum() > 100 * (heard[8000:] ** 2).sum()


def fail(name: str) -> None:
    """SIGINT ends the process by itself here, and is let through."""
    assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    assert not hasattr(signal, "pthread_sigmask") or signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    raise WriteError(f"{name}: cannot be written: no space left")


def test_an_error_of_a_fresh_process_is_its_sentence(capfd):
    with pytest.raises(OSError, match=r"^a\.wav: cannot be written: no space left$"):
        run_in_fresh_processes(fail, [("a.wav",)], 1, "speaking")
    assert "Traceback" not in capfd.readouterr().err
