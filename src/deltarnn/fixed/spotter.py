"""A whole keyword spotter in integers: front end, network, decision rule, as the exported C library computes it."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deltarnn.fixed.arithmetic import IntArray
from deltarnn.fixed.cells import IntegerRun, IntegerState
from deltarnn.fixed.front_end import IntegerFrames, IntegerFrontEnd, clip_features
from deltarnn.fixed.network import IntegerNetwork
from deltarnn.fixed.stream_rule import IntegerPeak, IntegerPicker, IntegerRule


@dataclass(frozen=True)
class IntegerSpotter:
    """From int16 samples at `sample_rate` to class scores and detections.

    ValueError where the parts do not belong together.
    """

    front_end: IntegerFrontEnd
    network: IntegerNetwork
    rule: IntegerRule
    sample_rate: int

    def __post_init__(self) -> None:
        if self.front_end.num_features != self.network.input_size or not self.network.head or self.keywords < 1:
            raise ValueError(
                f"a front end of {self.front_end.num_features} features and a rule of {self.rule.others} other classes "
                f"do not fit a network of {self.network.input_size} inputs and {self.network.output_size} outputs"
            )

    @property
    def keywords(self) -> int:
        """Classes that are detected."""
        return self.network.output_size - self.rule.others

    def clip_scores(self, clips: NDArray[np.int16], count: int) -> tuple[IntArray, tuple[IntegerRun, ...]]:
        """Class scores (count, B, classes) of clips (B, N), each from a fresh state, and what the layers did."""
        return self.network.advance(np.moveaxis(clip_features(self.front_end, clips, count), 0, 1))


class StreamStep(NamedTuple):
    """What samples added to a stream: of the frames that they completed, sums of margins (T, keywords); detections;
    what the layers did."""

    sums: IntArray
    peaks: list[IntegerPeak]
    runs: tuple[IntegerRun, ...]


class IntegerStream:
    """One stream of a spotter, from its start."""

    def __init__(self, spotter: IntegerSpotter) -> None:
        self._spotter = spotter
        self._frames = IntegerFrames(spotter.front_end)
        self._picker = IntegerPicker(spotter.rule, spotter.keywords)
        self._states: list[IntegerState] | None = None

    def accept(self, samples: NDArray[np.int16]) -> StreamStep:
        """The next samples (N,)."""
        features = self._frames.accept(samples)
        scores, runs = self._spotter.network.advance(features[:, None], self._states)
        self._states = [run.state for run in runs]
        sums = self._picker.sums(scores[:, 0])
        return StreamStep(sums, list(self._picker.peaks(sums)), runs)
