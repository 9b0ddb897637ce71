"""The second around each detection as an audio file, for those who collect data."""

from itertools import count
from pathlib import Path

import numpy as np

from deltarnn.kws.data.audio import Audio, fit, wav_bytes, write_wav
from deltarnn.kws.spotter.spotter import Detection

AFTER = 0.2
"""Seconds kept after the end of the word; the rest of the second is before it."""


class EventRecorder:
    """Writes FOLDER/WORD/PREFIX-MILLISECONDS.wav, one second each that ends `AFTER` the word. Where another second has
    that name, such as of a recording of the same name elsewhere, -2, -3, … is added to it.

    Give every piece of the stream to `accept`, with the detections that it decided, and call `finish` at its end. What
    a stream does not have before its start or after its end is zero.

    hold: seconds by which the rule decides a detection after its peak.
    """

    def __init__(self, folder: Path, prefix: str, sample_rate: int, hold: float) -> None:
        self._folder, self._prefix, self._rate = folder, prefix, sample_rate
        # The latest: a second, the one that `accept` takes at once, and one for what follows the peak beside `hold`.
        self._kept: Audio = np.zeros(round((3 + hold) * sample_rate), np.int16)
        self._received = 0
        self._waiting: list[Detection] = []

    def accept(self, samples: Audio, detections: list[Detection]) -> list[Path]:
        """The files that these samples complete."""
        written = []
        self._waiting += detections
        for start in range(0, max(1, len(samples)), self._rate):
            piece = samples[start : start + self._rate]
            self._received += len(piece)
            self._kept = np.concatenate([self._kept[len(piece) :], piece])
            ready = [d for d in self._waiting if self._end_of(d) <= self._received]
            self._waiting = [d for d in self._waiting if self._end_of(d) > self._received]
            written += [self._write(d) for d in ready]
        return written

    def finish(self) -> list[Path]:
        """The files of detections whose second the stream's end cuts short."""
        return self.accept(np.zeros(self._rate, np.int16), [])

    def _end_of(self, detection: Detection) -> int:
        return round((detection.time + AFTER) * self._rate)

    def _write(self, detection: Detection) -> Path:
        last = len(self._kept) - (self._received - self._end_of(detection))
        second = fit(self._kept[max(0, last - self._rate) : last], self._rate)
        name = f"{self._prefix}-{round(1000 * detection.time):08d}"
        content = wav_bytes(second, self._rate)
        names = (name if number == 1 else f"{name}-{number}" for number in count(1))
        paths = (self._folder / detection.word / f"{name}.wav" for name in names)
        path = next(path for path in paths if not path.exists() or path.read_bytes() == content)
        write_wav(path, second, self._rate)
        return path
