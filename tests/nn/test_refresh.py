"""A refreshed state against one that ran under the parameters it is refreshed for."""

import pytest
import torch

from deltarnn import DeltaGRU, DeltaLSTM, QFormat, Quantization
from deltarnn.nn.refresh import refreshed

FLOAT, COARSE = None, Quantization(QFormat(4, 4), QFormat(1, 4), QFormat(2, 6))


@pytest.mark.parametrize(("quantization", "training"), [(FLOAT, True), (COARSE, True), (COARSE, False)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", [DeltaGRU, DeltaLSTM])
def test_under_the_same_parameters_nothing_changes(kind, bias, quantization, training):
    torch.manual_seed(0)
    layer = kind(5, 7, 2, bias, thx=0.125, thh=0.125, quantization=quantization).double().train(training)
    _, state = layer(torch.randn(30, 3, 5).double(), layer.initial_state(3))
    for old, new in zip(state, refreshed(layer, state), strict=True):
        for field in old._fields:
            torch.testing.assert_close(getattr(new, field), getattr(old, field), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [DeltaGRU, DeltaLSTM])
def test_after_a_change_the_memories_are_those_of_the_new_parameters(kind):
    torch.manual_seed(1)
    layer = kind(5, 7, thx=0.1, thh=0.1).double()
    x = torch.randn(12, 2, 5).double()
    _, (before,) = layer(x, layer.initial_state(2))
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    (after,) = refreshed(layer, (before,))
    assert after.m.requires_grad
    assert not after.h.requires_grad
    # The next step's output must be that of a dense step from x̂ and ĥ as they are held: nothing fires at a high θ.
    layer.thx = layer.thh = 100.0
    output, _ = layer(before.x_hat[None], (after,))
    dense = torch.nn.GRU(5, 7) if kind is DeltaGRU else torch.nn.LSTM(5, 7)
    dense = dense.double()
    dense.load_state_dict(layer.state_dict())
    if kind is DeltaGRU:
        w, u = before.x_hat @ dense.weight_ih_l0.T, before.h_hat @ dense.weight_hh_l0.T
        gi, gh = (w + dense.bias_ih_l0).chunk(3, 1), (u + dense.bias_hh_l0).chunk(3, 1)
        r, z = torch.sigmoid(gi[0] + gh[0]), torch.sigmoid(gi[1] + gh[1])
        expected = (1 - z) * torch.tanh(gi[2] + r * gh[2]) + z * before.h
    else:
        w = before.x_hat @ dense.weight_ih_l0.T + before.h_hat @ dense.weight_hh_l0.T
        i, f, g, o = (w + dense.bias_ih_l0 + dense.bias_hh_l0).chunk(4, 1)
        expected = torch.sigmoid(o) * torch.tanh(torch.sigmoid(f) * before.c + torch.sigmoid(i) * torch.tanh(g))
    torch.testing.assert_close(output[0], expected)
