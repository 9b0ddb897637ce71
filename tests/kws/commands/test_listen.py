"""`deltarnn listen` on files, a pipe and a made-up microphone, against the spotter on the whole stream."""

import io
import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import soxr
from tests.kws.spotter.conftest import model_path, noise  # noqa: F401 (a fixture)

from deltarnn import cli
from deltarnn.engine import load_model, save_model
from deltarnn.kws.data.audio import AudioError, read_audio, write_wav
from deltarnn.kws.spotter import Spotter, sources
from deltarnn.kws.spotter.calibration import Calibration, store
from deltarnn.kws.spotter.rule import StreamRule
from deltarnn.kws.spotter.sources import FileSource, Microphone, RawSource

AUDIO = noise(1, 160_000)


def detections(model, audio: np.ndarray) -> list:
    return Spotter.load(model, threshold=0.5).accept_waveform(audio)


def lines(model, capsys, *arguments: str) -> list[dict]:
    """The JSON lines of `deltarnn listen`, which must end well."""
    assert cli.main(["listen", str(model), *arguments, "--json", "--threshold", "0.5"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def as_lines(found: list, source: str) -> list[dict]:
    return [{"source": source, "time": round(t, 3), "word": w, "score": round(s, 4)} for w, t, s in found]


def test_files_of_any_rate(model_path, tmp_path, capsys):  # noqa: F811
    write_wav(tmp_path / "a.wav", AUDIO)
    fine = soxr.resample(AUDIO.astype(float), 16000, 44100)
    write_wav(tmp_path / "b.wav", np.clip(fine, -32768, 32767).astype(np.int16), 44100)
    (tmp_path / "b.wav").rename(tmp_path / "\udce9.wav")  # a name that is not UTF-8
    for name in ("a.wav", "\udce9.wav"):
        path = str(tmp_path / name)
        found = detections(model_path, read_audio(path))
        assert len(found) > 5
        listed = lines(model_path, capsys, path)
        # A resampler that works piece by piece rounds a few samples otherwise than one that has the whole.
        assert [(d["word"], d["time"]) for d in listed] == [(d.word, round(d.time, 3)) for d in found]
        assert [d["score"] for d in listed] == pytest.approx(
            [d.score for d in found], abs=0 if name == "a.wav" else 0.1, rel=1e-3
        )


def test_text_lines_name_files_where_there_are_several(model_path, tmp_path, capsys):  # noqa: F811
    for name in ("a.wav", "b.wav"):
        write_wav(tmp_path / name, AUDIO)
    assert (
        cli.main(["listen", str(model_path), *(str(tmp_path / n) for n in ("a.wav", "b.wav")), "--threshold", "0.5"])
        == 0
    )
    out, err = capsys.readouterr()
    first = detections(model_path, AUDIO)[0]
    assert out.splitlines()[0] == f"{tmp_path / 'a.wav'}: {first.time:10.2f} s  {first.word:<12} {first.score:6.2f}"
    assert len(out.splitlines()) == 2 * len(detections(model_path, AUDIO))
    assert "b.wav: 10.0 s, " in err
    assert "of the work skipped" in err


def test_raw_samples_in_odd_pieces(monkeypatch, model_path, capsys):  # noqa: F811
    class Pipe(io.BytesIO):
        def read1(self, size: int = -1) -> bytes:
            return self.read(min(size, 4999))

    monkeypatch.setattr("deltarnn.kws.commands.listen.standard_input", lambda: Pipe(AUDIO.astype("<i2").tobytes()))
    assert lines(model_path, capsys, "-") == as_lines(detections(model_path, AUDIO), "-")
    with pytest.raises(ValueError, match="ended within a sample"):
        list(RawSource(io.BytesIO(b"123")))


def test_a_real_pipe(model_path):  # noqa: F811
    command = [sys.executable, "-m", "deltarnn", "listen", str(model_path), "-", "--threshold", "0.5"]
    done = subprocess.run(command, input=AUDIO.tobytes(), capture_output=True, check=True)
    assert len(done.stdout.splitlines()) == len(detections(model_path, AUDIO))


def test_the_second_around_each_detection(model_path, tmp_path, capsys):  # noqa: F811
    write_wav(tmp_path / "a.wav", AUDIO)
    lines(model_path, capsys, str(tmp_path / "a.wav"), "--record_events", str(tmp_path / "events"))
    found = detections(model_path, AUDIO)
    padded = np.concatenate([np.zeros(16000, np.int16), AUDIO, np.zeros(16000, np.int16)])
    for word, time, _ in found:
        end = round((time + 0.2) * 16000)
        clip = read_audio(tmp_path / "events" / word / f"a-{round(1000 * time):08d}.wav")
        np.testing.assert_array_equal(clip, padded[end : end + 16000])
    assert len(list((tmp_path / "events").glob("*/*.wav"))) == len(found)


def test_the_second_around_a_detection_that_is_decided_late(model_path, tmp_path, capsys):  # noqa: F811
    model = shutil.copy(model_path, tmp_path / "m.safetensors")
    store(model, Calibration(StreamRule(smoothing=24, refractory=4.5, hold=4.0), 5.0, 1.0))
    write_wav(tmp_path / "a.wav", AUDIO)
    assert lines(model, capsys, str(tmp_path / "a.wav"), "--record_events", str(tmp_path / "events"))
    for path in (tmp_path / "events").glob("*/*.wav"):
        end = round((int(path.stem[2:]) / 1000 + 0.2) * 16000)
        clip = read_audio(path)
        near = [AUDIO[max(0, at - 16000) : at] for at in range(end - 16, end + 17)]  # names are rounded to 1 ms
        assert any(len(second) == len(clip) and (second == clip).all() for second in near)


class FakeSound:
    """The part of sounddevice that is used; its stream sends `pieces`, then Ctrl-C."""

    PortAudioError = OSError

    def __init__(self, pieces: list, rate: float = 16000.0) -> None:
        self.pieces, self.rate = pieces, rate
        self.default = SimpleNamespace(device=(1, 0))

    def query_devices(self, device=None, kind=None):
        if kind is None:
            one = {"name": "built-in", "max_input_channels": 2, "default_samplerate": 44100.0}
            return [{**one, "max_input_channels": 0}, one]
        if device not in (None, 1):
            raise ValueError(f"no device {device}")
        return {"name": "built-in", "default_samplerate": self.rate}

    def check_input_settings(self, device, channels, dtype, samplerate):
        if samplerate != self.rate:
            raise OSError("rate")

    def RawInputStream(self, samplerate, device, channels, dtype, callback):
        def start():
            for piece, begins, overflow in self.pieces:
                status = SimpleNamespace(input_overflow=overflow)
                callback(piece.tobytes(), len(piece), SimpleNamespace(inputBufferAdcTime=begins), status)

        return SimpleNamespace(start=start, stop=lambda: None, close=lambda: None, active=False)


def heard(monkeypatch, pieces: list, rate: float = 16000.0) -> tuple[np.ndarray, int]:
    """What a microphone gives, and how many samples it has lost."""
    monkeypatch.setattr(sources, "sounddevice", lambda: FakeSound(pieces, rate))
    monkeypatch.setattr(sources, "POLL", 0.01)
    received: list[np.ndarray] = []
    with Microphone(None, 16000) as microphone, pytest.raises(ValueError, match="device stopped"):
        received.extend(microphone)
    return np.concatenate(received), microphone.lost


def test_a_microphone_gives_what_it_records(monkeypatch):
    pieces = [(AUDIO[i : i + 1600], i / 16000, False) for i in range(0, 16000, 1600)]
    received, lost = heard(monkeypatch, pieces)
    np.testing.assert_array_equal(received, AUDIO[:16000])
    assert lost == 0


def test_overruns_are_survived_and_counted(monkeypatch):
    gaps = [(AUDIO[:1600], 0.0, False), (AUDIO[4000:5600], 0.25, True), (AUDIO[5600:7200], 0.35, False)]
    received, lost = heard(monkeypatch, gaps)
    assert len(received) == 4800
    assert lost == 2400
    late = [(AUDIO[:16000], float(i), False) for i in range(12)]  # nobody reads in time
    received, lost = heard(monkeypatch, late)
    assert (len(received), lost) == (160_000, 32_000)


def test_what_arrives_while_a_piece_is_taken_is_counted(monkeypatch):
    """By PortAudio's thread, in the middle of a line of the other: over days such miscounts would fill up WAITING."""
    piece, begin = AUDIO[:16000], SimpleNamespace(inputBufferAdcTime=0.0)
    monkeypatch.setattr(sources, "sounddevice", lambda: FakeSound([(piece, 0.0, False)]))
    status = SimpleNamespace(input_overflow=False)
    with Microphone(None, 16000) as microphone:

        def arrive(count: int) -> None:
            for _ in range(count):
                microphone._receive(piece.tobytes(), len(piece), begin, status)

        def measured(taken: np.ndarray) -> int:
            if not microphone._pieces.qsize():
                arrive(9)
            return len(taken)

        monkeypatch.setattr(sources, "len", measured, raising=False)
        next(iter(microphone))
        arrive(1)
        assert microphone.lost == 0
        arrive(1)
        assert microphone.lost == 16000


def test_a_microphone_of_another_rate_is_resampled(monkeypatch):
    received, _ = heard(monkeypatch, [(noise(2, 48_000), 0.0, False)], 48_000.0)
    assert 15_000 < len(received) <= 16_000


def test_what_is_wrong_is_named(monkeypatch, model_path, tmp_path, capsys):  # noqa: F811
    def error(*arguments: str) -> str:
        assert cli.main(["listen", *arguments, "--threshold", "0.5"]) == 1
        return capsys.readouterr().err

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    model = str(model_path)
    assert "pip install 'deltarnn[listen]'" in error(model)
    assert "pip install 'deltarnn[listen]'" in error("--list_devices")
    assert "no finished run under save: train one" in error()
    assert "nowhere.wav: no such audio file" in error(model, "nowhere.wav")
    (tmp_path / "text.wav").write_text("no audio")
    assert "text.wav: cannot be decoded" in error(model, "text.wav")
    assert "--device 3: listens to a microphone, but a.wav is given as well" in error(model, "a.wav", "--device", "3")
    monkeypatch.setattr(sources, "sounddevice", lambda: FakeSound([]))
    assert "--list_devices only shows the microphones" in error(model, "--list_devices")
    assert "--device 7: no such input device" in error(model, "--device", "7")
    assert "no such input device" not in sources.list_devices()
    assert sources.list_devices() == "*   1  built-in  (2 channels, 44100 Hz)"


def test_the_newest_model_is_taken(monkeypatch, model_path, tmp_path, capsys):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    target = tmp_path / "save" / "synth" / "retrain-x" / "model.safetensors"
    target.parent.mkdir(parents=True)
    target.write_bytes(model_path.read_bytes())
    (target.parents[1] / "latest").symlink_to(target.parent.name)
    write_wav(tmp_path / "a.wav", AUDIO)
    assert cli.main(["listen", "a.wav", "--threshold", "0.5"]) == 0
    told = capsys.readouterr()
    assert len(told.out.splitlines()) == len(detections(model_path, AUDIO))
    assert "model: save/synth/retrain-x/model.safetensors (the newest" in told.err


def test_files_are_read_piece_by_piece(tmp_path):
    write_wav(tmp_path / "a.wav", AUDIO)
    pieces = list(FileSource(tmp_path / "a.wav", 16000))
    assert max(map(len, pieces)) <= 4096
    np.testing.assert_array_equal(np.concatenate(pieces), AUDIO)


def test_compressed_files_are_those_of_one_read_and_the_decoder_is_content(tmp_path, capfd):
    tone = np.sin(np.arange(40_000) * 0.3) * np.hanning(40_000) / 2
    for name in ("a.mp3", "a.ogg"):
        soundfile.write(tmp_path / name, tone, 16000)
        pieces = np.concatenate(list(FileSource(tmp_path / name, 16000)))
        np.testing.assert_allclose(pieces, read_audio(tmp_path / name), atol=1)
    soundfile.write(tmp_path / "a.flac", AUDIO, 16000)
    content = bytearray((tmp_path / "a.flac").read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    (tmp_path / "a.flac").write_bytes(content)
    with pytest.raises(AudioError, match=r"a\.flac: cannot be decoded \(.*flac decoder"):
        list(FileSource(tmp_path / "a.flac", 16000))
    assert capfd.readouterr().err == ""


def test_what_is_no_recording_is_named(tmp_path):
    soundfile.write(tmp_path / "one.wav", AUDIO[:9], 1)
    soundfile.write(tmp_path / "integers.wav", AUDIO.astype(np.float32), 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "loud.wav", AUDIO.astype(np.float32) / 8192, 16000, subtype="FLOAT")
    for read in (lambda path: list(FileSource(path, 16000)), read_audio):
        with pytest.raises(AudioError, match=r"one\.wav: claims a sample rate of 1 Hz; 1000 to"):
            read(tmp_path / "one.wav")
        with pytest.raises(AudioError, match=r"integers\.wav: holds floats of up to \d+, where full scale is 1"):
            read(tmp_path / "integers.wav")
        assert len(read(tmp_path / "loud.wav"))
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(AudioError, match=f"{path}: no regular file; for raw samples of a pipe"):
            FileSource(path, 16000)


def test_after_a_file_that_cannot_be_read_the_others_are_heard(model_path, tmp_path, capsys):  # noqa: F811
    broken, cut, whole = (tmp_path / name for name in ("broken.wav", "cut.flac", "whole.wav"))
    broken.write_text("no audio")
    soundfile.write(cut, AUDIO, 16000)
    cut.write_bytes(cut.read_bytes()[:100_000])
    write_wav(whole, AUDIO)
    arguments = ["listen", str(model_path), *map(str, (broken, cut, whole)), "--json", "--threshold", "0.5"]
    assert cli.main(arguments) == 1
    told = capsys.readouterr()
    found = [json.loads(line) for line in told.out.splitlines()]
    assert [line for line in found if line["source"] == str(whole)] == as_lines(
        detections(model_path, AUDIO), str(whole)
    )
    assert f"error: {broken}: cannot be decoded" in told.err
    assert f"error: {cut}: cannot be decoded" in told.err


def test_a_pipe_that_brings_nothing_or_a_file_byte_by_byte(monkeypatch, tmp_path):
    class Pipe(io.BytesIO):
        def read1(self, size: int = -1) -> bytes:
            return self.read(min(size, 1))

    with pytest.raises(AudioError, match="-: ended before the first sample"):
        list(RawSource(io.BytesIO()))
    write_wav(tmp_path / "a.wav", AUDIO[:100])
    with pytest.raises(AudioError, match="begins as an audio file does"):
        list(RawSource(Pipe((tmp_path / "a.wav").read_bytes())))
    pieces = list(RawSource(Pipe(AUDIO[:100].astype("<i2").tobytes())))
    np.testing.assert_array_equal(np.concatenate(pieces), AUDIO[:100])
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(ValueError, match="-: standard input is closed"):
        sources.standard_input()


def test_model_and_folder_by_flags(model_path, tmp_path, capsys):  # noqa: F811
    write_wav(tmp_path / "a.wav", AUDIO)
    arguments = [str(tmp_path / "a.wav"), "--json", "--threshold", "0.5"]
    assert cli.main(["listen", "--model", str(model_path), *arguments]) == 0
    first = capsys.readouterr().out
    assert first
    assert cli.main(["listen", str(model_path), *arguments]) == 0
    assert capsys.readouterr().out == first
    wav, *flags = arguments
    assert cli.main(["listen", str(model_path), *flags, wav]) == 0  # flags before the files
    assert capsys.readouterr().out == first
    assert cli.main(["listen", str(tmp_path), *arguments]) == 1  # a folder is no source of samples
    assert f"{tmp_path}: holds no model.safetensors" in capsys.readouterr().err
    assert cli.main(["listen", *arguments, "--work_dir", str(tmp_path / "nothing")]) == 1
    assert f"no finished run under {tmp_path / 'nothing' / 'save'}" in capsys.readouterr().err


def test_what_is_not_whole_is_told(monkeypatch, model_path, tmp_path, capsys):  # noqa: F811
    path = tmp_path / "a.wav"
    write_wav(path, AUDIO)
    content = path.read_bytes()
    path.write_bytes(content[:-2000])
    lines(model_path, capsys, str(path))
    assert cli.main(["listen", str(model_path), str(path), "--threshold", "0.5"]) == 0
    assert "the file ends before the length that it claims" in capsys.readouterr().err
    with pytest.raises(ValueError, match="begins as an audio file does"):
        list(RawSource(io.BytesIO(content)))


def test_recordings_of_one_name_keep_all_their_events(model_path, tmp_path, capsys):  # noqa: F811
    names = [str(tmp_path / folder / "a.wav") for folder in ("one", "two")]
    for name, audio in zip(names, (AUDIO, AUDIO // 2 * 2), strict=True):
        write_wav(name, audio)
    events = tmp_path / "events"
    found = lines(model_path, capsys, *names, "--record_events", str(events))
    assert len({(line["word"], line["time"]) for line in found}) < len(found)
    assert len(list(events.glob("*/*.wav"))) == len(found)
    lines(model_path, capsys, *names, "--record_events", str(events))
    assert len(list(events.glob("*/*.wav"))) == len(found)  # the same ones again


def test_an_error_at_the_end_loses_no_event(monkeypatch, model_path, tmp_path, capsys):  # noqa: F811
    events, odd = tmp_path / "events", AUDIO.astype("<i2").tobytes() + b"1"
    monkeypatch.setattr("deltarnn.kws.commands.listen.standard_input", lambda: io.BytesIO(odd))
    flags = ["--threshold", "0.5", "--record_events", str(events)]
    assert cli.main(["listen", str(model_path), "-", *flags]) == 1
    out, err = capsys.readouterr()
    assert "-: 10.0 s, " in err
    assert len(list(events.glob("*/*.wav"))) == len(out.splitlines()) == len(detections(model_path, AUDIO))


def test_events_stay_inside_their_folder(model_path, tmp_path, capsys):  # noqa: F811
    tensors, header = load_model(model_path)
    save_model(
        tmp_path / "m.safetensors", tensors, {**header, "labels": ["_silence_", "_unknown_", "yes", "../no", "up"]}
    )
    write_wav(tmp_path / "a.wav", AUDIO)
    flags = ["--threshold", "0.5", "--record_events", str(tmp_path / "events" / "here")]
    assert cli.main(["listen", str(tmp_path / "m.safetensors"), str(tmp_path / "a.wav"), *flags]) == 1
    assert "--record_events can make no folder of its keyword '../no'" in capsys.readouterr().err
    assert not (tmp_path / "events").exists()


def test_a_folder_for_events_is_asked_first(model_path, tmp_path, capsys):  # noqa: F811
    write_wav(tmp_path / "a.wav", AUDIO)
    (tmp_path / "file").touch()
    flags = ["--threshold", "0.5", "--record_events", str(tmp_path / "file")]
    assert cli.main(["listen", str(model_path), str(tmp_path / "a.wav"), *flags]) == 1
    out, err = capsys.readouterr()
    assert not out
    assert f"{tmp_path / 'file'}: no file can be written there" in err


def test_a_service_that_is_stopped_keeps_its_events(model_path, tmp_path):  # noqa: F811
    last = detections(model_path, AUDIO)[-1]
    heard = AUDIO[: round(last.time * 16000) + 8000]  # so that detections still wait for the end of their second
    expected = detections(model_path, heard)
    flags = ["--threshold", "0.5", "--record_events", str(tmp_path)]
    command = [sys.executable, "-m", "deltarnn", "listen", str(model_path), "-", *flags]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdin.write(heard.tobytes())
        process.stdin.flush()
        for _ in expected:
            process.stdout.readline()
        process.terminate()
        assert process.wait(60) == 0
        assert f", {len(expected)} detections" in process.stderr.read().decode()
    assert len(list(tmp_path.glob("*/*.wav"))) == len(expected)
