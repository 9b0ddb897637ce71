"""The interface that tuning needs of a network, and its implementation for torch modules."""

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from itertools import islice
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from deltarnn.nn.activity import Activity, LayerActivity, record_activity
from deltarnn.nn.conversion import convert
from deltarnn.nn.delta_module import DeltaModule

Array = NDArray[Any]
ThresholdsOf = dict[str, list[tuple[float, float]]]
"""{module name: [(thx, thh) per layer and direction]}."""


ROUNDED = 1e-2
"""Output error up to which two forms of a network are the same, in half precision too."""
TINY = 1e-12
"""Instead of the energy of an output that does not vary."""
BY_CLASS = (
    "if its code asks of which class a layer is, isinstance(layer, nn.LSTM), let it ask layer.mode == 'LSTM': delta "
    "layers are nn.RNNBase, but no nn.GRU or nn.LSTM"
)
"""The usual reason why a converted module is not what it was made of."""


class Network(Protocol):
    """A network whose thresholds can be tuned: torch modules through `TorchNetwork`, others by having these members."""

    @property
    def thresholds(self) -> ThresholdsOf:
        """{part: [(thx, thh) per layer and direction]}."""

    def set_thresholds(self, thresholds: ThresholdsOf) -> None:
        """Set them; states begin anew."""

    def run(self, names: None, item: Any, /) -> Sequence[Array]:
        """All outputs for one item of the calibration data."""

    def reset(self) -> None:
        """Forget states, and what was counted."""

    @property
    def activity(self) -> Any:
        """Counts since the last reset, of the parts that ran: `per_part[part].layers[layer].delta_counts()`."""


class ArgumentError(TypeError):
    """What `tune` or `distill` was given is of another kind than it takes; the message says which."""


@dataclass(frozen=True)
class Signal:
    """What one threshold guards: the input or the hidden state of one layer and direction.

    part: name of the module. layer: index into its list of thresholds. label: for the user.
    """

    part: str
    layer: int
    kind: Literal["x", "h"]
    label: str = field(compare=False, default="")


class Count(NamedTuple):
    """Deltas of one signal: how many are 0, how many there are, weights that all of them would fetch, and do."""

    zeros: int
    numel: int
    weights: int
    fetched: int


def signals_of(network: Network) -> list[Signal]:
    """One for each threshold, in the order of `network.thresholds`, x before h."""
    signals = []
    for part, pairs in network.thresholds.items():
        suffixes = network.layers[part].layer_names if isinstance(network, TorchNetwork) else [""] * len(pairs)
        for layer, suffix in enumerate(suffixes):
            label = ".".join(filter(None, (part, suffix)))
            signals += [Signal(part, layer, kind, f"{label} {kind}".strip()) for kind in ("x", "h")]
    return signals


def set_thresholds(network: Network, signals: Sequence[Signal], values: Sequence[float]) -> None:
    """Set one threshold per signal."""
    given = dict(zip(signals, values, strict=True))
    network.set_thresholds(
        {
            part: [(given[Signal(part, layer, "x")], given[Signal(part, layer, "h")]) for layer in range(len(pairs))]
            for part, pairs in network.thresholds.items()
        }
    )


@dataclass(frozen=True)
class PartActivity:
    """Counts of one module, one entry per layer and direction."""

    layers: list[LayerActivity]


@dataclass(frozen=True)
class ModuleActivity:
    """Counts of the modules that ran, by name."""

    per_part: dict[str, PartActivity]


