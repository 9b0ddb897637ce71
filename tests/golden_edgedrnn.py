"""Golden runs of EdgeDRNN: simulation of its public RTL."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

FOLDER = Path(__file__).parent / "data" / "edgedrnn"
CASES = sorted(path.stem for path in FOLDER.glob("*.npz") if not path.stem.endswith("_layer1"))


class Golden(NamedTuple):
    x: np.ndarray
    layers: list[tuple[np.ndarray, np.ndarray, np.ndarray]]
    thx: int
    thh: int
    y: np.ndarray
    fired_columns: np.ndarray
    cycles_ideal: np.ndarray
    cycles_latency40_gap3: np.ndarray

    @property
    def hidden_sizes(self) -> list[int]:
        return [weight_hh.shape[1] for _, weight_hh, _ in self.layers]


def load(case: str) -> Golden:
    data = dict(np.load(FOLDER / f"{case}.npz"))
    rest = FOLDER / f"{case}_layer1.npz"  # the largest network's second layer lies in a file of its own
    if rest.exists():
        data |= np.load(rest)
    count = sum(name.startswith("bias_l") for name in data)
    layers = [tuple(data[f"{part}_l{i}"] for part in ("weight_ih", "weight_hh", "bias")) for i in range(count)]
    fields = {name: data[name] for name in ("x", "y", "fired_columns", "cycles_ideal", "cycles_latency40_gap3")}
    return Golden(layers=layers, thx=int(data["thx"]), thh=int(data["thh"]), **fields)
