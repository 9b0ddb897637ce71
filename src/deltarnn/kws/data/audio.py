"""Audio files in and out: 16-bit mono arrays at one sample rate, whatever the file holds."""

import io
import os
import re
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, cast

import numpy as np
from numpy.typing import NDArray

from deltarnn.files import replacing

Audio = NDArray[np.int16]

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aiff")
"""File types that are taken, the preferred one first where a clip exists in several."""

RATES = (1000, 768000)
"""Sample rates of files that are taken, Hz: one of a single Hertz is a damaged header."""

MAX_SAMPLES = 1 << 28
"""The longest file that is taken, samples per channel: more than four hours at 16 kHz."""

LOUDEST = 16.0
"""Full scales (1 in floating point) beyond which samples are no audio of that scale, but integers stored as floats."""

_READ_SIZE = 1 << 16


class AudioError(ValueError):
    """A file that holds no usable audio; the message names it and says why."""


@dataclass(frozen=True)
class Recording:
    """A file's samples (N,) int16; `cut_off` where it ends before the length that its header claims."""

    samples: Audio
    cut_off: bool = False


def read_audio(path: str | Path, sample_rate: int = 16000) -> Audio:
    """Samples (N,) int16 of a file, mixed to mono and resampled where it has several channels or another rate.

    Plain 16-bit mono WAV at `sample_rate`, the usual case, is read without a decoder. AudioError on anything else that
    cannot be decoded, and on files without samples or with zeros only.
    """
    return read_recording(path, sample_rate).samples


def read_recording(path: str | Path, sample_rate: int = 16000) -> Recording:
    """`read_audio`, and whether the file is whole."""
    content = _read_bytes(path)
    samples = _plain_wav(content, sample_rate)
    recording = Recording(samples) if samples is not None else _decode(path, content, sample_rate)
    if recording.samples.size == 0:
        raise AudioError(f"{path}: holds no samples")
    if not recording.samples.any():
        raise AudioError(f"{path}: holds only zeros")
    return recording


def write_wav(path: str | Path, samples: Audio, sample_rate: int = 16000) -> None:
    """Write samples (N,) int16 as a plain mono WAV file, atomically; its folder is made if need be."""
    with replacing(path) as part:
        part.write_bytes(wav_bytes(samples, sample_rate))


def wav_bytes(samples: Audio, sample_rate: int) -> bytes:
    """A plain mono WAV file of samples (N,) int16."""
    data = np.ascontiguousarray(samples, dtype="<i2").tobytes()
    header = struct.pack("<4sI8sIHHIIHH4sI", b"RIFF", 36 + len(data), b"WAVEfmt ", 16, 1, 1, sample_rate,
                         2 * sample_rate, 2, 16, b"data", len(data))  # fmt: skip
    return header + data


def fit(samples: Audio, length: int, zero_padding: Literal["head", "tail"] = "head") -> Audio:
    """Samples (length,): the first ones of a longer clip; a shorter one with zeros at its head or tail."""
    missing = length - len(samples)
    if missing <= 0:
        return samples[:length]
    return np.pad(samples, (missing, 0) if zero_padding == "head" else (0, missing))


def resample(samples: NDArray[np.floating] | Audio, rate: float, sample_rate: float) -> Audio:
    """Samples (N,) of any real type (floating point in int16 units) at `rate`, as int16 at `sample_rate`."""
    import soxr

    resampled = soxr.resample(samples.astype(np.float64), rate, sample_rate)
    return to_int16(resampled)


def to_int16(signal: NDArray[np.floating]) -> Audio:
    """Real samples in int16 units, rounded and clipped to int16."""
    clipped: NDArray[np.floating] = np.clip(np.rint(signal), -32768, 32767)
    return clipped.astype(np.int16)


