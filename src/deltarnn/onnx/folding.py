"""Constant folding: computes constants, sizes of known shapes and branches that are always taken before the graph runs.

Exporters wrap recurrent layers into conditions on ranks and sizes, and gather their weights by slices and
concatenations of constants. Folding leaves the layers, their weights as constants.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from deltarnn.onnx.graph import (
    Array,
    Graph,
    Shape,
    UnsupportedGraphError,
    array_of,
    attributes,
    dense_of,
    initializers,
    nodes_within,
    reads,
    renamed,
    subgraphs,
)

NEVER_FOLDED = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"}


def fold(graph: Graph, shapes: Mapping[str, Shape] | None = None, values: Mapping[str, Array] | None = None) -> Graph:
    """The graph with all that is known computed.

    Parameters
    ----------
    shapes: sizes of inputs, in place of the file's.
    values: inputs that hold these values from now on; they stay inputs of the graph.
    """
    folded = graph.copy()
    folded.shapes.update(shapes or {})
    folded.constants.update(values or {})
    folded.infer()
    while _Pass(folded).run():
        folded.infer()
    folded.prune()
    return folded


def take_branch(graph: Graph, node: Any, branch: str) -> Graph:
    """The graph as if the condition of an If had chosen "then_branch" or "else_branch"."""
    taken = graph.copy()
    current = _Pass(taken)
    for other in graph.nodes:
        if other is node:
            current.inline(node, branch)
        else:
            current.visit(other)
    current.finish()
    return fold(taken)


class _Pass:
    """One walk over the nodes of a graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.kept: list[Any] = []
        self.pending: dict[str, Any] = {}  # values that nodes make out of constants, and these nodes
        self.aliases: dict[str, str] = {}
        self.changed = False
        self.partial: dict[str, list[int | None]] = {}  # vectors of sizes, some unknown
        self.defined = {name for node in nodes_within(graph.nodes) for name in node.output} | set(graph.inputs)

    def run(self) -> bool:
        """Fold once; whether something new was found that later nodes may build on."""
        for node in self.graph.nodes:
            self.visit(node)
        self.finish()
        return self.changed

    def finish(self) -> None:
        """Compute what was postponed, and leave the nodes that remain in the graph."""
        self.evaluate()
        outputs = set(self.graph.outputs)
        restored = []  # an output keeps its name: it becomes a copy again
        for name in outputs & self.aliases.keys():
            from onnx import helper

            restored.append(helper.make_node("Identity", [self.source(name)], [name]))
        self.graph.nodes = self.kept + restored

    def source(self, name: str) -> str:
        while name in self.aliases:
            name = self.aliases[name]
        return name

    def visit(self, node: Any) -> None:
        node = renamed(node, {name: self.source(name) for name in reads(node) if name in self.aliases})
        constants = self.graph.constants
        if node.op_type == "If" and node.input[0] in constants:
            self.inline(node, "then_branch" if bool(constants[node.input[0]].reshape(-1)[0]) else "else_branch")
        elif (copied := self.copied(node)) and node.output[0] not in self.graph.outputs:
            self.aliases[node.output[0]] = copied
        elif self.keeps_type(node):
            from onnx import helper

            self.kept.append(helper.make_node("Identity", node.input, node.output))
        elif not self.fold_sizes(node):
            self.postpone(node)

    def copied(self, node: Any) -> str:
        """The value that a node passes on unchanged; "" if it does more than that."""
        constants = self.graph.constants
        if node.op_type == "Mul":
            return self.times_one(node)
        if node.op_type in ("Identity", "Dropout") and node.input[0] not in constants:
            training = node.op_type == "Dropout" and (len(node.input) > 2 or len(node.output) > 1)
            return "" if training else str(node.input[0])
        return str(node.input[0]) if self.keeps_type(node) else ""

    def times_one(self, node: Any) -> str:
        """The other factor of a product with 1, which exporters write into addcmul; "" if it is none."""
        constants = self.graph.constants
        ones = [name for name in node.input if name in constants and constants[name].size == 1 == constants[name]]
        others = [name for name in node.input if name not in constants]
        if not ones or not others or len(self.graph.shape(others[0]) or ()) < constants[ones[0]].ndim:
            return ""
        return str(others[0])

    def keeps_type(self, node: Any) -> bool:
        return node.op_type == "Cast" and bool(attributes(node)["to"] == self.graph.types.get(node.input[0], -1))

    def inline(self, node: Any, branch: str) -> None:
        """Put a branch's nodes in place of the If."""
        body = subgraphs(node)[branch]
        inner = dict(initializers(body))
        made = {name for child in nodes_within(body.node) for name in child.output if name} | set(inner)
        names = {name: _fresh(name, node.output[0], self.defined) for name in made if self.clashes(name)}
        self.graph.constants.update({names.get(name, name): value for name, value in inner.items()})
        self.defined |= set(names.values()) | made
        for value in body.value_info:
            value_name = names.get(value.name, value.name)
            self.graph.types.setdefault(value_name, value.type.tensor_type.elem_type)
        for child in body.node:
            self.visit(renamed(child, names))
        for outer, value in zip(node.output, body.output, strict=True):
            inner_name = names.get(value.name, value.name)
            if outer in self.graph.outputs:
                from onnx import helper

                self.kept.append(helper.make_node("Identity", [self.source(inner_name)], [outer]))
            else:
                self.aliases[outer] = inner_name
        self.changed = True

    def clashes(self, name: str) -> bool:
        """Whether a name made inside an If is known already: made in a branch that was taken before."""
        return name in self.graph.constants or any(name in kept.output for kept in self.kept)

    def fold_sizes(self, node: Any) -> bool:
        """Shape and Size of known shapes, and parts of vectors of sizes of which only those parts are known."""
        if node.op_type in ("Shape", "Size"):
            shape = self.graph.shape(node.input[0])
            if shape is None:
                return False
            if node.op_type == "Shape":
                options = attributes(node)
                self.partial[node.output[0]] = list(shape)[options.get("start", 0) : options.get("end", len(shape))]
                return self.settle(node, self.partial[node.output[0]])
            return None not in shape and self.settle(node, int(np.prod([d for d in shape if d is not None])))
        if node.op_type == "Gather" and node.input[0] in self.partial and node.input[1] in self.graph.constants:
            sizes, index = self.partial[node.input[0]], self.graph.constants[node.input[1]]
            taken = [sizes[int(i)] for i in index.reshape(-1)]
            return self.settle(node, taken if index.ndim else taken[0])
        return False

    def settle(self, node: Any, value: Any) -> bool:
        if value is None or (isinstance(value, list) and None in value):
            return False
        self.known(node.output[0], np.array(value, dtype=np.int64))
        return True

    def known(self, name: str, value: Array) -> None:
        if name in self.graph.outputs:
            from onnx import helper, numpy_helper

            self.kept.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value)))
        else:
            self.graph.constants[name] = value
            self.changed = True

    def postpone(self, node: Any) -> None:
        """A node whose inputs are all constants is computed when the walk is done; any other is kept."""
        outputs = self.graph.outputs
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx") and node.output[0] not in outputs:
            self.known(node.output[0], _constant(node))
            return
        given = [name for name in node.input if name]
        foldable = given and all(name in self.graph.constants or name in self.pending for name in given)
        if not foldable or subgraphs(node) or node.op_type in NEVER_FOLDED or set(node.output) & set(outputs):
            self.kept.append(node)
        else:
            self.pending.update(dict.fromkeys((name for name in node.output if name), node))

    def evaluate(self) -> None:
        """Compute the postponed nodes, all in one session of ONNX Runtime."""
        wanted = [name for name in self.pending if any(name in reads(node) for node in self.kept)]
        nodes = list({id(node): node for node in self.pending.values()}.values())
        for name, value in zip(wanted, computed(self.graph, nodes, wanted), strict=True):
            self.known(name, value)


def _fresh(name: str, prefix: str, taken: set[str]) -> str:
    candidate = f"{prefix}/{name}"
    while candidate in taken:
        candidate += "_"
    return candidate


def _constant(node: Any) -> Array:
    """The value of a Constant node."""
    options = attributes(node)
    (kind, value), *_ = options.items()
    if kind == "value":
        return array_of(value)
    if kind == "sparse_value":
        return dense_of(value)
    types = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    if kind not in types:
        raise UnsupportedGraphError(f"the constant {node.output[0]!r} is a {kind}: tensors and numbers are known")
    return np.array(value, dtype=types[kind])


def computed(graph: Graph, nodes: list[Any], names: list[str]) -> list[Array]:
    """The values of those names, made by nodes out of constants."""
    import onnx
    import onnxruntime
    from onnx import helper, numpy_helper

    if not names:
        return []
    used = {name for node in nodes for name in node.input if name in graph.constants}
    tensors = [numpy_helper.from_array(graph.constants[name], name) for name in sorted(used)]
    outputs = [onnx.ValueInfoProto(name=name) for name in names]
    model = graph.model(helper.make_graph(nodes, "constants", [], outputs, tensors))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(names, {})]
