"""Turning dense recurrent modules into delta modules, and float delta modules into quantised ones."""

import copy
import warnings
from collections.abc import Mapping, Sequence, Set
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from deltarnn.fixed.qformat import Quantization
from deltarnn.nn.backends import Backend
from deltarnn.nn.delta_cell import DeltaCell, DeltaGRUCell, DeltaLSTMCell
from deltarnn.nn.delta_module import DeltaModule
from deltarnn.nn.delta_rnn import DeltaGRU, DeltaLSTM
from deltarnn.nn.scripted import SCRIPTED, dense_twin, has_recurrence
from deltarnn.nn.thresholds import Thresholds, per_layer

ModuleThresholds = float | Sequence[float] | Sequence[Sequence[float]]
"""Thresholds of a module: a number for x and h of every layer, a pair (thx, thh), or a list of pairs, one per layer."""

_DELTA: dict[type[nn.Module], type[DeltaModule]] = {
    nn.GRU: DeltaGRU,
    nn.LSTM: DeltaLSTM,
    nn.GRUCell: DeltaGRUCell,
    nn.LSTMCell: DeltaLSTMCell,
}
_STAY_DENSE = (nn.RNN, nn.RNNCellBase)
_OF_TORCH = set(vars(nn.Module()))
"""Attributes that every module has: its parameters, children, hooks."""


def convert(
    module: nn.Module,
    *,
    thx: Thresholds = 0.0,
    thh: Thresholds = 0.0,
    thresholds: Mapping[str, ModuleThresholds] | None = None,
    quantization: Quantization | None = None,
    hard_activations: bool = False,
    backend: Backend = "auto",
) -> nn.Module:
    """Replace every nn.GRU, nn.LSTM, nn.GRUCell and nn.LSTMCell in `module`, in place, by its delta form.

    >>> model = nn.Sequential(nn.GRU(16, 64))
    >>> convert(model, thx=0.1, thh=0.1)
    Sequential(
      (0): DeltaGRU(16, 64, thx=0.1, thh=0.1)
    )

    Names, hooks, training mode and parameters (the same objects) stay, pruning masks and parametrisations too; a module
    that is used in several places stays one. If `module` itself is recurrent, its delta form is returned. A converted
    cell takes and returns dense states (`DeltaCell.dense_states`), so that the model's own code runs as before.

    A TorchScript module that is a GRU, an LSTM or a cell as a whole is replaced over its parameters; the code of one
    that has them inside is fixed, so that is refused, with what to build instead.

    Parameters
    ----------
    thx, thh: thresholds of every module that `thresholds` does not name.
    thresholds: by module name (as in named_modules, "" for `module` itself) a number for x and h, a pair (thx, thh), or
        a list of such pairs, one per layer: `{"encoder.rnn": (0.1, 0.05)}`. It may name delta modules too.

    Other arguments as of `DeltaGRU`.

    Raises
    ------
    TypeError, ValueError
        If this is no module, there is nothing to convert, a name is not that of a recurrent module, or one cannot be
        converted: a subclass of nn.GRU, …, whose own behaviour would be lost, or one inside TorchScript.

    Warns
    -----
    UserWarning
        For nn.RNN and nn.RNNCell, which have no delta form and stay as they are, with their names.
    """
    named = dict(thresholds or {})
    options = {"quantization": quantization, "hard_activations": hard_activations, "backend": backend}
    dense = _dense_modules(module)
    present = {name: child for name, child in module.named_modules() if isinstance(child, DeltaModule)}
    existing = {name: child for name, child in present.items() if name in named}
    _check_names(module, named.keys(), dense.keys(), present.keys())
    converted: dict[int, DeltaModule] = {}
    for name, child in dense.items():
        pair = _pair(name, named[name]) if name in named else (thx, thh)
        twin = dense_twin(name, child) if isinstance(child, torch.jit.ScriptModule) else child
        converted[id(child)] = _delta_form(twin, {"thx": pair[0], "thh": pair[1], **options})
    settings = {name: _checked(child, _pair(name, named[name])) for name, child in existing.items()}
    for name, (new_thx, new_thh) in settings.items():
        existing[name].thx, existing[name].thh = new_thx, new_thh
    _replace(module, converted)
    return converted.get(id(module), module)


def _replace(module: nn.Module, converted: dict[int, DeltaModule]) -> None:
    for parent in list(module.modules()):
        # Not named_children(), which leaves out the second name of a child that has two.
        for name, used in list(parent._modules.items()):
            if id(used) in converted:
                setattr(parent, name, converted[id(used)])
        # What its code may call instead: modules in plain lists, and methods kept as attributes.
        for name in vars(parent).keys() - _OF_TORCH:
            vars(parent)[name] = _renewed(vars(parent)[name], converted, set())


def _renewed(value: Any, converted: dict[int, DeltaModule], seen: set[int]) -> Any:
    """An attribute with converted modules in place of those that it held; lists and mappings are changed in place."""
    if isinstance(value, MethodType):
        owner = converted.get(id(value.__self__))
        return value if owner is None else getattr(owner, value.__name__)
    if isinstance(value, (list, dict)) and id(value) not in seen:
        seen.add(id(value))
        for key in value if isinstance(value, dict) else range(len(value)):
            new = _renewed(value[key], converted, seen)
            if new is not value[key]:
                value[key] = new
    elif type(value) is tuple:
        parts = tuple(_renewed(part, converted, seen) for part in value)
        return parts if any(new is not old for new, old in zip(parts, value, strict=True)) else value
    return converted.get(id(value), value)


