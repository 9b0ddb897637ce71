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


def margins(signal: Tensor, start: Tensor, fired: Tensor, threshold: float) -> Tensor:
    """How far the closest decision on each sample of signal (T, B, N) was from going the other way: min ||v − v̂| − θ|.

    Infinite at threshold 0, where nothing is decided but the counts, by whether a difference is exactly 0.
    """
    memory, closest = start, torch.full(signal.shape[1:2], float("inf"), dtype=start.dtype, device=start.device)
    for value, now in zip(signal, fired, strict=True) if threshold > 0 else ():
        closest = torch.minimum(closest, ((value - memory).abs() - threshold).abs().amin(1))
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


def _margins(tensors: dict[str, Tensor], cell: str, options: LayerOptions, lengths: Tensor | None) -> Tensor:
    """The closest decision of each sample, (B,)."""
    state = CELLS[cell][1](**{name: tensors[name] for name in CELLS[cell][1]._fields})
    parameters = LayerParameters(tensors["weight_ih"], tensors["weight_hh"])
    run = getattr(eager, f"{cell.lower()}_sequence")
    with torch.no_grad():
        output, _, activity = run(tensors["x"], state, parameters, options, lengths, True)
    before = torch.cat([state.h[None], output[:-1]])
    of_x = margins(tensors["x"], state.x_hat, activity.fired_x, options.thx)
    return torch.minimum(of_x, margins(before, state.h_hat, activity.fired_h, options.thh))


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


def check_against_eager(case: Case, backend: ModuleType, device: str = "cpu", drawn: int = 1) -> None:
    """Results, events and gradients of one layer from a random state equal the eager backend's in float64.

    drawn: so many times the case's samples, of which those are taken whose decisions are clearest.
    """
    cell, steps, batch, inputs, hidden, options, lengths, _, seed = case
    batch *= drawn
    lengths = None if lengths is None else lengths.repeat(drawn)
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
    if drawn > 1:
        clearest = _margins(tensors, cell, options, lengths).topk(batch // drawn).indices
        lengths = None if lengths is None else lengths[clearest.cpu()]
        for name in set(tensors) - {"weight_ih", "weight_hh"}:
            tensors[name] = tensors[name].index_select(1 if name == "x" else 0, clearest)
        batch //= drawn
    clear = bool((_margins(tensors, cell, options, lengths) > GUARD).all())
    if drawn == 1:
        assume(clear)
    assert clear, "no choice of samples decides clearly enough: draw more"
    shapes = {"output": (steps, batch, hidden), "l1": ()} | {f"final {k}": v.shape for k, v in tensors.items()}
    grads = {name: random(generator, *shape).to(device) for name, shape in shapes.items()}

    expected, counts, fired = evaluate(eager, cell, tensors, grads, options, lengths, torch.float64)
    actual, actual_counts, actual_fired = evaluate(backend, cell, tensors, grads, options, lengths, torch.float32)
    for name, value in expected.items():
        assert close(actual[name], value), name
    assert actual_counts[2:] == counts[2:]
    for index, threshold in enumerate((options.thx, options.thh)):
        if threshold > 0:
            assert actual_counts[index] == counts[index]
            assert torch.equal(actual_fired[index], fired[index])
