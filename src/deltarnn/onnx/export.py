"""Networks for ONNX Runtime itself: the graph with delta layers as operators of the library that the package brings.

A program in any language gains the speed by loading the library and the file. A small network of known sizes becomes
one operator, as it runs here (onnx.lowering); of any other only the recurrent parts become operators.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deltarnn.files import write_bytes
from deltarnn.native import MISSING, native_core
from deltarnn.onnx.discovery import open_condition, unused
from deltarnn.onnx.graph import Array, Graph, UnsupportedGraphError, reads
from deltarnn.onnx.lowering import NativeProgram, NotNativeError
from deltarnn.onnx.package import program_bytes, site_bytes
from deltarnn.onnx.program import in_order
from deltarnn.onnx.programs import Programs, check_feed
from deltarnn.onnx.recurrent import RecurrentPart, Site

if TYPE_CHECKING:
    from deltarnn.onnx.network import Network

DOMAIN = "deltarnn"


def operator_library() -> Path:
    """The library with DeltaRNN's operators, for ONNX Runtime 1.16 or later.

    >>> options.register_custom_ops_library(str(operator_library()))  # doctest: +SKIP

    Raises
    ------
    ImportError
        If the package was installed without its native core.
    """
    core = native_core()
    if core is None or core.__file__ is None:
        raise ImportError(MISSING)
    return Path(core.__file__).with_name("libdeltarnn_onnxruntime.so")


def export_network(net: "Network", path: str | os.PathLike[str], example: Mapping[str, Any] | None) -> str:
    """Write a network for ONNX Runtime with `operator_library`; arguments and errors as of `Network.save_onnx`.

    Returns the operators in it, for people.
    """
    programs, held = net.programs, net.states_held
    feed = None
    if example is not None:
        feed = {name: np.asarray(value) for name, value in example.items()}
        check_feed(programs.graph, feed)
    elif all(programs.graph.types.get(name) == 1 for name in programs.graph.inputs):
        feed = _zeros(programs.graph)
    model = None if feed is None else _one_operator(programs, net.parts, feed, held)
    found = "the whole network"
    if model is None:
        model, count = _operators(programs, net.parts, held)
        found = f"{count} recurrent operators"
    write_bytes(os.fspath(path), model.SerializeToString())
    return found


def _zeros(graph: Graph) -> dict[str, Array] | None:
    """Inputs of the sizes that the file says; None if it leaves any open."""
    feed = {}
    for name in graph.inputs:
        sizes = [size for size in graph.shape(name) or (None,) if size is not None]
        if len(sizes) != len(graph.shape(name) or (None,)):
            return None
        feed[name] = np.zeros(sizes, np.float32)
    return feed


def _one_operator(programs: Programs, parts: Mapping[str, RecurrentPart], feed: Mapping[str, Array], held: bool) -> Any:
    """The network as one operator, for the sizes of a feed; None where it has no such form."""
    from onnx import TensorProto, helper

    graph, fixed = programs.folded(feed)
    if not graph.inputs and not fixed:  # ONNX Runtime's variadic operators take one input at least
        return None
    graph.outputs = [name for name in graph.outputs if name not in graph.inputs]
    try:
        native = NativeProgram(graph, programs.sites(graph), held)
    except NotNativeError:
        return None
    names = sorted({part for part, *_ in native.keys})
    engines = [parts[name].stream() for name in names]
    streams = [names.index(part) for part, *_ in native.keys]
    shapes = [*(feed[name].shape for name in native.inputs), *native.outputs.values()]
    data = program_bytes(native.parts, engines, streams, shapes, [int(value.reshape(())) for value in fixed.values()])
    node = helper.make_node(
        "Program", [*native.inputs, *fixed], list(native.outputs), "network", domain=DOMAIN, data=data
    )
    inputs = [
        helper.make_tensor_value_info(name, programs.graph.types.get(name, TensorProto.FLOAT), feed[name].shape)
        for name in programs.graph.inputs
        if name not in programs.graph.constants  # weights that a call brought
    ]
    made = {name: (TensorProto.FLOAT, shape) for name, shape in native.outputs.items()}
    passed = {value.name: value for value in inputs}  # on to the outputs, where a name may stand twice
    outputs = [
        passed[name] if name in passed else helper.make_tensor_value_info(name, *made[name])
        for name in programs.graph.outputs
    ]
    return _model(graph, [node], inputs, outputs, [])


def _operators(programs: Programs, parts: Mapping[str, RecurrentPart], held: bool) -> tuple[Any, int]:
    """The network with an operator for each of its recurrent sites, for any sizes; and how many."""
    import onnx
    from onnx import helper, numpy_helper

    graph = programs.graph
    condition = open_condition(graph)
    if condition is not None:
        raise UnsupportedGraphError(
            f"the If {condition.name or condition.output[0]!r} has recurrent layers inside and depends on the inputs: "
            "give an example= of a call, whose sizes and whole numbers decide which branch is exported"
        )
    sites = programs.sites(graph)
    _check_streams(sites, parts)
    nodes = []
    for item in in_order(graph, sites):
        if not isinstance(item, Site):
            nodes.append(item)
            continue
        engines = [parts[name].stream() for name in item.parts]
        inputs = [name for name in (item.x, item.lengths, item.h, item.c) if name]
        name = unused(item.name, {node.name for node in nodes})
        data = site_bytes(item, engines, held)
        nodes.append(helper.make_node("Recurrent", inputs, item.output, name, domain=DOMAIN, data=data))
    read = {name for node in nodes for name in reads(node)} | set(graph.outputs)
    constants = [numpy_helper.from_array(value, name) for name, value in graph.constants.items() if name in read]
    outputs = [
        helper.make_tensor_value_info(name, graph.types[name], None)
        if name in graph.types
        else onnx.ValueInfoProto(name=name)
        for name in graph.outputs
    ]
    inputs_of = [graph.value_info(name) for name in graph.inputs if name not in graph.constants]
    return _model(graph, nodes, inputs_of, outputs, constants), len(sites)


def _check_streams(sites: list[Site], parts: Mapping[str, RecurrentPart]) -> None:
    """UnsupportedGraphError for steps that go on from each other with thresholds: operators share no delta memory."""
    seen: set[str] = set()
    for site in sites:
        if site.stream in seen and any(parts[name].thx or parts[name].thh for name in site.parts):
            raise UnsupportedGraphError(
                f"the steps of the loop around {site.name!r} share one delta memory, but would become operators that do"
                " not: export the model for one step, its states as inputs and outputs, or set the thresholds of "
                f"{site.parts[0]!r} to 0"
            )
        seen.add(site.stream)


def _model(graph: Graph, nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: list[Any]) -> Any:
    from onnx import helper

    proto = graph.model(helper.make_graph(nodes, "network", inputs, outputs, constants))
    proto.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return proto
