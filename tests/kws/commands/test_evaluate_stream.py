"""Training on made-up recordings and `deltarnn evaluate --stream` on a tiny corpus, through the command line."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from deltarnn.cli import main
from deltarnn.engine.model_file import load_model, save_model
from deltarnn.kws.commands import train
from deltarnn.kws.data.audio import read_audio, write_wav
from deltarnn.kws.features import recording
from deltarnn.kws.features.teacher import Teacher, mean_posteriors
from deltarnn.kws.network.model import load_keyword_model
from deltarnn.kws.spotter import DeviceSpotter
from deltarnn.kws.spotter.calibration import Calibration, store
from deltarnn.kws.spotter.rule import StreamRule
from deltarnn.kws.training.trainer import Progress
from deltarnn.native import native_core

pytestmark = pytest.mark.skipif(native_core() is None, reason="the native core was not built")

DATA = ["--dataset", "gscdv2", "--keywords", "yes,no", "--workers", "2"]
STREAM = [
    *("--stream_minutes", "0.6", "--stream_chunk", "40", "--stream_readings", "2", "--target", "word"),
    *("--aug_versions", "2", "--aug_noise", "0.5", "--aug_snr_low", "20", "--aug_snr_high", "30"),
    *("--rnn_size", "12", "--batch_size", "4", "--lr", "0.02", "--threads", "1", "--focus", "1", "--average", "0.9"),
    *("--smooth_window_size", "10", "--confidence_window_size", "30", "--fire_threshold", "0.3"),
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_corpus_of) -> Path:
    """The model file of a delta network that was trained on made-up recordings."""
    folder = tmp_path_factory.mktemp("stream")
    work = ["--work_dir", str(folder / "work")]
    assert main(["prepare", *DATA, *work, "--data_dir", str(tiny_corpus_of(folder / "corpus"))]) == 0
    assert main(["feature", *DATA, *work]) == 0
    assert main(["pretrain", *DATA, *work, *STREAM, "--epochs_pretrain", "12"]) == 0
    model = str(folder / "model.safetensors")
    flags = ["--epochs_retrain", "6", "--thx", "0.1", "--thh", "0.1", "--teacher", "start", "--model_path", model]
    assert main(["retrain", *DATA, *work, *STREAM, *flags]) == 0
    return Path(model)


@pytest.fixture
def short(monkeypatch):
    """A recording with little but words."""
    monkeypatch.setattr(recording, "READINGS", {"sentences": 2, "digits": 2})
    build = recording.StreamBuilder.build
    monkeypatch.setattr(recording.StreamBuilder, "build", lambda self: build(self, 40.0, 10.0))


def test_a_network_learns_words_from_made_up_recordings(trained):
    metrics = json.loads(trained.with_name("metrics.json").read_text())
    assert metrics["validation_accuracy"] > 0.6  # tones: chance is below 0.4
    assert metrics["sparsity"] > 0.2


def test_the_same_stream_gives_the_same_bytes(trained, short, capsys):
    printed, written = [], []
    for _ in range(2):
        assert main(["evaluate", str(trained), "--stream", "--false_alarms", "60"]) == 0
        printed.append(capsys.readouterr().out)
        written.append(trained.with_name("stream.json").read_bytes())
    assert printed[0] == printed[1]
    assert written[0] == written[1]
    result = json.loads(written[0])
    assert load_model(trained)[1]["stream"]["threshold"] == result["rule"]["threshold"]
    rates = [point["miss_rate"] for point in result["curve"]]
    assert rates == sorted(rates, reverse=True)
    assert set(result["sparsity"]) == {"keywords", "other words", "reading", "digits", "noise", "silence"}
    at = result["at_threshold"]
    count = sum(at["false_alarms_by_section"].values())
    assert count == pytest.approx(at["false_alarms_per_hour"] * result["hours"])
    assert count == sum(sum(row.values()) for row in at["confusions"].values())


def test_recordings_of_ones_own(trained, short, tmp_path, capsys):
    corpus = trained.parent / "corpus" / "speech_commands_v0.02" / "yes"
    words = [read_audio(path) for path in sorted(corpus.glob("a0000006*.wav"))]
    gap = np.zeros(24000, np.int16)
    write_wav(tmp_path / "mine.wav", np.concatenate([part for word in words for part in (gap, word)]))
    (tmp_path / "mine.txt").write_text("1.5 2.5 yes\n4.0 5.0 yes\n")
    own = ["evaluate", str(trained), "--stream", "--recording", str(tmp_path / "mine.wav")]
    assert main([*own, "--false_alarms", "60"]) == 0
    assert "2 keywords" in capsys.readouterr().out
    assert "the recording is too short" in trained.with_name("stream.html").read_text()
    assert json.loads(trained.with_name("stream.json").read_text())["sections"] == {"mine": pytest.approx(5.0, abs=0.1)}
    (tmp_path / "mine.txt").write_text("")  # false alarms alone
    assert main(own) == 0
    told = capsys.readouterr()
    assert "0 keywords" in told.out
    assert "– missed" in told.out
    assert re.search(r"below 7\d\d false alarms an hour, not one in all", told.out)  # in five seconds
    assert json.loads(trained.with_name("stream.json").read_text())["at_threshold"]["miss_rate"] is None
    page = trained.with_name("stream.html").read_text()
    assert re.search(r">–<.*of the keywords missed", page)
    assert "no keyword is labelled, nothing" in told.err


def test_a_step_is_given_what_its_flags_ask_for(trained, monkeypatch):
    """The recordings with the mean of what all teachers say of them; rows begun anew; the last epoch kept."""
    given = []

    class Spy(train.Trainer):
        def fit(self) -> Progress:
            given.append(self)
            raise KeyboardInterrupt

    monkeypatch.setattr(train, "Trainer", Spy)
    work = trained.parent / "work"
    (start,) = work.glob("save/gscdv2/pretrain-*/model.safetensors")
    flags = ["--teacher", f"{start},{trained}", "--thx", "0.1", "--thh", "0.1", "--stream_fresh", "0.25"]
    assert main(["retrain", *DATA, "--work_dir", str(work), *STREAM, *flags]) == 130
    (trainer,) = given
    assert trainer.plan.keep_last
    assert trainer.plan.stream_fresh == 0.25
    teachers = [Teacher(load_keyword_model(path)[0], None, "") for path in (start, trained)]
    for version in trainer.material.versions:
        expected = mean_posteriors([teacher.of_frames(version.features) for teacher in teachers])
        torch.testing.assert_close(version.taught.float(), expected, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("kind", ["-0", "-0-taught"])
def test_a_damaged_recording_is_made_anew(trained, kind):
    """And what a teacher says of it, though no more than a bit has changed."""
    work = trained.parent / "work"
    # Of the retraining above: other tests make more, with more teachers.
    path = min(work.glob(f"feat/gscdv2/*/versions/*{kind}.safetensors"), key=lambda made: made.stat().st_mtime)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    flags = ["--epochs_retrain", "1", "--thx", "0.1", "--thh", "0.1", "--teacher", "start"]
    assert main(["retrain", *DATA, "--work_dir", str(work), *STREAM, *flags]) == 0
    assert path.read_bytes() == whole


def test_the_arithmetic_of_a_device(trained, tmp_path, capsys):
    """Clips beside the other arithmetics; a recording, heard by the twin."""
    out = ["--out", str(tmp_path)]
    assert main(["evaluate", str(trained), "--arithmetic", "device", "--groups", "test", *out]) == 0
    told = capsys.readouterr().out
    accuracies = [float(a) for a in re.findall(r"(?:float|device) +reset +test +([\d.]+)%", told)]
    assert abs(accuracies[0] - accuracies[1]) < 10
    metrics = json.loads((tmp_path / "metrics.json").read_text())["evaluation"]["device"]["reset"]["test"]
    assert f"{metrics['accuracy']:.2%}" == f"{accuracies[1]:.2f}%"
    assert 0.2 < metrics["sparsity"] < 1
    calibrated = tmp_path / "model.safetensors"
    shutil.copy(trained, calibrated)
    store(calibrated, Calibration(StreamRule(12, threshold=0.5), 1.0, 1.0))
    audio = read_audio(trained.parent / "corpus" / "speech_commands_v0.02" / "yes" / "a0000006_nohash_0.wav")
    write_wav(tmp_path / "mine.wav", np.tile(audio, 4))
    (tmp_path / "mine.txt").write_text("0.0 1.0 yes\n")
    flags = ["--stream", "--arithmetic", "device", "--recording", str(tmp_path / "mine.wav"), *out]
    assert main(["evaluate", str(calibrated), *flags]) == 0
    spotter = DeviceSpotter.load(calibrated)
    spotter.accept_waveform(np.tile(audio, 4))
    sparsity = json.loads((tmp_path / "stream.json").read_text())["sparsity"]
    assert sparsity == {"mine": spotter.activity.sparsity}
    assert main(["evaluate", str(calibrated), *flags, "--precision", "int8"]) == 1
    assert "--precision does nothing with --arithmetic device" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--stream", "--groups", "test"], "--groups does nothing with --stream"),
        (["--stream", "--batch_size_eval", "4"], "--batch_size_eval does nothing with --stream"),
        (["--groups", "tset"], "--groups tset: there are train, validation, test"),
        (["--groups", ""], "--groups: names none"),
        (["--activation", "99.1"], "--activation 99.1: "),
        (["--features", "/nowhere"], "/nowhere/validation.safetensors: no feature file is there"),
        (["--recording", "x.wav"], "--recording does nothing without --stream"),
        (["--stream", "--recording", "missing.wav"], "missing.wav"),
    ],
)
def test_flags_that_do_nothing_are_refused(trained, capsys, flags, message):
    assert main(["evaluate", str(trained), *flags]) == 1
    assert message in capsys.readouterr().err


def test_a_moved_work_folder_and_out_are_followed(trained, short, tmp_path, capsys, monkeypatch):
    """The stream is made of the data beside the model, wherever both lie now; results go where --out says."""
    moved = tmp_path / "elsewhere"
    shutil.copytree(trained.parent / "work", moved)
    run = moved / "save" / "gscdv2" / "run"
    run.mkdir()
    tensors, header = load_model(trained)
    header["training"]["options"]["work_dir"] = "/nowhere"
    save_model(run / "model.safetensors", tensors, header)
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "results"
    assert (
        main(["evaluate", str(run / "model.safetensors"), "--stream", "--false_alarms", "60", "--out", str(out)]) == 0
    )
    assert (out / "stream.json").is_file()
    assert (out / "stream.html").is_file()
    assert not (run / "stream.json").exists()
    told = capsys.readouterr().err
    micros, factor = re.search(r"([\d.]+) µs of processor time a frame, real-time factor ([\d.e-]+)", told).groups()
    assert float(factor) == pytest.approx(1e-6 * float(micros) / header["features"]["frame_stride"], rel=0.1)


def test_a_model_of_elsewhere_is_named(trained, tmp_path, capsys):
    tensors, header = load_model(trained)
    save_model(tmp_path / "model.safetensors", tensors, {k: v for k, v in header.items() if k != "training"})
    assert main(["evaluate", str(tmp_path / "model.safetensors"), "--stream"]) == 1
    assert "does not say with which options it was trained" in capsys.readouterr().err
