"""`deltarnn listen`: keywords as they are spoken, from a microphone, audio files, or raw samples on standard input.

Detections go to standard output, a line each; the level meter and the summary to standard error.
"""

import argparse
import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np

from deltarnn.engine.activity import Activity
from deltarnn.files import check_writable
from deltarnn.kws.commands.choice import add_model, chosen_model, take_model
from deltarnn.kws.config.arguments import add_number
from deltarnn.kws.config.option import names_a_folder
from deltarnn.kws.data.audio import Audio, AudioError
from deltarnn.kws.spotter.recorder import EventRecorder
from deltarnn.kws.spotter.sources import FileSource, Microphone, RawSource, Source, list_devices, standard_input
from deltarnn.kws.spotter.spotter import Detection, Spotter

QUIET = -45.0
"""dB of full scale: seconds below it count as idle."""

METER = (-60.0, 20)
"""The meter's lowest level, dB of full scale, and its width in characters."""

_REFRESH = 0.1
"""Seconds of wall time between two states of the meter."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `deltarnn listen`."""
    parser.add_argument(
        "sources", type=Path, nargs="*", metavar="MODEL | FILE | -",
        help="the model, then audio files of any length, or - for raw 16-bit samples on standard input; without files "
        "the microphone",
    )  # fmt: skip
    add_model(parser)
    add_number(
        parser, "threshold", float, -1024, 1024, "score above which a word is reported (default: the model's own)"
    )
    parser.add_argument("--precision", choices=("float32", "int8"), help="arithmetic (default: the model's own)")
    add_number(parser, "device", int, 0, 10000, "number of the microphone (default: the system's)")
    parser.add_argument("--list_devices", action="store_true", help="list the microphones and exit")
    parser.add_argument("--json", action="store_true", help="print detections as JSON lines, and no meter")
    parser.add_argument("--record_events", type=Path, metavar="DIR",
                        help="keep the second around each detection as DIR/WORD/….wav")  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Listen until the sources end, Ctrl-C, or SIGTERM; 1 where one could not be read, after all the others."""
    status = 0
    if arguments.list_devices:
        if arguments.sources or arguments.model or arguments.record_events:
            raise ValueError("--list_devices only shows the microphones: leave out models, files and --record_events")
        print(list_devices())
        return 0
    named = list(arguments.sources)
    take_model(arguments, named)
    model = chosen_model(arguments)
    if arguments.record_events is not None:
        check_writable(arguments.record_events)
    if arguments.device is not None and named:
        raise ValueError(f"--device {arguments.device}: listens to a microphone, but {named[0]} is given as well")
    with warnings.catch_warnings(record=True) as caught:
        spotter = Spotter.load(model, arguments.threshold, arguments.precision)
    for warning in caught:
        print(f"warning: {warning.message}", file=sys.stderr)
    if arguments.record_events is not None:
        for word in spotter.keywords:
            if not names_a_folder(word):
                raise ValueError(f"{model}: --record_events can make no folder of its keyword {word!r}")
    with ExitStack() as stack:
        with suppress(ValueError):  # in a thread: who began it ends it
            # As Ctrl-C: a service that is stopped keeps its events, and tells what it heard.
            before = signal.signal(signal.SIGTERM, signal.default_int_handler)
            stack.callback(signal.signal, signal.SIGTERM, before)
        sources: list[Source] = [
            RawSource(standard_input()) if str(path) == "-" else FileSource(path, spotter.sample_rate) for path in named
        ] or [stack.enter_context(Microphone(arguments.device, spotter.sample_rate))]
        for source in sources:
            spotter.reset()
            listener = Listener(spotter, source, arguments.json, len(sources) > 1, arguments.record_events)
            try:
                for _ in listener:
                    pass
            except AudioError as error:
                print(f"error: {error}", file=sys.stderr)
                status = 1
            except BrokenPipeError:  # whoever read the lines has what they wanted
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end
                return 0
            except KeyboardInterrupt:
                return 0
            finally:
                listener.finish()
    return status


class Listener:
    """One source through a spotter: prints detections, keeps the meter, counts what was skipped and lost."""

    def __init__(self, spotter: Spotter, source: Source, as_json: bool, named: bool, folder: Path | None) -> None:
        self._spotter, self._source, self._json, self._named = spotter, source, as_json, named
        stem = Path(source.name).stem if Path(source.name).is_file() else time.strftime("%Y%m%d-%H%M%S")
        rate, hold = spotter.sample_rate, spotter.rule.hold
        self._recorder = None if folder is None else EventRecorder(folder, stem, rate, hold)
        self._meter = Meter(sys.stderr.isatty() and not as_json)
        self._idle = IdleShare(spotter)
        self._samples = self._detections = 0

    def __iter__(self) -> Iterator[None]:
        """Piece by piece."""
        for piece in self._source:
            detections = self._spotter.accept_waveform(piece)
            self._samples += len(piece)
            if self._recorder is not None:  # before they are told: whoever then stops the program loses none
                self._recorder.accept(piece, detections)
            for detection in detections:
                self._print(detection)
            self._idle.accept(piece)
            self._meter.accept(piece, self._idle.latest)
            yield

    def finish(self) -> None:
        """Write what is pending, and tell what there was."""
        if self._recorder is not None:
            self._recorder.finish()
        self._meter.clear()
        seconds = self._samples / self._spotter.sample_rate
        parts = [f"{self._source.name}: {seconds:.1f} s, {self._detections} detections"]
        if seconds >= 1:
            parts.append(f"{self._spotter.activity.effective_sparsity:.1%} of the work skipped")
        if self._idle.share is not None:
            parts.append(f"{self._idle.share:.1%} while idle")
        if self._source.lost:
            parts.append(
                f"{self._source.lost} samples lost ({self._source.lost / self._spotter.sample_rate:.2f} s): "
                "the machine was too busy"
            )
        if self._source.cut_off:
            parts.append("the file ends before the length that it claims")
        print(", ".join(parts), file=sys.stderr)

    def _print(self, detection: Detection) -> None:
        self._detections += 1
        # Samples that were lost have passed all the same.
        seconds = detection.time + self._source.lost / self._spotter.sample_rate
        self._meter.clear()
        if self._json:
            fields = {"source": self._source.name, "time": round(seconds, 3), "word": detection.word}
            line = json.dumps({**fields, "score": round(detection.score, 4)}, ensure_ascii=False)
        else:
            line = f"{seconds:10.2f} s  {detection.word:<12} {detection.score:6.2f}"
            line = f"{self._source.name}: {line}" if self._named else line
        print(line, flush=True)


class IdleShare:
    """The share of the network's work that was skipped: in the latest second, and over all seconds below `QUIET`."""

    def __init__(self, spotter: Spotter) -> None:
        self._spotter = spotter
        self._since: Activity | None = None
        self._samples, self._power = 0, 0.0
        self._quiet: list[float] = [0.0, 0]  # sum of shares, seconds
        self.latest: float | None = None

    def accept(self, piece: Audio) -> None:
        """The next samples, which the spotter has taken."""
        self._samples += len(piece)
        self._power += float(np.dot(piece.astype(np.float32), piece.astype(np.float32)))
        if self._samples < self._spotter.sample_rate:
            return
        now = self._spotter.activity
        self.latest = (now if self._since is None else now.since(self._since)).effective_sparsity
        if decibels(self._power / self._samples) < QUIET:
            self._quiet = [self._quiet[0] + self.latest, self._quiet[1] + 1]
        self._since, self._samples, self._power = now, 0, 0.0

    @property
    def share(self) -> float | None:
        """Over the idle seconds, or None if there was none."""
        return self._quiet[0] / self._quiet[1] if self._quiet[1] else None


class Meter:
    """The level of the samples and the share of work skipped, on the last line of a terminal."""

    def __init__(self, shown: bool) -> None:
        self._shown, self._next, self._dirty = shown, 0.0, False

    def accept(self, piece: Audio, skipped: float | None) -> None:
        """Show the level of the latest piece, not too often."""
        if not self._shown or not len(piece) or time.monotonic() < self._next:
            return
        self._next, self._dirty = time.monotonic() + _REFRESH, True
        lowest, width = METER
        level = decibels(float(np.mean(piece.astype(np.float32) ** 2)))
        filled = round(width * min(1.0, max(0.0, 1 - level / lowest)))
        share = "" if skipped is None else f"  {skipped:4.0%} of the work skipped"
        print(f"\r[{'#' * filled:<{width}}] {level:4.0f} dB{share}\x1b[K", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Leave the line to others."""
        if self._dirty:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._dirty = False


def decibels(power: float) -> float:
    """Level of a mean square of int16 samples, dB of full scale; −100 at silence."""
    return max(-100.0, 10 * float(np.log10(max(power, 1e-10) / 32768.0**2)))
