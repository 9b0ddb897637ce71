"""What a model is, apart from torch: its parameters as arrays and the header of its model file."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltarnn.engine.model_file import (
    FORMAT,
    GRU_OPTIONS,
    Header,
    Tensors,
    head_names,
    read_quantization,
    write_quantization,
)
from deltarnn.fixed.qformat import Quantization


class UnsupportedModelError(ValueError):
    """The engine cannot run this model; the message names the limit and the remedy."""


@dataclass(frozen=True)
class Description:
    """A model's tensors, by the names of model files, and its header, as `load_model` returns them."""

    tensors: Tensors
    header: Header

    @classmethod
    def of(cls, model: Any) -> "Description":
        """Read a DeltaGRU or DeltaLSTM, or a module with one as `.rnn` and a dense head as `.head`.

        Only attributes are looked at: torch is not imported.

        Raises
        ------
        UnsupportedModelError
            If it is neither, or its head holds anything but Linear, ReLU, Dropout and Identity.
        """
        rnn = getattr(model, "rnn", model)
        name = type(rnn).__name__
        if not hasattr(rnn, "weight_ih_l0"):
            raise UnsupportedModelError(
                f"{type(model).__name__} is not a delta layer and holds none as .rnn: give a DeltaGRU, a DeltaLSTM "
                "or a keyword model"
            )
        if not hasattr(rnn, "thx"):
            raise UnsupportedModelError(
                f"{name} has no thresholds: convert it first, deltarnn.convert(model, thx=…, thh=…)"
            )
        tensors = {f"rnn.{key}": _array(value) for key, value in rnn.state_dict().items()}
        head = _read_head(model, tensors) if hasattr(model, "head") else []
        architecture = {
            "cell": rnn.mode,
            "input_size": rnn.input_size,
            "hidden_size": rnn.hidden_size,
            "num_layers": rnn.num_layers,
            "bias": bool(rnn.bias),
            "bidirectional": bool(rnn.bidirectional),
            "proj_size": rnn.proj_size,
            "hard_activations": bool(rnn.hard_activations),
            "head": head,
        }
        for option, (default, *_) in GRU_OPTIONS.items():
            if getattr(rnn, option) != default:
                architecture[option] = getattr(rnn, option)
        return cls(
            tensors,
            {
                "format": FORMAT,
                "architecture": architecture,
                "thx": list(rnn.thx),
                "thh": list(rnn.thh),
                "quantization": write_quantization(rnn.quantization),
            },
        )

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

    def layer(self, index: int, name: str) -> NDArray[Any]:
        """A parameter of a recurrent layer, such as "weight_ih"; biases are zeros where the model has none."""
        tensor = self.tensors.get(f"rnn.{name}_l{index}")
        if tensor is None:
            return np.zeros(len(self.layer(index, "weight_ih")), self.layer(index, "weight_ih").dtype)
        return tensor

    def head(self) -> list[tuple[NDArray[Any], NDArray[Any], bool]]:
        """(weight (O, I), bias (O,), whether a ReLU follows) of each layer of the dense head."""
        layers = []
        for name, layer in zip(head_names(self.tensors), self.architecture["head"], strict=True):
            weight = self.tensors[f"{name}.weight"]
            bias = self.tensors.get(f"{name}.bias", np.zeros(len(weight), weight.dtype))
            layers.append((weight, bias, layer["activation"] == "relu"))
        return layers


def _read_head(model: Any, tensors: Tensors) -> list[dict[str, Any]]:
    """The header's entries of a dense head; its parameters go into `tensors`."""
    entries: list[dict[str, Any]] = []
    modules = [model.head] if hasattr(model.head, "weight") else list(model.head)
    for position, module in enumerate(modules):
        kind = type(module).__name__
        if kind == "Linear":
            entries.append({"in": module.in_features, "out": module.out_features, "activation": None})
            tensors[f"head.{position}.weight"] = _array(module.weight)
            if module.bias is not None:
                tensors[f"head.{position}.bias"] = _array(module.bias)
        elif kind == "ReLU" and entries:
            entries[-1]["activation"] = "relu"
        elif kind not in ("Dropout", "Identity"):
            raise UnsupportedModelError(f"the head holds a {kind}: only Linear, ReLU, Dropout and Identity are known")
    return entries


def _array(tensor: Any) -> NDArray[Any]:
    """A torch tensor as float32, or float64 if that is what it is."""
    tensor = tensor.detach().cpu()
    return np.array(tensor.numpy() if str(tensor.dtype) == "torch.float64" else tensor.float().numpy())
