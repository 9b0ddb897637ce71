"""Samples in, detections out: the front end, the network and the decision rule on one endless stream."""

import os
import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deltarnn.engine import Activity, Engine, ModelFileError, load_model
from deltarnn.engine.compilation import Precision
from deltarnn.engine.description import Description
from deltarnn.engine.model_file import Header, Tensors
from deltarnn.fixed.parameters import NetworkParameters
from deltarnn.fixed.qformat import QFormat
from deltarnn.kws.features.frontend_stream import checked_samples
from deltarnn.kws.features.pipeline import FeaturePipeline, PipelineStream
from deltarnn.kws.spotter.calibration import stream_rule
from deltarnn.kws.spotter.rule import NON_KEYWORDS, UNIT, PeakPicker, StreamRule
from deltarnn.native import native_core

UNCALIBRATED_THRESHOLD = 3.0
"""Threshold of a model file that stores none."""


class Detection(NamedTuple):
    """A detected keyword: the word, the time of its end in seconds of the stream, and its score."""

    word: str
    time: float
    score: float


class Spotter:
    """Keyword spotting on an endless stream of samples that arrive piece by piece, in constant memory.

    >>> spotter = Spotter.load("model.safetensors")  # doctest: +SKIP
    >>> spotter.accept_waveform(samples)  # doctest: +SKIP
    [Detection(word='yes', time=3.21, score=4.6)]

    Detections do not depend on how the stream is cut into pieces. With a log filter bank or log-mel bank the
    whole chain runs in the native core; other front ends (band-passes, gradient, gain control, quantised features) run
    in Python, and the rest in the core. Torch is not imported. One spotter is for one thread at a time.

    Attributes
    ----------
    keywords: the words it knows. sample_rate: of the samples it takes, Hz. frame_stride: seconds from frame to frame, a
        whole number of samples. rule: the decision rule, its threshold included. engine: the network's weights and
        precision.
    """

    def __init__(self, engine: Engine, pipeline: FeaturePipeline, rule: StreamRule, header: Mapping[str, Any]) -> None:
        """Not for callers: use `load`. header: the model file's, for its labels and the format of class scores."""
        self.engine, self.rule = engine, rule
        self._pipeline, self._header = pipeline, header
        if pipeline.config.mfcc:
            raise ValueError("mfcc subtracts a mean over the whole clip, which an endless stream does not have")
        self.keywords = tuple(header["labels"][NON_KEYWORDS:])
        self.sample_rate = pipeline.config.sample_rate
        self.frame_stride = pipeline.framing.hop / self.sample_rate
        front = pipeline.native()
        # The front end in Python, where the core has none.
        self._frames = _FrameSource(pipeline) if front is None else None
        core = native_core()
        assert core is not None  # else there would be no engine
        self._core = core.Spotter(engine.compiled, _in_frames(rule, self.frame_stride), front, _score_grid(header))

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], threshold: float | None = None, precision: Precision | None = None
    ) -> "Spotter":
        """Open a model file that `pretrain` or `retrain` wrote.

        Parameters
        ----------
        threshold: above which a score is a detection; None for the file's calibrated one (docs/spotter.md).
        precision: "float32" or "int8"; None for the file's own: "int8" if it has fixed-point formats, else "float32",
            the arithmetic in which it was trained. int8 of a file without formats takes Q8.8 activations, the 8-bit
            format that holds all weights and the biases as they enter, and Q2.6 gates.

        Raises
        ------
        FileNotFoundError, ModelFileError
            If the file is missing, damaged, or no keyword model.
        ImportError
            If the native core was not built.

        Warns
        -----
        UserWarning
            If the file has no calibrated threshold and none is given: `UNCALIBRATED_THRESHOLD` is taken. If the
            threshold is one that no score is above.
        """
        tensors, header, pipeline, rule = read_spotter(path, threshold)
        description, formats = Description(tensors, header), None
        precision = precision or ("int8" if description.fixed_point else "float32")
        if precision == "int8" and not description.fixed_point:
            formats = NetworkParameters.from_model_file(tensors, header, None).formats
        return cls(Engine.from_description(description, precision, formats), pipeline, rule, header)

    def accept_waveform(self, samples: ArrayLike) -> list[Detection]:
        """Take the next samples (N,) int16, any number of them; the detections that they decide, in order.

        A detection is decided `rule.hold` after its peak, so that no higher one follows. ValueError if samples are not
        int16 of one channel.
        """
        # What the core takes as it lies needs no look from here.
        peaks = self._core.accept(samples) if self._frames is None else None
        if peaks is None:
            peaks, _ = self._take(samples, scored=False)
        return [self._detection(frame, keyword, score) for frame, keyword, score, _ in peaks]

    def scores(self, samples: ArrayLike) -> NDArray[np.float32]:
        """(frames, keywords): per frame the numbers that are compared with the threshold, of a fresh stream (N,) int16.

        This spotter's own stream goes on undisturbed.
        """
        _, scores = Spotter(self.engine, self._pipeline, self.rule, self._header)._take(samples, scored=True)
        assert scores is not None
        return scores

    def reset(self) -> None:
        """Begin a new stream: time and counts restart."""
        self._core.reset()
        if self._frames is not None:
            self._frames = _FrameSource(self._pipeline)

    @property
    def activity(self) -> Activity:
        """What fired in the network since the start or the last `reset`."""
        return self.engine.activity_of(self._core)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles begin a stream of their own, over the same weights and with the same rule."""
        frame = self._pipeline.framing
        begun = self._core.frames_after(frame.length - frame.inside) if self._frames is None else self._frames.begun
        if begun or self.activity.layers[0].steps:
            raise TypeError(
                "this spotter is in the middle of a stream, which a copy could not continue: reset() it first"
            )
        return _restored, (self.engine.stream(), self._pipeline.to_dict(), self.rule, self._header)

    def _take(self, samples: ArrayLike, scored: bool) -> tuple[list[Any], NDArray[np.float32] | None]:
        """The next samples: peaks that they decide, and, if asked for, the scores of the frames that they complete."""
        piece = checked_samples(samples)
        if self._frames is None:
            count, take = self._core.frames_after(len(piece)), partial(self._core.accept, piece)
        else:
            frames = self._frames.take(piece)
            count, take = len(frames), partial(self._core.accept_frames, frames)
        scores = np.empty((count, len(self.keywords)), np.float32) if scored else None
        return take(scores), scores

    def _detection(self, frame: int, keyword: int, score: float) -> Detection:
        framing = self._pipeline.framing
        return Detection(self.keywords[keyword], (frame * framing.hop + framing.length) / self.sample_rate, score)


def read_spotter(
    path: str | os.PathLike[str], threshold: float | None
) -> tuple[Tensors, Header, FeaturePipeline, StreamRule]:
    """Tensors, header, front end and decision rule of a keyword model's file; errors and warnings of `Spotter.load`."""
    tensors, header = load_model(path)
    if not {"labels", "features"} <= header.keys():
        raise ModelFileError(f"{path}: names no labels and features: not a model that `pretrain` or `retrain` wrote")
    try:
        rule = stream_rule(header)
        pipeline = FeaturePipeline.from_dict(header["features"])
    except (TypeError, ValueError) as error:
        raise ModelFileError(f"{path}: {error}") from None
    if rule is None:
        rule = StreamRule.at(pipeline.framing.hop / pipeline.config.sample_rate, UNCALIBRATED_THRESHOLD)
        if threshold is None:
            warnings.warn(
                f"{path} stores no threshold: none was chosen for it yet. {rule.threshold:g} is "
                "taken; `deltarnn evaluate --stream` chooses one for a rate of false alarms and stores it",
                stacklevel=3,
            )
    if threshold is not None:
        rule = replace(rule, threshold=threshold)
        if threshold >= rule.limit:
            warnings.warn(
                f"threshold {threshold:g}: no score is above {rule.limit:g}, so nothing will be heard", stacklevel=3
            )
    return tensors, header, pipeline, rule


