"""Reads a torch module into NumPy arrays: the delta layer, the dense head, their options."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deltarnn.fixed.qformat import Quantization
from deltarnn.fixed.verification import Probe, UnsupportedModelError, refuse_other_tensors

BIDIRECTIONAL = (
    "the model is bidirectional: streaming and deployment run forwards in time only, so half of it would need the "
    "future; train with bidirectional=False, or run the layer itself on whole sequences"
)


class ModuleContents(NamedTuple):
    """A module, apart from torch.

    tensors: by the names of model files, float64 where they are that in the module, else float32. architecture: as in
    the header of a model file. probe: what the compiled model must agree with.
    """

    tensors: dict[str, NDArray[Any]]
    architecture: dict[str, Any]
    thx: tuple[float, ...]
    thh: tuple[float, ...]
    quantization: Quantization | None
    probe: Probe


def read_module(model: Any) -> ModuleContents:
    """Read a DeltaGRU or DeltaLSTM, a cell of theirs, or a module with one as `.rnn` and a dense head as `.head`.

    Parameters are read as the layers use them, as attributes: parametrised, weight-normed and pruned ones too. Torch is
    not imported.

    Raises
    ------
    UnsupportedModelError
        If it is neither; if it is bidirectional; if its head holds anything but Linear, ReLU, Dropout and Identity; if
        there are other parameters or buffers in it.
    """
    if hasattr(model, "as_layer"):  # a cell
        model = model.as_layer()
    rnn = getattr(model, "rnn", model)
    if not hasattr(rnn, "weight_ih_l0"):
        raise UnsupportedModelError(
            f"{type(model).__name__} is not a delta layer and holds none as .rnn: {_instead(model)}"
        )
    if not hasattr(rnn, "thx"):
        raise UnsupportedModelError(
            f"{type(rnn).__name__} has no thresholds: convert it first, deltarnn.convert(model, thx=…, thh=…)"
        )
    if rnn.bidirectional:
        raise UnsupportedModelError(BIDIRECTIONAL)
    head = _head_modules(getattr(model, "head", None))
    names = tuple(f"{kind}_{layer}" for layer in rnn.layer_names for kind in _kinds(rnn))
    refuse_other_tensors(model, rnn, names, head)
    probe = Probe.of(model, rnn, head)
    tensors = {f"rnn.{name}": _array(getattr(rnn, name)) for name in names}
    architecture = {**_architecture(rnn), "head": _read_head(head, tensors)}
    return ModuleContents(tensors, architecture, rnn.thx, rnn.thh, rnn.quantization, probe)


def _instead(model: Any) -> str:
    """What to give in place of a model without a delta layer to read."""
    children: Iterable[tuple[str, Any]] = getattr(model, "named_modules", dict)()
    for name, child in children:
        if hasattr(child, "as_layer"):
            return (
                f"its {name} is a delta cell, which the model's own code calls; compile model.{name} by itself, or put "
                f"the layer model.{name}.as_layer() in place of the loop"
            )
        if hasattr(child, "weight_ih_l0") and not hasattr(child, "thx"):
            return f"its {name} has no thresholds; convert it first, deltarnn.convert(model, thx=…, thh=…)"
    return "give a DeltaGRU, a DeltaLSTM or a keyword model"


class LayerContents(NamedTuple):
    """One layer and direction of a delta layer, apart from torch; fields as of `ModuleContents`."""

    tensors: dict[str, NDArray[Any]]
    architecture: dict[str, Any]
    thx: float
    thh: float
    quantization: Quantization | None


def read_layers(rnn: Any) -> list[LayerContents]:
    """The layers and directions of a DeltaGRU or DeltaLSTM, each as a model of its own."""
    found = []
    for index, name in enumerate(rnn.layer_names):
        tensors = {f"rnn.{kind}_l0": _array(getattr(rnn, f"{kind}_{name}")) for kind in _kinds(rnn)}
        architecture = {**_architecture(rnn), "num_layers": 1, "head": []}
        architecture["input_size"] = tensors["rnn.weight_ih_l0"].shape[1]
        thx, thh = (given[index * len(given) // len(rnn.layer_names)] for given in (rnn.thx, rnn.thh))
        found.append(LayerContents(tensors, architecture, thx, thh, rnn.quantization))
    return found


def _kinds(rnn: Any) -> list[str]:
    """Parameters of each of its layers."""
    kinds = ["weight_ih", "weight_hh", *(["bias_ih", "bias_hh"] if rnn.bias else [])]
    return kinds + (["weight_hr"] if rnn.proj_size else [])


def _architecture(rnn: Any) -> dict[str, Any]:
    """As in the header of a model file, without the head."""
    return {
        "cell": rnn.mode,
        "input_size": rnn.input_size,
        "hidden_size": rnn.hidden_size,
        "num_layers": rnn.num_layers,
        "bias": bool(rnn.bias),
        "bidirectional": False,
        "proj_size": rnn.proj_size,
        "hard_activations": bool(rnn.hard_activations),
        **({} if rnn.reset_after else {"reset_after": False}),
        **({} if rnn.candidate == "tanh" else {"candidate": rnn.candidate}),
    }


def head_names(tensors: Mapping[str, Any]) -> list[str]:
    """Prefixes of the dense head's layers among the tensors of a model file, in order: head.0, head.2, …"""
    positions = {name.split(".")[1] for name in tensors if name.startswith("head.") and name.count(".") == 2}
    return [f"head.{position}" for position in sorted((p for p in positions if p.isdecimal()), key=int)]


def _head_modules(head: Any) -> list[Any]:
    """The modules of a dense head, one after the other."""
    if head is None:
        return []
    if _is(head, "Linear"):
        return [head]
    if not hasattr(head, "__iter__"):
        raise UnsupportedModelError(
            f"the head is a {type(head).__name__}: give a Linear, or a Sequential of Linear, ReLU, Dropout and Identity"
        )
    return list(head)


def _read_head(modules: list[Any], tensors: dict[str, NDArray[Any]]) -> list[dict[str, Any]]:
    """The architecture's entries of a dense head; its parameters go into `tensors`."""
    entries: list[dict[str, Any]] = []
    for position, module in enumerate(modules):
        if _is(module, "Linear"):
            entries.append({"in": module.in_features, "out": module.out_features, "activation": None})
            tensors[f"head.{position}.weight"] = _array(module.weight)
            if module.bias is not None:
                tensors[f"head.{position}.bias"] = _array(module.bias)
        elif _is(module, "ReLU") and entries:
            entries[-1]["activation"] = "relu"
        elif not _is(module, "Dropout") and not _is(module, "Identity"):
            where = "the head holds a" if entries else "the head starts with a"
            raise UnsupportedModelError(
                f"{where} {type(module).__name__}: only Linear, ReLU after one, Dropout and Identity are known"
            )
    return entries


def _is(module: Any, kind: str) -> bool:
    """Whether a module is of that class of torch.nn or derived from it, as a parametrised one is."""
    return any(base.__name__ == kind and base.__module__.startswith("torch.nn.") for base in type(module).__mro__)


def _array(tensor: Any) -> NDArray[Any]:
    """A torch tensor as float32, or float64 if that is what it is."""
    tensor = tensor.detach().cpu()
    return np.array(tensor.numpy() if str(tensor.dtype) == "torch.float64" else tensor.float().numpy())
