"""Times and memory of delta layers on a GPU against cuDNN, over cell, size, batch and sparsity (docs/training.md)."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deltarnn.bench.timing import machine
from deltarnn.bench.training import calibrate
from deltarnn.bench.workload import lively_layer, random_changes
from deltarnn.files import replacing, write_text
from deltarnn.nn import DeltaGRU, DeltaLSTM, record_activity

SIZES = ((16, 64, 61, 64), (16, 64, 61, 1024), (40, 128, 100, 64), (40, 256, 100, 32), (768, 768, 50, 64))
"""Inputs, hidden units, steps, samples."""

SPARSITIES = (0.5, 0.8, 0.9)
INPUTS = 3
"""Batches that are taken in turn, so that no cache holds just the right one."""


@dataclass(frozen=True)
class Case:
    """One peer: milliseconds per call as a program makes them, and of the same work replayed from a CUDA graph, which
    the processor does not hold up; medians. memory: bytes by which forward and backward raise the peak.
    """

    name: str
    sparsity: float
    forward: float
    training: float
    forward_graph: float | None
    training_graph: float | None
    memory: int


def run(output: Path, quick: bool) -> None:
    """Measure all settings on the current GPU; print and write cuda.md, cuda.json and cuda.png in `output`."""
    if not torch.cuda.is_available():
        raise ValueError("bench --what cuda measures a GPU, and torch sees none here")
    repetitions = 5 if quick else 25
    results: list[tuple[str, list[Case]]] = []
    for cell in ("GRU", "LSTM"):
        for inputs, hidden, steps, batch in SIZES:
            name = f"{cell} {inputs}→{hidden}, T {steps}, B {batch}"
            results.append((name, measure(cell, inputs, hidden, steps, batch, repetitions)))
            print(table(*results[-1]), flush=True)
    gpu = torch.cuda.get_device_name()
    title = f"{gpu}, torch {torch.__version__}, CUDA {torch.version.cuda}; medians of {repetitions} repetitions.\n\n"
    write_text(output / "cuda.md", title + "\n".join(table(*result) for result in results))
    record = {"machine": {**machine(), "gpu": gpu}, "repetitions": repetitions}
    record["results"] = [{"setting": name, "cases": [asdict(case) for case in cases]} for name, cases in results]
    write_text(output / "cuda.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    _draw(results, output / "cuda.png")


def measure(cell: str, inputs: int, hidden: int, steps: int, batch: int, repetitions: int) -> list[Case]:
    """All peers in turn, in this process."""
    dense = lively_layer(cell, (inputs, hidden, 1)).cuda()
    layers: dict[str, tuple[nn.RNNBase, list[Tensor], float]] = {}
    for name, sparsity in _peers(cell):
        x = [_batch(inputs, steps, batch, sparsity, first) for first in range(0, INPUTS * batch, batch)]
        layers[name] = (dense, x, 0.0) if name.startswith("nn.") else _delta(dense, x, sparsity, name)
    calls: dict[str, Callable[[], Any]] = {}
    for name, (layer, x, _) in layers.items():
        calls[f"{name} forward"] = _forward(layer, x)
        calls[f"{name} training"] = _training(layer, x, "recorded" in name)
    memory = {name: _raise_of_peak(calls[f"{name} training"]) for name in layers}
    times = interleaved(calls, repetitions)
    graphs = {name: _captured(name, call) for name, call in calls.items() if "eager" not in name}
    replays = interleaved(graphs, repetitions)
    return [
        Case(
            *(name, sparsity, times[f"{name} forward"], times[f"{name} training"]),
            *(replays.get(f"{name} forward"), replays.get(f"{name} training"), memory[name]),
        )
        for name, (_, _, sparsity) in layers.items()
    ]


def interleaved(calls: Mapping[str, Callable[[], Any]], repetitions: int) -> dict[str, float]:
    """Milliseconds of a call by the GPU's clock, peers in turn; medians over repetitions of some calls each.

    TF32 is on for those with "TF32" in their name.
    """
    counts = {}
    for name, call in calls.items():
        with _tf32("TF32" in name):
            for _ in range(3):
                call()
            counts[name] = max(1, min(10, round(10 / _milliseconds(call, 2))))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repetitions):
        for name, call in calls.items():
            with _tf32("TF32" in name):
                times[name].append(_milliseconds(call, counts[name]))
    return {name: float(np.median(values)) for name, values in times.items()}


def _milliseconds(call: Callable[[], Any], count: int) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    start.record()
    for _ in range(count):
        call()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) / count


def _peers(cell: str) -> list[tuple[str, float]]:
    kind = f"Delta{cell}"
    dense = [(f"nn.{cell}", 0.8), (f"nn.{cell} TF32", 0.8)]
    deltas = [(f"{kind} {sparsity}", sparsity) for sparsity in SPARSITIES]
    return [*dense, *deltas, (f"{kind} recorded 0.8", 0.8), (f"{kind} eager 0.8", 0.8)]


def _batch(inputs: int, steps: int, batch: int, sparsity: float, first: int) -> Tensor:
    frames = [random_changes(steps, inputs, sparsity, seed=first + sample) for sample in range(batch)]
    return torch.from_numpy(np.stack(frames, axis=1)).cuda()


def _delta(dense: nn.RNNBase, x: list[Tensor], sparsity: float, name: str) -> tuple[nn.RNNBase, list[Tensor], float]:
    layer = (DeltaGRU if dense.mode == "GRU" else DeltaLSTM)(dense.input_size, dense.hidden_size, device="cuda")
    layer.load_state_dict(dense.state_dict())
    calibrate(layer, x[0], sparsity)
    with torch.no_grad(), record_activity(layer) as activity:
        layer(x[0])
    layer.backend = "eager" if "eager" in name else "cuda"
    return layer, x, activity.effective_sparsity


def _forward(layer: nn.RNNBase, x: list[Tensor]) -> Callable[[], None]:
    turn = _in_turn(x)

    def call() -> None:
        with torch.no_grad():
            layer(next(turn))

    return call


def _training(layer: nn.RNNBase, x: list[Tensor], record: bool) -> Callable[[], None]:
    """Forward and backward; record: as a delta network is trained, with a gradient of Σ|Δh| too."""
    turn, grad = _in_turn(x), torch.randn(*x[0].shape[:2], layer.hidden_size, device="cuda")
    parameters, cost = list(layer.parameters()), torch.tensor(1e-3, device="cuda")

    def call() -> None:
        for parameter in parameters:
            parameter.grad = None
        if not record:
            layer(next(turn))[0].backward(grad)
            return
        with record_activity(layer) as activity:
            y = layer(next(turn))[0]
        torch.autograd.backward([y, activity.l1_delta_h], [grad, cost])

    return call


def _in_turn(x: list[Tensor]) -> Iterator[Tensor]:
    while True:
        yield from x


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def _captured(name: str, call: Callable[[], Any]) -> Callable[[], Any]:
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    graph = torch.cuda.CUDAGraph()
    with _tf32("TF32" in name):
        with torch.cuda.stream(stream):
            call()
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(graph):
            call()
    return graph.replay


def _raise_of_peak(call: Callable[[], Any]) -> int:
    call()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def table(name: str, cases: list[Case]) -> str:
    """The cases as a Markdown table, with the dense layer's times (TF32 off) over theirs."""
    columns: tuple[str, ...] = ("layer", "sparsity", "forward, ms", "ratio", "forward + backward, ms", "ratio")
    columns += ("forward as a graph, ms", "ratio", "both as a graph, ms", "ratio", "memory, MB")
    lines = [f"### {name}", "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for case in cases:
        cells = [case.name, f"{case.sparsity:.3f}"]
        for field in ("forward", "training", "forward_graph", "training_graph"):
            ours, theirs = getattr(case, field), getattr(cases[0], field)
            cells += ["–", "–"] if ours is None else [f"{ours:.3f}", f"{theirs / ours:.2f}"]
        lines.append(f"| {' | '.join([*cells, f'{case.memory / 1e6:.1f}'])} |")
    return "\n".join([*lines, ""])


def _draw(results: list[tuple[str, list[Case]]], path: Path) -> None:
    """How many times as fast as the dense layer, against sparsity: forward and backward, by call and as a graph."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, len(SIZES), figsize=(3.4 * len(SIZES), 6.4), squeeze=False)
    for axis, (name, cases) in zip(axes.flat, results, strict=True):
        deltas = [
            case for case in cases if case.name in {f"{case.name.split()[0]} {sparsity}" for sparsity in SPARSITIES}
        ]
        for field, style in (("training", "o-"), ("training_graph", "s--"), ("forward_graph", "^:")):
            ratios = [getattr(cases[0], field) / getattr(case, field) for case in deltas]
            label = field.replace("training", "forward + backward").replace("_graph", ", graph")
            axis.plot([case.sparsity for case in deltas], ratios, style, label=label)
        axis.axhline(1, color="#57606a", linewidth=1)
        axis.set(title=name, xlabel="effective sparsity", ylim=(0, None))
    axes[0][0].set_ylabel("times as fast as cuDNN")
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="lower center", ncol=3, frameon=False)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    with replacing(path) as part:
        figure.savefig(part, dpi=110)
    pyplot.close(figure)
