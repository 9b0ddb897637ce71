"""σ and tanh of every instruction set, over all magnitudes."""

import numpy as np
import pytest
from tests.engine.cases import ISAS, core, isa


def apply(hard: bool, tanh: bool, values: np.ndarray, name: str) -> np.ndarray:
    out = np.empty_like(values)
    with isa(name):
        core.apply_gate(hard, tanh, values, out)
    return out


def values() -> np.ndarray:
    small = np.geomspace(1e-30, 87, 40_001)
    return np.concatenate([-small, small, np.linspace(-20, 20, 40_001)]).astype(np.float32)


@pytest.mark.parametrize("name", ISAS)
def test_smooth_gates_are_within_a_few_units_in_the_last_place(name: str) -> None:
    x = values()
    exact = x.astype(np.float64)
    for tanh, expected in ((False, 1 / (1 + np.exp(-exact))), (True, np.tanh(exact))):
        actual = apply(False, tanh, x, name)
        np.testing.assert_allclose(actual, expected, rtol=2e-7, atol=0)
        assert np.abs(actual).max() <= 1


@pytest.mark.parametrize("name", ISAS)
def test_hard_gates(name: str) -> None:
    x = values()
    np.testing.assert_allclose(apply(True, False, x, name), np.clip(x / 4 + 0.5, 0, 1), rtol=2e-7)
    np.testing.assert_array_equal(apply(True, True, x, name), np.clip(x, -1, 1))


@pytest.mark.parametrize("name", ISAS)
@pytest.mark.parametrize("hard", [False, True])
def test_ends_and_nan(name: str, hard: bool) -> None:
    x = np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 0.0, -0.0], np.float32)
    sigmoid, tanh = apply(hard, False, x, name), apply(hard, True, x, name)
    assert np.isnan(sigmoid[0])
    assert np.isnan(tanh[0])
    np.testing.assert_allclose(sigmoid[1:], [1, 0, 1, 0, 0.5, 0.5], rtol=0, atol=1e-37)
    np.testing.assert_array_equal(tanh[1:], [1, -1, 1, -1, 0, 0])
    assert np.signbit(tanh[-2:]).tolist() == [False, True]
