"""Models that compute in float16, widened to float32: that is what the engine computes in, and most processors."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from deltarnn.onnx.graph import nodes_within

TYPE_ATTRIBUTES = {"to", "dtype", "output_dtype", "output_datatype"}
"""Attributes whose number is a type: of Cast, EyeLike, RandomNormal, QuantizeLinear, HannWindow and their like."""


def widened(model: Any) -> str:
    """Make all of a model that is float16 float32, in place; a model that only stores weights so stays as it is.

    Returns
    -------
    What changed, for people; "" if nothing did.
    """
    border = [value.name for value in [*model.graph.input, *model.graph.output] if _is_half(value.type)]
    if not border and not _computes_in_half(model):
        return ""
    for message in _messages(model):
        _widen(message)
    taken = f"; {', '.join(border)} {'are' if len(border) > 1 else 'is'} float32 now" if border else ""
    return f"it computes in float16, and its import in float32{taken}"


def _is_half(kind: Any) -> bool:
    from onnx import TensorProto

    return any(_name(part) == "Tensor" and part.elem_type == TensorProto.FLOAT16 for part in _messages(kind))


def _computes_in_half(model: Any) -> bool:
    """Whether anything makes float16 out of other types, or reads such a tensor but to cast it."""
    from onnx import TensorProto

    bodies = [model.graph, *model.functions]
    nodes = [node for body in bodies for node in nodes_within(body.node)]
    if any(_makes_half(node) for node in nodes):
        return True
    by_casts = {node.input[0] for node in nodes if node.op_type == "Cast"}
    stored = by_casts - {name for node in nodes if node.op_type != "Cast" for name in node.input}
    tensors = (part for body in bodies for part in _messages(body) if _name(part) == "TensorProto")
    return any(tensor.data_type == TensorProto.FLOAT16 and tensor.name not in stored for tensor in tensors)


def _makes_half(node: Any) -> bool:
    from onnx import TensorProto

    return any(a.name in TYPE_ATTRIBUTES and a.i == TensorProto.FLOAT16 for a in node.attribute)


def _widen(message: Any) -> None:
    """One message, without those inside."""
    from onnx import TensorProto, numpy_helper

    if _name(message) == "Tensor" and message.elem_type == TensorProto.FLOAT16:
        message.elem_type = TensorProto.FLOAT
    elif _name(message) == "AttributeProto" and message.name in TYPE_ATTRIBUTES and message.i == TensorProto.FLOAT16:
        message.i = TensorProto.FLOAT
    elif _name(message) == "TensorProto" and message.data_type == TensorProto.FLOAT16:
        message.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(message).astype(np.float32), message.name))


def _name(message: Any) -> str:
    return str(message.DESCRIPTOR.name)


def _messages(message: Any) -> Iterator[Any]:
    """A protobuf message and all messages inside."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:  # or several in a list
                yield from _messages(part)
