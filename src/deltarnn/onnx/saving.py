"""Saved networks: the ONNX file with thresholds in its metadata and trained weights beside its own.

Any other program still reads the file as the network that it was made from.
"""

import json
import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from deltarnn.engine.model_file import read_formats, write_formats
from deltarnn.files import write_bytes
from deltarnn.fixed.formats import LayerFormats
from deltarnn.onnx.graph import UnsupportedGraphError
from deltarnn.onnx.recurrent import RecurrentPart, Weights

METADATA = "deltarnn"
"""The metadata entry, JSON: {"thresholds": {part: [θx, θh]}}, and of int8 "formats" {part: formats}, "dense"."""
PREFIX = "deltarnn/"
"""Of tensors that replace weights of the graph: deltarnn/PART/weight_ih, …, as `Weights` shapes them."""


def save_network(path: str | os.PathLike[str], model: Any, parts: dict[str, RecurrentPart], int8: bool) -> None:
    """Write the model with thresholds, formats and weights of its parts, atomically; int8: of `Programs.set_int8`."""
    from onnx import helper, numpy_helper

    saved = type(model)()
    saved.CopyFrom(model)
    kept = [tensor for tensor in saved.graph.initializer if not tensor.name.startswith(PREFIX)]
    for part in parts.values():
        if part.trained:
            kept += [numpy_helper.from_array(a, f"{PREFIX}{part.name}/{n}") for n, a in part.weights.arrays.items()]
    del saved.graph.initializer[:]
    saved.graph.initializer.extend(kept)
    settings = {entry.key: entry.value for entry in saved.metadata_props}
    thresholds = {name: [part.thx, part.thh] for name, part in parts.items()}
    formats = {name: write_formats(part.formats) for name, part in parts.items() if part.formats is not None}
    record = {"thresholds": thresholds, **({"formats": formats, "dense": int8} if formats else {})}
    settings[METADATA] = json.dumps(record, ensure_ascii=False)
    helper.set_model_props(saved, settings)
    write_bytes(os.fspath(path), saved.SerializeToString())


@dataclass(frozen=True)
class Saved:
    """What `save_network` wrote beside the graph; empty for any other file."""

    thresholds: dict[str, tuple[float, float]]
    formats: dict[str, LayerFormats]
    int8: bool = False

    @classmethod
    def of(cls, model: Any) -> "Saved":
        """Read it from a model.

        Raises
        ------
        UnsupportedGraphError
            If it is damaged.
        """
        for entry in model.metadata_props:
            if entry.key == METADATA:
                try:
                    record = json.loads(entry.value)
                    thresholds = {name: (float(x), float(h)) for name, (x, h) in record["thresholds"].items()}
                    formats = record.get("formats", {}).items()
                    of_parts = {name: one for name, form in formats for one in _formats(form)}
                    return cls(thresholds, of_parts, bool(record.get("dense")))
                except (ValueError, TypeError, KeyError, AttributeError):
                    raise UnsupportedGraphError(
                        f"the file's metadata {METADATA!r} is damaged: import the original anew"
                    ) from None
        return cls({}, {})


def _formats(entry: Any) -> tuple[LayerFormats, ...]:
    return read_formats({"formats": [entry]}) or ()


def replaced_weights(model: Any, name: str, weights: Weights) -> Weights:
    """The weights of a part, or those that `save_network` wrote in their place."""
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    arrays: dict[str, Any] = {}
    for field, array in weights.arrays.items():
        tensor = tensors.get(f"{PREFIX}{name}/{field}")
        if tensor is not None:
            arrays[field] = np.array(numpy_helper.to_array(tensor), dtype=np.float32)
            if arrays[field].shape != array.shape:
                raise UnsupportedGraphError(
                    f"the saved {field} of {name!r} has shape {arrays[field].shape}: the graph has {array.shape}"
                )
    return replace(weights, **arrays)
