"""Export to a self-contained C99 library: no allocation, no floating point, everything constant in flash."""

import re
import shlex
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
from deltarnn.fixed.spotter import IntegerSpotter
from deltarnn.hardware import c_spotter, push_test
from deltarnn.hardware.c_data import check_intermediates, data_arrays, integer_type, memory_size, memory_type
from deltarnn.hardware.c_header import header_text, vectors
from deltarnn.hardware.c_source import source_text
from deltarnn.hardware.c_test import test_text
from deltarnn.hardware.c_weights import padded
from deltarnn.hardware.compilers import find_compiler
from deltarnn.hardware.files import ExportError, ExportResult, write_text
from deltarnn.hardware.layouts import Layout, arranged

C_FLAGS = ("-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-pedantic", "-Os")


def export_c(
    model: NetworkParameters,
    stimulus: NDArray[np.float64],
    folder: str | Path,
    quantization: Quantization | None = None,
    name: str = "delta_network",
    labels: Sequence[str] = (),
    features: Mapping[str, Any] | None = None,
    spotter: IntegerSpotter | None = None,
    layout: Layout = "plain",
) -> ExportResult:
    """Write NAME.h, NAME.c and NAME_test.c, read the constants back, and, where a C compiler is found, run the test.

    The formats are the model's own, or `quantization`. stimulus: (T, I), the frames of the test program. labels and
    features (class names, settings of the front end) go into the header's description. C++ programs link it as it is.
    spotter: the whole, of which the network is a part; then there is NAME_push_test.c too. layout: how the files lie.
    Figures: bytes of constants (flash), of the state (RAM, once per stream), and, when compiled, of code.

    Raises
    ------
    UnsupportedModelError
        If accumulators or formats do not fit 32-bit arithmetic and 16-bit storage.
    ExportError
        If constants read back differ, the code does not compile without warnings, or an output differs by a bit.
    MissingToolError
        If $CC names no compiler.
    """
    folder = Path(folder)
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"name={name!r}: must be a C identifier of lower-case letters, digits and underscores")
    compiler = find_compiler()
    network = IntegerNetwork.convert(model, quantization) if spotter is None else spotter.network
    check_intermediates(network)
    texts, arrays = _texts(network, spotter, stimulus, name, labels, features)
    if layout != "plain" and spotter is None:
        raise ValueError(f"layout={layout!r}: there is one of a whole spotter only; a network alone is laid out plain")
    written = arranged(texts, name, layout)
    for file, text in written.items():
        write_text(folder / file, text)
    source = next(folder / file for file in written if file.endswith(f"{name}.c"))
    _verify_constants(source.read_text(encoding="utf-8"), {array: values for array, (_, values) in arrays.items()})
    ram = state_bytes(network)
    figures = {
        "flash bytes, constants": sum(values.size * c_spotter.TYPE_BYTES[kind] for kind, values in arrays.values()),
        "RAM bytes, state": ram if spotter is None else c_spotter.state_bytes(spotter, ram),
        "stimulus frames": len(stimulus),
    }
    notes = list(network.notes)
    if not compiler:
        notes.append("no C compiler found (CC, cc, gcc, clang): constants compared, program not run")
    else:
        figures |= _compiled_texts(texts, name, compiler)
    return ExportResult(folder, tuple(written), figures, tuple(notes))


def _texts(
    network: IntegerNetwork,
    spotter: IntegerSpotter | None,
    stimulus: NDArray[np.float64],
    name: str,
    labels: Sequence[str],
    features: Mapping[str, Any] | None,
) -> tuple[dict[str, str], c_spotter.Arrays]:
    """Library and test programs by file name, and the constant arrays of the library."""
    x = network.quantization.activation.to_int(stimulus, network.quantization.rounding)
    texts = {
        f"{name}.h": header_text(network, name, labels, features, spotter),
        f"{name}.c": source_text(network, name),
        f"{name}_test.c": test_text(network, name, x, network.run(stimulus).output[:, 0]),
    }
    arrays = data_arrays(network)
    if spotter is not None:
        texts[f"{name}.c"] += "\n" + c_spotter.source_text(spotter, name)
        texts[f"{name}_push_test.c"] = push_test.test_text(spotter, name)
        arrays |= c_spotter.data_arrays(spotter)
    return texts, arrays


def state_bytes(network: IntegerNetwork) -> int:
    """sizeof NAME_state: the memories first, then activations, padded to the alignment of the widest."""
    a, m = (
        c_spotter.TYPE_BYTES[kind]
        for kind in (integer_type(network.quantization.activation.bits), memory_type(network))
    )
    total = 0
    for layer in network.layers:
        total += m * memory_size(layer) + a * sum(padded(size) for _, size in vectors(layer))
    return -(-total // max(a, m)) * max(a, m)


def _compiled_texts(texts: dict[str, str], name: str, compiler: list[str]) -> dict[str, int]:
    """`compile_and_run` of a library's files, whatever their layout."""
    with tempfile.TemporaryDirectory() as flat:
        for file, text in texts.items():
            write_text(Path(flat, file), text)
        return compile_and_run(Path(flat), name, compiler, [file for file in texts if file.endswith("_test.c")])


def compile_and_run(folder: Path, name: str, compiler: list[str], tests: Sequence[str] = ()) -> dict[str, int]:
    """Compile library and test programs (default: NAME_test.c) with every warning an error, and run them.

    Returns the library's size in bytes of code and of constants as the linker sees them, if `size` is there.
    """
    with tempfile.TemporaryDirectory() as build:
        library = Path(build, f"{name}.o")
        _compiled(compiler, ["-c", f"{name}.c", "-o", str(library)], folder)
        for test in tests or [f"{name}_test.c"]:
            program = Path(build, Path(test).stem)
            _compiled(compiler, [test, str(library), "-o", str(program)], folder)
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


def _compiled(compiler: list[str], arguments: Sequence[str], folder: Path) -> None:
    result = subprocess.run([*compiler, *C_FLAGS, *arguments], cwd=folder, capture_output=True, text=True)
    if result.returncode:
        raise ExportError(f"{shlex.join([*compiler, *C_FLAGS])} failed on {folder}:\n{result.stderr}")


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
