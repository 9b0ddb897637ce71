"""The search for thresholds against exhaustive search, closed forms and its own promises."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.adapt.models import Tagger, walks
from torch import nn

from deltarnn.adapt.measure import Measurement, Point
from deltarnn.adapt.network import Count, TorchNetwork
from deltarnn.adapt.search import COMMON, PER_SIGNAL, Candidates, Curve, search

GRID = [0.0, *(2.0**k for k in range(-6, -1))]


def measurement(cell: type[nn.RNNBase], seed: int) -> Measurement:
    network = TorchNetwork.adapted_copy(Tagger(cell, seed, hidden=8))
    return Measurement(network, network.module, walks(1, 40, seed=seed), None)


@pytest.mark.parametrize(("cell", "seed", "budget"), [(nn.GRU, 0, 0.01), (nn.LSTM, 1, 0.01), (nn.GRU, 2, 0.05)])
def test_as_good_as_every_combination_of_a_grid(cell, seed, budget):
    measured = measurement(cell, seed)
    found = search(measured, budget).best()
    runs = measured.runs
    grid = [measured.point(thresholds) for thresholds in itertools.product(GRID, repeat=4)]
    best = max((point for point in grid if point.error <= budget), key=lambda point: point.effective_sparsity)
    assert found.error <= budget
    assert found.effective_sparsity > best.effective_sparsity - 0.03
    assert found.sparsity > best.sparsity - 0.03
    assert runs < 130 < len(grid) / 9


def test_thresholds_of_their_own_where_signals_differ_in_size():
    """An input a thousand times as large as the hidden state: one common θ skips nothing of it."""
    measured = measurement(nn.GRU, 4)
    with torch.no_grad():
        measured.network.module.front.weight.mul_(1000)
        measured.network.module.front.bias.mul_(1000)
        measured.network.module.rnn.weight_ih_l0.div_(1000)
    measured = Measurement(measured.network, measured.network.module, measured.items, None)
    candidates = search(measured, 0.01)
    best = {
        name: max(point.effective_sparsity for point in line if candidates.feasible(point))
        for name, line in candidates.lines.items()
    }
    assert candidates.origin(candidates.best()) == PER_SIGNAL
    assert best[PER_SIGNAL] > best[COMMON] + 0.1
    assert candidates.best().thresholds[0] > 100 * max(candidates.best().thresholds[1:])


def point_on(position: float, edge: float) -> Point:
    """Loss 1 at position `edge`, rising; fewer weights the further."""
    fetched = round(1e6 * max(0.0, min(1.0, 0.5 - position / 100)))
    return Point((position,), 0.0, math.exp(position - edge), (Count(10**6 - fetched, 10**6, 10**6, fetched),))


@given(st.floats(-20, 20), st.floats(-20, 20))
def test_a_line_is_followed_to_the_edge_of_the_budget(edge, start):
    candidates = Candidates(1.0)
    candidates.follow("line", lambda position: point_on(position, edge), start, 1.0)
    assert edge - 1 / 16 - 1e-6 <= candidates.best().thresholds[0] <= edge + 1e-6
    assert len(candidates.lines["line"]) <= abs(edge - start) + 8


def test_a_line_ends_where_nothing_changes_any_more():
    candidates = Candidates(1.0)
    candidates.follow("line", lambda position: point_on(min(position, 3.0), edge=100), 0.0, 1.0)
    assert len(candidates.lines["line"]) == 5


@settings(max_examples=50)
@given(st.floats(0.1, 10), st.floats(0.1, 10), st.floats(-6, 2))
def test_the_multiplier_picks_the_minimum_of_the_closed_form(a, b, log_multiplier):
    """error = a θ², fetched = b / (1 + θ): the minimum of error + λ·fetched solves 2aθ(1 + θ)² = λb."""
    thetas = [2.0 ** (k / 2) for k in range(-16, 10)]
    curve = Curve.through([(0.0, 0.0, b), *((t, a * t * t, b / (1 + t)) for t in thetas)])
    multiplier = math.exp(log_multiplier)
    theta = curve.theta[curve.choose(multiplier)]
    low, high = 0.0, 1e3
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if 2 * a * middle * (1 + middle) ** 2 < multiplier * b else (low, middle)
    if thetas[0] < low < thetas[-1]:
        assert theta == pytest.approx(low, rel=0.06)


def test_curves_stay_monotone_through_noise():
    curve = Curve.through([(0.0, 0.0, 1.0), (0.1, 0.2, 0.5), (0.2, 0.1, 0.6), (0.4, 0.3, 0.4)])
    assert (curve.error[1:] >= curve.error[:-1]).all()
    assert (curve.fetched[1:] <= curve.fetched[:-1]).all()
