"""Integer rounding, saturation and tables against exact rational arithmetic."""

import json
from decimal import ROUND_FLOOR, ROUND_HALF_EVEN, Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltarnn.fixed import LookUpTable, QFormat, Quantization, gate_tables, requantize, saturate, shift_right, wrap

integers = st.integers(-(2**40), 2**40)


@given(integers, st.integers(1, 20), st.sampled_from(["nearest", "floor"]))
def test_shift_right_rounds_as_exact_decimals_do(value, bits, rounding):
    mode = ROUND_HALF_EVEN if rounding == "nearest" else ROUND_FLOOR
    expected = int((Decimal(value) / Decimal(2**bits)).to_integral_value(mode))
    assert shift_right(np.array([value]), bits, rounding)[0] == expected


def test_a_negative_shift_multiplies_exactly():
    assert shift_right(np.array([-3, 5]), -4).tolist() == [-48, 80]


@given(integers, st.integers(2, 32))
def test_wrap_is_congruent_and_in_range(value, bits):
    word = int(wrap(np.array([value]), bits)[0])
    assert (word - value) % 2**bits == 0
    assert -(2 ** (bits - 1)) <= word < 2 ** (bits - 1)


def test_saturate_clips_at_both_ends():
    assert saturate(np.array([-129, -128, 127, 128]), 8).tolist() == [-128, -128, 127, 127]


@given(st.integers(1, 12), st.integers(0, 12), st.floats(-1e4, 1e4), st.sampled_from(["nearest", "floor"]))
def test_quantize_equals_the_definition(m, n, value, rounding):
    scaled = Fraction(value) * 2**n
    integer = round(scaled) if rounding == "nearest" else scaled.__floor__()  # round() of a Fraction is half-to-even
    expected = min(max(integer, -(2 ** (m + n - 1))), 2 ** (m + n - 1) - 1)
    assert QFormat(m, n).to_int(value, rounding) == expected


@given(st.integers(-(2**20), 2**20), st.integers(1, 8), st.integers(0, 8))
def test_wrapping_conversion_is_modular(integer, m, n):
    fmt = QFormat(m, n)
    assert fmt.to_int(integer / fmt.scale, overflow="wrap") == wrap(np.array([integer]), fmt.bits)[0]


def test_infinity_saturates_but_cannot_wrap():
    assert QFormat(3, 5).to_int([np.inf, -np.inf]).tolist() == [127, -128]
    with pytest.raises(ValueError, match="wrap"):
        QFormat(3, 5).to_int(np.inf, overflow="wrap")


@given(integers, st.integers(0, 20))
def test_requantize_equals_quantizing_the_real_value(value, fraction_bits):
    target = QFormat(4, 6)
    assert requantize(np.array([value]), fraction_bits, target)[0] == target.to_int(value / 2**fraction_bits)


@pytest.mark.parametrize("function", ["sigmoid", "tanh"])
def test_edgedrnn_tables_are_multiples_of_a_sixteenth(function):
    """LUT(q) = 16·rint(16·f(q/256)) for every q in Q8.8 (MATH §6)."""
    q = np.arange(-(2**15), 2**15)
    real = np.tanh(q / 256) if function == "tanh" else 0.5 * (1 + np.tanh(q / 512))
    table = LookUpTable(function, QFormat(8, 8), QFormat(2, 4))
    assert np.array_equal(16 * table(q), (16 * np.rint(16 * real)).astype(int))


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("activation", [QFormat(3, 5), QFormat(8, 8), QFormat(2, 12)])
def test_trimmed_tables_say_the_same(activation, hard):
    for table in gate_tables(Quantization(activation=activation), hard):
        first, entries = table.trimmed()
        q = np.arange(activation.int_min, activation.int_max + 1)
        assert np.array_equal(entries[np.clip(q - first, 0, len(entries) - 1)], table(q))
        assert len(entries) == 1 or (entries[0] != entries[1] and entries[-1] != entries[-2])


def test_hard_tables_follow_their_definition():
    sigmoid, tanh = gate_tables(Quantization(), hard_activations=True)
    q = np.arange(-128, 128)
    assert np.array_equal(sigmoid(q), np.rint(np.clip(q / 32 / 4 + 0.5, 0, 1) * 64))
    assert np.array_equal(tanh(q), np.rint(np.clip(q / 32, -1, 1) * 64))


@settings(max_examples=20)
@given(st.integers(-1000, 1000))
def test_addresses_beyond_the_format_saturate(q):
    table = LookUpTable("tanh", QFormat(3, 5), QFormat(2, 6))
    assert table(np.array([q]))[0] == table(np.array([min(max(q, -128), 127)]))[0]


def test_tables_refuse_what_no_memory_holds():
    with pytest.raises(ValueError, match=r"2\^17 entries.*at most 16 bits"):
        LookUpTable("tanh", QFormat(5, 12), QFormat(2, 6))
    with pytest.raises(ValueError, match="'relu'"):
        LookUpTable("relu", QFormat(3, 5), QFormat(2, 6))  # type: ignore[arg-type]


def test_bits_of_numpy_are_kept_as_python_s_and_others_refused():
    q = QFormat(np.int64(3), np.int32(5))
    assert json.dumps(vars(q)) == json.dumps(vars(QFormat(3, 5)))
    for bits in (True, 3.0, "3"):
        with pytest.raises(ValueError, match=r"fraction_bits=.*: must be a whole number"):
            QFormat(3, bits)


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        (lambda: QFormat(3, 5).to_int([0.1], "Nearest"), "rounding='Nearest': must be one of 'nearest', 'floor'"),
        (lambda: QFormat(3, 5).quantize([0.1], "up"), "rounding='up'"),
        (lambda: shift_right(np.array([5]), 2, "up"), "rounding='up'"),
        (lambda: requantize(np.array([5]), 7, QFormat(3, 5), "up"), "rounding='up'"),
        (lambda: LookUpTable("tanh", QFormat(3, 5), QFormat(2, 6), "up").entries, "rounding='up'"),
        (lambda: QFormat(3, 5).to_int([0.1], overflow="clip"), "overflow='clip': must be one of 'saturate', 'wrap'"),
    ],
)
def test_unknown_roundings_are_refused(compute, message):
    with pytest.raises(ValueError, match=message):
        compute()