class TorchNetwork:
    """A torch module with delta layers inside, as a `Network`."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.layers = {name: m for name, m in module.named_modules() if isinstance(m, DeltaModule)}
        self._recorded = Activity([])

    @classmethod
    def adapted_copy(cls, model: nn.Module) -> "TorchNetwork":
        """A copy of `model` in eval mode; its dense recurrent layers, if there is no delta layer, converted."""
        module = copied(model)
        if not any(isinstance(child, DeltaModule) for child in module.modules()):
            module = convert(module)
        return cls(module.eval())

    @property
    def thresholds(self) -> ThresholdsOf:
        """As of `Network`: one pair per layer and direction, in the order of `layer_names`."""
        every = {}
        for name, layer in self.layers.items():
            count = len(layer.layer_names)
            columns = [[given[i * len(given) // count] for i in range(count)] for given in (layer.thx, layer.thh)]
            every[name] = list(zip(*columns, strict=True))
        return every

    def set_thresholds(self, thresholds: ThresholdsOf) -> None:
        """As of `Network`; of quantised layers, the next lower values on their grids."""
        for name, pairs in thresholds.items():
            layer = self.layers[name]
            layer.thx, layer.thh = (tuple(_on_grid(layer, th) for th in column) for column in zip(*pairs, strict=True))

    def run(self, names: None, item: Any, /) -> list[Array]:
        """As of `Network`."""
        with torch.no_grad(), record_activity(self.module) as self._recorded:
            return [_as_array(tensor) for tensor in floats_in(call(self.module, item))]

    def reset(self) -> None:
        """As of `Network`: a module keeps no state from call to call."""
        self._recorded = Activity([])

    @property
    def activity(self) -> ModuleActivity:
        """As of `Network`."""
        entries = iter(self._recorded.per_layer)
        per_part = {name: list(islice(entries, len(layer.layer_names))) for name, layer in self.layers.items()}
        ran = {name: layers for name, layers in per_part.items() if all(layer.calls for layer in layers)}
        return ModuleActivity({name: PartActivity(layers) for name, layers in ran.items()})


def copied(module: nn.Module) -> nn.Module:
    """A deep copy, of modules too that keep computed tensors, which torch does not copy.

    Pruning, weight_norm and parametrisations leave such weights behind, with the history of their making; a module
    makes them anew whenever it runs.
    """
    kept = tree_leaves([vars(child) for child in module.modules()])
    made = (value for value in kept if isinstance(value, Tensor) and not value.is_leaf)
    return copy.deepcopy(module, {id(tensor): tensor.detach().clone() for tensor in made})


def check_network(model: Any) -> None:
    """ArgumentError if this is no torch module, and has not what networks of `deltarnn.onnx.load` have."""
    if not isinstance(model, nn.Module) and not all(
        hasattr(model, name) for name in ("thresholds", "set_thresholds", "run", "reset", "activity")
    ):
        raise ArgumentError(
            f"model is a {type(model).__name__}: must be a torch module, or a network of deltarnn.onnx.load; of an "
            "exported program take the module that it was made from"
        )


def check_conversion(model: nn.Module, converted: nn.Module, item: Any) -> None:
    """ValueError if at thresholds 0 a converted module computes something else than the dense one that it was made of.

    That is so where a module's code asks of which class its layers are. Random outputs are not told apart.
    """
    if any(isinstance(child, DeltaModule) for child in model.modules()):
        return
    expected = _once(model, item)
    try:
        actual = _once(converted, item)
    except Exception as error:  # whatever the module's code runs into
        raise ValueError(
            f"the converted model fails where the model itself runs ({type(error).__name__}: {error}); {BY_CLASS}"
        ) from error
    if _differ(actual, expected) and not _differ(_once(model, item), expected):
        raise ValueError(f"at thresholds 0 the converted model computes something else than the model; {BY_CLASS}")


def _once(module: nn.Module, item: Any) -> list[Array]:
    """The outputs of a copy, which may keep a state."""
    with torch.no_grad():
        return [_as_array(tensor).astype(np.float64) for tensor in floats_in(call(copied(module).eval(), item))]


def _differ(actual: Sequence[Array], expected: Sequence[Array]) -> bool:
    """By more than any precision explains."""
    if [output.shape for output in actual] != [output.shape for output in expected]:
        return True
    pairs = zip(actual, expected, strict=True)
    return any(np.square(a - b).sum() > ROUNDED * max(np.square(b - b.mean()).sum(), TINY) for a, b in pairs if b.size)


def _as_array(tensor: Tensor) -> Array:
    """numpy has no bfloat16."""
    return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).cpu().numpy()


def _on_grid(layer: DeltaModule, threshold: float) -> float:
    """The threshold, or under quantisation the largest grid value that is not above it."""
    if layer.quantization is None:
        return threshold
    scale = 2.0**layer.quantization.activation.fraction_bits
    return float(np.floor(threshold * scale) / scale)


def call(module: nn.Module, item: Any) -> Any:
    """`module` on one item of the data: its argument, several, by name too, or a function of the module."""
    if callable(item):
        return item(module)
    named = dict(item) if isinstance(item, Mapping) else {}
    unnamed = () if isinstance(item, Mapping) else item if isinstance(item, (tuple, list)) else (item,)
    try:
        return module(*unnamed, **named)
    except TypeError:
        _check_fits(module, unnamed, named)
        raise


def _check_fits(module: nn.Module, unnamed: Sequence[Any], named: Mapping[str, Any]) -> None:
    try:
        inspect.signature(module.forward).bind(*unnamed, **named)
    except ValueError:  # there is no signature
        return
    except TypeError as error:
        raise ArgumentError(f"an item of the data does not fit {type(module).__name__}.forward: {error}") from None


def floats_in(output: Any) -> Iterator[Tensor]:
    """The floating-point tensors of a module's output, however nested; of complex ones real and imaginary parts."""
    if isinstance(output, Tensor):
        if output.is_complex():
            yield torch.view_as_real(output.resolve_conj())
        elif output.is_floating_point():
            yield output
    elif is_dataclass(output):
        for part in fields(output):
            yield from floats_in(getattr(output, part.name))
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from floats_in(value)
    elif isinstance(output, (tuple, list)):
        for value in output:
            yield from floats_in(value)
