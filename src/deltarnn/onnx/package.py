"""Serialises networks for the operators that ONNX Runtime loads (native/include/deltarnn/package.hpp reads them)."""

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deltarnn.engine.engine import Engine
from deltarnn.engine.program import ProgramParts
from deltarnn.native import native_core
from deltarnn.onnx.recurrent import Site

HEADER = struct.pack("<4sI", b"DRNN", 1)
"""Magic number and version."""

FORMATS = ("input_format", "hidden_format", "cell_format", "address_format")


def program_bytes(
    parts: ProgramParts,
    engines: Sequence[Engine],
    streams: Sequence[int],
    shapes: Sequence[tuple[int, ...]],
    fixed: Any,
) -> bytes:
    """A program.

    engines: its recurrent layers, one each; streams: which of them each recurrent instruction runs. shapes: of its
    inputs and then its outputs. fixed: whole numbers that further inputs must have.
    """
    core = native_core()
    assert core is not None
    operations: Mapping[str, int] = {name: number for number, name in enumerate(core.operations)}
    content = [HEADER, _array(parts.arena, np.float32), _count(parts.instructions)]
    for entry in parts.instructions:
        numbers = [entry.get(name, 0) for name in ("to", "a", "b", "n", "rows", "inner")]
        parameters = entry.get("alpha", 0.0), entry.get("beta", 0.0)
        number = operations[entry["operation"]]
        content.append(struct.pack("<8i2f", number, *numbers, entry.get("resource", -1), *parameters))
    content += [_count(parts.lists), *(_array(places, np.int32) for places in parts.lists), _count(parts.weights)]
    for weight, bias in parts.weights:
        content += [struct.pack("<2i", *weight.shape), _array(weight, np.float32), _array(bias, np.float32)]
    content.append(_count(parts.recurrent))
    for places, layer in zip(parts.recurrent, streams, strict=True):
        where = [places.get(name, -1) for name in ("h", "c", "next_h", "next_c")]
        content.append(struct.pack("<4i?i", *where, places["held"], layer))
    content += [_count(engines), *(_layer(engine) for engine in engines)]
    of_inputs, of_outputs = shapes[: len(parts.inputs)], shapes[len(parts.inputs) :]
    for places_of, sizes in ((parts.inputs, of_inputs), (parts.outputs, of_outputs)):
        content.append(_count(places_of))
        for (position, _), shape in zip(places_of, sizes, strict=True):
            content += [struct.pack("<i", position), _array(shape, np.int64)]
    return b"".join([*content, _array(fixed, np.int64)])


def site_bytes(site: Site, engines: Sequence[Engine], held: bool) -> bytes:
    """A site, with the engine of each direction."""
    flags = [*site.reverse, site.batch_first, site.is_cell, held, *map(bool, (site.lengths, site.h, site.c))]
    flags += map(bool, (site.y, site.next_h, site.next_c))
    return b"".join([HEADER, _count(engines), *map(_layer, engines), bytes(flags)])


def _layer(engine: Engine) -> bytes:
    """The one layer of an engine."""
    (layer,) = engine.layers
    int8 = "sigmoid" in layer
    flags = bytes([int8, layer["lstm"], layer["reset_before"]])
    content = [flags, struct.pack("<3i", layer["input"], layer["hidden"], layer["projection"])]
    if int8:
        content += [struct.pack("<2i", *layer[name]) for name in FORMATS]
        content.append(
            struct.pack(
                "<3i?2i",
                *(layer[name] for name in ("memory_fraction", "gate_fraction", "projection_fraction", "floor")),
                *(layer["thx"], layer["thh"]),
            )
        )
        for first, entries in (layer["sigmoid"], layer["tanh"]):
            content += [struct.pack("<i", first), _array(entries, np.int32)]
    else:
        content.append(struct.pack("<3?2f", *(layer[name] for name in ("bfloat16", "hard", "relu", "thx", "thh"))))
    weight, memory = (np.int8, np.int64) if int8 else (np.float32, np.float32)
    content += [_array(layer[name], weight) for name in ("weight_ih", "weight_hh")]
    return b"".join([*content, _array(layer["memory"], memory), _array(layer.get("weight_hr", ()), weight)])


def _count(items: Sequence[Any]) -> bytes:
    return struct.pack("<Q", len(items))


def _array(values: Any, dtype: Any) -> bytes:
    array = np.ascontiguousarray(values, np.dtype(dtype).newbyteorder("<"))
    return struct.pack("<Q", array.size) + array.tobytes()
