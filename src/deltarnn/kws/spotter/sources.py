"""Where a stream's samples come from: audio files of any length, raw samples from a pipe, a microphone."""

import os
import queue
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from deltarnn.kws.data.audio import Audio, AudioError, check_rate, mono_of, to_int16, wav_is_cut_off

PIECE = 4096
"""Samples read from a file at once."""

BEGINNINGS = (b"RIFF", b"fLaC", b"OggS", b"FORM", b"ID3")
"""Of audio files, which are no raw samples."""

POLL = 1.0
"""Seconds without a sample after which a microphone is asked whether it still records."""

WAITING = 10.0
"""Seconds of a microphone's samples that may wait before they are lost."""


class Source(Protocol):
    """Pieces of one stream, int16 (N,) at the sample rate that was asked for; `lost` counts samples that never came.

    cut_off: whether it is a file that ends before the length that its header claims.
    """

    name: str
    lost: int
    cut_off: bool

    def __iter__(self) -> Iterator[Audio]: ...


class FileSource:
    """An audio file that libsndfile reads, a piece at a time: mixed to mono, resampled where its rate is another.

    AudioError where it cannot be read, holds no samples, samples that are no numbers, or far beyond full scale.
    """

    def __init__(self, path: Path, sample_rate: int) -> None:
        self.name, self.lost = str(path), 0
        self._path, self._rate = path, sample_rate
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such audio file")
        if not path.is_file():
            raise AudioError(f"{path}: no regular file; for raw samples of a pipe, name - and pipe them in")
        with path.open("rb") as file:
            self.cut_off = wav_is_cut_off(file)

    def __iter__(self) -> Iterator[Audio]:
        import soundfile

        class Straight(soundfile.SoundFile):  # type: ignore[misc]
            """Never sought in: soundfile does so after every read, and the decoder of MP3 then loses what the next
            frame needs, or gives silence; of a damaged file it names another reason."""

            def seekable(self) -> bool:
                return False

        received = 0
        try:
            with Straight(os.fsencode(self._path)) as file:
                check_rate(self.name, file.samplerate)
                whole = file.subtype == "PCM_16" and file.channels == 1
                kind = "int16" if whole else "float32"
                resampler = _Resampler(file.samplerate, self._rate) if file.samplerate != self._rate else None
                while len(block := file.read(PIECE, dtype=kind, always_2d=True)):
                    received += len(block)
                    mono = block[:, 0] if whole else mono_of(self.name, block)
                    if resampler is not None:
                        yield resampler(mono)
                    else:
                        yield np.ascontiguousarray(mono) if whole else to_int16(mono)
                if resampler is not None:
                    yield resampler(np.empty(0), last=True)
        except (soundfile.LibsndfileError, RuntimeError) as error:
            reason = error.error_string if isinstance(error, soundfile.LibsndfileError) else error
            raise AudioError(f"{self.name}: cannot be decoded ({reason})") from None
        if not received:
            raise AudioError(f"{self.name}: holds no samples")


