"""Opening ONNX files, with one clear sentence for each that cannot be used."""

import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from deltarnn.onnx.graph import UnsupportedGraphError, nodes_within, sort_nodes
from deltarnn.onnx.half import widened

STANDARD_DOMAINS = ("", "ai.onnx.ml", "com.microsoft")
OPTIMISED_DOMAINS = ("com.microsoft.nchwc", "com.ms.internal.nhwc")
OTHER_FORMATS = {
    (0, b"PK\x03\x04"): "an archive, as of PyTorch or Keras: export the model to ONNX (torch.onnx.export, tf2onnx)",
    (0, b"\x89HDF"): "a Keras model: export it to ONNX (tf2onnx)",
    (0, b"version https://git-lfs"): "only a pointer of Git LFS to the model: fetch the file itself (git lfs pull)",
    (0, b"<"): "a web page or XML: download the ONNX file itself",
    (4, b"TFL3"): "a model of TensorFlow Lite: convert it to ONNX (tf2onnx --tflite)",
    (4, b"ORTM"): "a model in ONNX Runtime's own format (.ort): import the ONNX file that it was made from",
}
"""What else is given as a model: (place, bytes there), what it is, and what to do."""


def read_model(path: str | os.PathLike[str]) -> Any:
    """The onnx.ModelProto of a file, its external data loaded, its operators known, and nothing in it in float16.

    Raises
    ------
    FileNotFoundError
        If the file, or a file of external data that it names, does not exist.
    UnsupportedGraphError
        If it is no ONNX model, or has operators that are unknown here.
    ModuleNotFoundError
        If the packages onnx and onnxruntime are missing.

    Warns
    -----
    UserWarning
        If it computes in float16: all of it is float32 from here on, inputs and outputs too.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error.name} is missing: pip install 'deltarnn[onnx]'") from None
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(f"{source}: no such file")
    try:
        model = onnx.load(source, load_external_data=False)
    except DecodeError:
        model = None
    if model is None or not model.graph.node:
        with source.open("rb") as file:
            start = file.read(32)
        known = (what for (place, sign), what in OTHER_FORMATS.items() if start[place:].startswith(sign))
        raise UnsupportedGraphError(f"{source}: {next(known, 'not an ONNX model, or a damaged one')}")
    for holder, nodes in [(model, model.graph.node), *((function, function.node) for function in model.functions)]:
        for entry in [*holder.opset_import, *nodes_within(nodes)]:
            entry.domain = "" if entry.domain == "ai.onnx" else entry.domain
    sort_nodes(model.graph)
    _load_external_data(model, source)
    _check_operators(model, source)
    change = widened(model)
    if change:
        warnings.warn(f"{source}: {change}", stacklevel=3)
    return model


def _load_external_data(model: Any, source: Path) -> None:
    from onnx import external_data_helper

    for tensor in _tensors(model.graph):
        if external_data_helper.uses_external_data(tensor):
            location = external_data_helper.ExternalDataInfo(tensor).location
            if not (source.parent / location).is_file():
                raise FileNotFoundError(
                    f"{source}: its weights are in another file, {location}, which is not beside it: copy both"
                )
    external_data_helper.load_external_data_for_model(model, str(source.parent))


def _tensors(graph: Any) -> Iterable[Any]:
    from onnx import AttributeProto

    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                yield attribute.t
            elif attribute.type == AttributeProto.GRAPH:
                yield from _tensors(attribute.g)


def _check_operators(model: Any, source: Path) -> None:
    from onnx import defs

    local = {(function.domain, function.name) for function in model.functions}
    versions = {opset.domain: opset.version for opset in model.opset_import}
    if "" not in versions:
        raise UnsupportedGraphError(f"{source}: it names no operator set of ONNX (opset_import): the file is damaged")
    for node in nodes_within(model.graph.node):
        what = f"{source}: the node {node.name or node.output[0]!r} is a {node.op_type}"
        if (node.domain, node.op_type) in local:
            continue
        if node.domain in OPTIMISED_DOMAINS:
            raise UnsupportedGraphError(
                f"{what} of the domain {node.domain!r}, which ONNX Runtime writes into a graph that it has optimised "
                "for one machine: import the ONNX file from before, or one that was optimised at the level extended"
            )
        if node.domain not in STANDARD_DOMAINS:
            raise UnsupportedGraphError(
                f"{what} of the domain {node.domain!r}, which ONNX Runtime does not have: "
                "export the model in standard operators"
            )
        if node.domain == "" and not defs.has(node.op_type, versions[""], ""):
            raise UnsupportedGraphError(f"{what}, which operator set {versions.get('', 1)} of ONNX does not have")
