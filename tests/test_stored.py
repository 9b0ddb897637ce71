"""Files that a later run goes on from: a single wrong bit is found out."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from deltarnn.stored import DamagedFileError, load_stored, peek_stored, save_stored

ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array(7), "c": np.zeros(0, np.int16)}
RECORD = {"epoch": 3, "Δ": [0.1, None, float("inf")]}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("stored") / "file.safetensors"
    save_stored(path, "key", ARRAYS, RECORD)
    return path.read_bytes()


def test_what_is_written_is_read(tmp_path):
    save_stored(str(tmp_path / "file"), "key", {**ARRAYS, "t": ARRAYS["a"].T}, RECORD)
    arrays, record = load_stored(str(tmp_path / "file"), "key")
    assert record == RECORD
    assert set(arrays) == {*ARRAYS, "t"}
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        assert arrays[name].shape == array.shape
        np.testing.assert_array_equal(arrays[name], array)
    np.testing.assert_array_equal(arrays["t"], ARRAYS["a"].T)
    assert peek_stored(tmp_path / "file", "key") is not None
    assert peek_stored(tmp_path / "file", "other") is None
    with pytest.raises(DamagedFileError, match="holds no other: another kind of file, or damaged"):
        load_stored(tmp_path / "file", "other")
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_stored(tmp_path / "none", "key")


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_flipped_bit_is_found(whole, tmp_path_factory, data):
    content = bytearray(whole)
    for place in data.draw(st.lists(st.integers(0, 8 * len(whole) - 1), min_size=1, max_size=3, unique=True)):
        content[place // 8] ^= 1 << place % 8
    path = tmp_path_factory.getbasetemp() / "flipped.safetensors"
    path.write_bytes(content)
    try:
        arrays, record = load_stored(path, "key")
    except DamagedFileError as error:
        told = str(error)
    else:  # white space between the parts of the index says nothing
        told = f"{path}: "
        assert record == RECORD
        assert all(np.array_equal(arrays[name], array) for name, array in ARRAYS.items())
    assert told.startswith(f"{path}: ")


def test_a_record_from_before_checksums_is_taken_as_it_is(tmp_path):
    path = tmp_path / "old.safetensors"
    save_file(ARRAYS, path, metadata={"key": json.dumps(RECORD)})
    assert load_stored(path, "key", ("Δ", "epoch"))[1] == RECORD
    with pytest.raises(DamagedFileError, match="its checksum differs"):
        load_stored(path, "key", ("epoch",))
    save_file(ARRAYS, path, metadata={"key": json.dumps({**RECORD, "chackcum": "0"})})
    with pytest.raises(DamagedFileError, match="its checksum differs"):
        load_stored(path, "key", ("Δ", "epoch"))
