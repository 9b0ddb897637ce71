"""Random engines and signals for the tests of the engine."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from deltarnn import DeltaGRU, DeltaLSTM, QFormat, Quantization
from deltarnn.engine import Engine
from deltarnn.native import native_core

core = native_core()
assert core is not None, "the tests of the engine need the native core"
ISAS: list[str] = core.available_isas()

FORMATS = [
    Quantization(),
    Quantization(QFormat(8, 8), QFormat(1, 7), QFormat(2, 6)),
    Quantization(QFormat(3, 5), QFormat(1, 7), QFormat(2, 6), "floor"),
    Quantization(QFormat(8, 8), QFormat(2, 6), QFormat(1, 7), "floor"),  # σ cannot reach 1
    Quantization(QFormat(3, 13), QFormat(1, 3), QFormat(2, 3)),  # products of gates shift left
    Quantization(QFormat(1, 15), QFormat(1, 7), QFormat(2, 14)),  # 64-bit gates
    Quantization(QFormat(12, 4), QFormat(4, 4), QFormat(2, 8)),
    Quantization(QFormat(6, 2), QFormat(8, 0), QFormat(2, 6)),  # no shift from M to A
]


@contextmanager
def isa(name: str) -> Iterator[None]:
    """Force an instruction set in what the block compiles."""
    before = os.environ.get("DELTARNN_ISA")
    os.environ["DELTARNN_ISA"] = name
    try:
        yield
    finally:
        del os.environ["DELTARNN_ISA"]
        if before is not None:
            os.environ["DELTARNN_ISA"] = before


@st.composite
def layers(draw: st.DrawFn, quantized: bool) -> Any:
    """A random eager layer in eval mode: any cell, sizes around the vector widths, thresholds on the grid."""
    lstm = draw(st.booleans())
    hidden = draw(st.sampled_from([1, 3, 15, 16, 17, 31, 33, 48, 65]))
    quantization = draw(st.sampled_from(FORMATS)) if quantized else None
    options: dict[str, Any] = {
        "thx": draw(st.sampled_from([0.0, 0.125, 0.25, 0.5])),
        "thh": draw(st.sampled_from([0.0, 0.0625, 0.25])),
        "bias": draw(st.booleans()),
        "hard_activations": draw(st.booleans()),
        "quantization": None,
        "backend": "eager",
    }
    if not lstm and not quantized:
        options |= {"reset_after": draw(st.booleans()), "candidate": draw(st.sampled_from(["tanh", "relu"]))}
    if lstm and hidden > 3 and draw(st.booleans()):
        options["proj_size"] = draw(st.integers(1, hidden - 1))
    torch.manual_seed(draw(st.integers(0, 2**31)))
    layer = (DeltaLSTM if lstm else DeltaGRU)(draw(st.integers(1, 40)), hidden, draw(st.integers(1, 3)), **options)
    with torch.no_grad():
        for parameter in layer.parameters():
            if quantized:  # in float, weights beyond 1/√H amplify what rounding differs
                parameter.mul_(draw(st.sampled_from([1.0, 3.0])))
    if quantization is not None:
        grid = quantization.activation
        for name in ("thx", "thh"):
            setattr(layer, name, tuple(float(grid.quantize(value)) for value in getattr(layer, name)))
        layer.quantization = quantization
    return layer.eval()


def signal(steps: int, features: int, seed: int, scale: float = 1.0) -> np.ndarray:
    """(T, I) float32: each feature moves at random times, by random amounts."""
    rng = np.random.default_rng(seed)
    moves = np.where(rng.random((steps, features)) < 0.4, rng.normal(size=(steps, features)), 0)
    return (moves.cumsum(axis=0) * scale).astype(np.float32)


def compiled(layer: Any, name: str | None = None) -> Engine:
    """The engine of a layer, in the precision that its formats ask for."""
    with isa(name or ISAS[0]), warnings.catch_warnings():
        warnings.simplefilter("error")
        return Engine.compile(layer, "float32" if layer.quantization is None else "int8")


def eager(layer: Any, frames: np.ndarray) -> np.ndarray:
    """(T, H): the eager layer over frames (T, I)."""
    with torch.no_grad():
        return layer(torch.from_numpy(frames)[:, None])[0][:, 0].numpy()