def _restored(engine: Engine, features: dict[str, Any], rule: StreamRule, header: Header) -> Spotter:
    """A copied or unpickled spotter."""
    return Spotter(engine, FeaturePipeline.from_dict(features), rule, header)


class _FrameSource:
    """Frames of a front end in Python, taken as they become ready. begun: whether it has taken a sample."""

    def __init__(self, pipeline: FeaturePipeline) -> None:
        self._stream: PipelineStream = pipeline.stream()
        self._features, self._taken, self.begun = pipeline.num_features, 0, False

    def take(self, samples: NDArray[np.int16]) -> NDArray[np.float32]:
        """The network's input (T, features) at the frames that the samples complete."""
        self._stream.accept_waveform(samples)
        self.begun |= len(samples) > 0
        count = self._stream.num_frames_ready - self._taken
        frames = np.empty((count, self._features), np.float32)
        for i in range(count):
            frames[i] = self._stream.get_frame(self._taken + i)
        self._stream.pop(count)
        self._taken += count
        return frames


def _in_frames(rule: StreamRule, frame_stride: float) -> dict[str, float]:
    """The rule as the core takes it."""
    picker = PeakPicker(rule, frame_stride)
    return {
        "smoothing": rule.smoothing, "bound": rule.bound, "hold": picker.hold, "refractory": picker.refractory,
        "unit": UNIT, "others": NON_KEYWORDS, "threshold": rule.threshold,
    }  # fmt: skip


def _score_grid(header: Mapping[str, Any]) -> dict[str, Any] | None:
    """The fixed-point format of class scores (--qc), as the core takes it; None where they are not rounded."""
    scores = (header.get("class_quantization") or {}).get("score")
    if not scores or not scores["mode"]:
        return None
    grid = QFormat(*scores["format"])
    return {"scale": grid.scale, "low": grid.int_min, "high": grid.int_max, "down": scores["mode"] == 2}
