"""Float memories do not drift from W x̂ + U ĥ + b, however long a stream runs (MATH §4)."""

from typing import Any

import numpy as np
import pytest
import torch
from tests.engine.cases import ISAS, compiled

from deltarnn import DeltaGRU, DeltaLSTM


def held_memory(layer: Any, index: int, state: dict[str, np.ndarray]) -> np.ndarray:
    """M of the held state, in float64."""
    w, u, b_i, b_h = (
        getattr(layer, f"{name}_l{index}").detach().double().numpy()
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    from_x, from_h = w @ state["x_hat"] + b_i, u @ state["h_hat"] + b_h
    if isinstance(layer, DeltaLSTM):
        return from_x + from_h
    hidden = 2 * layer.hidden_size
    return np.concatenate([from_x[:hidden] + from_h[:hidden], from_x[hidden:], from_h[hidden:]])


@pytest.mark.parametrize("name", ISAS)
@pytest.mark.parametrize("cell", [DeltaGRU, DeltaLSTM])
def test_memories_stay_with_the_held_state(cell: Any, name: str) -> None:
    """Inputs in the hundreds, so that each addition rounds by up to 1e-5: without refreshing the sum walks off."""
    torch.manual_seed(0)
    layer = cell(24, 20, 2, thx=0.0, thh=0.05).eval()
    engine = compiled(layer, name)
    frames = np.random.default_rng(0).normal(scale=200, size=(20_000, 24)).astype(np.float32)
    for _ in range(3):
        engine.run(frames)
    for frame in frames[:2000]:
        engine.step(frame)
    for index, state in enumerate(engine.state):
        expected = held_memory(layer, index, state)
        # What at most 64 whole products between two refreshes round; unrefreshed it is ten times that.
        np.testing.assert_allclose(state["m"], expected, rtol=0, atol=3e-6 * max(np.abs(expected).max(), 10))


@pytest.mark.parametrize("name", ISAS)
@pytest.mark.parametrize(
    "make",
    [DeltaGRU, DeltaLSTM, lambda *sizes: DeltaGRU(*sizes, reset_after=False)],
    ids=["GRU", "LSTM", "reset before"],
)
@pytest.mark.parametrize("outlier", [1e3, -1e6, np.inf, -np.inf])
def test_large_values_leave_nothing_behind(make: Any, name: str, outlier: float) -> None:
    """As a dense product forgets them in the next frame: a mask's −10⁶, the logarithm of 0."""
    torch.manual_seed(0)
    layer = make(24, 20).eval()
    frames = np.random.default_rng(0).normal(size=(40, 24)).astype(np.float32)
    frames[7:10, 3] = frames[21, 5] = outlier
    layer.backend = "eager"  # at thresholds 0 it computes dense products
    with torch.no_grad():
        expected = layer.double()(torch.from_numpy(frames[:, None]).double())[0][:, 0].numpy()
    engine = compiled(layer.float(), name)
    after = np.r_[10:21, 22:40]
    np.testing.assert_allclose(engine.run(frames)[after], expected[after], rtol=0, atol=1e-5)
    engine.reset()
    np.testing.assert_allclose([engine.step(frame) for frame in frames[:21]][10:], expected[10:21], rtol=0, atol=1e-5)
