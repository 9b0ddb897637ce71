"""Files of compiled modules: the program, and each delta layer as a model file holds one (docs/model_file.md)."""

import os
from typing import Any

import numpy as np

from deltarnn.engine.description import Description
from deltarnn.engine.model_file import ModelFileError, check_model
from deltarnn.engine.module_program import ModuleProgram
from deltarnn.engine.program import ProgramParts
from deltarnn.stored import Arrays, DamagedFileError, load_stored, peek_stored, save_stored

KEY = "deltarnn_module"
"""The safetensors metadata entry that holds the record."""
FORMAT = 1


def is_module_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file is one of `save_module`."""
    return peek_stored(os.fspath(path), KEY) is not None


def save_module(path: str | os.PathLike[str], program: ModuleProgram) -> None:
    """Write a program and its layers, atomically."""
    parts = program.parts
    arrays: Arrays = {"arena": parts.arena}
    for number, indices in enumerate(parts.lists):
        arrays[f"list.{number}"] = indices
    for number, (weight, bias) in enumerate(parts.weights):
        arrays |= {f"weight.{number}": weight, f"bias.{number}": bias}
    for number, layer in enumerate(program.layers):
        arrays |= {f"layer.{number}.{name}": np.ascontiguousarray(tensor) for name, tensor in layer.tensors.items()}
    record = {
        "format": FORMAT,
        "instructions": parts.instructions,
        "recurrent": parts.recurrent,
        "inputs": parts.inputs,
        "outputs": parts.outputs,
        "streams": list(program.streams),
        "layers": [layer.header for layer in program.layers],
    }
    save_stored(os.fspath(path), KEY, arrays, record)


def load_module(path: str | os.PathLike[str]) -> ModuleProgram:
    """Read what `save_module` wrote.

    Raises
    ------
    ModelFileError
        If the file is damaged, or of another version.
    """
    try:
        arrays, record = load_stored(os.fspath(path), KEY)
    except DamagedFileError as error:
        raise ModelFileError(str(error)) from None
    if record.get("format") != FORMAT:
        raise ModelFileError(f"{path}: format is {record.get('format')!r}: this version of DeltaRNN reads {FORMAT}")
    try:
        return _program(path, arrays, record)
    except ModelFileError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise ModelFileError(f"{path}: its program contradicts itself ({error})") from None


def _program(path: Any, arrays: Arrays, record: dict[str, Any]) -> ModuleProgram:
    def counted(prefix: str) -> list[Any]:
        return [arrays[f"{prefix}.{number}"] for number in range(sum(name.startswith(f"{prefix}.") for name in arrays))]

    layers = []
    for number, header in enumerate(record["layers"]):
        start = f"layer.{number}."
        tensors = {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}
        check_model(path, tensors, header)
        layers.append(Description(tensors, header))
    if not all(isinstance(entry, dict) for entry in (*record["instructions"], *record["recurrent"])):
        raise TypeError("an instruction is no object")
    ((entering, inputs),), ((leaving, outputs),) = record["inputs"], record["outputs"]
    parts = ProgramParts(
        arrays["arena"],
        record["instructions"],
        counted("list"),
        list(zip(counted("weight"), counted("bias"), strict=True)),
        record["recurrent"],
        [(int(entering), int(inputs))],
        [(int(leaving), int(outputs))],
    )
    parts.native()  # which checks it
    return ModuleProgram(parts, tuple(layers), tuple(range(len(layers))[number] for number in record["streams"]))
