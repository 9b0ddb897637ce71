"""Turning dense recurrent modules into delta layers, and float delta layers into quantised ones."""

import copy
import warnings
from typing import Any

import torch
from torch import nn

from deltarnn.fixed.qformat import Quantization
from deltarnn.nn.backends import Backend
from deltarnn.nn.base import DeltaRNNBase
from deltarnn.nn.delta_rnn import DeltaGRU, DeltaLSTM
from deltarnn.nn.thresholds import Thresholds

_STAY_DENSE = (nn.RNN, nn.RNNCellBase)


def convert(
    module: nn.Module,
    *,
    thx: Thresholds = 0.0,
    thh: Thresholds = 0.0,
    quantization: Quantization | None = None,
    hard_activations: bool = False,
    backend: Backend = "auto",
) -> nn.Module:
    """Replace every nn.GRU and nn.LSTM in `module`, in place, by a delta layer over the same parameters.

    >>> model = nn.Sequential(nn.GRU(16, 64))
    >>> convert(model, thx=0.1, thh=0.1)
    Sequential(
      (0): DeltaGRU(16, 64, thx=0.1, thh=0.1)
    )

    Names, hooks, training mode and parameters (the same objects, so optimisers keep working) stay; a layer that is used
    in several places stays one layer. If `module` itself is an nn.GRU or nn.LSTM, the delta layer is returned. Other
    arguments as of `DeltaGRU`.

    Raises
    ------
    ValueError
        If there is nothing to convert, or a layer cannot be converted, with its name: a subclass of nn.GRU or nn.LSTM
        (a parametrised one too), whose own behaviour would be lost.

    Warns
    -----
    UserWarning
        For nn.RNN and the cells, which have no delta form and stay as they are, with their names.
    """
    options = {
        "thx": thx,
        "thh": thh,
        "quantization": quantization,
        "hard_activations": hard_activations,
        "backend": backend,
    }
    dense: dict[str, nn.RNNBase] = {}
    for name, child in module.named_modules():
        where = f"{name or 'the module'} ({type(child).__name__})"
        if type(child) in (nn.GRU, nn.LSTM):
            assert isinstance(child, nn.RNNBase)
            dense[name] = child
        elif isinstance(child, (nn.GRU, nn.LSTM)):
            raise ValueError(f"{where} cannot be converted: it is not nn.GRU or nn.LSTM itself but derived from it")
        elif isinstance(child, _STAY_DENSE):
            warnings.warn(f"{where} has no delta form and stays dense", stacklevel=2)
    if not dense:
        raise ValueError(f"there is no nn.GRU or nn.LSTM in this {type(module).__name__}: nothing to convert")

    converted = {id(layer): _delta_layer(layer, options) for layer in dense.values()}
    for parent in list(module.modules()):
        # Not named_children(), which leaves out the second name of a child that has two.
        for name, child in list(parent._modules.items()):
            if id(child) in converted:
                setattr(parent, name, converted[id(child)])
    return converted.get(id(module), module)


def _delta_layer(dense: nn.RNNBase, options: dict[str, Any]) -> DeltaRNNBase:
    arguments = ["input_size", "hidden_size", "num_layers", "bias", "batch_first", "bidirectional"]
    sizes = {name: getattr(dense, name) for name in arguments}
    with torch.device("meta"):
        if isinstance(dense, nn.LSTM):
            delta: DeltaRNNBase = DeltaLSTM(**sizes, proj_size=dense.proj_size, **options)
        else:
            delta = DeltaGRU(**sizes, **options)
    # Everything else the dense layer carries: parameters, dropout, hooks, training mode, attributes set by its user.
    delta.__dict__.update({name: copy.copy(value) for name, value in dense.__dict__.items()})
    return delta


def quantize(module: nn.Module, quantization: Quantization) -> dict[str, tuple[tuple[float, ...], tuple[float, ...]]]:
    """Give every delta layer in `module` fixed-point formats, its thresholds rounded to the activation grid (MATH §6).

    Returns, for each layer whose thresholds changed, its name and the new (thx, thh); also stored in the layer.

    Raises
    ------
    ValueError
        If there is no delta layer, or a positive threshold would round to 0.
    """
    layers = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, DeltaRNNBase)]
    if not layers:
        raise ValueError(f"there is no DeltaGRU or DeltaLSTM in this {type(module).__name__}: see deltarnn.convert")
    changed = {}
    for name, layer in layers:
        before = layer.thx, layer.thh
        layer.quantization = None
        layer.thx, layer.thh = (tuple(quantization.round_threshold(th) for th in thresholds) for thresholds in before)
        layer.quantization = quantization
        if (layer.thx, layer.thh) != before:
            changed[name] = (layer.thx, layer.thh)
    return changed
