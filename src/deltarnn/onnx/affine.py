"""Values of a graph as affine functions of others: Σ v·W + b, however the exporter wrote them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from math import prod
from typing import Any

import numpy as np

from deltarnn.onnx.graph import Array, Graph, attributes


@dataclass(frozen=True)
class Affine:
    """Σ_s s·weights[s] + bias: s (B, K) values by name, weights (K, N), bias (N,)."""

    weights: dict[str, Array]
    bias: Array

    @property
    def width(self) -> int:
        """N."""
        return len(self.bias)

    def __add__(self, other: "Affine") -> "Affine":
        weights = dict(self.weights)
        for source, weight in other.weights.items():
            weights[source] = weights[source] + weight if source in weights else weight
        return Affine(weights, self.bias + other.bias)

    def scaled(self, factor: "float | Array") -> "Affine":
        """The result times a number, or each element times its own."""
        return Affine({source: factor * weight for source, weight in self.weights.items()}, factor * self.bias)

    def elements(self, places: Array) -> "Affine":
        """The elements of the result at these places."""
        return Affine({source: weight[:, places] for source, weight in self.weights.items()}, self.bias[places])


class AffineReader:
    """Reads affine functions out of a graph; each value once.

    apart: whether the parts of a concatenation are sources of their own. The elements of a value of a higher rank,
    (B, …), stand in a row.
    """

    def __init__(self, graph: Graph, apart: bool) -> None:
        self.graph = graph
        self.apart = apart
        self.producers = _producers(graph)
        self.known: dict[str, Affine | None] = {}

    def read(self, name: str) -> Affine | None:
        """The value as an affine function of others, None if it is made by anything but products, sums and splits."""
        if name not in self.known:
            node = self.producers.get(name)
            reader = getattr(self, f"_{node.op_type.lower()}", None) if node is not None else None
            self.known[name] = reader(node, name) if reader is not None else None
        return self.known[name]

    def product(self, name: str, weight: Array) -> Affine:
        """value @ weight (K, N)."""
        node = self.producers.get(name)
        bias = np.zeros(weight.shape[1], weight.dtype)
        if self.apart and node is not None and node.op_type == "Concat" and attributes(node)["axis"] in (-1, 1):
            widths = [self.width(part) for part in node.input]
            if None not in widths and sum(w for w in widths if w is not None) == len(weight):
                total, first = Affine({}, bias), 0
                for part, width in zip(node.input, widths, strict=True):
                    assert width is not None
                    total += self.product(part, weight[first : first + width])
                    first += width
                return total
        if name in self.graph.constants:
            rows = self.graph.constants[name].reshape(-1, len(weight))
            if (rows == rows[:1]).all():  # for each sample of the batch the same
                return Affine({}, rows[0] @ weight)
        return Affine({name: weight}, bias)

    def width(self, name: str) -> int | None:
        """The last size of a value, if it is known."""
        shape = self.graph.shape(name)
        return shape[-1] if shape else None

    def _matmul(self, node: Any, name: str) -> Affine | None:
        weight = self.graph.constants.get(node.input[1])
        return self.product(node.input[0], weight) if weight is not None and weight.ndim == 2 else None

    def _gemm(self, node: Any, name: str) -> Affine | None:
        options = attributes(node)
        weight = self.graph.constants.get(node.input[1])
        if weight is None or options.get("transA", 0):
            return None
        weight = weight.T if options.get("transB", 0) else weight
        result = self.product(node.input[0], weight).scaled(options.get("alpha", 1.0))
        if len(node.input) > 2 and node.input[2]:
            added = self.term(node.input[2], result.width)
            return None if added is None else result + added.scaled(options.get("beta", 1.0))
        return result

    def _add(self, node: Any, name: str) -> Affine | None:
        terms = self.operands(node)
        return None if terms is None else terms[0] + terms[1]

    def _sub(self, node: Any, name: str) -> Affine | None:
        terms = self.operands(node)
        return None if terms is None else terms[0] + terms[1].scaled(-1)

    def _neg(self, node: Any, name: str) -> Affine | None:
        whole = self.read(node.input[0])
        return None if whole is None else whole.scaled(-1)

    def _mul(self, node: Any, name: str) -> Affine | None:
        terms = self.operands(node)
        factor = next((term.bias for term in terms or () if not term.weights), None)
        if terms is None or factor is None:
            return None
        return (terms[0] if terms[0].weights else terms[1]).scaled(factor)

    def operands(self, node: Any) -> tuple[Affine, Affine] | None:
        """Both operands of a sum or product, constants among them; None if one is neither that nor affine."""
        operands = [self.read(operand) for operand in node.input]
        width = next((operand.width for operand in operands if operand is not None), None)
        if width is None:
            return None
        left, right = (self.term(operand, width) for operand in node.input)
        return None if left is None or right is None else (left, right)

    def terms(self, name: str) -> list[str]:
        """The values of whose sum this one is; itself if it is none."""
        node = self.producers.get(name)
        if node is None or node.op_type != "Add":
            return [name]
        return [term for operand in node.input for term in self.terms(operand)]

    def total(self, names: Sequence[str]) -> Affine | None:
        """The sum of some values, constants among them."""
        width = next((found.width for found in map(self.read, names) if found is not None), None)
        terms = [] if width is None else [self.term(name, width) for name in names]
        known = [term for term in terms if term is not None]
        return reduce(Affine.__add__, known) if known and len(known) == len(names) else None

    def term(self, name: str, width: int) -> Affine | None:
        """One operand of a sum of that width: an affine function, or a constant that every row gets."""
        if name in self.graph.constants:
            value = self.graph.constants[name]
            if value.size not in (1, width) or (value.ndim and value.size == width != value.shape[-1]):
                return None
            return Affine({}, np.broadcast_to(value.reshape(-1), (width,)))
        found = self.read(name)
        return found if found is not None and found.width == width else None

    def _reshape(self, node: Any, name: str) -> Affine | None:
        """(B, G·H) as (B, G, H), or one of G gates as (B, H): what is in a row stays in it."""
        whole, shape = self.read(node.input[0]), self.graph.shape(name)
        if whole is None or shape is None or prod(size or 0 for size in shape[1:]) != whole.width:
            return None
        return whole

    _squeeze = _unsqueeze = _flatten = _reshape

    def _split(self, node: Any, name: str) -> Affine | None:
        options = attributes(node)
        sizes = options.get("split")
        if len(node.input) > 1 and node.input[1]:
            if node.input[1] not in self.graph.constants:
                return None
            sizes = self.graph.constants[node.input[1]].tolist()
        count, position = len(node.output), list(node.output).index(name)

        def own(size: int) -> Array:
            chunk = -(-size // count)
            ends = np.cumsum(sizes if sizes is not None else [chunk] * count)
            return np.arange(size)[ends[position - 1] if position else 0 : ends[position]]

        return self.part(node.input[0], options.get("axis", 0), own)

    def _slice(self, node: Any, name: str) -> Affine | None:
        bounds = [self.graph.constants.get(operand) for operand in node.input[1:]]
        if len(bounds) < 3 or any(bound is None or bound.size != 1 for bound in bounds):
            return None
        first, last, axis, *step = (int(bound.reshape(-1)[0]) for bound in bounds if bound is not None)
        return self.part(node.input[0], axis, lambda size: np.arange(size)[slice(first, last, *step)])

    def _gather(self, node: Any, name: str) -> Affine | None:
        index = self.graph.constants.get(node.input[1])
        if index is None:
            return None
        return self.part(node.input[0], attributes(node).get("axis", 0), lambda size: index)

    def part(self, name: str, axis: int, pick: Callable[[int], Array]) -> Affine | None:
        """The value at some places along an axis other than the batch's; pick: which, of how many."""
        whole, shape = self.read(name), self.graph.shape(name)
        if whole is None:
            return None
        sizes = [whole.width] if shape is None or len(shape) == 2 else [size or 0 for size in shape[1:]]
        axis += len(sizes) + 1 if axis < 0 else 0
        if not 0 < axis <= len(sizes) or prod(sizes) != whole.width:
            return None
        places = np.arange(whole.width).reshape(sizes)
        return whole.elements(np.take(places, pick(sizes[axis - 1]), axis - 1).reshape(-1))


def _producers(graph: Graph) -> dict[str, Any]:
    """Which node makes each value, as if parts of a σ were the σ of parts: some exporters split after it."""
    from onnx import helper

    producers = graph.producers()
    for node in graph.nodes:
        whole = producers.get(node.input[0]) if node.op_type in ("Split", "Slice") else None
        if whole is not None and whole.op_type == "Sigmoid":
            moved = type(node)()
            moved.CopyFrom(node)
            moved.input[0] = whole.input[0]
            moved.output[:] = [f"{name} before σ" for name in node.output]
            for name, before in zip(node.output, moved.output, strict=True):
                producers[before] = moved
                producers[name] = helper.make_node("Sigmoid", [before], [name])
    return producers
