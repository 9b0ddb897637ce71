"""Chooses a call's program: one for all sizes where the graph allows it, one per signature where that is faster."""

from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from deltarnn.onnx.discovery import open_condition, resolved, sites_of
from deltarnn.onnx.folding import fold
from deltarnn.onnx.graph import Array, Graph, UnsupportedGraphError
from deltarnn.onnx.lowering import NativeProgram, NotNativeError
from deltarnn.onnx.program import Program
from deltarnn.onnx.recurrent import Site
from deltarnn.onnx.states import Values

KEPT = 8
"""Programs of that many signatures are kept."""

Signature = tuple[Any, ...]
Runnable = Program | NativeProgram


class Programs:
    """The programs of one graph.

    A signature is the shapes of all inputs, and the values of whole-numbered and boolean inputs with one element, such
    as a sampling rate: a graph branches on these. With them known, all of the graph's arithmetic on sizes is done
    beforehand. The first signature gets a program at once, others when they come a second time; until then, the one
    program for all sizes runs, if conditions do not need to be known.
    """

    def __init__(self, graph: Graph, names: dict[str, str], session_options: Any, held: bool) -> None:
        self.graph = graph
        self.names = names
        self.held = held
        self.session_options = session_options
        self.indices = _indices(graph)
        self.kept: OrderedDict[Signature, Runnable] = OrderedDict()
        self.seen: OrderedDict[Signature, None] = OrderedDict()
        self.int8 = False
        self.general = self._general()

    def set_int8(self, int8: bool) -> None:
        """Whether sessions of ONNX Runtime compute products with weights in int8."""
        if int8 != self.int8:
            self.int8 = int8
            self.kept.clear()
            self.general = self._general()

    def _general(self) -> Program | None:
        """The program for all sizes; None if conditions need to be known."""
        if open_condition(self.graph) is not None:
            return None
        return Program(self.graph, self.sites(self.graph), self.session_options, self.int8)

    def of(self, feed: Mapping[str, Any], native: bool) -> tuple[Runnable, Values]:
        """The program for a call with these inputs, and the inputs as arrays.

        native: whether it may be one that keeps all values to itself.

        Raises
        ------
        ValueError
            If the inputs do not fit the graph.
        """
        try:
            values = {name: np.asarray(feed[name]) for name in self.graph.inputs}
        except KeyError:
            values = {}
        signature = (native, *(_signature(value, name not in self.indices) for name, value in values.items()))
        program = self.kept.get(signature) if len(values) == len(feed) else None
        if program is not None:
            self.kept.move_to_end(signature)
            return program, values
        check_feed(self.graph, feed)
        if self.general is not None and self.seen and signature not in self.seen:
            self._remember(self.seen, signature, None)
            return self.general, values
        self._remember(self.seen, signature, None)
        program = self._special(values, native)
        self._remember(self.kept, signature, program)
        return program, values

    def _special(self, values: Values, native: bool) -> Runnable:
        graph, _ = self.folded(values)
        if native:
            with suppress(NotNativeError):
                return NativeProgram(graph, self.sites(graph), self.held)
        return Program(graph, self.sites(graph), self.session_options, self.int8)

    def folded(self, values: Mapping[str, Array]) -> tuple[Graph, Values]:
        """The graph for the sizes of these inputs, and those whose values it depends on: whole numbers, one element.

        Raises
        ------
        UnsupportedGraphError
            If a condition with recurrent layers inside depends on anything else.
        """
        fixed = {
            name: value
            for name, value in values.items()
            if value.size == 1 and value.dtype.kind in "iub" and name not in self.indices
        }
        graph = fold(self.graph, {name: value.shape for name, value in values.items()}, fixed)
        condition = open_condition(graph)
        if condition is not None:
            raise UnsupportedGraphError(
                f"the If {condition.name or condition.output[0]!r} with recurrent layers inside depends on more than "
                "sizes and whole numbers among the inputs: the importer cannot tell which branch runs"
            )
        return graph, fixed

    def sites(self, graph: Graph) -> list[Site]:
        """The recurrent sites of a graph, with the names of their parts."""
        known = [s for s in sites_of(graph) if all(weights.digest() in self.names for weights in s.weights)]
        return resolved(known, self.names)

    @staticmethod
    def _remember(memory: OrderedDict[Signature, Any], signature: Signature, value: Any) -> None:
        memory[signature] = value
        while len(memory) > KEPT:
            memory.popitem(last=False)


def _indices(graph: Graph) -> set[str]:
    """Inputs that choose rows of a table of vectors, as tokens of an embedding."""
    gathers = [node for node in graph.nodes if node.op_type == "Gather"]
    tables = {name for name, value in graph.constants.items() if value.ndim == 2 and value.dtype.kind == "f"}
    return {node.input[1] for node in gathers if node.input[0] in tables} & set(graph.inputs)


def _signature(value: Array, with_value: bool) -> tuple[Any, ...]:
    """What a program depends on of an input."""
    if with_value and value.size == 1 and value.dtype.kind != "f":
        return value.dtype.char, value.shape, value.item()
    return value.dtype.char, value.shape


def check_feed(graph: Graph, feed: Mapping[str, Any]) -> None:
    """Raise ValueError if an input is missing or unknown, or has another type or shape than the graph says."""
    missing, unknown = set(graph.inputs) - feed.keys(), feed.keys() - set(graph.inputs)
    if unknown & graph.preset:
        raise ValueError(
            f"the input {min(unknown & graph.preset)!r} has a value in the file, which is part of the network here: "
            "remove its initializer from the file to feed it"
        )
    if missing or unknown:
        what = f"{sorted(missing)[0]!r} is missing" if missing else f"{sorted(unknown)[0]!r} is unknown"
        raise ValueError(f"the input {what}: the network takes {', '.join(graph.inputs)}")
    for name in graph.inputs:
        value = np.asarray(feed[name])
        dtype, shape = graph.declared(name)
        if value.dtype != dtype and (dtype.kind, value.dtype.kind) != ("O", "U"):  # strings are either
            raise ValueError(f"the input {name!r} is {value.dtype}: the network takes {dtype}")
        fits = shape is None or (
            len(shape) == value.ndim and all(n in (None, m) for n, m in zip(shape, value.shape, strict=True))
        )
        if not fits:
            wanted = ", ".join("any" if n is None else str(n) for n in shape or ())
            raise ValueError(f"the input {name!r} has shape {value.shape}: the network takes ({wanted})")
