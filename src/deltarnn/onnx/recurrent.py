"""Recurrent parts: the weights of one layer and direction, and the places of a graph where they are applied."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltarnn.engine.compilation import Precision
from deltarnn.engine.description import Description
from deltarnn.engine.engine import Engine
from deltarnn.engine.model_file import FORMAT
from deltarnn.fixed.formats import LayerFormats
from deltarnn.fixed.qformat import Quantization
from deltarnn.fixed.verification import UnsupportedModelError
from deltarnn.onnx.graph import Array

FloatArray = NDArray[np.float32]
Shape = tuple[int, ...]
GATES = {"GRU": 3, "LSTM": 4}


@dataclass(frozen=True)
class Weights:
    """One recurrent layer and direction, in PyTorch's order of gates: r, z, n and i, f, g, o.

    weight_ih (G·H, I), weight_hh (G·H, H), bias_ih and bias_hh (G·H,), G = 3 (GRU) or 4 (LSTM), float32.
    reset_after, candidate: of a GRU, as of `DeltaGRU`.
    """

    cell: str
    weight_ih: FloatArray
    weight_hh: FloatArray
    bias_ih: FloatArray
    bias_hh: FloatArray
    reset_after: bool = True
    candidate: str = "tanh"

    @property
    def options(self) -> dict[str, Any]:
        """What a GRU has beside its sizes."""
        return {"reset_after": self.reset_after, "candidate": self.candidate} if self.cell == "GRU" else {}

    @property
    def input_size(self) -> int:
        """I."""
        return int(self.weight_ih.shape[1])

    @property
    def hidden_size(self) -> int:
        """H."""
        return int(self.weight_hh.shape[1])

    @property
    def arrays(self) -> dict[str, FloatArray]:
        """By the names of a layer's state_dict, without the suffix."""
        return {name: getattr(self, name) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}

    def digest(self) -> str:
        """The same for the same layer, wherever it is applied."""
        content = hashlib.sha256(f"{self.cell} {self.options}".encode())
        for array in self.arrays.values():
            content.update(str(array.shape).encode() + np.ascontiguousarray(array).tobytes())
        return content.hexdigest()


@dataclass(frozen=True)
class Site:
    """One application of recurrent parts: a GRU or LSTM node, or an unrolled cell. Values by name, "" for none.

    Sequences: x (T, B, I), or (B, T, I) if batch_first; h, c (D, B, H), or (B, D, H); y (T, D, B, H), or (B, T, D, H);
    D directions. A cell: x (B, I), h, c and the next ones (B, H).
    parts: names of the recurrent parts, one per direction; reverse: whether each runs backwards in time.
    stream: sites with the same name continue each other's state.
    """

    name: str
    weights: tuple[Weights, ...]
    reverse: tuple[bool, ...]
    x: str
    h: str
    c: str
    next_h: str
    next_c: str
    y: str = ""
    lengths: str = ""
    batch_first: bool = False
    is_cell: bool = False
    parts: tuple[str, ...] = ()
    stream: str = ""

    @property
    def input(self) -> list[str]:
        """Names of the values that it reads."""
        return [name for name in (self.x, self.h, self.c, self.lengths) if name]

    @property
    def output(self) -> list[str]:
        """Names of the values that it makes."""
        return [name for name in (self.y, self.next_h, self.next_c) if name]

    def initial(self, state: Array | None, batch: int) -> Array | None:
        """An initial h or c, or its places, as (D, B, H)."""
        if state is None:
            return None
        if self.is_cell:
            return np.broadcast_to(state, (1, batch, state.shape[-1]))
        return state.swapaxes(0, 1) if self.batch_first else state

    def check_shapes(self, x: Shape, states: Sequence[Array | None], lengths: Array | None = None) -> None:
        """Raise ValueError, naming the site and what it takes, if what enters does not fit.

        states: h and c, or their places. Those of a cell may be one row for all, as the sums in it allow.
        """
        what = f"the cell {self.name!r}" if self.is_cell else f"the {self.weights[0].cell} {self.name!r}"
        size, hidden, directions = self.weights[0].input_size, self.weights[0].hidden_size, len(self.weights)
        order = "B" if self.is_cell else "B, T" if self.batch_first else "T, B"
        if len(x) != (2 if self.is_cell else 3) or x[-1] != size or 0 in x:
            raise ValueError(f"{what} gets an input of shape {x}: it takes ({order}, {size}), none of them 0")
        batch = x[0] if self.is_cell or self.batch_first else x[1]
        if self.is_cell:
            wanted: list[Shape] = [(batch, hidden), (1, hidden)]
        else:
            wanted = [(batch, directions, hidden) if self.batch_first else (directions, batch, hidden)]
        for name, state in zip("hc", states, strict=True):
            if state is not None and state.shape not in wanted:
                raise ValueError(
                    f"{what} gets an initial {name} of shape {state.shape}: with its input of shape {x}, {wanted[0]}"
                )
        if lengths is not None:
            steps = x[1] if self.batch_first else x[0]
            if lengths.shape != (batch,) or lengths.min() < 0 or lengths.max() > steps:
                raise ValueError(
                    f"{what} gets lengths {lengths.tolist()}: one for each of {batch} sequences, up to {steps}"
                )


