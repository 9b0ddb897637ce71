"""Times and memory of training against the dense layers, over cell, size, sparsity and threads (docs/training.md)."""

import json
import multiprocessing
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deltarnn.bench.timing import Times, interleaved, machine
from deltarnn.bench.workload import SMALLEST_CHANGE, Sizes, lively_layer, random_changes, size_name
from deltarnn.files import write_text
from deltarnn.nn import DeltaGRU, DeltaLSTM, record_activity

SPARSITIES = (0.0, 0.5, 0.8, 0.9)
THREADS = (1, 2)


@dataclass(frozen=True)
class Setting:
    """One cell and size, with the batch (T, B) it is trained on. sparsities: of the delta layers beside it."""

    cell: str
    sizes: Sizes
    steps: int
    batch: int
    sparsities: tuple[float, ...] = SPARSITIES
    eager: bool = True

    @property
    def name(self) -> str:
        """Such as GRU 16→64, T 61, B 64."""
        return f"{self.cell} {size_name(self.sizes)}, T {self.steps}, B {self.batch}"


SETTINGS = (
    Setting("GRU", (16, 64, 1), 61, 64),
    Setting("LSTM", (16, 64, 1), 61, 64, (0.0, 0.5, 0.85, 0.9)),
    Setting("GRU", (40, 256, 1), 100, 32),
    Setting("LSTM", (40, 256, 1), 100, 32),
    Setting("GRU", (768, 768, 2), 50, 8, (0.0, 0.8, 0.9), eager=False),
)


@dataclass(frozen=True)
class Case:
    """One layer: seconds of the forward pass without gradients, and of forward and backward with those of the weights.

    memory: bytes by which forward and backward raise the peak of a process; with THREADS[-1] threads.
    """

    name: str
    sparsity: float
    threads: int
    forward: Times
    training: Times
    memory: int


