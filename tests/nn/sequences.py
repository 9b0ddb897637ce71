"""Random sequences of one layer, what a backend makes of them, and how close its decisions were."""

from types import ModuleType
from typing import NamedTuple

import torch
from hypothesis import assume
from hypothesis import strategies as st
from torch import Tensor

from deltarnn import DeltaGRU, DeltaLSTM
from deltarnn.nn import eager
from deltarnn.nn.state import DeltaGRUState, DeltaLSTMState, LayerOptions, LayerParameters

CELLS = {"GRU": (DeltaGRU, DeltaGRUState, 3), "LSTM": (DeltaLSTM, DeltaLSTMState, 4)}
TOLERANCE = 1e-4
GUARD = 2e-5


def random(generator: torch.Generator, *shape: int, scale: float = 1.0) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64) * scale


def close(actual: Tensor, expected: Tensor) -> bool:
    """Within TOLERANCE of the largest magnitude expected, or of 0.1 where all are smaller."""
    return bool((actual.double() - expected).abs().max() <= TOLERANCE * expected.abs().max().clamp(min=0.1))


def margin(signal: Tensor, start: Tensor, fired: Tensor, threshold: float) -> float:
    """How far the closest decision on signal (T, B, N) was from going the other way: min ||v − v̂| − θ|."""
    memory, closest = start, float("inf")
    for value, now in zip(signal, fired, strict=True):
        closest = min(closest, float(((value - memory).abs() - threshold).abs().min()))
        memory = torch.where(now, value, memory)
    return closest


def evaluate(backend, cell, tensors, grads, options, lengths, dtype):
    """Everything one backend makes of a case: results and gradients by name, counts, events."""
    leaves = {name: tensor.to(dtype, copy=True).requires_grad_() for name, tensor in tensors.items()}
    state = CELLS[cell][1](**{name: leaves[name] for name in CELLS[cell][1]._fields})
    parameters = LayerParameters(leaves["weight_ih"], leaves["weight_hh"])
    run = getattr(backend, f"{cell.lower()}_sequence")
    output, final, activity = run(leaves["x"], state, parameters, options, lengths, True)
    results = {"output": output, "l1": activity.l1_delta_h} | {f"final {k}": v for k, v in final._asdict().items()}
    sum((value * grads[name].to(dtype)).sum() for name, value in results.items()).backward()
    results = {name: value.detach() for name, value in results.items()}
    results |= {f"gradient of {name}": leaf.grad for name, leaf in leaves.items()}
    return results, activity.counts.tolist(), (activity.fired_x, activity.fired_h)


class Case(NamedTuple):
    cell: str
    steps: int
    batch: int
    inputs: int
    hidden: int
    options: LayerOptions
    lengths: Tensor | None
    threads: int
    seed: int


@st.composite
def cases(draw, most_steps: int = 24, most_samples: int = 20):
    cell = draw(st.sampled_from(sorted(CELLS)))
    steps, batch = draw(st.integers(1, most_steps)), draw(st.integers(1, most_samples))
    inputs, hidden = draw(st.integers(1, 70)), draw(st.integers(1, 80))
    thresholds = st.sampled_from([0.0, 0.05, 0.3, 5.0])
    options = LayerOptions(draw(thresholds), draw(thresholds), draw(st.booleans()), None)
    lengths = torch.tensor(draw(st.lists(st.integers(1, steps), min_size=batch, max_size=batch)))
    lengths = lengths if draw(st.booleans()) else None
    return Case(
        cell, steps, batch, inputs, hidden, options, lengths, draw(st.integers(1, 3)), draw(st.integers(0, 2**30))
    )


def check_against_eager(case: Case, backend: ModuleType, device: str = "cpu") -> None:
    """Results, events and gradients of one layer from a random state equal the eager backend's in float64."""
    cell, steps, batch, inputs, hidden, options, lengths, _, seed = case
    generator = torch.Generator().manual_seed(seed)
    rows = CELLS[cell][2] * hidden
    tensors = {
        "x": random(generator, steps, batch, inputs, scale=0.3).cumsum(0),
        "weight_ih": random(generator, rows, inputs, scale=inputs**-0.5),
        "weight_hh": random(generator, rows, hidden, scale=hidden**-0.5),
        "x_hat": random(generator, batch, inputs, scale=0.3),
        **{name: random(generator, batch, hidden, scale=0.3) for name in ("h", "h_hat", "c")},
        "m": random(generator, batch, 4 * hidden, scale=0.3),
    }
    if cell == "GRU":
        del tensors["c"]
    tensors = {name: tensor.float().double().to(device) for name, tensor in tensors.items()}
    shapes = {"output": (steps, batch, hidden), "l1": ()} | {f"final {k}": v.shape for k, v in tensors.items()}
    grads = {name: random(generator, *shape).to(device) for name, shape in shapes.items()}

    expected, counts, fired = evaluate(eager, cell, tensors, grads, options, lengths, torch.float64)
    before = torch.cat([tensors["h"][None], expected["output"][:-1]])
    for signal, start, events, threshold in (
        (tensors["x"], tensors["x_hat"], fired[0], options.thx),
        (before, tensors["h_hat"], fired[1], options.thh),
    ):
        # At threshold 0 nothing is decided but the counts, by whether a difference is exactly 0.
        assume(threshold == 0 or margin(signal, start, events, threshold) > GUARD)

    actual, actual_counts, actual_fired = evaluate(backend, cell, tensors, grads, options, lengths, torch.float32)
    for name, value in expected.items():
        assert close(actual[name], value), name
    assert actual_counts[2:] == counts[2:]
    for index, threshold in enumerate((options.thx, options.thh)):
        if threshold > 0:
            assert actual_counts[index] == counts[index]
            assert torch.equal(actual_fired[index], fired[index])