class RawSource:
    """Raw samples from a pipe: little-endian int16 of one channel at the spotter's own rate, as they come.

    AudioError where there are none, a sample is cut in two by the end, or it begins as an audio file does.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self.name, self.lost, self.cut_off = "-", 0, False
        self._stream = stream
        if stream.isatty():
            raise ValueError(
                "-: standard input is a terminal; pipe raw samples into it, such as "
                "arecord -t raw -f S16_LE -c 1 -r 16000 | deltarnn listen -"
            )

    def __iter__(self) -> Iterator[Audio]:
        rest, first = b"", True
        read = getattr(self._stream, "read1", self._stream.read)  # what is there, without waiting for more
        while content := read(2 * PIECE):
            while first and len(content) < max(map(len, BEGINNINGS)) and (more := read(2 * PIECE)):
                content += more
            if first and content.startswith(BEGINNINGS):
                raise AudioError(
                    "-: begins as an audio file does, not with raw samples: name the file itself, or decode it first, "
                    "such as ffmpeg -i FILE -f s16le -ac 1 -ar 16000 - | deltarnn listen -"
                )
            first, content = False, rest + content
            even = len(content) // 2 * 2
            rest = content[even:]
            yield np.frombuffer(content[:even], "<i2").astype(np.int16, copy=False)
        if first:
            raise AudioError("-: ended before the first sample; does what is piped into it run?")
        if rest:
            raise AudioError("-: ended within a sample: it must be raw int16, two bytes each")


class Microphone:
    """An input device; a context manager, as it records from when it is entered.

    Overruns do not end it: samples that the device or this program dropped are counted in `lost`. ModuleNotFoundError
    without the package sounddevice, OSError without PortAudio, ValueError without such a device.
    """

    def __init__(self, device: int | None, sample_rate: int) -> None:
        self.lost, self.cut_off = 0, False
        self._sound = sounddevice()
        self._device, self._rate = device, sample_rate
        self._pieces: queue.Queue[bytes] = queue.Queue()
        self._expected: float | None = None
        try:
            described = self._sound.query_devices(device, "input")
        except (self._sound.PortAudioError, ValueError) as error:
            wanted = "no microphone" if device is None else f"--device {device}: no such input device"
            raise ValueError(f"{wanted} ({error}); --list_devices shows what there is") from None
        self.name = str(described["name"])
        self._device_rate = self._supported_rate(described)
        self._most = int(WAITING * self._device_rate)
        self._put = self._taken = 0  # samples; each is counted by one thread alone, so that none is miscounted

    def _supported_rate(self, described: dict[str, Any]) -> float:
        """The rate wanted, Hz, or the device's own where it does not support that."""
        try:
            self._sound.check_input_settings(self._device, channels=1, dtype="int16", samplerate=self._rate)
        except self._sound.PortAudioError:
            return float(described["default_samplerate"])
        return float(self._rate)

    def __enter__(self) -> "Microphone":
        try:
            self._stream = self._sound.RawInputStream(
                samplerate=self._device_rate, device=self._device, channels=1, dtype="int16", callback=self._receive
            )
            self._stream.start()
        except self._sound.PortAudioError as error:
            raise ValueError(f"{self.name}: cannot record ({error})") from None
        return self

    def __exit__(self, *exception: object) -> None:
        self._stream.stop()
        self._stream.close()

    def __iter__(self) -> Iterator[Audio]:
        resampler = _Resampler(self._device_rate, self._rate) if self._device_rate != self._rate else None
        while True:
            try:
                content = self._pieces.get(timeout=POLL)
            except queue.Empty:
                if not self._stream.active:
                    raise ValueError(f"{self.name}: the device stopped; is it still connected?") from None
                continue
            piece = np.frombuffer(content, np.int16)
            self._taken += len(piece)
            yield piece if resampler is None else resampler(piece)

    def _receive(self, content: Any, frames: int, time: Any, status: Any) -> None:
        """Called by PortAudio's thread."""
        begins = float(time.inputBufferAdcTime)
        if status.input_overflow:  # what is missing lies between the end of the last piece and the start of this one
            gap = 0.0 if self._expected is None else (begins - self._expected) * self._rate
            self.lost += max(1, round(gap))
        self._expected = begins + frames / self._device_rate
        if self._put - self._taken + frames > self._most:
            self.lost += round(frames * self._rate / self._device_rate)
            return
        self._put += frames
        self._pieces.put(bytes(content))


class _Resampler:
    """Samples at one rate, piece by piece, to int16 at another."""

    def __init__(self, rate: float, sample_rate: float) -> None:
        import soxr

        self._stream = soxr.ResampleStream(rate, sample_rate, 1, dtype="float64")

    def __call__(self, samples: NDArray[Any], last: bool = False) -> Audio:
        return to_int16(cast(NDArray[np.float64], self._stream.resample_chunk(samples.astype(np.float64), last)))


def sounddevice() -> Any:
    """The package. ModuleNotFoundError or OSError say what is missing and how to get it."""
    try:
        import sounddevice as package
    except ModuleNotFoundError:
        raise ModuleNotFoundError("a microphone needs sounddevice: pip install 'deltarnn[listen]'") from None
    except OSError as error:
        raise OSError(f"a microphone needs PortAudio ({error}): apt install libportaudio2") from None
    return package


def list_devices() -> str:
    """The input devices, one a line: number, name, channels, rate; the default one marked."""
    package = sounddevice()
    default = package.default.device[0]
    lines = [
        f"{'*' if index == default else ' '} {index:3}  {device['name']}  "
        f"({device['max_input_channels']} channels, {device['default_samplerate']:g} Hz)"
        for index, device in enumerate(package.query_devices())
        if device["max_input_channels"] > 0
    ]
    if not lines:
        raise ValueError("there is no input device")
    return "\n".join(lines)


def standard_input() -> BinaryIO:
    """Bytes of standard input. ValueError where it is closed."""
    if sys.stdin is None:
        raise ValueError("-: standard input is closed; pipe raw samples into it")
    return sys.stdin.buffer
