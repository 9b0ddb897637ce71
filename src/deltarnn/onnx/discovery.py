"""Finds the recurrent parts of a graph, on all branches of its conditions."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from deltarnn.onnx.cells import cells_of
from deltarnn.onnx.folding import take_branch
from deltarnn.onnx.graph import Graph, UnsupportedGraphError, nodes_within, subgraphs
from deltarnn.onnx.operators import is_recurrent, site_of
from deltarnn.onnx.recurrent import RecurrentPart, Site

BODIES = {"If": "condition", "Loop": "loop", "Scan": "scan"}


def sites_of(graph: Graph) -> list[Site]:
    """The recurrent sites outside of all bodies."""
    found = [site_of(node, graph) for node in graph.nodes if is_recurrent(node)]
    return [replace(site, stream=site.name) for site in found] + named_cells(graph)


def named_cells(graph: Graph) -> list[Site]:
    """The unrolled cells outside of all bodies, named by their weights."""
    return [_named(site, graph) for site in cells_of(graph)]


def open_condition(graph: Graph) -> Any | None:
    """The first If with recurrent parts inside that folding could not decide; None if there is none.

    Raises
    ------
    UnsupportedGraphError
        If recurrent parts stand inside a Loop or Scan.
    """
    for node in graph.nodes:
        if node.op_type in BODIES and any(_has_recurrence(body.node) for body in subgraphs(node).values()):
            if node.op_type != "If":
                raise UnsupportedGraphError(
                    f"the {node.op_type} {node.name or node.output[0]!r} has recurrent layers inside: the importer "
                    "takes layers outside of loops; export the model for one step, or with GRU and LSTM operators"
                )
            return node
    return None


def parts_of(graph: Graph) -> dict[str, RecurrentPart]:
    """All recurrent parts by name, each set of weights once, whichever branches they stand on."""
    sites: dict[str, Site] = {}
    _collect(graph, sites)
    parts: dict[str, RecurrentPart] = {}
    digests: set[str] = set()
    for site in sites.values():
        for weights, reverse in zip(site.weights, site.reverse, strict=True):
            digest = weights.digest()
            if digest not in digests:
                digests.add(digest)
                name = unused(f"{site.name}.reverse" if reverse else site.name, parts)
                parts[name] = RecurrentPart(name, weights, reverse, "unrolled cell" if site.is_cell else "operator")
    return parts


def resolved(sites: Iterable[Site], names: dict[str, str]) -> list[Site]:
    """Sites with their parts' names, from the names of weights by digest."""
    return [replace(site, parts=tuple(names[weights.digest()] for weights in site.weights)) for site in sites]


def _collect(graph: Graph, sites: dict[str, Site]) -> None:
    node = open_condition(graph)
    if node is None:
        for site in sites_of(graph):
            key = " ".join(weights.digest() for weights in site.weights)
            sites.setdefault(key, site)
    else:
        for branch in ("then_branch", "else_branch"):
            _collect(take_branch(graph, node, branch), sites)


def _has_recurrence(nodes: Iterable[Any]) -> bool:
    operators = set()
    for node in nodes_within(nodes):
        if is_recurrent(node):
            return True
        operators.add(node.op_type)
    return {"Sigmoid", "Tanh"} <= operators


def unused(name: str, taken: Iterable[str]) -> str:
    """The name, with a number behind it if it is taken."""
    candidate, count = name, 2
    while candidate in taken:
        candidate, count = f"{name}_{count}", count + 1
    return candidate


def _named(site: Site, graph: Graph) -> Site:
    """An unrolled cell under the name that its weights share, such as decoder.rnn, else under that of its result."""
    producers = graph.producers()
    ends, pending, matrices = {site.x, site.h, site.c}, [site.next_h], []
    seen: set[str] = set()
    while pending:
        name = pending.pop()
        if name in ends or name in seen:
            continue
        seen.add(name)
        if name in graph.constants and graph.constants[name].ndim == 2:
            matrices.append(name)
        elif name in producers:
            pending += producers[name].input
    common = _common_start(matrices)
    prefix = common[: max(common.rfind("."), common.rfind("/"), 0)]
    name = prefix.strip("./") or site.name
    return replace(site, name=name)


def _common_start(names: list[str]) -> str:
    """The longest beginning that several names share; nothing of a single one."""
    if len(names) < 2:
        return ""
    first, last = min(names), max(names)
    differing = (n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    return first[: next(differing, len(first))]
