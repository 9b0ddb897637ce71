"""`deltarnn evaluate --stream`: a model file on an endless recording, its state never reset."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from deltarnn.engine.model_file import load_model
from deltarnn.files import check_writable, write_json
from deltarnn.kws.commands.choice import chosen_folder
from deltarnn.kws.config.arguments import add_number
from deltarnn.kws.data.labels import read_recordings
from deltarnn.kws.data.stream import Recording
from deltarnn.kws.evaluation.detection import Timing
from deltarnn.kws.evaluation.streaming import StreamEvaluation
from deltarnn.kws.features.pipeline import FeaturePipeline
from deltarnn.kws.features.recording import stream_of
from deltarnn.kws.report.stream_page import STREAM_REPORT, write_stream_report
from deltarnn.kws.spotter.calibration import STREAM, Calibration, calibrate, store, stream_rule
from deltarnn.kws.spotter.device import DeviceSpotter
from deltarnn.kws.spotter.rule import StreamRule
from deltarnn.kws.spotter.spotter import Spotter
from deltarnn.kws.training.runs import recorded_config

Opener = Callable[[float | None], Spotter | DeviceSpotter]

STREAM_METRICS = "stream.json"
RATE = 5.0
"""False alarms an hour for which a model without a threshold gets one."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `deltarnn evaluate --stream`."""
    section = parser.add_argument_group("stream", "with --stream: a long recording instead of clips")
    section.add_argument("--stream", action="store_true", help="detections in a long recording, the state never reset")
    section.add_argument(
        "--recording", type=Path, nargs="+", help="WAV files of your own, each with a label file of its name beside it "
        "(.txt: start, end in seconds, word; default: a recording made of the data set's test clips)",
    )  # fmt: skip
    rate = f"choose the threshold for this many an hour on the validation part (default: the file's; {RATE:g} "
    add_number(section, "false_alarms", float, 0.01, 1e4, rate + "where it has none)")
    section.add_argument("--precision", choices=("float32", "int8"), help="arithmetic (default: the file's own)")


def check(arguments: argparse.Namespace) -> None:
    """ValueError where a flag of clips is given for a stream, or the other way round."""
    own = ("recording", "false_alarms", "precision")
    others = ("features", "groups", "activation", "weight", "gate", "batch_size_eval")
    for name in others if arguments.stream else own:
        if getattr(arguments, name) is not None:
            raise ValueError(f"--{name} does nothing with{'' if arguments.stream else 'out'} --stream")
    if arguments.precision is not None and arguments.arithmetic is not None:
        raise ValueError(f"--precision does nothing with --arithmetic {arguments.arithmetic}")


def run(arguments: argparse.Namespace) -> int:
    """Calibrate where that is asked for, evaluate, print the table; write stream.json and stream.html."""
    _, header = load_model(arguments.model)
    folder = chosen_folder(arguments, arguments.model)
    own = None
    if arguments.recording is not None:  # before a threshold is chosen, which takes minutes
        asked = _opened(arguments)(0.0)
        own = read_recordings(arguments.recording, asked.keywords, asked.sample_rate)
    if arguments.false_alarms is not None or STREAM not in header:
        check_writable(arguments.model.parent)
        rate = RATE if arguments.false_alarms is None else arguments.false_alarms
        calibration = calibrated(arguments.model, header, rate, _opened(arguments))
        store(arguments.model, calibration)
        found = f"{calibration.false_alarms_per_hour:.1f} false alarms an hour in {calibration.hours:.1f} hours"
        print(f"threshold {calibration.rule.threshold:.3f} stored: {found} of validation without keywords")
    spotter = _opened(arguments)(None)
    recording = _recording(arguments.model, header, "test") if own is None else own
    framing = FeaturePipeline.from_dict(header["features"]).framing
    result = StreamEvaluation.of(spotter, recording, Timing(framing.hop, framing.length, spotter.sample_rate))
    print(f"{arguments.model}:\n{result}")
    share = result.seconds_per_frame / spotter.frame_stride
    # What differs from run to run is no part of the result.
    cost = f"{1e6 * result.seconds_per_frame:.1f} µs of processor time a frame, real-time factor {share:.1e}"
    print(cost, file=sys.stderr)
    path = folder / STREAM_METRICS
    write_json(path, result.fields())
    print(path)
    print(f"report: {write_stream_report(folder / STREAM_REPORT, result)}")
    return 0


def _opened(arguments: argparse.Namespace) -> Opener:
    """Opens the model, with the threshold given to it or the file's, in the arithmetic that was asked for."""
    if arguments.arithmetic == "device":
        return lambda threshold: DeviceSpotter.load(arguments.model, threshold)
    return lambda threshold: Spotter.load(arguments.model, threshold, arguments.precision)


def calibrated(path: Path, header: dict[str, Any], rate: float, opened: Opener) -> Calibration:
    """The decision rule of a model, its threshold chosen for `rate` false alarms an hour on what the validation stream
    holds beside keywords."""
    recording = _recording(path, header, "validation")
    spotter = opened(0.0)
    rule = stream_rule(header) or StreamRule.at(spotter.frame_stride)
    parts = [recording.audio[s.start : s.end] for s in recording.sections if s.kind != "keywords"]
    return calibrate([spotter.scores(np.concatenate(parts))], rule, spotter.frame_stride, rate)


def _recording(model: Path, header: dict[str, Any], group: Literal["validation", "test"]) -> Recording:
    """The recording made of a part of the data that the model was trained on."""
    return stream_of(recorded_config(model, header.get("training", {}).get("options")), group)
