"""A folded graph of known sizes as one native program: for small networks the calls between sessions cost the most."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from deltarnn.engine import operators
from deltarnn.engine.engine import Engine
from deltarnn.engine.program import Places, ProgramBuilder
from deltarnn.onnx.folding import computed
from deltarnn.onnx.graph import Graph, attributes
from deltarnn.onnx.program import in_order, needs
from deltarnn.onnx.recurrent import Site
from deltarnn.onnx.states import States, Values

LARGEST = 1 << 23
"""Multiplications of dense products in one call: more are left to ONNX Runtime."""

MOVES = (
    {"Concat", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Slice", "Split", "Squeeze", "Tile"}
    | {"Transpose", "Unsqueeze"}
)  # fmt: skip
UNARY = {
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Sqrt": "sqrt",
    "Exp": "exp",
    "Log": "log",
    "Abs": "absolute",
    "Neg": "negate",
    "Reciprocal": "reciprocal",
    "Softplus": "softplus",
    "Erf": "erf",
}
BINARY = {"Add": "add", "Sub": "subtract", "Mul": "multiply", "Div": "divide", "Max": "maximum", "Min": "minimum"}
REDUCTIONS = {"ReduceMean": "mean", "ReduceSum": "sum", "ReduceMax": "highest", "ReduceMin": "lowest"}


class NotNativeError(Exception):
    """The native core has no instruction for something in the graph, or the graph is too large to gain."""


class NativeProgram:
    """A graph as one native program.

    Raises
    ------
    NotNativeError
        If the graph has no such form.
    """

    def __init__(self, graph: Graph, sites: list[Site], held: bool) -> None:
        lowering = Lowering(graph, sites, held)
        self.inputs = lowering.inputs
        self.outputs = {name: lowering.value(name).shape for name in graph.outputs}
        self.keys = [call.key for call in lowering.builder.recurrent]
        places = [[lowering.value(name) for name in names] for names in (self.inputs, self.outputs)]
        self.parts = lowering.builder.finished(*places)
        self.native = self.parts.native()

    def bind(self, engines: list[Engine]) -> Any:
        """The program over these streams."""
        return self.native.state([engine.native_stream for engine in engines])

    def run(self, feed: Values, states: States) -> Values:
        """The outputs by name."""
        results = {name: np.empty(shape, np.float32) for name, shape in self.outputs.items()}
        given = [np.ascontiguousarray(feed[name]) for name in self.inputs]
        states.of(self, self.keys).call(given, list(results.values()))
        return results


class Lowering:
    """Builds the program of a graph.

    Operators that only move values are computed once, by ONNX Runtime, on the places of their operands.
    """

    def __init__(self, graph: Graph, sites: list[Site], held: bool) -> None:
        self.graph = graph
        self.held = held
        self.builder = ProgramBuilder()
        self.places: dict[str, Places] = {}
        self.emitters: dict[str, Callable[[Any, dict[str, Any]], Places]] = {
            **dict.fromkeys(UNARY, self.unary),
            **dict.fromkeys(REDUCTIONS, self.reduction),
            **dict.fromkeys(BINARY, self.binary),
            "BatchNormalization": self.batch_normalization,
            "Clip": self.clip,
            "Conv": self.convolution,
            "Elu": self.with_alpha,
            "Gemm": self.gemm,
            "GlobalAveragePool": self.global_average,
            "LayerNormalization": self.layer_normalization,
            "LeakyRelu": self.with_alpha,
            "MatMul": self.matmul,
            "Pow": self.power,
            "Softmax": self.softmax,
        }
        self.items = in_order(graph, sites)
        read = {name for item in self.items for name in needs(item)} | set(graph.outputs)
        self.inputs = [name for name in graph.inputs if name in read - graph.constants.keys()]
        for name in self.inputs:
            self.places[name] = self.builder.room(*self.sizes(name))
        for item in self.items:
            if isinstance(item, Site):
                self.site(item)
            else:
                self.node(item)
        if self.builder.multiplications > LARGEST:
            raise NotNativeError(f"{self.builder.multiplications} multiplications")

    def value(self, name: str) -> Places:
        """Places of a value, or of a float32 constant."""
        if name not in self.places:
            constant = self.graph.constants.get(name)
            if constant is None or constant.dtype != np.float32:
                raise NotNativeError(f"{name} is no float32 value")
            self.places[name] = self.builder.constant(constant)
        if not self.places[name].size:
            raise NotNativeError(f"{name} is empty")
        return self.places[name]

    def parameter(self, node: Any, position: int, default: Any = None) -> Any:
        """A constant operand; the default where it is not given."""
        if len(node.input) <= position or not node.input[position]:
            return default
        if node.input[position] not in self.graph.constants:
            raise NotNativeError(f"{node.op_type} with {node.input[position]} computed at run time")
        return self.graph.constants[node.input[position]]

    def sizes(self, name: str) -> tuple[int, ...]:
        shape = self.graph.shape(name)
        if shape is None or None in shape or self.graph.types.get(name) != 1:
            raise NotNativeError(f"{name} is no float32 value of known size")
        return tuple(size for size in shape if size is not None)

    def node(self, node: Any) -> None:
        if node.domain not in ("", "ai.onnx"):
            raise NotNativeError(node.domain)
        if node.op_type in MOVES:
            self.move(node)
        elif node.op_type in self.emitters:
            self.places[node.output[0]] = self.emitters[node.op_type](node, attributes(node))
        else:
            raise NotNativeError(node.op_type)

    def move(self, node: Any) -> None:
        """Compute an operator that moves values on their places; the empty place is a zero's, as padding needs it."""
        moved = self.graph.copy()
        moved.constants = {
            name: self.graph.constants[name]
            if self.graph.constants.get(name, np.zeros(0, np.float32)).dtype.kind in "iub"
            else self.value(name)
            for name in node.input
            if name
        }
        names = [name for name in node.output if name]
        self.places.update(zip(names, computed(moved, [node], names), strict=True))

    def unary(self, node: Any, _: Mapping[str, Any]) -> Places:
        return self.builder.apply(UNARY[node.op_type], self.value(node.input[0]))

    def with_alpha(self, node: Any, options: Mapping[str, Any]) -> Places:
        function, default = {"LeakyRelu": ("leaky_relu", 0.01), "Elu": ("elu", 1.0)}[node.op_type]
        return self.builder.apply(function, self.value(node.input[0]), options.get("alpha", default))

    def clip(self, node: Any, options: Mapping[str, Any]) -> Places:
        low = float(self.parameter(node, 1, options.get("min", -np.inf)))
        high = float(self.parameter(node, 2, options.get("max", np.inf)))
        return self.builder.apply("clip", self.value(node.input[0]), low, high)

    def power(self, node: Any, _: Mapping[str, Any]) -> Places:
        a, exponent = self.value(node.input[0]), self.parameter(node, 1)
        if exponent.size != 1:
            raise NotNativeError("Pow with several exponents")
        if float(exponent.reshape(-1)[0]) == 2:
            return self.builder.combine("multiply", a, a)
        return self.builder.apply("power", a, float(exponent.reshape(-1)[0]))

    def binary(self, node: Any, _: Mapping[str, Any]) -> Places:
        result = self.value(node.input[0])
        for name in node.input[1:]:
            result = self.builder.combine(BINARY[node.op_type], result, self.value(name))
        return result

    def matmul(self, node: Any, _: Mapping[str, Any]) -> Places:
        weight = self.parameter(node, 1)
        a = self.value(node.input[0])
        if weight.ndim != 2 or a.ndim < 2 or weight.dtype != np.float32:
            raise NotNativeError("MatMul of other ranks")
        return self.builder.linear(a, weight)

    def gemm(self, node: Any, options: Mapping[str, Any]) -> Places:
        weight = self.parameter(node, 1)
        if options.get("transA", 0):
            raise NotNativeError("Gemm with transA")
        weight = options.get("alpha", 1.0) * (weight.T if options.get("transB", 0) else weight)
        bias = self.parameter(node, 2)
        if bias is not None:
            if bias.size not in (1, weight.shape[1]):
                raise NotNativeError("Gemm with a matrix added")
            bias = np.broadcast_to(options.get("beta", 1.0) * bias.reshape(-1), weight.shape[1:])
        return self.builder.linear(self.value(node.input[0]), weight, bias)

    def reduction(self, node: Any, options: Mapping[str, Any]) -> Places:
        a = self.value(node.input[0])
        axes = self.parameter(node, 1, options.get("axes"))
        if axes is None and options.get("noop_with_empty_axes", 0):
            return a
        where = range(a.ndim) if axes is None else [int(axis) for axis in np.asarray(axes).reshape(-1)]
        return self.builder.reduce(REDUCTIONS[node.op_type], a, where, bool(options.get("keepdims", 1)))

    def global_average(self, node: Any, _: Mapping[str, Any]) -> Places:
        a = self.value(node.input[0])
        return self.builder.reduce("mean", a, range(2, a.ndim), keep=True)

    def softmax(self, node: Any, options: Mapping[str, Any]) -> Places:
        if self.graph.opsets.get("", 0) < 13:
            raise NotNativeError("Softmax of an old operator set")
        return operators.softmax(self.builder, self.value(node.input[0]), options.get("axis", -1))

    def layer_normalization(self, node: Any, options: Mapping[str, Any]) -> Places:
        a, scale, *shift = (self.value(name) for name in node.input if name)
        axes = range(options.get("axis", -1) % a.ndim, a.ndim)
        epsilon = options.get("epsilon", 1e-5)
        return operators.normalization(self.builder, a, axes, epsilon, scale, shift[0] if shift else None)

    def batch_normalization(self, node: Any, options: Mapping[str, Any]) -> Places:
        scale, shift, mean, variance = (self.parameter(node, position) for position in range(1, 5))
        a, epsilon = self.value(node.input[0]), options.get("epsilon", 1e-5)
        return operators.batch_normalization(self.builder, a, scale, shift, mean, variance, epsilon)

    def convolution(self, node: Any, options: Mapping[str, Any]) -> Places:
        a, weight, bias = self.value(node.input[0]), self.parameter(node, 1), self.parameter(node, 2)
        kernel = weight.shape[2:]
        ones = [1] * len(kernel)
        strides, dilations = options.get("strides", ones), options.get("dilations", ones)
        extents = [(size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True)]
        padding = _padding(a.shape[2:], extents, strides, options)
        groups = options.get("group", 1)
        return operators.convolution(self.builder, a, weight, bias, strides, dilations, padding, groups)

    def site(self, site: Site) -> None:
        """A stream for each batch row and direction."""
        if site.lengths:
            raise NotNativeError("sequences of several lengths")
        x, h, c = (self.value(name) if name else None for name in (site.x, site.h, site.c))
        assert x is not None
        site.check_shapes(x.shape, (h, c))
        if site.is_cell:
            x = x[None]
        elif site.batch_first:
            x = x.swapaxes(0, 1)
        steps, batch, _ = x.shape
        h, c = (site.initial(state, batch) for state in (h, c))
        hidden, directions = site.weights[0].hidden_size, len(site.parts)
        y = np.zeros((steps, directions, batch, hidden), np.int64)
        finals = np.zeros((2, directions, batch, hidden), np.int64)
        for direction, part in enumerate(site.parts):
            order = slice(None, None, -1 if site.reverse[direction] else 1)
            for row in range(batch):
                of_h, of_c = (None if state is None else state[direction, row] for state in (h, c))
                key = (part, site.stream, direction, row)
                out, *last = self.builder.step(key, x[order, row], hidden, of_h, of_c, self.held)
                y[order, direction, row] = out
                finals[:, direction, row] = last
        next_h, next_c = (state[0] if site.is_cell else state for state in finals)
        if site.batch_first:
            y, next_h, next_c = y.transpose(2, 0, 1, 3), next_h.swapaxes(0, 1), next_c.swapaxes(0, 1)
        self.places |= {name: p for name, p in ((site.y, y), (site.next_h, next_h), (site.next_c, next_c)) if name}


def _padding(
    sizes: tuple[int, ...], extents: list[int], strides: list[int], options: Mapping[str, Any]
) -> list[tuple[int, int]]:
    """How many zeros before and after each axis."""
    kind = options.get("auto_pad", "NOTSET")
    if kind == "NOTSET":
        pads = options.get("pads", [0] * 2 * len(sizes))
        return list(zip(pads[: len(sizes)], pads[len(sizes) :], strict=True))
    if kind == "VALID":
        return [(0, 0)] * len(sizes)
    totals = [max((-(-n // s) - 1) * s + e - n, 0) for n, s, e in zip(sizes, strides, extents, strict=True)]
    halves = [(total // 2, total - total // 2) for total in totals]
    return halves if kind == "SAME_UPPER" else [(after, before) for before, after in halves]
