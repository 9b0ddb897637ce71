"""Processor time of the front ends per clip of one second, next to a textbook implementation, in one process.

    python benchmarks/front_ends.py [FOLDER_WITH_WAV_FILES]

Without a folder, clips of noise are written to a temporary one. The textbook reads with a decoder, frames by index
arrays, and builds window, filters and spectrum anew for every clip, as scripts do.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from deltarnn.kws.data.audio import fit, read_audio, write_wav
from deltarnn.kws.features.frontend import LogFilterBank
from deltarnn.kws.features.iir import IIRFilterBank

BATCH, REPETITIONS = 64, 15


def textbook(path: Path) -> np.ndarray:
    """The features of LogFilterBank() (61, 16), one clip, one step after another."""
    samples, rate = soundfile.read(path, dtype="int16")
    signal = fit(samples, rate) * 65536.0
    count = int(np.ceil(abs(len(signal) - 262) / 262))
    index = np.arange(262)[None] + 262 * np.arange(count)[:, None]
    magnitude = np.abs(np.fft.rfft(signal[index] * np.hamming(262), 1024)) / 1024
    mel = np.linspace(2595 * np.log10(1 + 100 / 700), 2595 * np.log10(1 + 8000 / 700), 18)
    corners = np.floor(1025 * 700 * (10 ** (mel / 2595) - 1) / rate)
    bank = np.zeros((513, 16))
    for j in range(16):
        for k in range(int(corners[j]), int(corners[j + 1])):
            bank[k, j] = (k - corners[j]) / (corners[j + 1] - corners[j])
        for k in range(int(corners[j + 1]), int(corners[j + 2])):
            bank[k, j] = (corners[j + 2] - k) / (corners[j + 2] - corners[j + 1])
    levels = magnitude @ bank
    return 20 * np.log10(np.where(levels == 0, np.finfo(float).eps, levels))


def main(folder: Path) -> None:
    files = sorted(folder.rglob("*.wav"))[:BATCH]
    if not files:
        sys.exit(f"{folder} holds no .wav files")
    bank, iir = LogFilterBank(), IIRFilterBank(full_scale=7500)
    clips = np.empty((len(files), 16000), np.int16)

    def read() -> None:
        for row, path in zip(clips, files, strict=True):
            row[:] = fit(read_audio(path), 16000)

    cases: dict[str, Callable[[], object]] = {
        "textbook log filter bank, reading included": lambda: [textbook(path) for path in files],
        "reading": read,
        "log filter bank": lambda: bank(clips),
        "band-pass bank": lambda: iir(clips),
    }
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(REPETITIONS):  # interleaved, so that a busy moment of the machine hits all alike
        for name, case in cases.items():
            start = time.process_time()
            case()
            times[name].append((time.process_time() - start) / len(files) * 1e3)
    print(f"processor time per clip of 1 s, ms, over {REPETITIONS} x {len(files)} clips: minimum, median")
    for name, values in times.items():
        print(f"  {name:44} {min(values):7.3f} {np.median(values):7.3f}")
    ours = np.median(np.add(times["reading"], times["log filter bank"]))
    plain = np.median(times["textbook log filter bank, reading included"])
    print(f"reading and log filter bank: {ours:.3f} ms, {plain / ours:.1f} times less than the textbook's")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as made:
            rng = np.random.default_rng(0)
            for number in range(BATCH):
                write_wav(Path(made) / f"{number}.wav", (3000 * rng.standard_normal(16000)).astype(np.int16))
            main(Path(made))
