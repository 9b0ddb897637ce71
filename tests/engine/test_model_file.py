"""Model files: what is written comes back, and a damaged or hostile file is one clear error, never anything else."""

import copy
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save as to_bytes

from deltarnn.engine import Engine, ModelFileError, load_model, save_model

HEADER: dict[str, Any] = {
    "format": 1,
    "architecture": {
        "cell": "GRU",
        "input_size": 3,
        "hidden_size": 4,
        "num_layers": 2,
        "bias": True,
        "bidirectional": False,
        "proj_size": 0,
        "hard_activations": False,
        "head": [{"in": 4, "out": 5, "activation": "relu"}, {"in": 5, "out": 2, "activation": None}],
    },
    "thx": [0.125, 0.0],
    "thh": [0.25, 0.25],
    "quantization": {"activation": [8, 8], "weight": [1, 7], "gate": [2, 6], "rounding": "nearest"},
    "labels": ["down", "go"],
}


def make_tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {"head.0.weight": (5, 4), "head.0.bias": (5,), "head.2.weight": (2, 5), "head.2.bias": (2,)}
    for layer, inputs in enumerate((3, 4)):
        shapes |= {f"rnn.weight_ih_l{layer}": (12, inputs), f"rnn.weight_hh_l{layer}": (12, 4)}
        shapes |= {f"rnn.bias_ih_l{layer}": (12,), f"rnn.bias_hh_l{layer}": (12,)}
    return {name: rng.uniform(-0.5, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}


def changed(path: str, value: Any) -> dict[str, Any]:
    """The header with one field set, or removed if the value is ..."""
    header = copy.deepcopy(HEADER)
    place: Any = header
    *parents, last = path.split(".")
    for parent in parents:
        place = place[int(parent)] if isinstance(place, list) else place[parent]
    if value is ...:
        del place[last]
    else:
        place[int(last) if isinstance(place, list) else last] = value
    return header


def write(path: Path, tensors: dict[str, np.ndarray], header: Any) -> Path:
    """A file without save_model's checks."""
    path.write_bytes(
        to_bytes(tensors, metadata={"deltarnn": header if isinstance(header, str) else json.dumps(header)})
    )
    return path


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, make_tensors(), HEADER)
    tensors, header = load_model(path)
    assert header == HEADER
    assert tensors.keys() == make_tensors().keys()
    for name, tensor in make_tensors().items():
        np.testing.assert_array_equal(tensors[name], tensor)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_the_file_is_the_specified_one(tmp_path: Path) -> None:
    """Byte for byte by the specification: length, JSON, then the tensors' values; no reader of ours involved."""
    path = tmp_path / "model.safetensors"
    save_model(path, make_tensors(), HEADER)
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    index = json.loads(data[8 : 8 + length])
    assert json.loads(index.pop("__metadata__")["deltarnn"]) == HEADER
    for name, tensor in make_tensors().items():
        start, end = index[name]["data_offsets"]
        assert (index[name]["dtype"], index[name]["shape"]) == ("F32", list(tensor.shape))
        assert data[8 + length + start : 8 + length + end] == tensor.tobytes()


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, make_tensors(), HEADER)
    before = path.read_bytes()
    with pytest.raises(ModelFileError, match="format is 2"):
        save_model(path, make_tensors(), changed("format", 2))
    with pytest.raises(ModelFileError, match="not JSON"):
        save_model(path, make_tensors(), {**HEADER, "training": float("nan")})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("format", 2, "format is 2: this version of DeltaRNN reads format 1"),
        ("format", True, "format is True"),
        ("architecture", [], "architecture must be an object"),
        ("architecture.bias", ..., "architecture must be an object of bias, "),
        ("architecture.cell", "RNN", "cell is 'RNN': must be 'GRU' or 'LSTM'"),
        ("architecture.reset_after", 0, "reset_after is 0: must be true or false"),
        ("architecture.reset_after", False, "quantization does not combine with reset_after False"),
        ("architecture.candidate", "relu", "quantization does not combine with candidate 'relu'"),
        ("architecture.candidate", ["relu"], 'must be "tanh" or "relu"'),
        ("architecture.hidden_size", 0, "hidden_size is 0: must be a whole number from 1"),
        ("architecture.hidden_size", 10**30, "must be a whole number from 1 to 1048576"),
        ("architecture.hidden_size", 5, "the one before gives 5"),
        ("architecture.input_size", 5, "has shape"),
        ("architecture.num_layers", 3, "thx is"),
        ("architecture.num_layers", 2000, "at most 1024"),
        ("architecture.bidirectional", True, "takes 4 values, the one before gives 8"),
        ("architecture.proj_size", 2, "proj_size is for the LSTM only"),
        ("architecture.proj_size", 4, "proj_size is 4"),
        ("architecture.hard_activations", 1, "must be true or false"),
        ("architecture.head", [], "must be a list of 2 layers"),
        ("architecture.head.0.activation", "gelu", "activation 'gelu' in the head"),
        ("architecture.head.1.in", 4, "takes 4 values, the one before gives 5"),
        ("thx", [0.1], "thx is .*must be 2 finite numbers"),
        ("thx", [0.1, -0.1], "thx is"),
        ("thh", [0.1, 10**400], "thh is"),
        ("thh", "0.1", "thh is"),
        ("quantization", ..., "quantization must be null, or an object"),
        ("quantization.activation", [8], "quantization: "),
        ("quantization.activation", [30, 30], "quantization: .*at most 32 bits"),
        ("quantization.rounding", "up", "rounding='up'"),
    ],
)
def test_a_contradictory_header_is_named(field: str, value: Any, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "model.safetensors", make_tensors(), changed(field, value))
    with pytest.raises(ModelFileError, match=message):
        load_model(path)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("rnn.weight_ih_l1", None, "the tensor rnn.weight_ih_l1 is missing"),
        ("rnn.weight_ih_l2", np.zeros((12, 4), np.float32), "rnn.weight_ih_l2 belongs to no layer"),
        ("head.0.weight.x", np.zeros(3, np.float32), "belongs to no layer"),
        ("head.x.weight", np.zeros(3, np.float32), "belongs to no layer"),
        ("head.3.weight", np.zeros((2, 2), np.float32), "must be a list of 3 layers"),
        ("rnn.bias_ih_l0", np.zeros(11, np.float32), r"has shape \(11,\): the architecture says \(12,\)"),
        ("rnn.bias_ih_l0", np.zeros(12, np.int32), "is int32: must be float32 or float64"),
        ("rnn.bias_ih_l0", np.full(12, np.nan, np.float32), "holds NaN or infinity"),
    ],
)
def test_wrong_tensors_are_named(name: str, tensor: Any, message: str, tmp_path: Path) -> None:
    tensors = make_tensors()
    tensors.pop(name, None)
    if tensor is not None:
        tensors[name] = tensor
    with pytest.raises(ModelFileError, match=message):
        load_model(write(tmp_path / "model.safetensors", tensors, HEADER))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1]",
        "null",
        '{"format": NaN}',
        "[" * 100_000,
        '{"format": ' + "9" * 10_000 + "}",
        "\ud800".encode("utf-8", "replace").decode(),
    ],
)
def test_a_header_that_is_no_header(text: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError):
        load_model(write(tmp_path / "model.safetensors", make_tensors(), text))


