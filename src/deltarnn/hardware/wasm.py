"""A spotter as a WebAssembly module: the exported C library, compiled for wasm32 behind functions of plain numbers.

Needs ziglang, a clang with its linker (extra `embedded`).
"""

import subprocess
import sys
import tempfile
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from deltarnn.fixed.network import IntegerNetwork
from deltarnn.fixed.spotter import IntegerSpotter
from deltarnn.hardware import c_spotter
from deltarnn.hardware.c_data import check_intermediates, integer_type, is_dense
from deltarnn.hardware.c_header import header_text
from deltarnn.hardware.c_source import source_text
from deltarnn.hardware.files import ExportError

FLAGS = ("-std=c99", "-O3", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-pedantic")
_LINK = ("-target", "wasm32-freestanding", "-nostdlib", "-Wl,--no-entry", "-Wl,--strip-all")
_EXPORTS = ("reset", "push", "buffer", "frames", "features", "sums", "events", "word", "score", "time")
MISSING = "pip install 'deltarnn[embedded]' (ziglang) for a web page: it compiles the spotter to WebAssembly"


class Columns(NamedTuple):
    """Weight columns that events multiply: of a layer's inputs, else of its hidden state; how many, rows of each."""

    layer: int
    of_input: bool
    size: int
    rows: int


def event_columns(network: IntegerNetwork) -> list[Columns]:
    """What the bytes at `events` stand for, in their order."""
    return [
        Columns(index, of_input, size, len(layer.weight_ih))
        for index, layer in enumerate(network.layers)
        for of_input, size in ((True, layer.input_size), (False, layer.hidden_size))
    ]


def compile_spotter(spotter: IntegerSpotter) -> bytes:
    """The module: `push(from, count)` takes samples written at `buffer()`, at most a hop a call; after it, `word()` is
    the class of a detection or -1, with `score()` and `time()` as in the C library; when `frames()` has risen, the
    last frame stands at `features()`, `sums()` and `events()` (one byte for each of `event_columns`).

    A layer with thresholds 0 multiplies every column in every frame.

    Raises
    ------
    ModuleNotFoundError
        If ziglang is missing.
    UnsupportedModelError
        If sums do not fit the C code's integers.
    ExportError
        With the compiler's words, which are errors at the first warning.
    """
    if find_spec("ziglang") is None:
        raise ModuleNotFoundError(MISSING)
    check_intermediates(spotter.network)
    with tempfile.TemporaryDirectory() as folder:
        source, module = Path(folder, "spotter.c"), Path(folder, "spotter.wasm")
        library = source_text(spotter.network, "spotter") + c_spotter.source_text(spotter, "spotter")
        Path(folder, "spotter.h").write_text(header_text(spotter.network, "spotter", spotter=spotter), encoding="utf-8")
        source.write_text(library, encoding="utf-8")
        Path(folder, "module.c").write_text(_module_text(spotter.network), encoding="utf-8")
        exports = [f"-Wl,--export={name}" for name in _EXPORTS]
        command = [sys.executable, "-m", "ziglang", "cc", *FLAGS, *_LINK, *exports, "spotter.c", "module.c"]
        result = subprocess.run([*command, "-o", module.name], cwd=folder, capture_output=True, text=True)
        if result.returncode:
            raise ExportError(f"{' '.join(command[1:])} failed:\n{result.stderr}")
        return module.read_bytes()


def _module_text(network: IntegerNetwork) -> str:
    """The functions of the module over the library."""
    columns, vectors = event_columns(network), []
    for layer, of_input, size, _ in columns:
        field = f"state.{'x_hat' if of_input else 'h_hat'}_{layer}"
        vectors.append(f"{{{0 if is_dense(network.layers[layer]) else field}, {size}}}")
    text = files("deltarnn.hardware").joinpath("wasm.c").read_text(encoding="utf-8")
    return f"""#include "spotter.h"

typedef {integer_type(network.quantization.activation.bits)} activation;
#define COLUMNS {sum(group.size for group in columns)}
#define VECTORS {", ".join(vectors)}

{text}"""
