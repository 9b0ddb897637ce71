"""A keyword model as a microcontroller runs it: the integer twin of the exported C library, bit for bit."""

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deltarnn.engine.activity import Activity, Counted, LayerActivity
from deltarnn.engine.model_file import read_quantization
from deltarnn.fixed.cells import IntegerRun
from deltarnn.fixed.network import IntegerNetwork
from deltarnn.fixed.parameters import NetworkParameters, UnsupportedModelError
from deltarnn.fixed.spotter import IntegerSpotter, IntegerStream, StreamStep
from deltarnn.fixed.stream_rule import IntegerRule
from deltarnn.kws.features.device import device_front_end
from deltarnn.kws.features.frontend_stream import checked_samples
from deltarnn.kws.features.pipeline import FeaturePipeline
from deltarnn.kws.spotter.rule import NON_KEYWORDS, UNIT, PeakPicker, StreamRule
from deltarnn.kws.spotter.spotter import Detection, read_spotter

PIECE = 1 << 16
"""Samples that are taken at once: memory does not grow with a recording."""


class DeviceSpotter:
    """Keywords in a stream of samples in the arithmetic of the exported C library; the verbs are those of `Spotter`.

    >>> spotter = DeviceSpotter.load("model.safetensors")  # doctest: +SKIP
    >>> spotter.accept_waveform(samples)  # doctest: +SKIP
    [Detection(word='yes', time=3.21, score=4.6)]

    Attributes
    ----------
    keywords: the words it knows. sample_rate: Hz. frame_stride: seconds from frame to frame. rule: the decision rule.
    integers: front end, network and rule in integers.
    """

    def __init__(self, integers: IntegerSpotter, rule: StreamRule, header: Mapping[str, Any]) -> None:
        """Not for callers: use `load`."""
        self.integers, self.rule, self._header = integers, rule, header
        self.keywords = tuple(header["labels"][NON_KEYWORDS:])
        self.sample_rate = integers.sample_rate
        self.frame_stride = integers.front_end.hop / integers.sample_rate
        self.reset()

    @classmethod
    def load(cls, path: str | os.PathLike[str], threshold: float | None = None) -> "DeviceSpotter":
        """Open a model file that `pretrain` or `retrain` wrote; threshold as `Spotter.load` takes it.

        Raises
        ------
        FileNotFoundError, ModelFileError
            If the file is missing, damaged, or no keyword model.
        UnsupportedModelError
            If the device cannot compute an option of the front end, or the network; the option is named.
        """
        tensors, header, pipeline, rule = read_spotter(path, threshold)
        parameters = NetworkParameters.from_model_file(tensors, header, read_quantization(header))
        network = IntegerNetwork.convert(parameters, parameters.formats)
        return cls(integer_spotter(network, header, pipeline, rule), rule, header)

    def accept_waveform(self, samples: ArrayLike) -> list[Detection]:
        """Take the next samples (N,) int16, any number of them; the detections that they decide, in order."""
        framing, unit, found = self.integers.front_end, UNIT * self.rule.smoothing, []
        for step in self._steps(self._stream, samples):
            self._fired.add(step.runs)
            for peak in step.peaks:
                time = (peak.frame * framing.hop + framing.length) / self.sample_rate
                found.append(Detection(self.keywords[peak.keyword], time, float(np.float32(peak.score / unit))))
        return found

    def scores(self, samples: ArrayLike) -> NDArray[np.float32]:
        """(frames, keywords): per frame the numbers that are compared with the threshold, of a fresh stream (N,) int16.

        This spotter's own stream goes on undisturbed.
        """
        sums = [step.sums for step in self._steps(IntegerStream(self.integers), samples)]
        return (np.concatenate(sums) / (UNIT * self.rule.smoothing)).astype(np.float32)

    def reset(self) -> None:
        """Begin a new stream: time and counts restart."""
        self._stream = IntegerStream(self.integers)
        self._fired = FiredCounts(self._header["architecture"])

    @property
    def activity(self) -> Activity:
        """What fired in the network since the start or the last `reset`."""
        return self._fired.activity

    def __copy__(self) -> "DeviceSpotter":
        """With a stream of its own, at the same place."""
        return copy.deepcopy(self)

    @staticmethod
    def _steps(stream: IntegerStream, samples: ArrayLike) -> Iterator[StreamStep]:
        piece = checked_samples(samples)
        for start in range(0, max(1, len(piece)), PIECE):
            yield stream.accept(piece[start : start + PIECE])


class FiredCounts(Counted):
    """What fired in an integer network, run after run. architecture: as in the model file's header."""

    def __init__(self, architecture: Mapping[str, Any]) -> None:
        self._architecture = dict(architecture)
        self._counts = np.zeros((architecture["num_layers"], 4), np.int64)

    def add(self, runs: Sequence[IntegerRun]) -> None:
        """Count what the layers did."""
        for layer, run in zip(self._counts, runs, strict=True):
            layer += run.y.shape[0] * run.y.shape[1], run.fired_x.sum(), run.fired_h.sum(), 0

    @property
    def activity(self) -> Activity:
        """All that was counted."""
        return Activity.of(self._architecture, True, [(int(s), int(x), int(h), 0) for s, x, h, _ in self._counts])

    @property
    def layers(self) -> Sequence[LayerActivity]:
        return self.activity.layers


def integer_spotter(
    network: IntegerNetwork, header: Mapping[str, Any], pipeline: FeaturePipeline, rule: StreamRule
) -> IntegerSpotter:
    """Front end, network and rule of a keyword model in integers, the features in the network's format.

    Raises
    ------
    UnsupportedModelError
        If the device cannot compute one of them; what is in the way is named.
    """
    scores = (header.get("class_quantization") or {}).get("score")
    if scores and scores["mode"]:
        raise UnsupportedModelError("the device does not round class scores: train without --qc")
    front_end = device_front_end(pipeline, network.quantization.activation)
    frame_stride = front_end.hop / pipeline.config.sample_rate
    try:
        integers = integer_rule(rule, frame_stride, network.score_fraction_bits)
        return IntegerSpotter(front_end, network, integers, pipeline.config.sample_rate)
    except ValueError as error:
        raise UnsupportedModelError(f"no spotter for a device: {error}") from None


def integer_rule(rule: StreamRule, frame_stride: float, score_fraction_bits: int) -> IntegerRule:
    """A decision rule in integers: it decides as the one in floating point does on the same class scores."""
    picker, units = PeakPicker(rule, frame_stride), UNIT * rule.smoothing
    threshold = int(np.clip(rule.threshold, -rule.limit - 1, rule.limit + 1) * units) + 2
    while np.float32(threshold / units) > picker.threshold:  # scores are rounded to float32 before they are compared
        threshold -= 1
    return IntegerRule(
        rule.smoothing, rule.bound, picker.hold, picker.refractory, threshold, score_fraction_bits, UNIT, NON_KEYWORDS
    )
