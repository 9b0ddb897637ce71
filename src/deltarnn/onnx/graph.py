"""An ONNX graph in a form that can be rewritten: nodes in order, constants apart, shapes as far as they are known."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int | None, ...]
Array = NDArray[Any]

LARGEST_INFERRED = 64
"""Constants of at most this many elements are shown to the inference of shapes, which computes with them."""


class UnsupportedGraphError(ValueError):
    """The file holds something that the importer does not know; the message names it and the remedy."""


@dataclass
class Graph:
    """A graph without functions, its values known by name.

    inputs: fed by the caller, in the file's order. outputs: names. nodes: in an order in which they can run.
    preset: inputs of the file that it also gives values, which are constants here.
    shapes, types: of every value as far as inference finds them; types are numbers of onnx.TensorProto.
    """

    opsets: dict[str, int]
    inputs: list[str]
    outputs: list[str]
    nodes: list[Any]
    constants: dict[str, Array]
    shapes: dict[str, Shape] = field(default_factory=dict)
    types: dict[str, int] = field(default_factory=dict)
    preset: frozenset[str] = frozenset()

    @classmethod
    def of(cls, model: Any) -> "Graph":
        """The graph of an onnx.ModelProto, its functions inlined."""
        from onnx import inliner

        if model.functions:
            model = inliner.inline_local_functions(model)
        proto = model.graph
        constants = dict(initializers(proto))
        graph = cls(
            {opset.domain: opset.version for opset in model.opset_import},
            [value.name for value in proto.input if value.name not in constants],
            [value.name for value in proto.output],
            list(proto.node),
            constants,
            preset=frozenset(value.name for value in proto.input if value.name in constants),
        )
        for value in [*proto.input, *proto.value_info, *proto.output]:
            graph.note(value)
        for name in graph.inputs:
            if name not in graph.types:
                raise UnsupportedGraphError(
                    f"the input {name!r} is no tensor, but a sequence, an optional one or a map: export the model with "
                    "tensors as inputs"
                )
        return graph

    def copy(self) -> "Graph":
        """An independent graph over the same nodes and arrays."""
        return Graph(
            dict(self.opsets),
            list(self.inputs),
            list(self.outputs),
            list(self.nodes),
            dict(self.constants),
            dict(self.shapes),
            dict(self.types),
            self.preset,
        )

    def note(self, value: Any) -> None:
        """Keep what a ValueInfoProto says."""
        tensor = value.type.tensor_type
        if tensor.elem_type:
            self.types[value.name] = tensor.elem_type
        if tensor.HasField("shape"):
            sizes = (d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim)
            found = tuple(None if size < 0 else size for size in sizes)  # some exporters write −1 for any size
            known = self.shapes.get(value.name)
            if known is not None and len(known) == len(found):
                found = tuple(old if new is None else new for old, new in zip(known, found, strict=True))
            self.shapes[value.name] = found

    def shape(self, name: str) -> Shape | None:
        """The shape of a value, None in place of each unknown size; None if not even the rank is known."""
        if name in self.constants:
            return tuple(self.constants[name].shape)
        return self.shapes.get(name)

    def declared(self, name: str) -> tuple[Any, Shape | None]:
        """NumPy's type and the shape of an input."""
        from onnx import helper

        return helper.tensor_dtype_to_np_dtype(self.types[name]), self.shape(name)

    def producers(self) -> dict[str, Any]:
        """Which node makes each value."""
        return {name: node for node in self.nodes for name in node.output if name}

    def infer(self) -> None:
        """Find shapes and types of all values from those of the inputs."""
        import onnx
        from onnx import helper, numpy_helper

        small = {name: value for name, value in self.constants.items() if value.size <= LARGEST_INFERRED}
        inputs = [self.value_info(name) for name in [*self.inputs, *(set(self.constants) - set(small))]]
        outputs = [onnx.ValueInfoProto(name=name) for name in self.outputs]
        tensors = [numpy_helper.from_array(value, name) for name, value in small.items()]
        graph = helper.make_graph(self.nodes, "shapes", inputs, outputs, tensors)
        inferred = onnx.shape_inference.infer_shapes(self.model(graph), data_prop=True)
        for value in [*inferred.graph.value_info, *inferred.graph.output]:
            self.note(value)

    def value_info(self, name: str) -> Any:
        """What is known of a value, as a ValueInfoProto."""
        from onnx import TensorProto, helper

        if name in self.constants:
            constant = self.constants[name]
            return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(constant.dtype), constant.shape)
        return helper.make_tensor_value_info(name, self.types.get(name, TensorProto.FLOAT), self.shapes.get(name))

    def model(self, graph: Any) -> Any:
        """A ModelProto of a GraphProto with this graph's operator sets."""
        from onnx import helper

        opsets = [helper.make_opsetid(domain, version) for domain, version in self.opsets.items()]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    def prune(self) -> None:
        """Drop nodes whose results nobody reads."""
        wanted = set(self.outputs)
        kept = []
        for node in reversed(self.nodes):
            if any(name in wanted for name in node.output):
                kept.append(node)
                wanted.update(reads(node))
        self.nodes = kept[::-1]
        self.constants = {name: value for name, value in self.constants.items() if name in wanted}


