"""Timing of peers side by side, and what is told about the machine."""

import gc
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

REPETITION_SECONDS = 4e-3


@dataclass(frozen=True)
class Times:
    """Seconds per unit of work, over all repetitions.

    The lower quartile is the figure to compare on a machine that does other things too: a repetition that was
    interrupted tells of the interruption.
    """

    best: float
    quartile: float
    median: float
    worst_decile: float


def interleaved(peers: Mapping[str, tuple[Callable[[], Any], int]], repetitions: int) -> dict[str, Times]:
    """Time peers in turn, so that whatever else the machine does meets all of them alike.

    A repetition of a peer is as many calls as take a few milliseconds: it brings its own weights back into the caches,
    which the peer before it has filled with others.

    Parameters
    ----------
    peers: name -> (function, units of work in one call).
    repetitions: timed repetitions of each.
    """
    calls = {name: _calls_of_a_repetition(function) for name, (function, _) in peers.items()}
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    gc.collect()
    gc.disable()
    try:
        for _ in range(repetitions):
            for name, (function, units) in peers.items():
                start = time.perf_counter()
                for _ in range(calls[name]):
                    function()
                seconds[name].append((time.perf_counter() - start) / (units * calls[name]))
    finally:
        gc.enable()
    return {
        name: Times(*(float(np.percentile(values, part)) for part in (0, 25, 50, 90)))
        for name, values in seconds.items()
    }


def _calls_of_a_repetition(function: Callable[[], Any]) -> int:
    function()
    shortest = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        function()
        shortest = min(shortest, time.perf_counter() - start)
    return max(1, round(REPETITION_SECONDS / shortest))


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    packages = {name: version(name) for name in ("torch", "onnxruntime", "numpy", "deltarnn")}
    return {"cpu": _cpu_name(), "cores": os.cpu_count(), "python": platform.python_version(), **packages}


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
