"""Column-balanced targeted dropout and CBCSC: golden matrices and properties."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deltarnn.prune import CBCSC, balanced_length, balanced_sparsity, column_balanced_dropout

FILES = sorted((Path(__file__).parents[1] / "data" / "cbtd").glob("*.npz"))
SHARED = sorted((Path(__file__).parents[3] / "shared" / "golden" / "cbtd").glob("*.npz"))

cases = st.tuples(
    st.integers(1, 40), st.integers(1, 6), st.integers(1, 12), st.floats(0, 0.99), st.integers(0, 2**31)
)  # rows, columns, PEs, gamma, seed: rows below and not divisible by the PEs included


def draw(rows, columns, seed):
    return np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)


def test_the_golden_files_are_there():
    assert len(FILES) == 5


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden_numpy_and_torch(path):
    check_golden(path)


@pytest.mark.skipif(not SHARED, reason="the folder of golden vectors is not here")
def test_golden_at_full_width():
    for path in SHARED:
        check_golden(path)


def check_golden(path):
    data = np.load(path)
    gamma, num_pe = float(data["gamma"]), int(data["num_pe"])
    pruned = column_balanced_dropout(data["weight"], gamma, num_pe)
    assert np.array_equal(pruned, data["pruned"])
    assert pruned.dtype == data["weight"].dtype
    assert np.array_equal(column_balanced_dropout(torch.from_numpy(data["weight"]), gamma, num_pe), data["pruned"])
    assert np.array_equal(CBCSC.encode(pruned, gamma, num_pe).decode(), data["pruned"])


@settings(deadline=None)
@given(cases)
def test_every_subcolumn_loses_exactly_its_smallest(case):
    rows, columns, num_pe, gamma, seed = case
    weight = draw(rows, columns, seed)
    pruned = column_balanced_dropout(weight, gamma, num_pe)
    for pe in range(min(num_pe, rows)):
        before, after = np.abs(weight[pe::num_pe]), pruned[pe::num_pe]
        dropped = int(len(before) * gamma)
        assert ((after == 0).sum(axis=0) == dropped).all()
        assert np.array_equal(np.sort(np.abs(after), axis=0)[dropped:], np.sort(before, axis=0)[dropped:])
        assert (np.count_nonzero(after, axis=0) <= balanced_length(rows, gamma, num_pe)).all()
    assert np.isclose(1 - np.count_nonzero(pruned) / pruned.size, balanced_sparsity(rows, gamma, num_pe))
    assert np.array_equal(column_balanced_dropout(pruned, gamma, num_pe), pruned)
    assert np.array_equal(column_balanced_dropout(torch.from_numpy(weight), gamma, num_pe), pruned)


@settings(deadline=None)
@given(cases)
def test_cbcsc_is_the_identity_and_multiplies_as_the_dense_matrix(case):
    rows, columns, num_pe, gamma, seed = case
    integers = np.rint(draw(rows, columns, seed) * 40).astype(np.int64)  # zeros among the survivors too
    pruned = column_balanced_dropout(integers, gamma, num_pe)
    stored = CBCSC.encode(pruned, gamma, num_pe)
    assert stored.values.shape == (columns, num_pe, balanced_length(rows, gamma, num_pe))
    assert np.array_equal(stored.decode(), pruned)
    assert not stored.indices[stored.values == 0].any()  # padding is zero in both fields
    x = np.random.default_rng(seed + 1).integers(-3, 4, columns)
    assert np.array_equal(stored.matvec(x), pruned @ x)
    words = stored.packed_words(value_bits=12)
    again = CBCSC.from_packed_words(words, pruned.shape, value_bits=12)
    assert np.array_equal(again.decode(), pruned)


def test_the_layout_of_words():
    """Two PEs, four rows: row 2 is PE 0's second (LIDX 1); −1 in 8 bits is 255, over one bit of LIDX."""
    stored = CBCSC.encode(np.array([[0], [5], [-1], [0]]), gamma=0.5, num_pe=2)
    assert stored.values.tolist() == [[[-1], [5]]]
    assert stored.indices.tolist() == [[[1], [0]]]
    assert stored.packed_words().tolist() == [[[255 << 1 | 1, 5 << 1]]]


