"""A C program that gives a spotter noise, and compares all that it hears with its twin in Python."""

from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from deltarnn.fixed.spotter import IntegerSpotter, IntegerStream

SECONDS = 2
_MASK = 0xFFFFFFFF
_PRIME, _BASIS = 16777619, 2166136261  # of FNV-1a


def test_noise(count: int) -> NDArray[np.int16]:
    """`count` samples of a linear congruential generator, in stretches of all levels; the C program makes the same."""
    seeds, seed = np.empty(count, np.int64), 1
    for n in range(count):
        seed = (seed * 1664525 + 1013904223) & _MASK
        seeds[n] = seed
    loud = (seeds >> 16) - 32768
    divisor = 1 << ((np.arange(count) >> 11) % 16)
    return np.asarray(np.sign(loud) * (np.abs(loud) // divisor), dtype=np.int16)


def test_text(spotter: IntegerSpotter, name: str) -> str:
    """The program: it exits with 1 where frames, scores or detections differ from those of `IntegerStream`."""
    count = SECONDS * spotter.sample_rate
    step = IntegerStream(spotter).accept(test_noise(count))
    scores, detections = _BASIS, _BASIS
    for value in (step.sums + spotter.rule.bound * spotter.rule.smoothing).ravel().tolist():
        scores = ((scores ^ value) * _PRIME) & _MASK
    for peak in step.peaks:
        time = peak.frame * spotter.front_end.hop + spotter.front_end.length
        for value in (peak.keyword + spotter.rule.others, peak.score, time):
            detections = ((detections ^ (value & _MASK)) * _PRIME) & _MASK
    macros = {
        **{part: f"{name}_{part.lower()}" for part in ("STATE", "DETECTION", "RESET", "PUSH")},
        **{part: f"{name.upper()}_{part}" for part in ("HOP", "KEYWORDS")},
        "SAMPLES": count,
        "FRAMES": len(step.sums),
        "DETECTIONS": len(step.peaks),
        "HASH_START": f"{_BASIS}u",
        "HASH_PRIME": f"{_PRIME}u",
        "SCORES_HASH": f"{scores}u",
        "DETECTIONS_HASH": f"{detections}u",
    }
    parts = [
        f"/* Test of {name}_push, generated: {SECONDS} s of noise in pieces, all scores and detections compared. */",
        f'#include "{name}.h"\n',
        *(f"#define {macro} {value}" for macro, value in macros.items()),
        "",
        files("deltarnn.hardware").joinpath("push_test.c").read_text(encoding="utf-8"),
    ]
    return "\n".join(parts)
