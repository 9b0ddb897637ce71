"""Integer cells against the golden quantised runs and the quantised torch layers, bit for bit."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.layers import golden_files, load_golden

from deltarnn import DeltaGRU, DeltaLSTM, QFormat, Quantization, record_activity
from deltarnn.fixed.cells import IntegerLayer, round_threshold

FILES = golden_files("*_q*.npz")


def test_the_golden_files_are_there():
    assert len(FILES) == 10


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden_quantised_runs_bit_for_bit(path):
    data, meta = load_golden(path)
    rounding = "nearest" if meta["qa"] == 1 else "floor"
    formats = Quantization(
        QFormat(meta["aqi"], meta["aqf"]),
        QFormat(meta["wqi"], meta["wqf"]),
        QFormat(meta["nqi"], meta["nqf"]),
        rounding,
    )
    parameters = [data[f"param.{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    layer = IntegerLayer.quantize(
        meta["kind"], *parameters, meta["thx"], meta["thh"], formats, hard_activations=bool(meta["hard"])
    )
    a = formats.activation
    run = layer.run(a.to_int(data["x"], rounding))

    assert np.array_equal(a.to_float(run.y), data["y"])
    assert run.l1_delta_h == data["reg"]
    assert int((~run.fired_x).sum()) == meta["num_dx_zeros"]
    assert int((~run.fired_h).sum()) == meta["num_dh_zeros"]
    state, hidden = run.state, meta["hidden_size"]
    assert np.array_equal(a.to_float(state.x_hat), data["state.x_hat"][0, :, : meta["input_size"]])
    assert np.array_equal(a.to_float(state.h), data["state.h"][0])
    assert np.array_equal(a.to_float(state.h_hat), data["state.h_hat"][0])
    m = state.m / 2.0**layer.memory_fraction_bits
    assert np.array_equal(m[:, : data["state.m"].shape[-1]], data["state.m"][0])
    if meta["kind"] == "GRU":
        assert np.array_equal(m[:, 3 * hidden :], data["state.m_nh"][0])
    else:
        assert np.array_equal(a.to_float(state.c), data["state.c"][0])


@st.composite
def formats(draw):
    activation = QFormat(draw(st.integers(1, 6)), draw(st.integers(2, 9)))
    weight = QFormat(draw(st.integers(1, 3)), draw(st.integers(3, 9)))
    gate = QFormat(2, draw(st.integers(2, 9)))
    return Quantization(activation, weight, gate, draw(st.sampled_from(["nearest", "floor"])))


SATURATING = Quantization(QFormat(6, 2), QFormat(2, 3), QFormat(2, 2), "floor")
"""M reaches 19, whose tanh is 1 or the number before it, from library to library."""


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([DeltaGRU, DeltaLSTM]),
    formats(),
    st.integers(1, 5),
    st.integers(1, 9),
    st.integers(0, 3),
    st.integers(0, 3),
    st.booleans(),
    st.floats(0.1, 6.0),
    st.integers(0, 2**31),
)
@example(DeltaGRU, SATURATING, 2, 5, 0, 0, False, 4.5, 0)
def test_integers_equal_the_quantised_torch_layer(cell, q, inputs, hidden, thx, thh, hard, amplitude, seed):
    """Any formats, inputs and weights large enough to saturate included; states and events too."""
    torch.manual_seed(seed)
    a = q.activation
    options = {"thx": thx * a.step, "thh": thh * a.step, "quantization": q, "hard_activations": hard}
    module = cell(inputs, hidden, **options, backend="eager").eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(amplitude)
    x = torch.randn(12, 2, inputs) * amplitude
    with torch.no_grad(), record_activity(module, events=True) as activity:
        y, (state,) = module(x, module.initial_state(2))

    weights = [getattr(module, f"{n}_l0").detach().numpy() for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    layer = IntegerLayer.quantize(module.mode, *weights, options["thx"], options["thh"], q, hard)
    run = layer.run(a.to_int(x.numpy(), q.rounding))
    assert np.array_equal(a.to_float(run.y), y.numpy().astype(np.float64))
    assert np.array_equal(run.state.m / 2.0**layer.memory_fraction_bits, state.m.numpy())
    fired_x, fired_h = activity.events[0]
    assert np.array_equal(run.fired_x, fired_x.numpy())
    assert np.array_equal(run.fired_h, fired_h.numpy())
    assert np.abs(run.state.m).max() <= layer.memory_bound


@pytest.mark.parametrize("cell", ["GRU", "LSTM"])
def test_a_sequence_in_chunks_is_the_same_sequence(cell):
    rng = np.random.default_rng(0)
    gates = 3 if cell == "GRU" else 4
    weights = [rng.normal(size=shape) / 3 for shape in ((gates * 6, 4), (gates * 6, 6), (gates * 6,), (gates * 6,))]
    layer = IntegerLayer.quantize(cell, *weights, 0.125, 0.0625, Quantization())
    x = rng.integers(-128, 128, (20, 3, 4))
    whole = layer.run(x)
    first = layer.run(x[:7])
    second = layer.run(x[7:], first.state)
    assert np.array_equal(np.concatenate([first.y, second.y]), whole.y)
    for part, expected in zip(second.state, whole.state, strict=True):
        assert np.array_equal(part, expected)


def test_everything_saturates_at_the_extremes():
    """All weights and inputs at −128: the gates pin, h stays within A, and M reaches its bound exactly."""
    weights = [np.full(shape, -1.0) for shape in ((24, 3), (24, 8), (24,), (24,))]
    layer = IntegerLayer.quantize("GRU", *weights, 0.0, 0.0, Quantization())
    run = layer.run(np.full((5, 1, 3), -128))
    assert run.y.max() <= 127
    assert run.y.min() >= -128
    # One column's product is 2¹⁴; x̂ = −4 over 3 inputs with bias −1 gives M_nx = 3·2¹⁴ − 2¹² exactly.
    assert set(run.state.m[0, 16:24].tolist()) == {3 * 2**14 - 2**12}


def test_thresholds_round_to_the_nearest_grid_value():
    assert round_threshold("thx", 0.1, Quantization()) == 3 / 32
    assert round_threshold("thx", 0.0, Quantization()) == 0
    with pytest.raises(ValueError, match=r"thx: threshold 0.01 rounds to 0 in Q3.5.*at least 0.03125"):
        round_threshold("thx", 0.01, Quantization())
    with pytest.raises(ValueError, match=r"thh: threshold 5 must lie between 0 and 3.96875"):
        round_threshold("thh", 5, Quantization())


def test_a_threshold_off_the_grid_names_its_neighbours():
    weights = [np.zeros(shape) for shape in ((3, 1), (3, 1), (3,), (3,))]
    with pytest.raises(ValueError, match=r"thx=0.1 is not.*0.09375 and 0.125"):
        IntegerLayer.quantize("GRU", *weights, 0.1, 0.0, Quantization())
    with pytest.raises(ValueError, match=r"weight_ih has shape \(4, 1\): a GRU of 1 units needs 3 rows"):
        IntegerLayer.quantize("GRU", np.zeros((4, 1)), *weights[1:], 0.0, 0.0, Quantization())


def test_the_sum_of_two_rounded_terms_saturates():
    """Q1.5 with z = 1/2, n = 1, h = 31/32: A(1/2) + A(31/64) = 16 + 16 is one step beyond the format."""
    q = Quantization(QFormat(1, 5), QFormat(1, 7), QFormat(2, 6))
    weights = [np.zeros(shape) for shape in ((3, 1), (3, 1), (3,), (3,))]
    weights[2][2] = 127 / 128
    layer = IntegerLayer.quantize("GRU", *weights, 0.0, 0.0, q, hard_activations=True)
    state = layer.initial_state()._replace(h=np.array([[31]]), h_hat=np.array([[31]]))
    assert layer.run(np.zeros((1, 1, 1), dtype=np.int64), state).y.tolist() == [[[31]]]