def initializers(proto: Any) -> Iterator[tuple[str, Array]]:
    """(name, array) of a GraphProto's constants."""
    from onnx import numpy_helper

    for tensor in proto.initializer:
        yield tensor.name, numpy_helper.to_array(tensor)
    for tensor in proto.sparse_initializer:
        yield tensor.values.name, dense_of(tensor)


def dense_of(sparse: Any) -> Array:
    """A SparseTensorProto as an array."""
    from onnx import numpy_helper

    values, places = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    array = np.zeros(tuple(sparse.dims), values.dtype)
    if places.ndim == 1:  # in the flattened array, else one row of coordinates per value
        array.reshape(-1)[places] = values
    else:
        array[tuple(places.T)] = values
    return array


def attributes(node: Any) -> dict[str, Any]:
    """A node's attributes as Python values; strings decoded."""
    from onnx import helper

    found = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}


def subgraphs(node: Any) -> dict[str, Any]:
    """The bodies of an If, Loop or Scan, by attribute."""
    from onnx import AttributeProto

    return {a.name: a.g for a in node.attribute if a.type == AttributeProto.GRAPH}


def reads(node: Any) -> set[str]:
    """Values of the surrounding graph that a node or anything inside its bodies reads."""
    names = {name for name in node.input if name}
    for body in subgraphs(node).values():
        inner = {name for child in body.node for name in reads(child)} | {value.name for value in body.output}
        made = {name for child in body.node for name in child.output}
        names |= inner - made - {v.name for v in body.input} - {tensor.name for tensor in body.initializer}
    return names


def nodes_within(nodes: Iterable[Any]) -> Iterator[Any]:
    """All nodes, those of bodies included."""
    for node in nodes:
        yield node
        for body in subgraphs(node).values():
            yield from nodes_within(body.node)


def sort_nodes(graph: Any) -> None:
    """Put the nodes of a GraphProto after those whose results they or their bodies read.

    ONNX asks for that, but ONNX Runtime does without outside of bodies, and some tools append casts that they insert.

    Raises
    ------
    UnsupportedGraphError
        If nodes wait for each other.
    """
    nodes = list(graph.node)
    makers = {name: place for place, node in enumerate(nodes) for name in node.output if name}
    readers: list[set[int]] = [set() for _ in nodes]
    missing = [{makers[name] for name in reads(node) if name in makers} for node in nodes]
    for place, before in enumerate(missing):
        for maker in before:
            readers[maker].add(place)
    ready = [place for place, before in enumerate(missing) if not before]
    ordered = []
    while ready:
        done = heappop(ready)
        ordered.append(nodes[done])
        for place in readers[done]:
            missing[place].discard(done)
            if not missing[place]:
                heappush(ready, place)
    if len(ordered) < len(nodes):
        stuck = next(node for node, before in zip(nodes, missing, strict=True) if before)
        raise UnsupportedGraphError(
            f"the {stuck.op_type} {stuck.name or stuck.output[0]!r} waits for its own result: the file is damaged"
        )
    if any(a is not b for a, b in zip(ordered, nodes, strict=True)):
        copies = [type(node).FromString(node.SerializeToString()) for node in ordered]
        del graph.node[:]
        graph.node.extend(copies)


def renamed(node: Any, names: Mapping[str, str]) -> Any:
    """The node with values renamed, inside its bodies too; the node itself where no name changes."""
    touched = reads(node) | set(node.output) | {name for child in nodes_within([node]) for name in child.output}
    if not touched & names.keys():
        return node
    copy = type(node)()
    copy.CopyFrom(node)
    for child in nodes_within([copy]):
        for part in (child.input, child.output):
            part[:] = [names.get(name, name) for name in part]
        for body in subgraphs(child).values():
            for value in body.output:
                value.name = names.get(value.name, value.name)
    return copy


def array_of(attribute: Any) -> Array:
    """A TensorProto as an array."""
    from onnx import numpy_helper

    return np.asarray(numpy_helper.to_array(attribute))
