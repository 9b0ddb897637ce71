"""Model files: safetensors plus a JSON header, enough to evaluate, stream, export and continue (docs/model_file.md).

Needs numpy and safetensors, not torch. Reading trusts nothing: a wrong, truncated or hostile file gives one
`ModelFileError` that says what is wrong with it.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from deltarnn.files import write_bytes
from deltarnn.fixed.formats import LayerFormats
from deltarnn.fixed.module_reader import head_names
from deltarnn.fixed.qformat import QFormat, Quantization
from deltarnn.stored import CHECKSUM, checksum_of

Tensors = dict[str, NDArray[Any]]
Header = dict[str, Any]

FORMAT = 1
KEY = "deltarnn"
"""The safetensors metadata entry that holds the header."""

MAX_SIZE = 1 << 20
"""The largest size (features, units, layers) that a header may name."""

TENSOR_FORMATS = ("input", "hidden", "cell", "address", "weight_ih", "weight_hh", "gate")
"""The formats of each entry of the header's `formats`."""

GRU_OPTIONS: dict[str, tuple[Any, ...]] = {"reset_after": (True, False), "candidate": ("tanh", "relu")}
"""Fields of the architecture that may be absent, and their values, the first of them meant by absence."""

MAX_THRESHOLD = float(np.finfo(np.float32).max)


class ModelFileError(ValueError):
    """A model file that cannot be used, with the reason."""


def save_model(path: str | os.PathLike[str], tensors: Mapping[str, NDArray[Any]], header: Mapping[str, Any]) -> None:
    """Write a model file, atomically: a reader finds the old file or the whole new one.

    Parameters
    ----------
    tensors: float32 or float64 arrays by the names of the module's state_dict.
    header: as docs/model_file.md says; further fields of JSON values are kept.

    Raises
    ------
    ModelFileError
        If header and tensors do not describe a model: what cannot be read back is not written.
    """
    write_bytes(Path(path), model_bytes(path, tensors, header))


