"""What is kept is found again by all that it was made of, and by nothing less; what is damaged is made anew."""

import numpy as np

from deltarnn.kws.features.array_cache import ArrayCache


def test_arrays_are_made_once_for_each_setting(tmp_path):
    made = []

    def make() -> np.ndarray:
        made.append(np.full(3, len(made)))
        return made[-1]

    kept = ArrayCache(tmp_path, {"seed": 0})
    for expected, teacher in ((0, "a"), (1, "b"), (0, "a"), (1, "b")):
        np.testing.assert_array_equal(kept("0-taught", make, teacher=teacher), np.full(3, expected))
    assert len(made) == 2
    assert ArrayCache(tmp_path, {"seed": 1}).read("0-taught", teacher="a") is None
    assert kept.read("0-taught") is None
    assert kept.read("1-taught", teacher="a") is None


def test_a_changed_byte_is_found(tmp_path):
    kept = ArrayCache(tmp_path, {})
    kept.write("0", {"features": np.arange(5.0)})
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"!")
    assert kept.read("0") is None
    np.testing.assert_array_equal(kept("0", lambda: np.arange(5.0)), np.arange(5.0))
    assert path.read_bytes() == whole
