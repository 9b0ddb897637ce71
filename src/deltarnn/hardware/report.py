"""What an accelerator model reports: numbers, where each parameter comes from, as text, JSON and a plot."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deltarnn.files import replacing
from deltarnn.fixed.qformat import Quantization
from deltarnn.hardware.files import write_text

Mark = Literal["verified", "derived", "recalled", "given"]
"""Verified: read in a public source or measured by simulation of public RTL. Derived: by arithmetic from verified
values. Recalled: plausible, not checked. Given: set by the caller."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of an accelerator model: its value, unit, the mark of the default (or "given"), and meaning."""

    name: str
    value: Any
    unit: str
    mark: Mark
    meaning: str


@dataclass(frozen=True)
class Latency:
    """Latency of one step in seconds, over all measured steps; histogram: edges (n + 1) in seconds, counts (n)."""

    minimum_s: float
    mean_s: float
    maximum_s: float
    histogram_edges_s: tuple[float, ...]
    histogram_counts: tuple[int, ...]

    @classmethod
    def of(cls, cycles: NDArray[np.int64], clock_hz: float, bins: int = 20) -> "Latency":
        """From the clock cycles of every step."""
        seconds = cycles / clock_hz
        counts, edges = np.histogram(seconds, bins=bins)
        return cls(
            float(seconds.min()),
            float(seconds.mean()),
            float(seconds.max()),
            tuple(edges.tolist()),
            tuple(counts.tolist()),
        )


@dataclass(frozen=True)
class AcceleratorReport:
    """One model on one accelerator, driven by the events of real frames.

    Throughputs count 2 operations per weight of the dense network ("effective"), energy is stated power times mean
    latency, and `real_time_factor` is mean latency over the frame period (below 1 keeps up).
    """

    target: str
    cell: str
    input_size: int
    hidden_sizes: tuple[int, ...]
    parameter_count: int
    operations_per_step: int
    steps: int
    sparsity_x: float
    sparsity_h: float
    effective_sparsity: float
    cycles_mean: float
    latency: Latency
    effective_throughput_ops: float
    peak_throughput_ops: float
    mac_utilisation: float
    weight_bytes_per_step: float
    weight_bytes_total: int
    balance_ratio: float
    frame_period_s: float
    real_time_factor: float
    energy_per_step_j: float
    parameters: tuple[Parameter, ...]
    notes: tuple[str, ...]

    def to_json(self) -> str:
        """All fields, as JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    def write_json(self, path: str | Path) -> None:
        """Write `to_json` to a file, atomically."""
        write_text(path, self.to_json() + "\n")

    def __str__(self) -> str:
        us = 1e6
        sizes = f"{self.input_size} inputs, {' + '.join(map(str, self.hidden_sizes))} units"
        rows = [
            ("network", f"Delta{self.cell}, {sizes}, {self.parameter_count} weights"),
            ("steps measured", f"{self.steps}"),
            (
                "zero deltas x / h",
                f"{self.sparsity_x:.1%} / {self.sparsity_h:.1%} (effective {self.effective_sparsity:.1%})",
            ),
            (
                "latency min / mean / max",
                " / ".join(
                    f"{seconds * us:.2f}"
                    for seconds in (self.latency.minimum_s, self.latency.mean_s, self.latency.maximum_s)
                )
                + " µs",
            ),
            ("effective throughput", f"{self.effective_throughput_ops / 1e9:.3f} GOp/s"),
            ("peak throughput", f"{self.peak_throughput_ops / 1e9:.3f} GOp/s"),
            ("MAC utilisation", f"{self.mac_utilisation:.1%}"),
            ("weight traffic", f"{self.weight_bytes_per_step:.0f} bytes per step"),
            ("balance ratio", f"{self.balance_ratio:.3f}"),
            ("real-time factor", f"{self.real_time_factor:.2e} of a {self.frame_period_s * 1e3:g} ms frame"),
            (
                "energy per step",
                f"{self.energy_per_step_j * us:.3f} µJ" if self.energy_per_step_j else "no power stated",
            ),
        ]
        width = max(len(p.name) for p in self.parameters)
        lines = [f"{self.target}", *(f"  {name:<26}{value}" for name, value in rows), "  parameters"]
        lines += [
            f"    {p.name:<{width}}  {_plain(p.value)} {p.unit:<6} [{p.mark}] {p.meaning}" for p in self.parameters
        ]
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)

    def plot(self, path: str | Path) -> None:
        """Write the latency histogram as an image; the format follows the suffix of `path`."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6, 3.5), layout="constrained")
        axes = figure.subplots()
        edges = np.array(self.latency.histogram_edges_s) * 1e6
        axes.bar(edges[:-1], self.latency.histogram_counts, width=np.diff(edges), align="edge")
        axes.axvline(self.latency.mean_s * 1e6, color="black", linestyle="--", label="mean")
        axes.set(xlabel="latency per step (µs)", ylabel="steps", title=f"{self.target}: {self.steps} steps")
        axes.legend()
        with replacing(path) as part:
            figure.savefig(part)


def _plain(value: Any) -> str:
    if isinstance(value, Quantization):
        return f"{value.activation}/{value.weight}/{value.gate}"
    return f"{value:g}" if isinstance(value, float) else str(value)