def model_bytes(path: str | os.PathLike[str], tensors: Mapping[str, NDArray[Any]], header: Mapping[str, Any]) -> bytes:
    """What `save_model` writes to `path`, with its parameters and errors; the same model gives the same bytes."""
    target = Path(path)
    arrays = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    try:
        text = json.dumps(header, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ModelFileError(f"{target}: the header is not JSON ({error})") from None
    check_model(target, arrays, json.loads(text))
    return _in_order(to_bytes(arrays, metadata={KEY: text, CHECKSUM: checksum_of(text, arrays)}))


def _in_order(data: bytes) -> bytes:
    """The same file with its metadata in alphabetical order: the library's is random, and the same model shall give the
    same bytes."""
    start = 8 + int.from_bytes(data[:8], "little")
    index = json.loads(data[8:start])
    index["__metadata__"] = dict(sorted(index["__metadata__"].items()))
    text = json.dumps(index, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[start:]


def load_model(path: str | os.PathLike[str]) -> tuple[Tensors, Header]:
    """Read a model file: (tensors, header), checked against each other.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ModelFileError
        If it is not a model file, is damaged, or contradicts itself.
    """
    source = Path(path)
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such model file")
    if source.is_dir():
        raise ModelFileError(f"{source}: a folder, not a model file")
    try:
        with safe_open(source, framework="numpy") as file:
            metadata = file.metadata() or {}
            text = metadata.get(KEY)
            if text is None:
                raise ModelFileError(
                    f"{source}: a safetensors file, but no DeltaRNN model (no {KEY!r} in its metadata)"
                )
            header = json.loads(text, parse_constant=_no_constant)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except ModelFileError:
        raise
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError, RecursionError, MemoryError) as error:
        raise ModelFileError(f"{source}: not a model file, or damaged ({error})") from None
    if metadata.get(CHECKSUM) not in (None, checksum_of(text, tensors)):  # files of other programs may have none
        raise ModelFileError(f"{source}: damaged (its checksum differs)")
    check_model(source, tensors, header)
    return tensors, header


def check_model(path: str | os.PathLike[str], tensors: Tensors, header: Any) -> None:
    """Raise ModelFileError, naming the file, if header and tensors do not describe a model."""
    _Checker(Path(path)).check(tensors, header)


def read_quantization(header: Mapping[str, Any]) -> Quantization | None:
    """The formats that a checked header names."""
    fields = header["quantization"]
    if fields is None:
        return None
    activation, weight, gate = (QFormat(*fields[name]) for name in ("activation", "weight", "gate"))
    return Quantization(activation, weight, gate, fields["rounding"])


def write_quantization(quantization: Quantization | None) -> dict[str, Any] | None:
    """The header's entry for `quantization`."""
    if quantization is None:
        return None
    formats = {name: getattr(quantization, name) for name in ("activation", "weight", "gate")}
    entry: dict[str, Any] = {name: [fmt.integer_bits, fmt.fraction_bits] for name, fmt in formats.items()}
    return {**entry, "rounding": quantization.rounding}


def read_formats(header: Mapping[str, Any]) -> tuple[LayerFormats, ...] | None:
    """The formats tensor by tensor that a checked header names, one entry per layer."""
    layers = header.get("formats")
    if layers is None:
        return None
    return tuple(
        LayerFormats(**{name: QFormat(*layer[name]) for name in TENSOR_FORMATS}, rounding=layer["rounding"])
        for layer in layers
    )


def write_formats(formats: LayerFormats) -> dict[str, Any]:
    """The header's entry for one layer's formats tensor by tensor."""
    named = {name: getattr(formats, name) for name in TENSOR_FORMATS}
    entry: dict[str, Any] = {name: [fmt.integer_bits, fmt.fraction_bits] for name, fmt in named.items()}
    return {**entry, "rounding": formats.rounding}


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


class _Checker:
    """Whether a header is what docs/model_file.md says, and the tensors are what it announces."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def check(self, tensors: Tensors, header: Any) -> None:
        if not isinstance(header, dict):
            self.fail("the header is not a JSON object")
        version = header.get("format")
        if type(version) is not int or version != FORMAT:
            self.fail(f"format is {version!r}: this version of DeltaRNN reads format {FORMAT}")
        shapes = self._recurrent_shapes(self._architecture(header.get("architecture")))
        for name in ("thx", "thh"):
            self._thresholds(name, header.get(name), header["architecture"]["num_layers"])
        self._quantization(header)
        self._head_shapes(shapes, tensors, header["architecture"])
        self._tensors(shapes, tensors)

    def fail(self, reason: str) -> NoReturn:
        raise ModelFileError(f"{self.path}: {reason}")

    def _architecture(self, fields: Any) -> dict[str, Any]:
        known = {"cell", "input_size", "hidden_size", "num_layers", "bias", "bidirectional", "proj_size"}
        known |= {"hard_activations", "head"}
        if not isinstance(fields, dict) or set(fields) - set(GRU_OPTIONS) != known:
            self.fail(f"architecture must be an object of {', '.join(sorted(known))}")
        if fields["cell"] not in ("GRU", "LSTM"):
            self.fail(f"cell is {fields['cell']!r}: must be 'GRU' or 'LSTM'")
        for name in ("input_size", "hidden_size", "num_layers"):
            self._size(name, fields[name])
        for name in ("bias", "bidirectional", "hard_activations"):
            if type(fields[name]) is not bool:
                self.fail(f"{name} is {fields[name]!r}: must be true or false")
        for name, (default, *others) in GRU_OPTIONS.items():
            value = fields.get(name, default)
            if type(value) is not type(default) or value not in (default, *others):
                self.fail(f"{name} is {value!r}: must be {' or '.join(map(json.dumps, (default, *others)))}")
            if fields["cell"] == "LSTM" and value != default:
                self.fail(f"{name} is for the GRU only")
        projection = fields["proj_size"]
        if type(projection) is not int or not 0 <= projection < fields["hidden_size"]:
            self.fail(f"proj_size is {projection!r}: must be 0, or less than hidden_size")
        if projection and fields["cell"] == "GRU":
            self.fail("proj_size is for the LSTM only")
        return fields

    def _size(self, name: str, value: Any) -> None:
        if type(value) is not int or not 1 <= value <= MAX_SIZE:
            self.fail(f"{name} is {value!r}: must be a whole number from 1 to {MAX_SIZE}")

    def _recurrent_shapes(self, a: dict[str, Any]) -> dict[str, tuple[int, ...]]:
        rows = (3 if a["cell"] == "GRU" else 4) * a["hidden_size"]
        outputs = a["proj_size"] or a["hidden_size"]
        directions = ("", "_reverse") if a["bidirectional"] else ("",)
        if a["num_layers"] > 1024:
            self.fail(f"num_layers is {a['num_layers']}: at most 1024")
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in range(a["num_layers"]):
            inputs = a["input_size"] if layer == 0 else outputs * len(directions)
            for direction in directions:
                suffix = f"_l{layer}{direction}"
                shapes[f"rnn.weight_ih{suffix}"] = (rows, inputs)
                shapes[f"rnn.weight_hh{suffix}"] = (rows, outputs)
                if a["bias"]:
                    shapes[f"rnn.bias_ih{suffix}"] = shapes[f"rnn.bias_hh{suffix}"] = (rows,)
                if a["proj_size"]:
                    shapes[f"rnn.weight_hr{suffix}"] = (outputs, a["hidden_size"])
        return shapes

    def _head_shapes(self, shapes: dict[str, tuple[int, ...]], tensors: Tensors, a: dict[str, Any]) -> None:
        head = a["head"]
        names = head_names(tensors)
        if not isinstance(head, list) or len(head) != len(names):
            self.fail(f"head must be a list of {len(names)} layers, as many as there are head.*.weight tensors")
        width = (a["proj_size"] or a["hidden_size"]) * (2 if a["bidirectional"] else 1)
        for index, (name, layer) in enumerate(zip(names, head, strict=True)):
            if not isinstance(layer, dict) or set(layer) != {"in", "out", "activation"}:
                self.fail(f"layer {index} of the head must be an object of in, out, activation")
            self._size(f"out of head layer {index}", layer["out"])
            if layer["in"] != width:
                self.fail(f"layer {index} of the head takes {layer['in']!r} values, the one before gives {width}")
            if layer["activation"] not in (None, "relu"):
                self.fail(f"activation {layer['activation']!r} in the head: must be null or 'relu'")
            shapes[f"{name}.weight"] = (layer["out"], width)
            if f"{name}.bias" in tensors:
                shapes[f"{name}.bias"] = (layer["out"],)
            width = layer["out"]

    def _thresholds(self, name: str, values: Any, count: int) -> None:
        numbers = isinstance(values, list) and all(type(value) in (int, float) for value in values)
        if not numbers or len(values) != count or not all(0 <= value <= MAX_THRESHOLD for value in values):
            self.fail(f"{name} is {values!r}: must be {count} finite numbers of at least 0, one per layer")

    def _quantization(self, header: dict[str, Any]) -> None:
        fields = header.get("quantization", "missing")
        names = {"activation", "weight", "gate", "rounding"}
        if fields is not None and (not isinstance(fields, dict) or set(fields) != names):
            self.fail(f"quantization must be null, or an object of {', '.join(sorted(names))}")
        for name, (default, *_) in GRU_OPTIONS.items():
            if fields is not None and header["architecture"].get(name, default) != default:
                self.fail(f"quantization does not combine with {name} {header['architecture'][name]!r}: must be null")
        try:
            read_quantization(header)
        except (TypeError, ValueError) as error:
            self.fail(f"quantization: {error}")
        self._formats(header)

    def _formats(self, header: dict[str, Any]) -> None:
        layers, count = header.get("formats"), header["architecture"]["num_layers"]
        if layers is None:
            return
        names = {*TENSOR_FORMATS, "rounding"}
        entries = isinstance(layers, list) and all(isinstance(entry, dict) and set(entry) == names for entry in layers)
        if not entries or len(layers) != count:
            self.fail(f"formats must be a list of {count} objects of {', '.join(sorted(names))}")
        if header["quantization"] is not None:
            self.fail("formats and quantization are both there: one of them must be null")
        try:
            read_formats(header)
        except (TypeError, ValueError) as error:
            self.fail(f"formats: {error}")

    def _tensors(self, shapes: dict[str, tuple[int, ...]], tensors: Tensors) -> None:
        for name in sorted(shapes.keys() | tensors.keys()):
            if name not in tensors:
                self.fail(f"the tensor {name} is missing")
            if name not in shapes:
                self.fail(f"the tensor {name} belongs to no layer of the architecture")
            tensor = tensors[name]
            if tensor.dtype not in (np.float32, np.float64):
                self.fail(f"{name} is {tensor.dtype}: must be float32 or float64")
            if tensor.shape != shapes[name]:
                self.fail(f"{name} has shape {tensor.shape}: the architecture says {shapes[name]}")
            if not np.isfinite(tensor).all():
                self.fail(f"{name} holds NaN or infinity")
