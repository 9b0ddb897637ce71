"""Timing of peers side by side, and a description of the machine."""

import gc
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

REPETITION_SECONDS = 4e-3


@dataclass(frozen=True)
class Times:
    """Seconds per unit of work: quantiles over all repetitions."""

    best: float
    quartile: float
    median: float
    worst_decile: float


def interleaved(
    peers: Mapping[str, tuple[Callable[[], Any], int]], repetitions: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Times]:
    """Time peers in turn, so that whatever else the machine does meets all of them alike.

    A repetition of a peer is as many calls as take a few milliseconds: it brings its own weights back into the caches,
    which the peer before it has filled with others.

    Parameters
    ----------
    peers: name -> (function, units of work in one call).
    repetitions: timed repetitions of each.
    clock: time.thread_time where all work is done in the calling thread: on an idle machine the same as elapsed time,
        and on a busy one still the time that the work took.
    """
    calls = {name: _calls_of_a_repetition(function, clock) for name, (function, _) in peers.items()}
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    gc.collect()
    gc.disable()
    try:
        for _ in range(repetitions):
            for name, (function, units) in peers.items():
                start = clock()
                for _ in range(calls[name]):
                    function()
                seconds[name].append((clock() - start) / (units * calls[name]))
    finally:
        gc.enable()
    return {
        name: Times(*(float(np.percentile(values, part)) for part in (0, 25, 50, 90)))
        for name, values in seconds.items()
    }


def _calls_of_a_repetition(function: Callable[[], Any], clock: Callable[[], float]) -> int:
    function()
    shortest = float("inf")
    for _ in range(3):
        start = clock()
        function()
        shortest = min(shortest, clock() - start)
    return max(1, round(REPETITION_SECONDS / shortest))


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    packages = {name: _version(name) for name in ("torch", "onnxruntime", "numpy", "deltarnn")}
    return {"cpu": _cpu_name(), "cores": os.cpu_count(), "python": platform.python_version(), **packages}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # ONNX Runtime, which the training part does not need
        return None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
