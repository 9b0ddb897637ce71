"""A folded graph as a list of steps: sessions of ONNX Runtime, and the recurrent sites between them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from deltarnn.onnx.graph import Array, Graph, UnsupportedGraphError, attributes, reads
from deltarnn.onnx.recurrent import Site
from deltarnn.onnx.states import States, Values


@dataclass
class Segment:
    """Nodes that one session of ONNX Runtime computes."""

    session: Any
    inputs: list[str]
    outputs: list[str]

    def run(self, values: Values) -> None:
        """Add the outputs to the values."""
        feed = {name: values[name] for name in self.inputs}
        values.update(zip(self.outputs, self.session.run(self.outputs, feed), strict=True))


@dataclass
class View:
    """A node that only gives a value another shape: no session, no copy."""

    function: Callable[[Array], Array]
    source: str
    target: str

    def run(self, values: Values) -> None:
        """Add the target to the values."""
        values[self.target] = self.function(values[self.source])


Step = Segment | View | Site


class Program:
    """Steps in the order in which they run.

    Nodes go into as few sessions as the recurrent sites allow: all that does not wait for a site into the first, all
    that waits for the sites of the first wave into the second, and so on.
    """

    def __init__(self, graph: Graph, sites: list[Site], session_options: Any, int8: bool = False) -> None:
        """int8: whether sessions compute products with weights in int8, their inputs scaled call by call."""
        self.int8 = int8
        self.outputs = graph.outputs
        self.constants = graph.constants
        self.session_options = session_options
        self.steps: list[Step] = []
        nodes, sites, stage = _staged(graph, sites)
        for number in range(max(stage.values(), default=0) + 1):
            here = [node for node in nodes if stage[id(node)] == number]
            waiting = [site for site in sites if stage[id(site)] == number]
            views = [_view(node, graph) for node in here]
            if all(view is not None for view in views):
                self.steps += [view for view in views if view is not None]
            else:
                others = [node for node in nodes if stage[id(node)] > number]
                self.steps.append(self._segment(graph, here, others + sites))
            self.steps += waiting

    def run(self, feed: Values, states: States) -> Values:
        """The outputs by name."""
        values = {**self.constants, **feed}
        for step in self.steps:
            if isinstance(step, Site):
                states.run(step, values)
            else:
                step.run(values)
        return {name: _result(values[name]) for name in self.outputs}

    def _segment(self, graph: Graph, nodes: list[Any], readers: list[Any]) -> Segment:
        import onnx
        from onnx import helper, numpy_helper

        made = {name for node in nodes for name in node.output if name}
        read = {name for node in nodes for name in reads(node)}
        wanted = set(graph.outputs)
        for reader in readers:
            wanted |= set(reader.input) if isinstance(reader, Site) else reads(reader)
        inputs = sorted(read - made - graph.constants.keys())
        outputs = [name for node in nodes for name in node.output if name in wanted]
        constants = sorted(read & graph.constants.keys())
        tensors = [numpy_helper.from_array(graph.constants[name], name) for name in constants]
        proto = graph.model(
            helper.make_graph(
                nodes,
                "segment",
                [graph.value_info(name) for name in inputs],
                [onnx.ValueInfoProto(name=name) for name in outputs],
                tensors,
            )
        )
        return Segment(self._session(_with_int8_products(proto) if self.int8 else proto), inputs, outputs)

    def _session(self, proto: Any) -> Any:
        import onnxruntime

        try:
            return onnxruntime.InferenceSession(
                proto.SerializeToString(), self.session_options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's errors share no class of their own
            reason = str(error).splitlines()[0]
            raise UnsupportedGraphError(f"ONNX Runtime refuses what is not recurrent: {reason}") from error


def _with_int8_products(proto: Any) -> Any:
    """A model whose products with constant weights are in int8, by ONNX Runtime's own dynamic quantisation."""
    import logging

    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    if not any(node.op_type in ("MatMul", "Gemm") for node in proto.graph.node):
        return proto
    with TemporaryDirectory() as folder:
        path = Path(folder) / "quantized.onnx"
        level = logging.root.level
        logging.root.setLevel(logging.ERROR)  # it advises to preprocess a graph, which is folded already
        try:
            quantize_dynamic(
                proto,
                path,
                op_types_to_quantize=["MatMul", "Gemm"],
                per_channel=True,
                weight_type=QuantType.QInt8,
                extra_options={"MatMulConstBOnly": True},
            )
        finally:
            logging.root.setLevel(level)
        return onnx.load(path)


def _result(value: Any) -> Any:
    """A contiguous array, a number one of rank 0; what ONNX Runtime gives as a list (sequences, maps) as it is."""
    return value if isinstance(value, list) else np.asarray(value, order="C")


def in_order(graph: Graph, sites: list[Site]) -> list[Any]:
    """Nodes and sites that the outputs need, in an order in which they can run."""
    producers = _producers(graph, sites)
    done: set[int] = set()
    ordered: list[Any] = []
    pending = [producers[name] for name in graph.outputs[::-1] if name in producers]
    while pending:
        item = pending[-1]
        before = [producers[name] for name in needs(item) if name in producers]
        missing = [other for other in before if id(other) not in done]
        if missing and id(item) not in done:
            pending += missing
            continue
        pending.pop()
        if id(item) not in done:
            done.add(id(item))
            ordered.append(item)
    return ordered


def _staged(graph: Graph, sites: list[Site]) -> tuple[list[Any], list[Site], dict[int, int]]:
    """Nodes and sites in order, and the stage of each by id: how many waves of sites it waits for."""
    producers = _producers(graph, sites)
    stage: dict[int, int] = {}
    for item in (ordered := in_order(graph, sites)):
        before = [producers[name] for name in needs(item) if name in producers]
        waits = [stage[id(b)] + (isinstance(b, Site) and not isinstance(item, Site)) for b in before]
        stage[id(item)] = max(waits, default=0)
    return [i for i in ordered if not isinstance(i, Site)], [i for i in ordered if isinstance(i, Site)], stage


def _producers(graph: Graph, sites: list[Site]) -> dict[str, Any]:
    return graph.producers() | {name: site for site in sites for name in site.output}


def needs(item: Any) -> list[str]:
    """Names of the values that a node or site reads."""
    return item.input if isinstance(item, Site) else sorted(reads(item))


def _view(node: Any, graph: Graph) -> View | None:
    """The node as a change of shape, None if it is more than that."""
    source, target = (node.input or [""])[0], node.output[0]
    options = attributes(node)
    axes = options.get("axes")
    if len(node.input) > 1:
        given = graph.constants.get(node.input[1])
        if given is None:
            return None
        axes = [int(axis) for axis in given.reshape(-1)]
    if node.op_type == "Squeeze":
        where = None if axes is None else tuple(axes)
        return View(lambda value: np.squeeze(value, where), source, target)
    if node.op_type == "Unsqueeze" and axes is not None:
        return View(lambda value: np.expand_dims(value, tuple(axes)), source, target)
    if node.op_type == "Transpose":
        return View(lambda value: np.transpose(value, options.get("perm")), source, target)
    if node.op_type == "Identity":
        return View(lambda value: value, source, target)
    return None
