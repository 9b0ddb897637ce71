"""How well a spotter does on a long recording: misses against false alarms, latency, confusions, sparsity."""

import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltarnn.kws.data.stream import Recording
from deltarnn.kws.evaluation.detection import Outcome, Timing, at_false_alarms, at_threshold
from deltarnn.kws.spotter.device import DeviceSpotter
from deltarnn.kws.spotter.rule import StreamRule
from deltarnn.kws.spotter.spotter import Spotter

RATES = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
"""False alarms per hour at which the curve is sampled."""


@dataclass(frozen=True)
class StreamEvaluation:
    """A spotter's result on `recording`.

    scores: (frames, keywords), what is compared with the threshold. curve: for each of RATES the threshold and outcome.
    chosen: the outcome at the rule's threshold. sparsity: of each kind of section, the fraction of deltas that were 0.
    seconds_per_frame: of processor time, the whole chain.
    """

    recording: Recording
    keywords: tuple[str, ...]
    rule: StreamRule
    timing: Timing
    scores: NDArray[np.float32]
    curve: dict[float, tuple[float, Outcome]]
    chosen: Outcome
    sparsity: dict[str, float]
    seconds_per_frame: float

    @classmethod
    def of(cls, spotter: Spotter | DeviceSpotter, recording: Recording, timing: Timing) -> "StreamEvaluation":
        """Run the spotter over a recording from a fresh state, without a break."""
        scores, words, rule = spotter.scores(recording.audio), recording.words, spotter.rule
        curve = {rate: at_false_alarms(scores, words, rule, timing, rate) for rate in RATES}
        sparsity, seconds = _activity(spotter, recording)
        chosen = at_threshold(scores, words, rule, timing, rule.threshold)
        frames = max(1, len(scores))
        return cls(recording, spotter.keywords, rule, timing, scores, curve, chosen, sparsity, seconds / frames)

    def fields(self) -> dict[str, Any]:
        """As JSON: all but the scores and what differs from one run to the next."""
        words, hours = self.recording.words, self.recording.hours
        return {
            "hours": hours,
            "words": len(words),
            "sections": _lengths(self.recording),
            "rule": vars(self.rule),
            "curve": [
                {
                    "false_alarms_per_hour": rate,
                    "threshold": threshold,
                    "miss_rate": outcome.miss_rate,
                    "miss_rate_by_condition": outcome.misses_by(words),
                    "latency_median": _quantile(outcome.latencies(words, self.timing), 0.5),
                    "latency_90": _quantile(outcome.latencies(words, self.timing), 0.9),
                }
                for rate, (threshold, outcome) in self.curve.items()
            ],
            "at_threshold": {
                "threshold": self.rule.threshold,
                "miss_rate": self.chosen.miss_rate,
                "miss_rate_by_condition": self.chosen.misses_by(words),
                "false_alarms_per_hour": len(self.chosen.false_alarms) / hours,
                "false_alarms_by_section": self.false_alarms_by_section(self.chosen),
                "confusions": self.confusions(self.chosen),
            },
            "sparsity": self.sparsity,
        }

    def false_alarms_by_section(self, outcome: Outcome) -> dict[str, int]:
        """How many false alarms there were in each kind of section."""
        sections = self.recording.sections
        ends = np.array([section.end for section in sections])
        places = [self.timing.sample(peak.frame) - 1 for peak in outcome.false_alarms]
        found = Counter(sections[min(int(np.searchsorted(ends, at, "right")), len(ends) - 1)].kind for at in places)
        return {kind: found[kind] for kind in _lengths(self.recording)}

    def confusions(self, outcome: Outcome) -> dict[str, dict[str, int]]:
        """How often each keyword was taken for another, and how often one was heard that nobody said ("nothing")."""
        counts: dict[str, Counter[str]] = {}
        for peak, said in zip(outcome.false_alarms, outcome.answered, strict=True):
            name = "nothing" if said is None else self.keywords[said]
            counts.setdefault(name, Counter())[self.keywords[peak.keyword]] += 1
        return {name: dict(sorted(counts[name].items())) for name in sorted(counts)}

    @property
    def notes(self) -> list[str]:
        """What the curve cannot tell: a line where rates are below one false alarm in the whole recording."""
        least = 1 / self.recording.hours
        if least <= RATES[0]:
            return []
        return [
            f"below {least:.3g} false alarms an hour, not one in all: the recording is too short to tell such rates"
        ]

    def __str__(self) -> str:
        """The table that `deltarnn evaluate --stream` prints."""
        words, hours = self.recording.words, self.recording.hours
        conditions = list(dict.fromkeys(word.condition for word in words))
        width = max([8, *(len(name) + 2 for name in conditions)])
        lines = [
            f"{hours:.2f} hours, {len(words)} keywords",
            f"{'false alarms/h':>15}{'threshold':>11}{'missed':>9}"
            + "".join(f"{name:>{width}}" for name in conditions)
            + f"{'latency, ms':>13}",
        ]
        for rate, (threshold, outcome) in self.curve.items():
            by, late = outcome.misses_by(words), _quantile(outcome.latencies(words, self.timing), 0.5)
            lines.append(
                f"{rate:>15g}{threshold:>11.3f}{percent(outcome.miss_rate):>9}"
                + "".join(f"{by[name]:>{width}.1%}" for name in conditions)
                + (f"{1000 * late:>13.0f}" if late is not None else f"{'–':>13}")
            )
        lines += self.notes
        at = self.fields()["at_threshold"]
        alarms = ", ".join(f"{kind} {count}" for kind, count in at["false_alarms_by_section"].items() if count)
        lines.append(
            f"at the model's threshold {self.rule.threshold:.3f}: {percent(at['miss_rate'])} missed, "
            f"{at['false_alarms_per_hour']:.1f} false alarms an hour" + (f" ({alarms})" if alarms else "")
        )
        lines.append("deltas that were 0: " + ", ".join(f"{kind} {s:.1%}" for kind, s in self.sparsity.items()))
        return "\n".join(lines)


def percent(rate: float | None) -> str:
    """A miss rate as it is shown."""
    return "–" if rate is None else f"{rate:.1%}"


def _activity(spotter: Spotter | DeviceSpotter, recording: Recording) -> tuple[dict[str, float], float]:
    """Fraction of zero deltas by kind of section, the state carried through all, and seconds of processor time."""
    spotter.reset()
    zeros: Counter[str] = Counter()
    deltas: Counter[str] = Counter()
    before, started = (0, 0), time.process_time()
    for section in recording.sections:
        spotter.accept_waveform(recording.audio[section.start : section.end])
        layers = spotter.activity.per_layer
        total = sum(layer.numel_x + layer.numel_h + layer.numel_rh for layer in layers)
        held = sum(layer.zeros_x + layer.zeros_h + layer.zeros_rh for layer in layers)
        zeros[section.kind] += held - before[0]
        deltas[section.kind] += total - before[1]
        before = held, total
    seconds = time.process_time() - started
    spotter.reset()
    return {kind: zeros[kind] / count for kind, count in deltas.items() if count}, seconds


def _lengths(recording: Recording) -> dict[str, float]:
    """Seconds of each kind of section, in the order of their first."""
    lengths: dict[str, float] = {}
    for section in recording.sections:
        seconds = (section.end - section.start) / recording.sample_rate
        lengths[section.kind] = lengths.get(section.kind, 0.0) + seconds
    return lengths


def _quantile(values: NDArray[np.float64], q: float) -> float | None:
    return float(np.quantile(values, q)) if len(values) else None
