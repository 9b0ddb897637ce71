"""A model without torch: its parameters as arrays, and the header of its model file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltarnn.engine.model_file import (
    FORMAT,
    Header,
    Tensors,
    read_formats,
    read_quantization,
    write_formats,
    write_quantization,
)
from deltarnn.fixed.formats import LayerFormats
from deltarnn.fixed.module_reader import BIDIRECTIONAL, head_names, read_module
from deltarnn.fixed.qformat import Quantization
from deltarnn.fixed.verification import UnsupportedModelError


@dataclass(frozen=True)
class Description:
    """A model's tensors, by the names of model files, and its header, as `load_model` returns them."""

    tensors: Tensors
    header: Header

    @classmethod
    def of(cls, model: Any, run: Callable[["Description", NDArray[np.float32]], NDArray[Any]]) -> "Description":
        """Read a DeltaGRU or DeltaLSTM, or a module with one as `.rnn` and a dense head as `.head` (`read_module`).

        run: what `run(description, frames (T, I))` computes from a description must equal what the module computes. It
        is given thresholds 0 and no formats.

        Raises
        ------
        UnsupportedModelError
            If it is neither, or anything in it would be lost.
        """
        contents = read_module(model)
        layers = contents.architecture["num_layers"]
        header = {"format": FORMAT, "architecture": contents.architecture, "quantization": None}
        dense = cls(contents.tensors, {**header, "thx": [0.0] * layers, "thh": [0.0] * layers})
        contents.probe.check(run(dense, contents.probe.frames))
        own = {"thx": list(contents.thx), "thh": list(contents.thh)}
        return cls(contents.tensors, {**header, **own, "quantization": write_quantization(contents.quantization)})

    def check_streamable(self) -> None:
        """Raise UnsupportedModelError for a model that cannot run forwards in time."""
        if self.architecture["bidirectional"]:
            raise UnsupportedModelError(BIDIRECTIONAL)

    @property
    def architecture(self) -> dict[str, Any]:
        """The header's architecture."""
        fields: dict[str, Any] = self.header["architecture"]
        return fields

    @property
    def reset_after(self) -> bool:
        """Whether a GRU applies its reset gate after the recurrent product (MATH §2)."""
        value: bool = self.architecture.get("reset_after", True)
        return value

    @property
    def candidate(self) -> str:
        """The function of a GRU's candidate: "tanh" or "relu"."""
        value: str = self.architecture.get("candidate", "tanh")
        return value

    @property
    def quantization(self) -> Quantization | None:
        """The model's own formats."""
        return read_quantization(self.header)

    @property
    def formats(self) -> tuple[LayerFormats, ...] | None:
        """Formats tensor by tensor, one entry per layer, where the model has such."""
        return read_formats(self.header)

    @property
    def fixed_point(self) -> bool:
        """Whether the model has formats, of either kind."""
        return self.quantization is not None or self.formats is not None

    def with_formats(self, formats: Sequence[LayerFormats] | None) -> "Description":
        """The description with other formats tensor by tensor, or without."""
        header = {key: value for key, value in self.header.items() if key != "formats"}
        if formats is not None:
            header["formats"] = [write_formats(layer) for layer in formats]
        return Description(self.tensors, header)

    def layer(self, index: int, name: str) -> NDArray[Any]:
        """A parameter of a recurrent layer, such as "weight_ih"; biases are zeros where the model has none."""
        if name.startswith("bias") and not self.architecture["bias"]:
            weight = self.layer(index, "weight_ih")
            return np.zeros(len(weight), weight.dtype)
        return self.tensors[f"rnn.{name}_l{index}"]

    def head(self) -> list[tuple[NDArray[Any], NDArray[Any], bool]]:
        """(weight (O, I), bias (O,), whether a ReLU follows) of each layer of the dense head."""
        layers = []
        for name, layer in zip(head_names(self.tensors), self.architecture["head"], strict=True):
            weight = self.tensors[f"{name}.weight"]
            bias = self.tensors.get(f"{name}.bias", np.zeros(len(weight), weight.dtype))
            layers.append((weight, bias, layer["activation"] == "relu"))
        return layers