def _check_names(module: nn.Module, named: Set[str], dense: Set[str], present: Set[str]) -> None:
    """ValueError where thresholds name no recurrent module, or there is nothing to convert or to set."""
    unknown = named - dense - present
    if unknown:
        raise ValueError(
            f"thresholds names {min(unknown)!r}, which is no recurrent module: "
            f"{', '.join(map(repr, sorted(dense | present))) or 'there is none'}"
        )
    if not dense and not named & present:
        raise ValueError(
            f"there is no nn.GRU or nn.LSTM in this {type(module).__name__}, nor a cell of theirs: nothing to convert"
            f"{_instead(module, present)}"
        )


def _instead(module: nn.Module, present: Set[str]) -> str:
    """What there is in place of modules to convert, and what to do about it."""
    if present:
        name = min(present)
        return f"; {name or 'it'} is a delta layer already: set its thresholds by name, thresholds={{{name!r}: …}}"
    for name, child in module.named_modules():
        if type(child).__name__ in SCRIPTED:
            kind = f"{type(child).__module__}.{type(child).__name__}"
            return (
                f"; {name or 'it'} is a {kind}: build the model with the float layers of torch.nn, and load its weights"
            )
    return "; if it computes a recurrence in other modules, import its ONNX export (deltarnn.onnx.load)"


def _dense_modules(module: nn.Module) -> dict[str, nn.Module]:
    """The modules to replace, by name; ValueError for one that cannot be."""
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"there is a {type(module).__name__} to convert: must be an nn.Module; of a state_dict build the module "
            "first, and load it there; of an exported program take the module that it was made from"
        )
    dense: dict[str, nn.Module] = {}
    scripted: list[str] = []
    for name, child in module.named_modules():
        where = f"{name or 'the module'} ({type(child).__name__})"
        if any(name.startswith(prefix) for prefix in scripted):
            continue
        if isinstance(child, torch.jit.ScriptModule):
            scripted.append(f"{name}." if name else "")
            if child.original_name in SCRIPTED or has_recurrence(child):
                dense[name] = child
        elif _plain_type(child) in _DELTA:
            dense[name] = child
        elif isinstance(child, tuple(_DELTA)):
            base = next(kind for kind in _DELTA if isinstance(child, kind))
            raise ValueError(
                f"{where} cannot be converted: it is derived from nn.{base.__name__}, and what it does beside would be "
                f"lost; put an nn.{base.__name__} with its state_dict() in its place, or derive the class from "
                f"{_DELTA[base].__name__}"
            )
        elif isinstance(child, _STAY_DENSE) and not isinstance(child, DeltaModule):
            warnings.warn(f"{where} has no delta form and stays dense", stacklevel=3)
    return dense


def _plain_type(module: nn.Module) -> type[nn.Module]:
    """Its class, apart from parametrisations."""
    kind: type[nn.Module] = parametrize.type_before_parametrizations(module)
    return kind


def _delta_form(dense: nn.Module, options: dict[str, Any]) -> DeltaModule:
    arguments = ["input_size", "hidden_size", "bias"]
    if isinstance(dense, nn.RNNBase):
        arguments += ["num_layers", "batch_first", "bidirectional"]
        arguments += ["proj_size"] if isinstance(dense, nn.LSTM) else []
    with torch.device("meta"):
        delta = _DELTA[_plain_type(dense)](**{name: getattr(dense, name) for name in arguments}, **options)
    # Everything else the dense module carries: parameters, dropout, hooks, training mode, attributes set by its user.
    if parametrize.is_parametrized(dense):
        _parametrize_alike(delta, dense)
    delta.__dict__.update({name: copy.copy(value) for name, value in dense.__dict__.items()})
    if isinstance(delta, DeltaCell):
        delta.dense_states = True
    return delta


def _parametrize_alike(delta: nn.Module, dense: nn.Module) -> None:
    """Make parameters of `delta` properties, as they are in `dense`, whose parametrisations it then takes over."""
    assert isinstance(dense.parametrizations, nn.ModuleDict)
    for name in dense.parametrizations:
        parametrize.register_parametrization(delta, name, nn.Identity())


def _pair(name: str, value: ModuleThresholds) -> tuple[Thresholds, Thresholds]:
    """(thx, thh), each a number or one per layer, of an entry of `thresholds`."""
    plain: Any = value
    if not isinstance(plain, Sequence):
        return plain, plain
    if len(plain) == 2 and not any(isinstance(part, Sequence) for part in plain):
        return plain[0], plain[1]
    if plain and all(isinstance(pair, Sequence) and len(pair) == 2 for pair in plain):
        return tuple(pair[0] for pair in plain), tuple(pair[1] for pair in plain)
    raise ValueError(
        f"thresholds[{name!r}] is {value!r}: must be a number, a pair (thx, thh), or a list of pairs, one per layer"
    )


def _checked(module: DeltaModule, pair: tuple[Thresholds, Thresholds]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    thx, thh = (
        per_layer(name, value, module.num_layers, module.quantization)
        for name, value in zip(("thx", "thh"), pair, strict=True)
    )
    return thx, thh


def quantize(module: nn.Module, quantization: Quantization) -> dict[str, tuple[tuple[float, ...], tuple[float, ...]]]:
    """Give every delta module in `module` fixed-point formats, its thresholds rounded to the activation grid (MATH §6).

    Returns, for each whose thresholds changed, its name and the new (thx, thh); also stored in the module.

    Raises
    ------
    ValueError
        If there is none, or a positive threshold would round to 0.
    """
    layers = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, DeltaModule)]
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
