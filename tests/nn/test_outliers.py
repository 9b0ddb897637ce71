"""What large inputs leave behind once they are gone: nothing (MATH §4)."""

import pytest
import torch
from tests.nn.sequences import CELLS, close

pytest.importorskip("deltarnn._native", reason="the native extension is not built")


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("outlier", [1e4, -1e9, float("inf")])
@pytest.mark.parametrize("packed", [False, True])
def test_large_inputs_leave_nothing_behind(cell: str, outlier: float, packed: bool):
    """Outputs, final states and gradients of a sequence with an outlier equal the eager backend's in float64."""
    layer_type = CELLS[cell][0]
    torch.manual_seed(1)
    fast = layer_type(5, 20, 2, thx=0.1, thh=0.1, backend="native")
    slow = layer_type(5, 20, 2, thx=0.1, thh=0.1, backend="eager").double()
    slow.load_state_dict(fast.state_dict())
    signal = torch.randn(30, 3, 5).cumsum(0) * 0.1
    signal[4, 1, 2] = outlier
    results = {}
    for layer in (fast, slow):
        x = signal.to(layer.weight_ih_l0.dtype, copy=True).requires_grad_()
        first, second = layer.initial_state(3)
        first = first._replace(x_hat=(first.x_hat + 0.3).requires_grad_())
        lengths = torch.tensor([30, 21, 9])
        given = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False) if packed else x
        output, (final, _) = layer(given, (first, second))
        output = output.data if packed else output
        results[layer] = {"output": output.detach()} | {f"final {k}": v.detach() for k, v in final._asdict().items()}
        if outlier == float("inf"):  # times a gradient of 0 it is NaN, in every backend
            continue
        output.square().sum().backward()
        results[layer] |= {"x": x.grad, "x_hat": first.x_hat.grad}
        results[layer] |= {name: parameter.grad for name, parameter in layer.named_parameters()}
    assert fast.backend_used.startswith("native")
    for name, expected in results[slow].items():
        assert close(results[fast][name], expected), name
