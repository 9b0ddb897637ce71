"""Export to a self-contained C99 library: no allocation, no floating point, everything constant in flash."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltarnn.fixed.network import IntegerNetwork
from deltarnn.fixed.parameters import NetworkParameters
from deltarnn.fixed.qformat import Quantization
from deltarnn.hardware.c_header import header_text, vectors
from deltarnn.hardware.c_source import (
    check_intermediates,
    data_arrays,
    integer_type,
    memory_size,
    memory_type,
    padded,
    source_text,
    test_text,
)
from deltarnn.hardware.files import ExportError, ExportResult, write_text

C_FLAGS = ("-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-pedantic", "-Os")
_BYTES = {"int8_t": 1, "int16_t": 2, "int32_t": 4}


def export_c(
    model: NetworkParameters,
    stimulus: NDArray[np.float64],
    folder: str | Path,
    quantization: Quantization | None = None,
    name: str = "delta_network",
    labels: Sequence[str] = (),
    features: Mapping[str, Any] | None = None,
) -> ExportResult:
    """Write NAME.h, NAME.c and NAME_test.c, read the constants back, and, where a C compiler is found, run the test.

    The formats are the model's own, or `quantization`. stimulus: (T, I), the frames of the test program. labels and
    features (class names, settings of the front end) go into the header's description. C++ programs link it as it is.
    Figures: bytes of constants (flash), of the state (RAM, once per stream), and, when compiled, of code.

    Raises
    ------
    UnsupportedModelError
        If accumulators or formats do not fit 32-bit arithmetic and 16-bit storage.
    ExportError
        If constants read back differ, the code does not compile without warnings, or an output differs by a bit.
    """
    folder = Path(folder)
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"name={name!r}: must be a C identifier of lower-case letters, digits and underscores")
    network = IntegerNetwork.convert(model, quantization)
    check_intermediates(network)
    x = network.quantization.activation.to_int(stimulus, network.quantization.rounding)
    expected = network.run(stimulus).output[:, 0]
    texts = {
        f"{name}.h": header_text(network, name, labels, features),
        f"{name}.c": source_text(network, name),
        f"{name}_test.c": test_text(network, name, x, expected),
    }
    for file, text in texts.items():
        write_text(folder / file, text)
    arrays = data_arrays(network)
    _verify_constants(
        (folder / f"{name}.c").read_text(encoding="utf-8"), {array: values for array, (_, values) in arrays.items()}
    )
    figures = {
        "flash bytes, constants": sum(values.size * _BYTES[kind] for kind, values in arrays.values()),
        "RAM bytes, state": state_bytes(network),
        "stimulus frames": len(x),
    }
    notes = list(network.notes)
    compiler = find_compiler()
    if compiler is None:
        notes.append("no C compiler found (CC, cc, gcc, clang): constants compared, program not run")
    else:
        figures |= compile_and_run(folder, name, compiler)
    return ExportResult(folder, tuple(texts), figures, tuple(notes))


def state_bytes(network: IntegerNetwork) -> int:
    """sizeof NAME_state: the memories first, then activations, padded to the alignment of the widest."""
    a, m = (_BYTES[kind] for kind in (integer_type(network.quantization.activation.bits), memory_type(network)))
    total = 0
    for layer in network.layers:
        total += m * memory_size(layer) + a * sum(padded(size) for _, size in vectors(layer))
    return -(-total // max(a, m)) * max(a, m)


def find_compiler() -> str | None:
    """Path of a C compiler: $CC, or the first of cc, gcc and clang on the path."""
    for candidate in (os.environ.get("CC"), "cc", "gcc", "clang"):
        if candidate and (path := shutil.which(candidate)):
            return path
    return None


def compile_and_run(folder: Path, name: str, compiler: str) -> dict[str, int]:
    """Compile library and test program with every warning an error, and run them.

    Returns the library's size in bytes of code and of constants as the linker sees them, if `size` is there.
    """
    with tempfile.TemporaryDirectory() as build:
        library, program = Path(build, f"{name}.o"), Path(build, "test")
        for arguments in (
            ["-c", f"{name}.c", "-o", str(library)],
            [f"{name}_test.c", str(library), "-o", str(program)],
        ):
            result = subprocess.run([compiler, *C_FLAGS, *arguments], cwd=folder, capture_output=True, text=True)
            if result.returncode:
                raise ExportError(f"{compiler} {' '.join(C_FLAGS)} failed on {folder}:\n{result.stderr}")
        result = subprocess.run([str(program)], capture_output=True, text=True)
        if result.returncode:
            raise ExportError(f"{folder}: the C program differs from the integer cells: {result.stdout}")
        size = shutil.which("size")
        if size is None:
            return {}
        columns = (
            subprocess.run([size, str(library)], capture_output=True, text=True, check=True)
            .stdout.split("\n")[1]
            .split()
        )
        return {
            "flash bytes, code and constants": int(columns[0]),
            "RAM bytes, static": int(columns[1]) + int(columns[2]),
        }


def read_constants(source: str) -> dict[str, NDArray[np.int64]]:
    """The constant arrays of a generated source text, flat, by name."""
    pattern = re.compile(r"static const \w+ (\w+)\[(\d+)\](?: ALIGNED)? = \{([^}]*)\};")
    arrays = {}
    for name, count, body in pattern.findall(source):
        values = np.array([int(item) for item in body.replace("\n", "").strip(",").split(",")], dtype=np.int64)
        if len(values) != int(count):
            raise ExportError(f"{name} declares {count} values and holds {len(values)}")
        arrays[name] = values
    return arrays


def _verify_constants(source: str, expected: dict[str, NDArray[np.int64]]) -> None:
    read = read_constants(source)
    for name, values in expected.items():
        if name not in read or not np.array_equal(read[name], values):
            raise ExportError(f"{name} read back differs from what was written")
