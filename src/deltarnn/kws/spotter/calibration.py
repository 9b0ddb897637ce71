"""The threshold of the stream's decision rule: chosen for a rate of false alarms, and kept in the model file.

The header of a calibrated model file has under "stream" the fields of `StreamRule`, and what was measured when its
threshold was chosen: "false_alarms_per_hour", over "hours" of audio without keywords.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltarnn.engine.model_file import ModelFileError, load_model, save_model
from deltarnn.kws.spotter.rule import UNIT, StreamRule

STREAM = "stream"
"""The header's field."""


@dataclass(frozen=True)
class Calibration:
    """A decision rule with its threshold, and the false alarms an hour that it gave on `hours` without keywords."""

    rule: StreamRule
    false_alarms_per_hour: float
    hours: float

    def fields(self) -> dict[str, float]:
        """As the header of a model file holds it."""
        return {
            **asdict(self.rule),
            "false_alarms_per_hour": self.false_alarms_per_hour,
            "hours": self.hours,
        }


def calibrate(
    negatives: Sequence[NDArray[np.float32]], rule: StreamRule, frame_stride: float, false_alarms_per_hour: float = 5.0
) -> Calibration:
    """The lowest threshold with at most `false_alarms_per_hour` on audio without keywords.

    Parameters
    ----------
    negatives: scores (T, keywords) of streams without keywords, as of `Spotter.scores`. frame_stride: seconds.
    rule: smoothing, refractory time and so on; its threshold does not matter.

    Raises
    ------
    ValueError
        If there is too little audio for the rate to mean one false alarm.
    """
    hours = sum(len(scores) for scores in negatives) * frame_stride / 3600
    if not false_alarms_per_hour > 0 or hours * false_alarms_per_hour < 1:
        raise ValueError(
            f"{false_alarms_per_hour:g} false alarms an hour cannot be measured on {hours:.2f} hours of audio without "
            "keywords: give more of it, at least as long as one false alarm takes, or allow a higher rate"
        )

    def alarms(level: int) -> int:
        trial = replace(rule, threshold=level / steps)
        return sum(len(trial.peaks(scores, frame_stride)) for scores in negatives)

    # All scores are multiples of 1/steps from −limit to limit; no score is above the highest of them.
    steps = UNIT * rule.smoothing
    low, high = -rule.bound * rule.smoothing - 1, rule.bound * rule.smoothing
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if alarms(middle) <= false_alarms_per_hour * hours else (middle, high)
    return Calibration(replace(rule, threshold=high / steps), alarms(high) / hours, hours)


def store(path: str | os.PathLike[str], calibration: Calibration) -> None:
    """Write a calibration into the header of a model file, in place of one that it has."""
    tensors, header = load_model(path)
    save_model(path, tensors, {**header, STREAM: calibration.fields()})


def stream_rule(header: Mapping[str, Any]) -> StreamRule | None:
    """The decision rule that a model file's header holds, or None where it is not calibrated.

    Raises
    ------
    ModelFileError
        Where what it holds is no decision rule.
    """
    stored = header.get(STREAM)
    if stored is None:
        return None
    try:
        return StreamRule(**{field.name: stored[field.name] for field in fields(StreamRule)})
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"the header's {STREAM!r} is no decision rule ({error!r})") from None
