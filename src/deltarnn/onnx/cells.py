"""Cells that exporters unrolled into products, splits, σ and tanh: found by what the nodes compute."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from deltarnn.onnx.affine import Affine, AffineReader
from deltarnn.onnx.blends import BlendReader
from deltarnn.onnx.graph import Array, Graph
from deltarnn.onnx.recurrent import Site, Weights

MOVES = {"Gather", "Slice", "Split", "Squeeze", "Unsqueeze", "Reshape", "Transpose", "Identity", "Cast", "Concat"}
"""Operators that only move values."""


def cells_of(graph: Graph) -> list[Site]:
    """The unrolled cells in a graph, in the order of its nodes.

    LSTM: c' = σ(f) ∘ c + σ(i) ∘ tanh(g), h' = σ(o) ∘ tanh(c'). GRU: h' = (1 − z) ∘ n + z ∘ h in any of the forms that
    are written for it, n = tanh(W x + b + r ∘ (R h + b')). The gates' arguments are affine in x and h, by whatever
    products, sums, concatenations and splits.
    """
    finders = [_Finder(graph, apart) for apart in (False, True)]
    found: list[Site] = []
    for node in graph.nodes:
        site = next(filter(None, (find(node) for finder in finders for find in (finder.lstm, finder.gru))), None)
        if site is not None:
            found = [other for other in found if node.op_type != "Where" or other.next_h not in node.input]
            found.append(site)
    return _chained(found)


def _chained(sites: list[Site]) -> list[Site]:
    """Steps of one unrolled loop share their stream: one that takes the h of another with its weights."""
    chained: dict[str, Site] = {}
    for site in sites:
        before = chained.get(site.h)
        same = before is not None and before.weights[0].digest() == site.weights[0].digest()
        stream = before.stream if before is not None and same else site.name
        chained[site.next_h] = replace(site, stream=stream)
    return list(chained.values())


class _Finder:
    def __init__(self, graph: Graph, apart: bool) -> None:
        """apart: whether concatenations that enter products are taken apart, as where x and h are one (B, I + H)."""
        self.graph = graph
        self.affine = AffineReader(graph, apart)
        self.blends = BlendReader(graph, self.affine.producers)
        self.made = graph.producers().keys() | set(graph.inputs) | graph.constants.keys()

    def operands(self, name: str, operator: str) -> tuple[str, ...] | None:
        node = self.affine.producers.get(name)
        return tuple(node.input) if node is not None and node.op_type == operator else None

    def pairs(self, name: str, operator: str) -> Iterator[tuple[str, str]]:
        """The two operands of a commutative operator, in both orders."""
        operands = self.operands(name, operator)
        if operands is not None and len(operands) == 2:
            yield operands[0], operands[1]
            yield operands[1], operands[0]

    def inside(self, name: str, function: str) -> str | None:
        """x of the value function(x)."""
        operands = self.operands(name, function)
        return operands[0] if operands else None

    def lstm(self, node: Any) -> Site | None:
        """The cell whose h' this node makes."""
        for o, tanh_c in self.pairs(node.output[0], "Mul") if node.op_type == "Mul" else ():
            next_c, gate_o = self.inside(tanh_c, "Tanh"), self.inside(o, "Sigmoid")
            if next_c is None or gate_o is None:
                continue
            for kept, added in self.pairs(next_c, "Add"):
                for gate_f, c in self.gated(kept, "Sigmoid"):
                    for gate_i, tanh_g in self.gated(added, "Sigmoid"):
                        gate_g = self.inside(tanh_g, "Tanh")
                        if gate_g is not None:
                            gates = [self.affine.read(name) for name in (gate_i, gate_f, gate_g, gate_o)]
                            site = self.lstm_site(gates, c, node.output[0], next_c)
                            if site is not None:
                                return site
        return None

    def gated(self, name: str, function: str) -> Iterator[tuple[str, str]]:
        """(a, b) of function(a) ∘ b."""
        for left, right in self.pairs(name, "Mul"):
            argument = self.inside(left, function)
            if argument is not None:
                yield argument, right

    def lstm_site(self, gates: list[Affine | None], c: str, next_h: str, next_c: str) -> Site | None:
        known = [gate for gate in gates if gate is not None]
        if len(known) < 4 or len({gate.width for gate in known}) > 1:
            return None
        hidden = known[0].width
        x, h = self.input_and_hidden(known, hidden, self.root(c))
        if x is None or h is None:
            return None
        blocks = [(gate.weights.get(x), gate.weights.get(h), gate.bias) for gate in known]
        return self.site("LSTM", x, h, c, next_h, next_c, blocks, [np.zeros(hidden, np.float32)] * 4, {})

    def input_and_hidden(self, gates: list[Affine], hidden: int, state: str) -> tuple[str | None, str | None]:
        """Which of the two values that enter the gates is x and which the hidden state.

        The mathematics is symmetric in them; the hidden state is the one that comes from where the cell state c comes
        from, else the one that was made with c, else an input of the graph, the one nearest to that of c.
        """
        sources = list(dict.fromkeys(source for gate in gates for source in gate.weights))
        if len(sources) != 2:
            return None, None
        sizes = {source: next(len(g.weights[source]) for g in gates if source in g.weights) for source in sources}
        candidates = [source for source in sources if sizes[source] == hidden]
        if not candidates:
            return None, None
        places = {name: place for place, name in enumerate(self.graph.inputs)}

        def likeness(source: str) -> tuple[bool, bool, bool, int, int]:
            root = self.root(source)
            place, of_c = places.get(root, 0), places.get(state, len(places))
            return root == state, self.made_with(root, state), root in places, -abs(place - of_c), -place

        h = max(candidates, key=likeness)
        return next(source for source in sources if source != h), h

    def made_with(self, h: str, c: str) -> bool:
        """Whether h is σ(·) ∘ tanh(c): both are of one step."""
        return any(self.root(self.inside(tanh, "Tanh") or "") == c for _, tanh in self.gated(h, "Sigmoid"))

    def root(self, name: str) -> str:
        """Where a value comes from, before it was only moved."""
        node = self.affine.producers.get(name)
        while node is not None and node.op_type in MOVES and node.input:
            name = node.input[0]
            node = self.affine.producers.get(name)
        return name

    def gru(self, node: Any) -> Site | None:
        """The cell whose h' this node makes."""
        for gate, sign, new, h in self.blends.read(node.output[0]) if node.op_type in ("Add", "Sub", "Where") else ():
            of_z, of_n = (self.affine.producers[name] for name in (gate, new))
            read, argument = self.affine.read(of_z.input[0]), of_n.input[0]
            z = None if read is None else read.scaled(sign)
            options = {"candidate": of_n.op_type.lower()}
            site = self.reset_before(argument, z, h, node.output[0], options)
            terms = self.affine.terms(argument) if site is None else []
            for place, gated in enumerate(terms):
                of_x = self.affine.total(terms[:place] + terms[place + 1 :])
                for gate_r, of_h in self.gated(gated, "Sigmoid"):
                    gates = [self.affine.read(gate_r), z, of_x, self.affine.read(of_h)]
                    site = site or self.reset_after(gates, h, node.output[0], options)
            if site is not None:
                return site
        return None

    def reset_after(self, gates: list[Affine | None], h: str, next_h: str, options: dict[str, Any]) -> Site | None:
        """The cell of r, z and the candidate's parts W x + b, R h + b'."""
        known = [gate for gate in gates if gate is not None]
        if len(known) < 4 or len({gate.width for gate in known}) > 1:
            return None
        r, z, of_x, of_h = known
        sources = {source for gate in (r, z, of_x) for source in gate.weights} - {h}
        if len(sources) != 1 or set(of_h.weights) != {h} or h in of_x.weights:
            return None
        (x,) = sources
        blocks = [(gate.weights.get(x), gate.weights.get(h), gate.bias) for gate in (r, z)]
        blocks.append((of_x.weights[x], of_h.weights[h], of_x.bias))
        zeros = np.zeros(of_h.width, np.float32)
        return self.site("GRU", x, h, "", next_h, "", blocks, [zeros, zeros, of_h.bias], options)

    def reset_before(self, n: str, z: Affine | None, h: str, next_h: str, options: dict[str, Any]) -> Site | None:
        """The cell whose candidate has the argument W x + R (r ∘ h) + b."""
        candidate = self.affine.read(n)
        for product in candidate.weights if candidate is not None and z is not None else ():
            for gate_r, gated in self.gated(product, "Sigmoid"):
                r = self.affine.read(gate_r)
                if gated != h or r is None or candidate is None or z is None:
                    continue
                sources = {source for gate in (r, z, candidate) for source in gate.weights} - {h, product}
                if len(sources) != 1 or h in candidate.weights or len({r.width, z.width, candidate.width}) > 1:
                    continue
                (x,) = sources
                blocks = [(gate.weights.get(x), gate.weights.get(h), gate.bias) for gate in (r, z)]
                blocks.append((candidate.weights.get(x), candidate.weights[product], candidate.bias))
                zeros = [np.zeros(z.width, np.float32)] * 3
                return self.site("GRU", x, h, "", next_h, "", blocks, zeros, {**options, "reset_after": False})
        return None

    def site(
        self,
        cell: str,
        x: str,
        h: str,
        c: str,
        next_h: str,
        next_c: str,
        blocks: list[tuple[Array | None, Array | None, Array]],
        biases_hh: list[Array],
        options: dict[str, Any],
    ) -> Site | None:
        hidden = len(biases_hh[0])
        inputs = next((len(of_x) for of_x, _, _ in blocks if of_x is not None), 0)
        if any(len(self.graph.shape(value) or (0, 0)) != 2 or value not in self.made for value in (x, h, next_h)):
            return None

        def rows(parts: list[Array | None], columns: int) -> Array:
            filled = [np.zeros((columns, hidden), np.float32) if part is None else part for part in parts]
            return np.ascontiguousarray(np.concatenate([part.T for part in filled]), dtype=np.float32)

        weights = Weights(
            cell,
            rows([of_x for of_x, _, _ in blocks], inputs),
            rows([of_h for _, of_h, _ in blocks], hidden),
            np.concatenate([bias for _, _, bias in blocks]).astype(np.float32),
            np.concatenate(biases_hh).astype(np.float32),
            **options,
        )
        return Site(next_h, (weights,), (False,), x, h, c, next_h, next_c, is_cell=True)
