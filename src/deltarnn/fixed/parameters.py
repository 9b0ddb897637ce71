"""The parameters of a trained model for deployment, in plain NumPy: read once, from a module or a model file."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deltarnn.fixed.cells import Cell, entering_biases
from deltarnn.fixed.module_reader import BIDIRECTIONAL, head_names, read_module
from deltarnn.fixed.qformat import Quantization
from deltarnn.fixed.verification import UnsupportedModelError as UnsupportedModelError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class RecurrentWeights:
    """One delta layer: weight_ih (GH, I), weight_hh (GH, H), biases (GH,), PyTorch's gate order; thresholds."""

    weight_ih: FloatArray
    weight_hh: FloatArray
    bias_ih: FloatArray
    bias_hh: FloatArray
    thx: float
    thh: float


@dataclass(frozen=True)
class DenseWeights:
    """One dense layer of the head: weight (O, I), bias (O,), and what follows it."""

    weight: FloatArray
    bias: FloatArray
    activation: Literal["relu"] | None = None


@dataclass(frozen=True)
class NetworkParameters:
    """A stack of delta layers of one cell, and a dense head (empty for a bare layer).

    `quantization` holds the formats that the model was trained or stored with, or None for a float model.
    """

    cell: Cell
    layers: tuple[RecurrentWeights, ...]
    head: tuple[DenseWeights, ...] = ()
    hard_activations: bool = False
    quantization: Quantization | None = None

    @property
    def input_size(self) -> int:
        """Features per frame, I."""
        return int(self.layers[0].weight_ih.shape[1])

    @property
    def hidden_sizes(self) -> tuple[int, ...]:
        """H of each layer."""
        return tuple(int(layer.weight_hh.shape[1]) for layer in self.layers)

    @property
    def formats(self) -> Quantization:
        """The model's own formats, or, of a float model, those in which the streaming spotter runs it:
        Q8.8 activations, 8 bits that hold every weight and entering bias, Q2.6 gates."""
        if self.quantization is not None:
            return self.quantization
        layers = self.layers
        biases = [entering_biases(self.cell, layer.bias_ih, layer.bias_hh) for layer in layers]
        values = [*biases, *(w for layer in layers for w in (layer.weight_ih, layer.weight_hh))]
        return Quantization.holding(max(float(np.abs(v).max()) for v in values))

    @property
    def operations(self) -> int:
        """Dense-equivalent operations of the recurrent layers per step, 2 per weight; biases not counted."""
        return 2 * sum(layer.weight_ih.size + layer.weight_hh.size for layer in self.layers)

    def with_thresholds(self, thx: float, thh: float) -> "NetworkParameters":
        """The same weights with other thresholds in every layer."""
        return replace(self, layers=tuple(replace(layer, thx=thx, thh=thh) for layer in self.layers))

    @classmethod
    def of(cls, model: Any) -> "NetworkParameters":
        """Read a DeltaGRU or DeltaLSTM, a module that holds one as `.rnn` (and a `.head`), or parameters already read.

        What was read is run on a random sequence, and must give what the module gives.

        Raises
        ------
        UnsupportedModelError
            For a dense nn.GRU or nn.LSTM, which has no thresholds, for bidirectional or projected layers, and for a
            module that computes anything else, which would be lost.
        """
        from deltarnn.fixed.float_network import run_float  # which is about these parameters

        if isinstance(model, NetworkParameters):
            return model
        contents = read_module(model)
        header = {"architecture": contents.architecture, "thx": contents.thx, "thh": contents.thh}
        network = cls.from_model_file(contents.tensors, header, contents.quantization)
        frames = contents.probe.frames.astype(np.float64)
        contents.probe.check(run_float(network.with_thresholds(0, 0), frames[:, None]).output[:, 0])
        return network

    @classmethod
    def from_model_file(
        cls, tensors: Mapping[str, Any], header: Mapping[str, Any], quantization: Quantization | None
    ) -> "NetworkParameters":
        """Read a model file: tensors and header of `load_model`, formats of `read_quantization` (engine.model_file).

        Raises
        ------
        UnsupportedModelError
            For bidirectional or projected layers.
        """
        architecture = header["architecture"]
        _check_candidate(architecture.get("reset_after", True), architecture.get("candidate", "tanh"))
        head = tuple(
            _dense(tensors[f"{name}.weight"], tensors.get(f"{name}.bias"), layer.get("activation"))
            for name, layer in zip(head_names(tensors), architecture["head"], strict=True)
        )
        if architecture["bidirectional"]:
            raise UnsupportedModelError(BIDIRECTIONAL)
        if architecture["proj_size"]:
            raise UnsupportedModelError(
                f"proj_size={architecture['proj_size']}: the integer cells have no projection (proj_size=0)"
            )
        layers = []
        for index in range(architecture["num_layers"]):
            w_ih, w_hh = (np.asarray(tensors[f"rnn.weight_{n}_l{index}"], dtype=np.float64) for n in ("ih", "hh"))
            b_ih, b_hh = (
                np.asarray(tensors.get(f"rnn.bias_{n}_l{index}", np.zeros(len(w_ih))), dtype=np.float64)
                for n in ("ih", "hh")
            )
            layers.append(
                RecurrentWeights(w_ih, w_hh, b_ih, b_hh, float(header["thx"][index]), float(header["thh"][index]))
            )
        return cls(architecture["cell"], tuple(layers), head, architecture["hard_activations"], quantization)


def _check_candidate(reset_after: bool, candidate: str) -> None:
    if not reset_after or candidate != "tanh":
        option = "reset_after=False" if not reset_after else f"candidate={candidate!r}"
        raise UnsupportedModelError(
            f"the GRU has {option}: fixed-point deployment knows reset_after=True and tanh only"
        )


def _dense(weight: Any, bias: Any, activation: Any) -> DenseWeights:
    weight = np.asarray(weight, dtype=np.float64)
    return DenseWeights(weight, np.zeros(len(weight)) if bias is None else np.asarray(bias, np.float64), activation)