def test_other_files_and_folders(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(to_bytes(make_tensors()))
    with pytest.raises(ModelFileError, match="no DeltaRNN model"):
        load_model(path)
    for content in (b"", b"\x80\x04\x95pickle", struct.pack("<Q", 1 << 60) + b"{}", b"\xff" * 64):
        path.write_bytes(content)
        with pytest.raises(ModelFileError, match="not a model file, or damaged"):
            load_model(path)
    with pytest.raises(ModelFileError):
        load_model(tmp_path)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_load_or_are_refused(data: st.DataObject, tmp_path: Path) -> None:
    """Bytes flipped, cut, doubled or replaced: a ModelFileError, or a model that passes every check and runs."""
    whole = bytearray(to_bytes(make_tensors(), metadata={"deltarnn": json.dumps(HEADER)}))
    for _ in range(data.draw(st.integers(1, 3))):
        # Mostly in the headers: damage to the weights is just other weights.
        position = data.draw(st.integers(0, min(len(whole), 3000) - 1) | st.integers(0, len(whole) - 1))
        how = data.draw(st.sampled_from(["flip", "cut", "insert", "double", "digit"]))
        if how == "flip":
            whole[position] ^= 1 << data.draw(st.integers(0, 7))
        elif how == "cut":
            del whole[position : position + data.draw(st.sampled_from([1, 8, len(whole)]))]
        elif how == "insert":
            whole[position:position] = data.draw(st.binary(min_size=1, max_size=9))
        elif how == "double":
            whole[position:position] = whole[: position + 1]
        else:
            whole[position] = ord(data.draw(st.sampled_from('0123456789-.,:{}[]"')))
        if not whole:
            break
    path = tmp_path / "model.safetensors"
    path.write_bytes(whole)
    try:
        load_model(path)
    except ModelFileError:
        return
    try:
        engine = Engine.load(path)
    except ValueError:
        return  # a valid file of a model that the engine refuses, such as a changed format
    assert engine.run(np.zeros((3, engine.input_size), np.float32)).shape == (3, engine.output_size)