def run(output: Path, quick: bool) -> None:
    """Measure all settings; print and write training.md and training.json in `output`."""
    repetitions = 5 if quick else 60
    results = []
    for setting in SETTINGS:
        fewer = repetitions if setting.sizes[1] < 512 else max(3, repetitions // 6)
        results.append((setting, measure(setting, fewer)))
        print(table(*results[-1]), flush=True)
    write_text(output / "training.md", "\n".join(table(*result) for result in results))
    record = {
        "machine": machine(),
        "repetitions": repetitions,
        "results": [{"setting": asdict(setting), "cases": [asdict(c) for c in cases]} for setting, cases in results],
    }
    write_text(output / "training.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def measure(setting: Setting, repetitions: int) -> list[Case]:
    """Time the dense layer and the delta layers in turn, in this process; their memory in processes of their own."""
    layers, sparsities = {}, {}
    inputs = {}
    for name, sparsity in _peers(setting):
        layers[name], inputs[name] = _layer(setting, name, sparsity)
        sparsities[name] = _reached(layers[name], inputs[name]) if name != "dense" else 0.0
    memory = {name: _peak_memory(setting, name, sparsity) for name, sparsity in _peers(setting)}
    cases = []
    for threads in THREADS:
        torch.set_num_threads(threads)
        peers: dict[str, tuple[Callable[[], Any], int]] = {}
        for name, layer in layers.items():
            peers[f"{name} forward"] = _forward(layer, inputs[name]), 1
            peers[f"{name} training"] = _training(layer, inputs[name]), 1
        times = interleaved(peers, repetitions)
        cases += [
            Case(name, sparsities[name], threads, times[f"{name} forward"], times[f"{name} training"], memory[name])
            for name in layers
        ]
    return cases


def table(setting: Setting, cases: list[Case]) -> str:
    """The cases as a Markdown table: lower quartiles (and the best), and the dense layer's over them."""
    columns = ("threads", "layer", "sparsity", "forward, ms", "forward + backward, ms", "ratio", "ratio", "memory, MB")
    lines = [f"### {setting.name}", "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for case in cases:
        dense = next(c for c in cases if c.name == "dense" and c.threads == case.threads)
        forward, training = (
            f"{1e3 * times.quartile:.2f} ({1e3 * times.best:.2f})" for times in (case.forward, case.training)
        )
        ratios = " | ".join(
            f"{theirs.quartile / ours.quartile:.2f}"
            for ours, theirs in ((case.forward, dense.forward), (case.training, dense.training))
        )
        name = f"nn.{setting.cell}" if case.name == "dense" else f"Delta{setting.cell} {case.name.split()[0]}"
        memory = f"{case.memory / 1e6:.1f}"
        lines.append(
            f"| {case.threads} | {name} | {case.sparsity:.3f} | {forward} | {training} | {ratios} | {memory} |"
        )
    return "\n".join([*lines, ""])


def _peers(setting: Setting) -> list[tuple[str, float]]:
    peers = [("dense", 0.0)]
    peers += [(f"native {sparsity}", sparsity) for sparsity in setting.sparsities]
    if setting.eager:
        peers += [(f"eager {sparsity}", sparsity) for sparsity in setting.sparsities[2:3]]
    return peers


def _layer(setting: Setting, name: str, sparsity: float) -> tuple[nn.RNNBase, Tensor]:
    """The layer of a peer, and an input (T, B, I) of this sparsity."""
    dense = lively_layer(setting.cell, setting.sizes)
    frames = [random_changes(setting.steps, setting.sizes[0], sparsity, seed=sample) for sample in range(setting.batch)]
    x = torch.from_numpy(np.stack(frames, axis=1))
    if name == "dense":
        return dense, x
    delta = DeltaGRU if setting.cell == "GRU" else DeltaLSTM
    layer = delta(*setting.sizes)
    layer.load_state_dict(dense.state_dict())
    if sparsity > 0:
        calibrate(layer, x, sparsity)
    layer.backend = "eager" if name.startswith("eager") else "native"
    return layer, x


def calibrate(layer: DeltaGRU | DeltaLSTM, x: Tensor, sparsity: float) -> None:
    """Thresholds for this sparsity of every hidden state and of later layers' inputs, by bisection of all at once."""
    count = layer.num_layers
    low, high = np.full(2 * count, 1e-4), np.full(2 * count, 2.0)
    for _ in range(12):
        middle = np.sqrt(low * high)
        layer.thx, layer.thh = [SMALLEST_CHANGE, *middle[1:count]], list(middle[count:])
        with torch.no_grad(), record_activity(layer) as activity:
            layer(x)
        reached = [entry.sparsity_x for entry in activity.per_layer] + [e.sparsity_h for e in activity.per_layer]
        enough = np.array(reached) >= sparsity
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)


def _reached(layer: nn.RNNBase, x: Tensor) -> float:
    with torch.no_grad(), record_activity(layer) as activity:
        layer(x)
    return activity.effective_sparsity


def _forward(layer: nn.RNNBase, x: Tensor) -> Callable[[], None]:
    def call() -> None:
        with torch.no_grad():
            layer(x)

    return call


def _training(layer: nn.RNNBase, x: Tensor) -> Callable[[], None]:
    grad = torch.randn(*x.shape[:2], layer.hidden_size)

    def call() -> None:
        for parameter in layer.parameters():
            parameter.grad = None
        layer(x)[0].backward(grad)

    return call


def _peak_memory(setting: Setting, name: str, sparsity: float) -> int:
    """Measured in a new process, whose heap nothing has been in."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_raise_of_peak, (setting, name, sparsity))


def _raise_of_peak(setting: Setting, name: str, sparsity: float) -> int:
    torch.set_num_threads(THREADS[-1])
    layer, x = _layer(setting, name, sparsity)
    _training(layer, x[:2, :1])()
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # resets the peak
    before = _status("VmRSS")
    _training(layer, x)()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    """Bytes in a line of /proc/self/status (Linux)."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")
