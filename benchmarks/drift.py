"""How far the engine's float32 memories are from W x̂ + U ĥ + b after ten million frames without reset (MATH §4).

python benchmarks/drift.py [--frames 10000000]
"""

import argparse

import numpy as np
import torch

from deltarnn.bench.workload import lively_layer, random_changes
from deltarnn.engine import Engine
from deltarnn.nn import DeltaGRU, DeltaLSTM


def held_memory(layer: torch.nn.RNNBase, state: dict[str, np.ndarray]) -> np.ndarray:
    """M of the held state of a single layer, in float64."""
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    w, u, b_i, b_h = (getattr(layer, name).detach().double().numpy() for name in names)
    from_x, from_h = w @ state["x_hat"] + b_i, u @ state["h_hat"] + b_h
    if layer.mode == "LSTM":
        return from_x + from_h
    gates = 2 * layer.hidden_size
    return np.concatenate([from_x[:gates] + from_h[:gates], from_x[gates:], from_h[gates:]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=10_000_000)
    frames_wanted = parser.parse_args().frames
    chunk = random_changes(100_000, 16, 0.5)
    for cell, threshold in (("GRU", 0.0), ("GRU", 0.1), ("LSTM", 0.0), ("LSTM", 0.1)):
        dense = lively_layer(cell, (16, 64, 1))
        layer = (DeltaGRU if cell == "GRU" else DeltaLSTM)(16, 64, thx=threshold, thh=threshold)
        layer.load_state_dict(dense.state_dict())
        engine = Engine.compile(layer.eval())
        worst = 0.0
        done = 0
        while done < frames_wanted:
            engine.run(chunk)
            done += len(chunk)
            state = engine.state[0]
            worst = max(worst, float(np.abs(state["m"] - held_memory(layer, state)).max()))
        case = f"Delta{cell} 16→64, θ {threshold}, {done} frames, sparsity {engine.activity.sparsity:.2f}"
        print(f"{case}: max |M − (W x̂ + U ĥ + b)| {worst:.1e}")


if __name__ == "__main__":
    main()