def test_torch_in_torch_out():
    weight = column_balanced_dropout(torch.randn(12, 5), 0.5, 4)
    stored = CBCSC.encode(weight, 0.5, 4)
    assert torch.equal(stored.decode(), weight)
    x = torch.randn(5)
    torch.testing.assert_close(stored.matvec(x), weight @ x)


def test_double_precision_decides_between_nearly_equal_weights():
    weight = torch.tensor([[1.0 + 1e-12], [1.0]], dtype=torch.float64)
    assert column_balanced_dropout(weight, 0.5, 1).tolist() == [[1.0 + 1e-12], [0.0]]


def test_everything_but_the_pruner_works_without_torch():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy as np, deltarnn.fixed, deltarnn.fixed.choice, deltarnn.hardware, deltarnn.hardware.export_c\n"
        "from deltarnn.prune import CBCSC, column_balanced_dropout\n"
        "w = column_balanced_dropout(np.arange(8.0)[:, None], 0.5, 2)\n"
        "print(CBCSC.encode(w, 0.5, 2).matvec(np.ones(1)).sum())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "22.0\n", result.stderr


def test_alpha_is_the_probability_of_each_drop():
    weight = draw(400, 100, 0)
    fully = column_balanced_dropout(weight, 0.5, 4) == 0
    for drawn in (
        column_balanced_dropout(weight, 0.5, 4, 0.3, np.random.default_rng(1)),
        column_balanced_dropout(torch.from_numpy(weight), 0.5, 4, 0.3, torch.Generator().manual_seed(1)).numpy(),
    ):
        assert not (drawn[~fully] == 0).any()
        share = (drawn[fully] == 0).mean()  # of 20 000 draws: a standard deviation is 0.003
        assert abs(share - 0.3) < 0.015
    assert np.array_equal(column_balanced_dropout(weight, 0.5, 4, alpha=0), weight)


def test_generators_make_the_draw_repeatable():
    weight = torch.randn(32, 8)
    first, second = (column_balanced_dropout(weight, 0.5, 4, 0.5, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)


def test_spartus_sizes():
    """s = 64: γ = 0.94 keeps 4 of 64, 93.75 % zero (MATH §7)."""
    assert balanced_length(4096, 0.94, 64) == 4
    assert balanced_sparsity(4096, 0.94, 64) == 0.9375


def test_bad_requests_are_refused():
    weight = draw(8, 3, 0)
    with pytest.raises(ValueError, match=r"gamma=1\.0"):
        column_balanced_dropout(weight, 1.0, 4)
    with pytest.raises(ValueError, match="num_pe=0"):
        column_balanced_dropout(weight, 0.5, 0)
    with pytest.raises(ValueError, match="alpha=2"):
        column_balanced_dropout(weight, 0.5, 4, 2)
    with pytest.raises(ValueError, match=r"shape \(2, 2, 2\)"):
        column_balanced_dropout(np.zeros((2, 2, 2)), 0.5, 4)
    with pytest.raises(ValueError, match=r"column 0 holds 2 non-zeros for processing element 0.*room for 1"):
        CBCSC.encode(weight, 0.5, 4)
    with pytest.raises(ValueError, match=r"x has shape \(2,\): must be \(3,\)"):
        CBCSC.encode(weight, 0.0, 4).matvec(np.zeros(2))
    with pytest.raises(ValueError, match="whole numbers"):
        CBCSC.encode(weight, 0.0, 4).packed_words()
    with pytest.raises(ValueError, match="do not fit in 8 bits"):
        CBCSC.encode(np.full((8, 1), 128), 0.0, 4).packed_words()


def test_integer_products_do_not_overflow():
    weights = np.full((4, 2), 100, np.int8)
    result = CBCSC.encode(weights, 0.0, 2).matvec(np.array([100, 100], np.int8))
    assert result.dtype == np.int64
    assert result.tolist() == [20000] * 4
