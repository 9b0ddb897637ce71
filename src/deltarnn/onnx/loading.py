"""From an ONNX file to a network."""

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from deltarnn.engine.compilation import Precision
from deltarnn.fixed.qformat import Quantization
from deltarnn.onnx.discovery import parts_of
from deltarnn.onnx.folding import fold
from deltarnn.onnx.graph import Array, Graph, UnsupportedGraphError
from deltarnn.onnx.loops import rolled
from deltarnn.onnx.network import Network, StateMode, Threshold
from deltarnn.onnx.operators import weight_inputs
from deltarnn.onnx.programs import Programs
from deltarnn.onnx.reading import read_model
from deltarnn.onnx.recurrent import RecurrentPart
from deltarnn.onnx.saving import Saved, replaced_weights


def load(
    path: str | os.PathLike[str],
    thresholds: Threshold | Mapping[str, Threshold] | None = None,
    precision: Precision | None = None,
    *,
    quantization: Quantization | None = None,
    states: StateMode = "explicit",
    threads: int = 1,
) -> Network:
    """Import an ONNX file: GRU and LSTM operators, and cells unrolled by exporters, become delta layers.

    Weights may be inputs of the graph: they are taken from the first call, which then names the recurrent parts.

    Parameters
    ----------
    thresholds: of all recurrent parts, or of some by name: a number, a pair (θx, θh), or a list with one pair. By
        default those of a file that `Network.save` wrote, else 0.
    precision, quantization: of the recurrent parts, as of `Engine.compile`. None: "int8" for a file that
        `Network.save` wrote after `quantize`, with its formats, else "float32".
    states: "explicit": initial states are those of the graph (`Network.run`). "held": recurrent parts go on from
        call to call until `reset`, for streaming through networks without states among their inputs.
    threads: of ONNX Runtime, for what is not recurrent.

    Raises
    ------
    FileNotFoundError, ModuleNotFoundError, UnsupportedGraphError (a ValueError)
        With one sentence that names what is missing or not supported, and the remedy.

    Warns
    -----
    UserWarning
        For recurrent operators that stay as they are, beside others that become delta layers.
    """
    if states not in get_args(StateMode):
        raise ValueError(f"states={states!r}: must be one of {', '.join(map(repr, get_args(StateMode)))}")
    model = read_model(path)
    if precision is None:
        precision = "int8" if Saved.of(model).formats else "float32"
    settings = Settings(os.fspath(path), thresholds, precision, quantization, states, threads)
    graph = Graph.of(model)
    late = weight_inputs(graph)
    if late:
        return LateNetwork(model, graph, late, settings)
    net = Network(model, *imported(model, graph, settings), states)
    settings.apply_thresholds(net)
    return net


@dataclass(frozen=True)
class Settings:
    """The arguments of `load`."""

    path: str
    thresholds: Threshold | Mapping[str, Threshold] | None
    precision: Precision
    quantization: Quantization | None
    states: StateMode
    threads: int

    def apply_thresholds(self, net: Network) -> None:
        """Set the thresholds that were asked for, else those of the file."""
        given = Saved.of(net.model).thresholds if self.thresholds is None else self.thresholds
        if given:
            net.set_thresholds(given)


def imported(model: Any, graph: Graph, settings: Settings) -> tuple[dict[str, RecurrentPart], Programs]:
    """The recurrent parts of a graph, compiled, and the programs that run it."""
    graph = rolled(fold(graph))
    parts = parts_of(graph)
    others = [_why_dense(node) for node in graph.nodes if node.op_type.endswith(("RNN", "QuantizeLSTM"))]
    if not parts:
        raise UnsupportedGraphError(
            f"{settings.path}: {others[0]}"
            if others
            else f"{settings.path}: no recurrent part that the importer knows: it has no GRU or LSTM operator, and "
            "no cell unrolled into products, σ and tanh"
        )
    for other in others:
        warnings.warn(f"{settings.path}: {other}; it stays as it is", stacklevel=3)
    names = {part.weights.digest(): name for name, part in parts.items()}
    held = settings.states == "held"
    if held and any(part.reverse for part in parts.values()):
        raise UnsupportedGraphError(
            "states='held' needs a network that runs forwards in time: this one runs backwards too"
        )
    saved = Saved.of(model)
    for name, part in parts.items():
        part.precision, part.quantization = settings.precision, settings.quantization
        part.weights = replaced_weights(model, name, part.weights)
        if settings.quantization is None:
            part.formats = saved.formats.get(name)
        part.compile()
    programs = Programs(graph, names, _session_options(settings.threads), held)
    programs.set_int8(saved.int8 and settings.precision == "int8" and settings.quantization is None)
    return parts, programs


def _why_dense(node: Any) -> str:
    """What a recurrent operator is that has no delta form, and what to do."""
    what = f"the node {node.name or node.output[0]!r} is a"
    if node.op_type == "RNN":
        return f"{what}n RNN, without gates: delta layers are GRUs and LSTMs"
    return f"{what} {node.op_type}, quantised already: import the float model, and call quantize for int8"


class NotYetImportedError(RuntimeError):
    """Something was asked of a network before the call that brings its weights."""


class LateNetwork(Network):
    """A network whose recurrent weights are inputs: imported at its first call, and anew when they change."""

    def __init__(self, model: Any, graph: Graph, late: list[str], settings: Settings) -> None:
        """Not for callers: use `load`."""
        self._graph, self._late, self._settings = graph, late, settings
        self._bound: dict[str, Array] = {}
        self.model = model

    def run(self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any]) -> list[Array]:
        """As of `Network`; the weights are among the inputs."""
        for name in self._late:
            if name not in input_feed:
                raise ValueError(f"the input {name!r} is missing: it holds the weights of a recurrent layer")
        weights = {name: np.asarray(input_feed[name]) for name in self._late}
        if not self._bound or any(not np.array_equal(self._bound[name], weights[name]) for name in self._late):
            graph = self._graph.copy()
            graph.constants.update(weights)
            kept = self.thresholds if self._bound else {}
            super().__init__(self.model, *imported(self.model, graph, self._settings), self._settings.states)
            self._settings.apply_thresholds(self)
            self.set_thresholds({name: pairs for name, pairs in kept.items() if name in self.parts})
            self._bound = {name: value.copy() for name, value in weights.items()}
        return super().run(output_names, input_feed)

    def stream(self) -> Network:
        """Independent states, with weights of their own."""
        return LateNetwork(self.model, self._graph, self._late, self._settings)

    def __getattr__(self, name: str) -> Any:
        if name in ("parts", "programs", "_states", "_layers", "_mode"):
            raise NotYetImportedError(
                f"the weights of this network are inputs ({', '.join(self._late)}): it is imported at the first call "
                "of run; make that first, give load() the thresholds, or export the model with its parameters inside"
            )
        raise AttributeError(name)

    def __repr__(self) -> str:
        return super().__repr__() if self._bound else f"LateNetwork(weights are inputs: {', '.join(self._late)})"


def _session_options(threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    return options
