"""Times of the engine against dense layers, over cell, size and sparsity (docs/engine.md)."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deltarnn.bench.figure import draw
from deltarnn.bench.peers import onnxruntime_call, torch_call
from deltarnn.bench.timing import Times, interleaved, machine
from deltarnn.bench.workload import (
    WEIGHT_BYTES,
    Sizes,
    calibrated_engine,
    fired_bytes,
    lively_layer,
    random_changes,
    size_name,
)
from deltarnn.engine import Engine
from deltarnn.engine.compilation import Precision
from deltarnn.files import write_text
from deltarnn.native import native_core

CELLS = ("GRU", "LSTM")
SIZES: tuple[Sizes, ...] = ((16, 64, 1), (40, 256, 1), (40, 768, 2))
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "int8")
SPARSITIES = (0.0, 0.5, 0.8, 0.9, 0.95)
SEQUENCE = 100
"""Steps of one call where a whole sequence is given."""


@dataclass(frozen=True)
class EngineCase:
    """The engine at one precision and sparsity: what it reached, its times per step, and the floor under them.

    sparsity: fraction of zero deltas, weighed by the weights they would have fetched. floor: seconds that one thread
    takes to read the fired columns, at the bandwidth with which it sums a buffer of the weights' size.
    """

    precision: str
    target: float
    sparsity: float
    step: Times
    run: Times
    floor: float


@dataclass(frozen=True)
class Result:
    """One cell and size: the dense peers' times per step by name, and the engine's cases."""

    cell: str
    sizes: Sizes
    bandwidth: dict[str, float]
    peers: dict[str, Times]
    cases: list[EngineCase]

    @property
    def name(self) -> str:
        """Such as GRU 40→2×768."""
        return f"{self.cell} {size_name(self.sizes)}"


def run(output: Path, quick: bool) -> None:
    """Measure all cells and sizes; print and write engine.md, engine.json and engine.png in `output`."""
    results = []
    for cell in CELLS:
        for sizes in SIZES:
            results.append(measure(cell, sizes, repetitions=6 if quick else 30))
            print(table(results[-1]), flush=True)
    write_text(output / "engine.md", "\n".join(map(table, results)))
    record = {
        "machine": machine(),
        "repetitions": 6 if quick else 30,
        "results": [asdict(result) for result in results],
    }
    write_text(output / "engine.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    draw(results, output / "engine.png")


def measure(cell: str, sizes: Sizes, repetitions: int) -> Result:
    """Time every peer and every case of the engine in turn, in this process; then the peers that use two threads."""
    inputs, hidden, _ = sizes
    dense = lively_layer(cell, sizes)
    steps = 200  # of one call
    peers = _dense_peers(dense, random_changes(SEQUENCE, inputs, 0.0), threads=1)
    engines: dict[tuple[str, float], tuple[Engine, Engine]] = {}
    for target in SPARSITIES:
        frames = random_changes(1200 if hidden < 512 else 400, inputs, target)
        for precision in PRECISIONS:
            engine = calibrated_engine(dense, frames, target, precision)
            engines[precision, target] = engine, engine.stream()
            peers[f"step {precision} {target}"] = _stepping(engine, frames, steps), steps
            peers[f"run {precision} {target}"] = _running(engines[precision, target][1], frames), SEQUENCE
    weights = sum(parameter.numel() for name, parameter in dense.named_parameters() if name.startswith("weight"))
    readers: dict[str, _Reader] = {precision: _Reader(WEIGHT_BYTES[precision] * weights) for precision in PRECISIONS}
    peers |= {f"read {name}": (reader, 1) for name, reader in readers.items()}
    times = interleaved(peers, repetitions, time.thread_time)
    two_threads = _dense_peers(dense, random_changes(SEQUENCE, inputs, 0.0), threads=2)
    times |= interleaved(two_threads, repetitions // 3, time.perf_counter)
    torch.set_num_threads(1)
    bandwidth = {name: reader.bandwidth() for name, reader in readers.items()}
    cases = [
        EngineCase(
            precision,
            target,
            engine.activity.effective_sparsity,
            times[f"step {precision} {target}"],
            times[f"run {precision} {target}"],
            fired_bytes(engine) / bandwidth[precision],
        )
        for (precision, target), (engine, _) in engines.items()
    ]
    dense_times = {name: value for name, value in times.items() if name.split()[0] in ("torch", "onnxruntime")}
    return Result(cell, sizes, bandwidth, dense_times, cases)


class _Reader:
    """Sums a buffer of as many bytes as the weights have, with one thread, and keeps the times."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.seconds: list[float] = []

    def __call__(self) -> None:
        core: Any = native_core()
        self.seconds.append(core.time_reading(self.size, max(2, 40_000_000 // self.size)))

    def bandwidth(self) -> float:
        """Bytes per second, by the quartile of the times as everything else."""
        return self.size / float(np.percentile(self.seconds, 25))


def table(result: Result) -> str:
    """The result as a Markdown table, microseconds per step: quartile, median and best of all repetitions.

    Processor time with one thread, elapsed time with two.
    """
    lines = [f"### {result.name}", "", "| µs per step | sparsity | quartile | median | best | quartile / floor |"]
    lines.append("|---|---|---|---|---|---|")
    for name, times in result.peers.items():
        lines.append(f"| {name} | | {_micro(times)} | |")
    for case in result.cases:
        for mode, times in (("step", case.step), ("run", case.run)):
            over = f"{times.quartile / case.floor:.2f}"
            lines.append(f"| engine {case.precision} {mode} | {case.sparsity:.3f} | {_micro(times)} | {over} |")
    rates = ", ".join(f"{size} weights {rate / 1e9:.0f} GB/s" for size, rate in result.bandwidth.items())
    return "\n".join([*lines, "", f"Reading speed of one thread over a buffer of the size of the {rates}.", ""])


def _dense_peers(dense: Any, frames: NDArray[np.float32], threads: int) -> dict[str, tuple[Callable[[], Any], int]]:
    peers: dict[str, tuple[Callable[[], Any], int]] = {}
    for what, x in (("one frame", frames[:1]), (f"{SEQUENCE} steps", frames)):
        label = f"{what}, {threads} thread{'s' if threads > 1 else ''}"
        peers[f"torch {label}"] = torch_call(dense, x, threads), len(x)
        peers[f"onnxruntime {label}"] = onnxruntime_call(dense, x, threads), len(x)
        if dense.mode == "LSTM":
            int8 = onnxruntime_call(dense, x, threads, dynamic_int8=True)
            peers[f"onnxruntime dynamic int8 {label}"] = int8, len(x)
    return peers


def _stepping(engine: Engine, frames: NDArray[np.float32], steps: int) -> Callable[[], None]:
    """`steps` calls of step from Python, going on through the frames from call to call."""
    rows = list(frames)
    position = 0

    def call() -> None:
        nonlocal position
        step = engine.step
        for frame in rows[position : position + steps]:
            step(frame)
        position = (position + steps) % (len(rows) - steps)

    return call


def _running(engine: Engine, frames: NDArray[np.float32]) -> Callable[[], None]:
    position = 0

    def call() -> None:
        nonlocal position
        engine.run(frames[position : position + SEQUENCE])
        position = (position + SEQUENCE) % (len(frames) - SEQUENCE)

    return call


def _micro(times: Times) -> str:
    micro = (value * 1e6 for value in (times.quartile, times.median, times.best))
    return " | ".join(f"{value:.3g}" if value < 1000 else f"{value:.0f}" for value in micro)
