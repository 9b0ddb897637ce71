"""Unrolled loops as operators again: one GRU or LSTM over all steps, in place of a cell for each."""

from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from typing import Any

import numpy as np

from deltarnn.onnx.discovery import named_cells
from deltarnn.onnx.graph import Graph, UnsupportedGraphError, sort_nodes
from deltarnn.onnx.operators import forward_node
from deltarnn.onnx.recurrent import Site


def rolled(graph: Graph) -> Graph:
    """The graph with each unrolled loop as one operator, where none of its inputs waits for its results.

    A decoder's loop, whose next input is made from its last result, stays as it is; so does one whose cell states are
    read between its steps, or whose initial state is one row for all of the batch.
    """
    for loop in _loops(graph):
        changed = graph.copy()
        nodes = _operator(changed, loop)
        with suppress(UnsupportedGraphError):  # they wait for each other
            _replace(changed, nodes)
            if not {site.next_c for site in loop[:-1]} & changed.producers().keys():
                graph = changed
    return graph


def _loops(graph: Graph) -> Iterator[list[Site]]:
    """Steps that go on from each other, two or more."""
    streams: dict[str, list[Site]] = {}
    for cell in named_cells(graph):
        streams.setdefault(cell.stream, []).append(cell)
    for steps in streams.values():
        rows = [(graph.shape(name) or (None,))[0] for name in (steps[0].x, steps[0].h, steps[0].c or steps[0].h)]
        in_turn = all((later.h, later.c) == (step.next_h, step.next_c) for step, later in pairwise(steps))
        if len(steps) > 1 and in_turn and (rows[0] == 1 or 1 not in rows):
            yield steps


def _replace(graph: Graph, nodes: list[Any]) -> None:
    """Let these nodes make what they make, in place of those that made it before."""
    from onnx import helper

    made = {name for node in nodes for name in node.output if name}
    kept = [node for node in graph.nodes if not made.intersection(node.output)]
    proto = helper.make_graph([*kept, *nodes], "sorted", [], [])
    sort_nodes(proto)
    graph.nodes = list(proto.node)
    graph.prune()
    graph.infer()


def _operator(graph: Graph, loop: list[Site]) -> list[Any]:
    """The nodes that compute all steps of a loop by one operator; its constants are added to the graph."""
    from onnx import helper

    first, last, weights = loop[0], loop[-1], loop[0].weights[0]
    nodes: list[Any] = []

    def constant(what: str, value: Any) -> str:
        name = f"{last.next_h}/{what}"
        graph.constants[name] = np.asarray(value)
        return name

    def node(operator: str, inputs: list[str], output: str, **options: Any) -> str:
        nodes.append(helper.make_node(operator, inputs, [output], **options))
        return output

    of_x, of_state = (constant(f"sizes {n}", [1, -1, n]) for n in (weights.input_size, weights.hidden_size))
    of_result = constant("sizes of a result", [-1, weights.hidden_size])
    steps = [node("Reshape", [site.x, of_x], f"{site.next_h}/x") for site in loop]
    before = [node("Reshape", [name, of_state], f"{last.next_h}/from {name}") for name in (first.h, first.c) if name]
    x = node("Concat", steps, f"{last.next_h}/all x", axis=0)
    arrays, options = forward_node(weights)
    inputs = [x, *(constant(name, array) for name, array in arrays.items()), "", *before]
    y, c = f"{last.next_h}/all y", f"{last.next_h}/c"
    outputs = [y, "", c] if first.c else [y]
    nodes.append(helper.make_node(weights.cell, inputs, outputs, first.name, **options))
    for place, site in enumerate(loop):
        step = node("Gather", [y, constant(f"step {place}", place)], f"{site.next_h}/y", axis=0)
        node("Reshape", [step, of_result], site.next_h)
    if first.c:
        node("Reshape", [c, of_result], last.next_c)
    return nodes
