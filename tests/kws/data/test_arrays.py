"""Files of features made elsewhere: what is taken, and what is named as wrong."""

import numpy as np
import pytest

from deltarnn.kws.data.arrays import read_arrays

X = np.arange(24.0).reshape(2, 3, 4)
GOOD = {"x": X, "word": np.array(["yes", "no"]), "name": np.array(["a", "a"])}


def test_reads_what_is_there(tmp_path):
    np.savez(tmp_path / "a.npz", **GOOD)
    arrays = read_arrays(tmp_path / "a.npz")
    np.testing.assert_array_equal(arrays.levels, X)
    assert (arrays.words, arrays.names) == (["yes", "no"], ["a", "a"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": None}, "holds no array 'x'"),
        ({"x": X[0]}, r"x is float64 \(3, 4\); needs numbers \(clips, frames, bands\)"),
        ({"x": X * 1j}, "x is complex128"),
        ({"x": X * np.nan}, "no finite numbers"),
        ({"word": np.array(["yes"])}, r"word is <U3 \(1,\); needs 2 texts"),
        ({"name": np.array([1, 2])}, "name is int64"),
        ({"word": np.array(["../yes", "no"])}, r"'\.\./yes' is no word or name"),
        ({"word": np.array(["yes", ""])}, "'' is no word or name"),
        ({"word": np.array(["yes", "yes"])}, "two clips have the same word and name"),
        ({"word": np.array(["yes", 3], dtype=object)}, "Object arrays cannot be loaded"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, changes, message):
    np.savez(tmp_path / "a.npz", **{k: v for k, v in {**GOOD, **changes}.items() if v is not None})
    with pytest.raises(ValueError, match=rf"a\.npz: .*{message}"):
        read_arrays(tmp_path / "a.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive"])
def test_a_file_that_is_no_archive_is_named(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npz: "):
        read_arrays(tmp_path / "a.npz")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"gone\.npz: .*No such file"):
        read_arrays(tmp_path / "gone.npz")
