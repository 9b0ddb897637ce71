"""A torch module as the list of its operations on one stream, by torch.export, its delta layers each one operation."""

import inspect
import logging
import re
import traceback
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from deltarnn.fixed.verification import UnsupportedModelError

PACKAGE = str(Path(__file__).parents[1])


@dataclass(frozen=True)
class Trace:
    """What a module does to an input in which one axis, time, has any length.

    nodes: of torch.fx, in order; those of delta layers call `layer_operator`. values: parameters, buffers and constants
    by the names of their placeholders. input: the input's placeholder. layers: the delta layers, as those nodes number
    them. frames: the symbol of the length of time.
    """

    nodes: list[Any]
    values: dict[str, Any]
    input: str
    layers: list[Any]
    frames: Any

    @classmethod
    def of(cls, model: Any, example: Any, axis: int) -> "Trace":
        """Trace `model`, in evaluation mode, on an input like `example`, whose axis `axis` is time.

        Raises
        ------
        UnsupportedModelError
            If torch.export cannot trace it; with the line of the module's code.
        """
        import torch

        layers = delta_layers(model)
        try:
            with _stand_ins(layers), _quiet(), torch.no_grad():
                program = torch.export.export(
                    model, (example,), dynamic_shapes=({axis: torch.export.Dim.DYNAMIC},), strict=False
                )
        except UnsupportedModelError:
            raise
        except Exception as error:  # whatever torch.export and the module's own code raise
            raise UnsupportedModelError(_reason(model, error)) from error
        signature = program.graph_signature
        names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        named = {**program.state_dict, **program.constants}
        values = {placeholder: named[name] for placeholder, name in names.items()}
        constants = {**signature.inputs_to_lifted_tensor_constants}
        values |= {placeholder: program.constants[name] for placeholder, name in constants.items()}
        nodes = list(program.graph.nodes)
        (entering,) = signature.user_inputs
        shape = next(node for node in nodes if node.name == entering).meta["val"].shape
        return cls(nodes, values, entering, layers, shape[axis].node.expr)


def delta_layers(model: Any) -> list[Any]:
    """The delta layers in a module, in its order."""
    return [module for module in model.modules() if hasattr(module, "weight_ih_l0") and hasattr(module, "thx")]


@cache
def layer_operator() -> Any:
    """The operation that stands for a delta layer: (x, initial h and c, number of the layer, its sizes) → (y, h, c)."""
    import torch

    @torch.library.custom_op("deltarnn::streamed_layer", mutates_args=())
    def streamed(
        x: torch.Tensor,
        h0: torch.Tensor | None,
        c0: torch.Tensor | None,
        layer: int,
        outputs: int,
        cells: int,
        states: int,
        directions: int,
        batch_axis: int,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        raise NotImplementedError("it is only traced")

    @streamed.register_fake
    def _(
        x: Any, h0: Any, c0: Any, layer: int, outputs: int, cells: int, states: int, directions: int, batch_axis: int
    ) -> Any:
        batch = (x.shape[batch_axis],) if batch_axis >= 0 else ()
        y = x.new_empty(*x.shape[:-1], outputs * directions)
        return y, x.new_empty(states, *batch, outputs), x.new_empty(states, *batch, cells)

    return torch.ops.deltarnn.streamed_layer.default


@contextmanager
def _stand_ins(layers: Iterable[Any]) -> Iterator[None]:
    """The delta layers as single operations."""
    touched = list(layers)
    try:
        for number, layer in enumerate(touched):
            layer.stand_in = _stand_in(number, layer)
        yield
    finally:
        for layer in touched:
            del layer.stand_in


def _stand_in(number: int, layer: Any) -> Any:
    def called(x: Any, state: Any) -> Any:
        h0, c0 = state if layer.mode == "LSTM" and state is not None else (state, None)
        if any(given is not None and not hasattr(given, "ndim") for given in (h0, c0)):
            raise UnsupportedModelError(
                f"{_calling_line()}: a delta layer is given a delta state, which the engine keeps by itself: call "
                "the layer with its input alone"
            )
        if not hasattr(x, "ndim"):
            raise UnsupportedModelError(f"{_calling_line()}: a PackedSequence enters a delta layer: give it a tensor")
        outputs = layer.proj_size or layer.hidden_size
        batch_axis = -1 if x.ndim == 2 else 0 if layer.batch_first else 1
        sizes = outputs, layer.hidden_size, len(layer.layer_names), 1 + layer.bidirectional, batch_axis
        y, h, c = layer_operator()(x, h0, c0, number, *sizes)
        return y, (h, c) if layer.mode == "LSTM" else h

    return called


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch.export logs of a module that it cannot trace: the error says it."""
    loggers = [
        logging.getLogger(name) for name in ("torch.fx.experimental.symbolic_shapes", "torch.export", "torch._export")
    ]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.CRITICAL)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _is_users(path: str) -> bool:
    return "site-packages" not in path and not path.startswith((PACKAGE, "<")) and "/torch/" not in path


def line_of(node: Any) -> str:
    """Where in the module's code an operation is: "net.py, line 14, `y = self.conv(x)`"."""
    found = re.findall(r'File "([^"]+)", line (\d+), in [^\n]*\n([^\n]*)', node.meta.get("stack_trace") or "")
    mine = [entry for entry in found if _is_users(entry[0])] or found
    if not mine:
        return f"operation {node.name}"
    path, line, code = mine[-1]
    return f"{Path(path).name}, line {line}, `{code.strip()}`"


def _calling_line() -> str:
    frame = next((frame for frame in inspect.stack() if _is_users(frame.filename)), None)
    if frame is None:
        return "the module's forward"
    code = (frame.code_context or [""])[0].strip()
    return f"{Path(frame.filename).name}, line {frame.lineno}, `{code}`"


def _reason(model: Any, error: Exception) -> str:
    """One sentence of what torch.export says."""
    text = str(error)
    places = re.findall(r'File "([^"]+)", line (\d+), in [^\n]*\n([^\n]*)', text)
    frames = [(f.filename, str(f.lineno), f.line or "") for f in traceback.extract_tb(error.__traceback__)]
    mine = [place for place in [*frames, *places] if _is_users(place[0])]
    where = ""
    if mine:
        path, line, code = mine[-1]
        where = f"{Path(path).name}, line {line}, `{code.strip()}`: "
    if "Constraints violated" in text or "specialized" in text:
        return (
            f"{type(model).__name__} fixes the number of frames: its forward works for one length only, such as a loop "
            "over the frames; write it for any length, with a delta layer for what goes on from frame to frame"
        )
    first = next((line for line in text.splitlines() if line.strip()), type(error).__name__)
    if "data-dependent" in text:
        first = "what is computed, or the size of a value, depends on the signal itself"
    return f"{where}torch.export cannot trace {type(model).__name__}: {first.strip()}"