@dataclass
class RecurrentPart:
    """A recurrent layer of one direction with thresholds, and the engine it is compiled to.

    origin: what it was in the graph, for people. trained: whether its weights are no longer those of the graph.
    formats: of int8, tensor by tensor, from calibration data; in place of `quantization`.
    """

    name: str
    weights: Weights
    reverse: bool
    origin: str
    thx: float = 0.0
    thh: float = 0.0
    precision: Precision = "float32"
    quantization: Quantization | None = None
    formats: LayerFormats | None = None
    trained: bool = False
    engine: Engine | None = field(default=None, repr=False)

    def description(self) -> Description:
        """What the engine compiles."""
        w = self.weights
        architecture = {
            "cell": w.cell,
            "input_size": w.input_size,
            "hidden_size": w.hidden_size,
            "num_layers": 1,
            "bias": True,
            "bidirectional": False,
            "proj_size": 0,
            "hard_activations": False,
            "head": [],
            **w.options,
        }
        tensors: dict[str, Array] = {f"rnn.{name}_l0": array for name, array in w.arrays.items()}
        header = {"format": FORMAT, "architecture": architecture, "quantization": None}
        described = Description(tensors, {**header, "thx": [self.thx], "thh": [self.thh]})
        if self.precision == "int8" and self.formats is not None:
            return described.with_formats([self.formats])
        return described

    def calibrate(self, sequences: Sequence[FloatArray]) -> None:
        """Compute in int8 from now on, by formats that suit these sequences (T, I) of its input.

        Raises
        ------
        UnsupportedModelError
            If the layer has no such form, naming it.
        """
        self.precision, self.quantization, self.formats = "int8", None, None
        try:
            engine = Engine.from_description(self.description(), "int8", None, sequences)
        except UnsupportedModelError as error:
            raise UnsupportedModelError(f"{self.name}: {error}") from None
        assert engine.formats is not None
        (self.formats,) = engine.formats
        self.compile()

    def compile(self) -> None:
        """Make the engine anew, from the present weights and thresholds."""
        self.engine = Engine.from_description(self.description(), self.precision, self.quantization)

    def stream(self) -> Engine:
        """A new state over the compiled weights."""
        assert self.engine is not None
        return self.engine.stream()

    def layer(self) -> Any:
        """A DeltaGRU or DeltaLSTM with these weights and thresholds."""
        import torch

        from deltarnn.nn import DeltaGRU, DeltaLSTM

        w = self.weights
        layer_type = DeltaGRU if w.cell == "GRU" else DeltaLSTM
        made = layer_type(w.input_size, w.hidden_size, thx=self.thx, thh=self.thh, **w.options)
        made.load_state_dict({f"{name}_l0": torch.from_numpy(array.copy()) for name, array in w.arrays.items()})
        return made

    def take(self, layer: Any) -> None:
        """Take over weights and thresholds of a module that `layer` made."""
        arrays = {name: getattr(layer, f"{name}_l0").detach().cpu().numpy().copy() for name in self.weights.arrays}
        self.trained |= any(not np.array_equal(arrays[name], array) for name, array in self.weights.arrays.items())
        self.weights = replace(self.weights, **arrays)
        self.thx, self.thh = layer.thx[0], layer.thh[0]
