"""int8 with formats from calibration data, against float32 and the default formats: error and time (docs/engine.md).

python benchmarks/int8_formats.py [--steps 600]
"""

import argparse
import time
import warnings

import numpy as np
import torch

from deltarnn.engine import Engine
from deltarnn.nn import DeltaGRU, DeltaLSTM

SHAPES = ((16, 64, 1), (40, 256, 1), (40, 384, 2), (40, 768, 2))


def autoregressive(steps: int, features: int) -> np.ndarray:
    """(T, I): x_t = 0.9 x_{t−1} + 0.44 e_t, of variance 1."""
    frames = np.random.default_rng(0).normal(size=(steps, features))
    for t in range(1, steps):
        frames[t] = 0.9 * frames[t - 1] + 0.44 * frames[t]
    return frames.astype(np.float32)


def times(engines: list[Engine], frames: np.ndarray, repetitions: int = 15) -> list[float]:
    """µs per step of `run`, the engines in turn, lower quartile."""
    seconds: list[list[float]] = [[] for _ in engines]
    for _ in range(repetitions):
        for engine, taken in zip(engines, seconds, strict=True):
            engine.reset()
            start = time.thread_time()
            engine.run(frames)
            taken.append(time.thread_time() - start)
    return [float(np.quantile(taken, 0.25)) / len(frames) * 1e6 for taken in seconds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=600)
    steps = parser.parse_args().steps
    print("| | θ | error, default formats | calibrated | µs float32 | default int8 | calibrated int8 | 64-bit layers |")
    print("|---|---|---|---|---|---|---|---|")
    for cell in (DeltaGRU, DeltaLSTM):
        for inputs, hidden, layers in SHAPES:
            for threshold in (0.0, 0.05):
                torch.manual_seed(0)
                layer = cell(inputs, hidden, layers, thx=threshold, thh=threshold).eval()
                frames = autoregressive(steps, inputs)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # thresholds go to the grids
                    engines = [Engine.compile(layer), Engine.compile(layer, "int8")]
                    engines.append(Engine.compile(layer, "int8", calibration=frames))
                expected, *outputs = (engine.run(frames) for engine in engines)
                errors = [float(((y - expected) ** 2).sum() / (expected**2).sum()) for y in outputs]
                wide = [index for index, bits in enumerate(engines[-1].accumulator_bits) if bits == 64]
                name = f"{cell.__name__[5:]} {inputs}→{'' if layers == 1 else f'{layers}×'}{hidden}"
                row = [name, f"{threshold:g}", *(f"{error:.1e}" for error in errors)]
                row += [f"{value:.3g}" for value in times(engines, frames)]
                print("|", " | ".join([*row, str(wide or "none")]), "|", flush=True)


if __name__ == "__main__":
    main()
