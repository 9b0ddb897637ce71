"""Fixed-point behaviour of the layers beyond the golden files: grids, training, refusals."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.layers import relative_error, smooth_input

from deltarnn import DeltaGRU, DeltaLSTM, QFormat, Quantization
from deltarnn.fixed.fake_quant import fake_quantize, fake_quantize_straight_through
from deltarnn.nn import quantize


@settings(max_examples=50, deadline=None)
@given(
    integer_bits=st.integers(1, 8),
    fraction_bits=st.integers(0, 10),
    rounding=st.sampled_from(["nearest", "floor"]),
    value=st.floats(-600, 600),
)
def test_torch_and_numpy_round_alike(integer_bits, fraction_bits, rounding, value):
    fmt = QFormat(integer_bits, fraction_bits)
    half = np.round(value * fmt.scale) / fmt.scale + 0.5 / fmt.scale  # a tie
    values = [value, half, -half]
    expected = fmt.quantize(values, rounding)
    assert fake_quantize(torch.tensor(values, dtype=torch.float64), fmt, rounding).tolist() == expected.tolist()


def test_rounding_by_hand():
    values = torch.tensor([0.5, 1.5, 2.5, -0.5, 0.7, -0.7, 9.0, -9.0])
    assert fake_quantize(values, QFormat(3, 0)).tolist() == [0, 2, 2, 0, 1, -1, 3, -4]
    assert fake_quantize(values, QFormat(3, 0), "floor").tolist() == [0, 1, 2, -1, 0, -1, 3, -4]


def test_straight_through_gradient_is_one_inside_the_range():
    values = torch.tensor([-1.3, -1.0, -0.3, 0.4, 0.9, 1.4], requires_grad=True)
    rounded = fake_quantize_straight_through(values, QFormat(1, 2))
    assert torch.equal(rounded, fake_quantize(values, QFormat(1, 2)))
    rounded.sum().backward()
    assert values.grad.tolist() == [0, 1, 1, 1, 0, 0]


@pytest.mark.parametrize("layer_type", [DeltaGRU, DeltaLSTM])
def test_training_rounds_the_weights_alone(layer_type):
    torch.manual_seed(0)
    formats = Quantization(weight=QFormat(1, 3))
    layer = layer_type(3, 5, quantization=formats, dtype=torch.float64)
    on_grid = layer_type(3, 5, dtype=torch.float64)
    state = {name: fake_quantize(value, formats.weight) for name, value in layer.state_dict().items()}
    if layer_type is DeltaLSTM:  # the biases enter as one sum, rounded once
        total = layer.bias_ih_l0.detach() + layer.bias_hh_l0.detach()
        state["bias_ih_l0"], state["bias_hh_l0"] = fake_quantize(total, formats.weight), torch.zeros_like(total)
    else:
        total = layer.bias_ih_l0.detach()[:10] + layer.bias_hh_l0.detach()[:10]
        state["bias_ih_l0"][:10], state["bias_hh_l0"][:10] = fake_quantize(total, formats.weight), 0
    on_grid.load_state_dict(state)
    x = smooth_input(8, 2, 3)
    y = layer(x)[0]
    assert relative_error(y, on_grid(x)[0]) < 1e-12
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in layer.parameters())


@pytest.mark.parametrize("layer_type", [DeltaGRU, DeltaLSTM])
def test_quantised_inference_approaches_float_with_more_bits(layer_type):
    torch.manual_seed(0)
    layer = layer_type(3, 16, num_layers=2, dtype=torch.float64).eval().requires_grad_(False)
    x = smooth_input(30, 2, 3)
    exact = layer(x)[0]
    errors = []
    for bits in (4, 7, 10):
        layer.quantization = Quantization(QFormat(4, bits), QFormat(1, bits + 4), QFormat(2, bits + 2))
        errors.append(float((layer(x)[0] - exact).abs().mean()))
    assert errors[2] < errors[1] / 3 < errors[0] / 9


def test_large_layers_stay_exact():
    """Sums that float32 could not hold: the same input in two orders of its features gives the same bits."""
    torch.manual_seed(0)
    formats = Quantization(activation=QFormat(8, 8))
    layer = DeltaGRU(600, 4, quantization=formats).eval()
    x = (torch.randint(-(2**15), 2**15, (5, 1, 600)) / 256).float()
    order = torch.randperm(600)
    permuted = DeltaGRU(600, 4, quantization=formats).eval()
    permuted.load_state_dict(layer.state_dict() | {"weight_ih_l0": layer.weight_ih_l0[:, order]})
    state, state_permuted = (
        item(values, item.initial_state(1))[1] for item, values in ((layer, x), (permuted, x[..., order]))
    )
    assert torch.equal(state[0].m, state_permuted[0].m)
    assert torch.equal(state[0].h, state_permuted[0].h)


def test_a_threshold_off_the_grid_is_refused_with_its_neighbours():
    with pytest.raises(ValueError, match=r"thx=0.1 is not on the grid.*Q3.5.*0.09375 and 0.125"):
        DeltaGRU(3, 4, thx=0.1, quantization=Quantization())
    layer = DeltaGRU(3, 4, thx=0.125, quantization=Quantization())
    with pytest.raises(ValueError, match=r"0\.09375 and 0\.125"):
        layer.thh = 0.1
    float_layer = DeltaGRU(3, 4, thx=0.1)
    with pytest.raises(ValueError, match="not on the grid"):
        float_layer.quantization = Quantization()
    assert float_layer.quantization is None


def test_quantize_rounds_thresholds_and_reports_them():
    model = torch.nn.ModuleDict({"a": DeltaGRU(3, 4, 2, thx=(0.1, 0.125), thh=0.5), "b": DeltaLSTM(4, 4, thx=0.25)})
    assert quantize(model, Quantization()) == {"a": ((0.09375, 0.125), (0.5, 0.5))}
    assert model["a"].thx == (0.09375, 0.125)
    assert model["b"].quantization == Quantization()
    with pytest.raises(ValueError, match=r"threshold 0.01 rounds to 0 in Q3.5.*0.03125"):
        quantize(DeltaGRU(3, 4, thx=0.01), Quantization())
    with pytest.raises(ValueError, match=r"no DeltaGRU or DeltaLSTM in this Linear"):
        quantize(torch.nn.Linear(2, 2), Quantization())


def test_nan_and_coarse_dtypes_are_refused():
    layer = DeltaGRU(3, 4, quantization=Quantization()).eval()
    x = torch.zeros(5, 2, 3)
    x[3, 1, 2] = torch.nan
    with pytest.raises(ValueError, match="NaN at step 3, sample 1, feature 2"):
        layer(x)
    with pytest.raises(ValueError, match=r"bfloat16.*float32 or float64"):
        DeltaGRU(3, 4, quantization=Quantization(), dtype=torch.bfloat16).eval()(torch.zeros(2, 1, 3).bfloat16())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 5), "at least 1 integer bit"),
        ((20, 20), "at most 32 bits"),
        ((3.0, 5), "must be a whole number"),
        ((3, -1), "no negative"),
    ],
)
def test_formats_that_make_no_sense(arguments, message):
    with pytest.raises(ValueError, match=message):
        QFormat(*arguments)


def test_quantization_checks_its_parts():
    with pytest.raises(ValueError, match=r"rounding='up'.*'nearest', 'floor'"):
        Quantization(rounding="up")
    with pytest.raises(TypeError, match=r"activation=\(3, 5\): must be a QFormat"):
        Quantization(activation=(3, 5))
    with pytest.raises(TypeError, match="must be a Quantization or None"):
        DeltaGRU(3, 4, quantization=8)
