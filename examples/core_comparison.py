"""DeltaCore beside EdgeDRNN, DeltaRNN and Spartus: clocks per step, as many multipliers, the same events.

    python examples/core_comparison.py

The events are those of EdgeDRNN's public RTL in simulation (tests/data/edgedrnn), with its clocks; DeltaRNN's and
Spartus's clocks are those of their models. Spartus runs LSTMs: its row takes the same columns as an LSTM's.
"""

from pathlib import Path

import numpy as np

from deltarnn.fixed import edgedrnn_forward
from deltarnn.hardware import DeltaCore, DeltaRNNFPGA, Spartus

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "data" / "edgedrnn"
Steps = list[list[list[int]]]
"""Of each step and layer the columns that fired: inputs, then hidden units."""


def main() -> None:
    """Print the table of docs/delta_core.md."""
    print("| events of | beside | multipliers | its clocks | DeltaCore's | ratio |\n|---|---|---|---|---|---|")
    for path in sorted(FOLDER.glob("*.npz")):
        if not path.stem.endswith("_layer1"):  # the largest network's second layer lies in a file of its own
            compare(path)


def compare(path: Path) -> None:
    """The rows of one network."""
    inputs, hidden, steps, simulated = read(path)
    name = f"{len(hidden)}L-{hidden[0]}H, {inputs} inputs"
    core = DeltaCore(lanes=8)
    row(name, "EdgeDRNN", 8, simulated, np.mean([core.cycles(inputs, hidden, step) for step in steps]))
    if hidden == [64]:
        wide, theirs = DeltaCore(lanes=256), DeltaRNNFPGA(num_mac=256)
        row(name, "DeltaRNN", 256, *(np.mean([a.cycles(inputs, hidden, s) for s in steps]) for a in (theirs, wide)))
        spartus = Spartus(num_arrays=1, num_pe=8, gamma=0.0)
        lstm = np.mean([core.cycles(inputs, hidden, step, cell="LSTM") for step in steps])
        row(name, "Spartus, nothing pruned", 8, np.mean([spartus.cycles(inputs, hidden, s) for s in steps]), lstm)


def row(name: str, other: str, multipliers: int, theirs: float, ours: float) -> None:
    """One line of the table."""
    print(f"| {name} | {other} | {multipliers} | {theirs:.1f} | {ours:.1f} | {ours / theirs:.2f} |")


def read(path: Path) -> tuple[int, list[int], Steps, float]:
    """Inputs, hidden sizes, events of every step, and EdgeDRNN's mean clocks of a golden run."""
    data = dict(np.load(path))
    second = path.with_name(f"{path.stem}_layer1.npz")
    if second.exists():
        data |= np.load(second)
    count = sum(name.startswith("bias_l") for name in data)
    layers = [tuple(data[f"{part}_l{i}"] for part in ("weight_ih", "weight_hh", "bias")) for i in range(count)]
    _, fired = edgedrnn_forward(data["x"], layers, int(data["thx"]), int(data["thh"]), return_fired=True)
    # Its column 0 is the bias, which DeltaCore has in its accumulators from the start.
    steps = [[[int(column) - 1 for column in layer if column > 0] for layer in step] for step in fired]
    hidden = [weight_hh.shape[1] for _, weight_hh, _ in layers]
    return data["x"].shape[1], hidden, steps, float(data["cycles_ideal"].mean())


if __name__ == "__main__":
    main()
