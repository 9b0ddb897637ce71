"""`deltarnn predict`: the word in each recording, as the model's decision rule names it."""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from deltarnn.files import sentence
from deltarnn.kws.commands.choice import add_model, chosen_model, take_model
from deltarnn.kws.data.audio import Audio, read_recording
from deltarnn.kws.features.pipeline import FeaturePipeline
from deltarnn.kws.network.decision import DecisionRule
from deltarnn.kws.network.header import require
from deltarnn.kws.network.model import load_keyword_model

FIRST_KEYWORD = 2


@dataclass(frozen=True)
class Prediction:
    """The class named, its confidence (the smoothed posterior; None without smoothing), and the second at which the
    piece that was decided begins."""

    label: str
    confidence: float | None
    start: float


class Predictor:
    """Names the words in recordings. A recording longer than the clips that the network was trained on is decided piece
    by piece, each from a fresh state and half a clip after the one before; the surest keyword counts."""

    def __init__(self, path: Path) -> None:
        self._model, header = load_keyword_model(path)
        require(path, header, "decision", "features")
        self._pipeline = FeaturePipeline.from_dict(header["features"])
        self._rule = DecisionRule(**header["decision"])
        self.labels: list[str] = header["labels"]
        self.sample_rate = self._pipeline.config.sample_rate
        self._samples = round(header.get("clip_seconds", 1.0) * self.sample_rate)

    def __call__(self, audio: Audio) -> Prediction:
        """Of samples (N,) int16 at `sample_rate`."""
        last = max(0, len(audio) - self._samples)
        starts = [*range(0, last, self._samples // 2), last]
        pieces = [self._pipeline.of_clip(audio[start : start + self._samples], self._samples) for start in starts]
        features = self._pipeline.normalise(np.stack(pieces)).transpose(1, 0, 2)
        with torch.no_grad():
            scores, _ = self._model(torch.from_numpy(np.ascontiguousarray(features)))
        classes = self._rule(scores)
        sure = self._rule.best(scores).gather(1, classes[:, None])[:, 0]
        ranked = torch.where(classes >= FIRST_KEYWORD, sure, sure - 1)  # a keyword, however unsure, before none
        best = int(ranked.argmax())
        confidence = float(sure[best]) if self._rule.smooth else None
        return Prediction(self.labels[int(classes[best])], confidence, starts[best] / self.sample_rate)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `deltarnn predict`."""
    add_model(parser)
    parser.add_argument("files", type=Path, nargs="*", metavar="FILE", help="recordings: WAV, FLAC, Ogg, MP3 or AIFF")


def run(arguments: argparse.Namespace) -> int:
    """One line per recording; 1 where one could not be read, after all the others."""
    files = list(arguments.files)
    take_model(arguments, files)
    if not files:
        raise ValueError("predict: name one or more recordings, such as deltarnn predict MODEL yes.wav")
    predictor = Predictor(chosen_model(arguments))
    failed = 0
    for path in files:
        try:
            recording = read_recording(path, predictor.sample_rate)
        except (ValueError, OSError) as error:
            print(f"{path}: not read: {sentence(error).removeprefix(f'{path}: ')}")
            failed += 1
            continue
        found = predictor(recording.samples)
        sure = "" if found.confidence is None else f" ({found.confidence:.0%})"
        where = f", from {found.start:g} s" if found.start else ""
        cut = "; the file ends before the length that it claims" if recording.cut_off else ""
        print(f"{path}: {found.label}{sure}{where}{cut}")
    return 1 if failed else 0
