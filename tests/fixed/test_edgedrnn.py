"""The EdgeDRNN profile against simulation of the accelerator's public RTL, bit for bit."""

import numpy as np
import pytest
from tests.golden_edgedrnn import CASES, load

from deltarnn.fixed import QFormat, edgedrnn_forward


@pytest.mark.parametrize("case", CASES)
def test_outputs_and_fired_columns_equal_the_rtl(case):
    golden = load(case)
    y, fired = edgedrnn_forward(golden.x, golden.layers, golden.thx, golden.thh, return_fired=True)
    assert np.array_equal(y, golden.y)
    assert y.dtype == np.int16
    assert [sum(map(len, step)) for step in fired] == golden.fired_columns.tolist()


def tiny(hidden=2, inputs=1):
    rng = np.random.default_rng(0)
    shapes = ((3 * hidden, inputs), (3 * hidden, hidden), (3 * hidden,))
    return [tuple(rng.integers(-128, 128, shape).astype(np.int8) for shape in shapes)]


def test_one_step_by_hand():
    """One unit, weights 1/2, bias 1/4, x = 1: M_r = M_u = M_cx = 0.75, M_ch = 0."""
    layer = (np.full((3, 1), 64, np.int8), np.full((3, 1), 64, np.int8), np.full(3, 32, np.int8))
    u, c = 11 / 16, 10 / 16  # σ(0.75) = 0.679, tanh(0.75) = 0.635, both to the nearest sixteenth
    assert edgedrnn_forward(np.array([[256]]), [layer], 0, 0).tolist() == [[round((1 - u) * c * 256)]]


def test_equality_fires_and_zero_does_not():
    x = np.array([[64], [127], [191], [191]], np.int16)  # Δ = 64 fires at θ = 64; 63 does not; 127 does; then 0
    _, fired = edgedrnn_forward(x, tiny(), 64, 1023, return_fired=True)
    assert fired == [[[0, 1]], [[]], [[1]], [[]]]
    _, fired = edgedrnn_forward(np.zeros((2, 1), np.int16), tiny(), 0, 1023, return_fired=True)
    assert fired == [[[0]], [[]]]


def test_memories_wrap_at_24_bits():
    """2¹⁴ units of weight −1 against inputs of −128: M = 2¹⁴ · 128 · 2¹⁵ ≡ 0 modulo 2²⁴, as if nothing had come."""
    inputs = 1 << 14
    layer = (np.full((3, inputs), -128, np.int8), np.zeros((3, 1), np.int8), np.full(3, 32, np.int8))
    x = np.full((1, inputs), -(2**15), np.int16)
    assert edgedrnn_forward(x, [layer], 0, 0) == edgedrnn_forward(0 * x, [layer], 0, 0)


def test_words_that_do_not_fit_are_refused():
    x, layers = np.zeros((1, 1), np.int16), tiny()
    with pytest.raises(ValueError, match=r"thx=257.*0 to 256.*bias"):
        edgedrnn_forward(x, layers, 257, 0)
    with pytest.raises(ValueError, match=r"thh=1024.*0 to 1023"):
        edgedrnn_forward(x, layers, 0, 1024)
    with pytest.raises(ValueError, match=r"x holds integers from 0 to 40000.*Q8.8 stores -32768 to 32767"):
        edgedrnn_forward(np.array([[0], [40000]]), layers, 0, 0)
    with pytest.raises(ValueError, match="float64"):
        edgedrnn_forward(x.astype(float), layers, 0, 0)
    with pytest.raises(ValueError, match=r"weight_ih of layer 0 has shape \(6, 1\): must be \(6, 3\)"):
        edgedrnn_forward(np.zeros((1, 3), np.int16), layers, 0, 0)
    with pytest.raises(ValueError, match="at least one"):
        edgedrnn_forward(x, [], 0, 0)


def test_the_general_profile_agrees_where_nothing_saturates():
    """With A = Q8.8, W = Q1.7, N = Q2.4 and b_hn = 0 the general integer GRU is the EdgeDRNN profile."""
    from deltarnn.fixed import Quantization
    from deltarnn.fixed.cells import IntegerLayer

    rng = np.random.default_rng(1)
    weights = [rng.integers(-128, 128, shape).astype(np.int8) for shape in ((48, 5), (48, 16), (48,))]
    x = rng.integers(-600, 600, (50, 5)).cumsum(axis=0) // 8
    formats = Quantization(QFormat(8, 8), QFormat(1, 7), QFormat(2, 4))
    w_ih, w_hh, bias = (w / 128 for w in weights)
    layer = IntegerLayer.quantize("GRU", w_ih, w_hh, bias, np.zeros(48), 40 / 256, 20 / 256, formats)
    assert np.array_equal(layer.run(x[:, None]).y[:, 0], edgedrnn_forward(x, [weights], 40, 20))