def mono_of(path: str | Path, signal: NDArray[np.floating]) -> NDArray[np.float64]:
    """Samples (N,) in int16 units of a file's floats (N, channels), full scale 1. AudioError where some are no numbers,
    or far beyond full scale: clipped, they would be noise."""
    mono: NDArray[np.float64] = signal.mean(axis=1, dtype=np.float64)
    if not np.isfinite(mono).all():
        raise AudioError(f"{path}: holds samples that are no numbers")
    peak = float(np.abs(mono).max(initial=0.0))
    if peak > LOUDEST:
        raise AudioError(
            f"{path}: holds floats of up to {peak:.0f}, where full scale is 1: divide them by 32768, or save integers"
        )
    mono *= 32768.0
    return mono


def check_rate(path: str | Path, rate: int) -> None:
    """AudioError where a file claims a sample rate that no recording has."""
    if not RATES[0] <= rate <= RATES[1]:
        raise AudioError(f"{path}: claims a sample rate of {rate} Hz; {RATES[0]} to {RATES[1]} are taken")


def speaker_of(path: str | Path) -> str | None:
    """The speaker in a file name such as those of Speech Commands: the letters and digits before `_nohash_`."""
    found = re.search(r"(?:^|_)([0-9A-Za-z-]+)_nohash_", Path(path).name)
    return found[1] if found else None


def _read_bytes(path: str | Path) -> bytes:
    """The whole file; two thirds of what `Path.read_bytes` takes for a clip of one second."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a pipe without a writer does not hold us up
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise AudioError(f"{path}: no regular file")
        pieces = []
        while piece := os.read(handle, _READ_SIZE):
            pieces.append(piece)
            if len(piece) < _READ_SIZE:  # a regular file gives less only at its end
                break
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
    finally:
        os.close(handle)


def _plain_wav(content: bytes, sample_rate: int) -> Audio | None:
    """Samples of a 16-bit mono WAV file at `sample_rate`, or None where it is none (or needs a real decoder)."""
    if content[:4] != b"RIFF" or content[8:16] != b"WAVEfmt " or len(content) < 44:
        return None
    size, encoding, channels, rate = struct.unpack_from("<IHHI", content, 16)
    bits = struct.unpack_from("<H", content, 34)[0]
    if (encoding, channels, rate, bits) != (1, 1, sample_rate, 16):
        return None
    position = 20 + size
    while position + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, position)
        if name == b"data":
            if position + 8 + size > len(content):
                return None  # cut off: libsndfile decides what there is
            return cast(Audio, np.frombuffer(content, "<i2", size // 2, position + 8))
        position += 8 + size + size % 2
    return None


def _decode(path: str | Path, content: bytes, sample_rate: int) -> Recording:
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            rate, claimed = file.samplerate, file.frames
            check_rate(path, rate)
            if claimed > MAX_SAMPLES:
                raise AudioError(f"{path}: claims {claimed} samples; at most {MAX_SAMPLES} are taken")
            signal = file.read(dtype="float32", always_2d=True)
    except AudioError:
        raise
    except (soundfile.LibsndfileError, RuntimeError, TypeError, ValueError) as error:
        reason = error.error_string if isinstance(error, soundfile.LibsndfileError) else error
        raise AudioError(f"{path}: cannot be decoded ({reason})") from None
    mono = mono_of(path, signal)
    samples = to_int16(mono) if rate == sample_rate or not mono.size else resample(mono, rate, sample_rate)
    return Recording(samples, cut_off=len(signal) < claimed or wav_is_cut_off(io.BytesIO(content)))


def wav_is_cut_off(file: BinaryIO) -> bool:
    """Whether a WAV file's data chunk claims more bytes than follow; of a stream, 2³¹ or more, that is no claim."""
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    position = 12 if file.read(4) == b"RIFF" else end
    while position + 8 <= end:
        file.seek(position)
        name, size = struct.unpack("<4sI", file.read(8))
        if name == b"data":
            return bool(end < position + 8 + size < 1 << 31)
        position += 8 + size + size % 2
    return False
