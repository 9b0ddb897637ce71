"""The last line of a GRU, h' = (1 − z) ∘ n + z ∘ h, however its sums and products are written."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from deltarnn.onnx.graph import Graph

Polynomial = dict[tuple[str, ...], int]
"""Σ factor · product of the values with these names, in their alphabetical order."""

DEPTH = 4
"""How deep that line may be nested: h' = h − (1 − z) ∘ (h − n) is three."""


class BlendReader:
    """Finds such lines in a graph; producers: which node makes each value."""

    def __init__(self, graph: Graph, producers: dict[str, Any]) -> None:
        self.graph = graph
        self.producers = producers

    def read(self, name: str) -> Iterator[tuple[str, int, str, str]]:
        """(z, 1, n, h) if the value is (1 − z) ∘ n + z ∘ h, (z, −1, n, h) if z ∘ n + (1 − z) ∘ h; by name.

        z is a σ, n a tanh or ReLU, and h anything.
        """
        leaves = self.leaves(name, DEPTH)
        for z in self.made_by(leaves, "Sigmoid"):
            for n in self.made_by(leaves, "Tanh", "Relu"):
                found = self.polynomial(name, {z, n}, DEPTH)
                for h in {other for product in found for other in product} - {z, n}:
                    if found == _blend(n, z, h):
                        yield z, 1, n, h
                    elif found == _blend(h, z, n):
                        yield z, -1, n, h

    def made_by(self, names: list[str], *operators: str) -> list[str]:
        return [name for name in names if name in self.producers and self.producers[name].op_type in operators]

    def operands(self, name: str) -> list[str]:
        """What a sum, difference, product or choice is made of; nothing for other values."""
        node = self.producers.get(name)
        return list(node.input[-2:]) if node is not None and node.op_type in ("Add", "Sub", "Mul", "Where") else []

    def leaves(self, name: str, depth: int) -> list[str]:
        """The values that enter these operators, each once."""
        operands = self.operands(name) if depth else []
        if not operands:
            return [name]
        return list(dict.fromkeys(leaf for operand in operands for leaf in self.leaves(operand, depth - 1)))

    def polynomial(self, name: str, variables: set[str], depth: int) -> Polynomial:
        """The value as a polynomial in the variables; what has none of them inside is taken as it is."""
        constant = self.graph.constants.get(name)
        if constant is not None and np.all(constant == 1):
            return {(): 1}
        operands = self.operands(name) if depth and name not in variables else []
        if operands:
            left, right = (self.polynomial(operand, variables, depth - 1) for operand in operands)
            combined = _combined(self.producers[name].op_type, left, right)
            if any(variables.intersection(product) for product in combined):
                return combined
        return {(name,): 1}


def _combined(operator: str, left: Polynomial, right: Polynomial) -> Polynomial:
    """The sum, difference or product; of a choice between two that are the same, as of torch.lerp, either."""
    result: Polynomial = {}
    if operator == "Where":
        return left if left == right else result
    if operator == "Mul":
        terms = [(tuple(sorted(a + b)), left[a] * right[b]) for a in left for b in right]
    else:
        sign = 1 if operator == "Add" else -1
        terms = [*left.items(), *((product, sign * factor) for product, factor in right.items())]
    for product, factor in terms:
        result[product] = result.get(product, 0) + factor
    return {product: factor for product, factor in result.items() if factor}


def _blend(a: str, z: str, b: str) -> Polynomial:
    """(1 − z) ∘ a + z ∘ b."""
    return {(a,): 1, tuple(sorted((a, z))): -1, tuple(sorted((b, z))): 1}
