"""DeltaCore in simulation: equal to deltarnn.fixed on every bit, and to its cycle model on every clock."""

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.hardware.rtl_designs import Q35, Q88_FLOOR, check, needs_simulator, random_frames, random_network, stored

from deltarnn import QFormat, Quantization
from deltarnn.hardware.core_package import part_matrices, stored_lengths
from deltarnn.hardware.export_rtl import export_rtl
from deltarnn.hardware.simulation import (
    BEAT,
    DRAIN,
    PAUSE,
    RESET,
    THRESHOLD,
    beats,
    compare,
    load_weights,
    run_commands,
    simulate,
)
from deltarnn.hardware.verilator import run_verilator

EXAMPLES = int(os.environ.get("DELTARNN_RTL_EXAMPLES", "2"))
"""Networks that the property test draws, some seconds each; those of `make test` are always the same."""

DESIGNS = {
    # Two layers of odd sizes: rows of all gates straddle the lanes, and the units of a clock wrap around them.
    "gru": (("GRU", 5, (9, 7), (4,), Q35), {"lanes": 4, "encoder_width": 8, "activation_pipes": 4}),
    # One lane group per column of the head, ReLU between dense layers, 17-bit changes.
    "lstm": (("LSTM", 6, (6,), (8, 3), Q88_FLOOR), {"lanes": 8}),
    # Pruned, the zeros left out: the next entry of a lane may be of the same row.
    "pruned": (("LSTM", 4, (8, 5), (3,), Q35, (2, 3), 0, 0.7), {"lanes": 4, "compressed": True}),
    # No head: hidden states come out. Single-port weight memory, filled by the stream.
    "bare": (("GRU", 3, (5,), (), Q35), {"lanes": 2, "target": "ice40"}),
}


@pytest.fixture(scope="module", params=DESIGNS)
def built(request, tmp_path_factory):
    needs_simulator()
    network_options, core_options = DESIGNS[request.param]
    network = random_network(*network_options)
    frames = random_frames(network, 60)
    design = export_rtl(network, tmp_path_factory.mktemp(request.param), frames, **core_options)
    return network, design, frames, simulate(design, design.stimulus(), optimize=0)


def test_scores_states_events_and_clocks(built):
    network, design, frames, simulation = built
    assert any(fired.any() and not fired.all() for fired in simulation.fired_h)
    check(network, design, frames, simulation)
    compare(design, simulation)


def test_back_pressure_changes_nothing_but_time(built):
    _, design, _, simulation = built
    stalled = simulate(design, design.stimulus(), stalls=0.6, seed=5)
    for name in ("scores", "classes", "hidden", "fired_x", "fired_h"):
        np.testing.assert_equal(getattr(stalled, name), getattr(simulation, name))


def test_extremes_saturate_alike(built):
    network, design, _, _ = built
    frames = random_frames(network, 30, seed=3, extreme=True)
    check(network, design, frames, simulate(design, stored(network, frames)))


@pytest.mark.parametrize("thresholds", [(0, 0), (40, 5), "largest"])
def test_thresholds_can_be_written(built, thresholds):
    _, design, frames, _ = built
    largest = design.activation_format.int_max
    values = (largest, largest) if thresholds == "largest" else thresholds
    network_options, _ = DESIGNS[next(n for n, (o, _) in DESIGNS.items() if o[2] == design.hidden_sizes)]
    changed = random_network(*network_options[:5], values, *network_options[6:])
    layers = len(design.hidden_sizes)
    check(changed, design, frames, simulate(design, design.stimulus(), thresholds=[values] * layers))


@pytest.mark.parametrize("pause", [0, 7, 23, 60])
def test_a_reset_in_the_middle_of_a_frame_leaves_nothing_behind(built, pause):
    network, design, frames, _ = built
    # Other thresholds, some frames, one that is under way and a part of one: then a reset.
    disturbed = [
        (RESET, 2, 0),
        *load_weights(design),
        (THRESHOLD, 0, 1),
        *beats(design.stimulus()[::-1][:7]),
        (BEAT, 1, 0),
        (PAUSE, pause, 0),
        (RESET, 1, 0),
    ]
    check(network, design, frames, run_commands(design, [*disturbed, *beats(design.stimulus())]))


def test_frames_of_a_wrong_length_are_dropped(built):
    network, design, frames, _ = built
    x = design.stimulus()
    short, long = [(BEAT, 3, 1)], [*((BEAT, 5, 0) for _ in range(design.input_size + 2)), (BEAT, 5, 1)]
    commands = [(RESET, 2, 0), *load_weights(design), *short, *beats(x[:9]), *long, (DRAIN, 0, 0), *beats(x[9:])]
    check(network, design, frames, run_commands(design, commands))


SHAPES = [
    (("GRU", 16, (64,), (12,), Q35), {"lanes": 4, "target": "ice40"}),
    (("GRU", 33, (40,), (2,), Q88_FLOOR), {"lanes": 16}),
    (("GRU", 1, (1,), (1,), Q35), {"lanes": 1}),
    (("GRU", 1, (1, 2), (), Q35), {"lanes": 4, "encoder_width": 1, "activation_pipes": 1}),
    (("LSTM", 2, (3,), (5, 4, 2), Quantization(QFormat(2, 3), QFormat(2, 2), QFormat(1, 1))), {"lanes": 2}),
    (("LSTM", 16, (64,), (10,), Q35, (2, 3), 0, 0.9), {"lanes": 16, "compressed": True}),
    (("LSTM", 40, (32, 17, 8), (10,), Quantization(QFormat(6, 10), QFormat(1, 3), QFormat(2, 9))), {"lanes": 64}),
]


@pytest.mark.parametrize(("network_options", "core_options"), SHAPES, ids=range(len(SHAPES)))
def test_lint_has_nothing_to_say(tmp_path, network_options, core_options):
    needs_simulator()
    network = random_network(*network_options)
    design = export_rtl(network, tmp_path, random_frames(network, 2), **core_options)
    run_verilator(["--lint-only", "-Wall", "--top-module", design.top, *design.sources, *design.models], tmp_path)


@st.composite
def drawn_networks(draw):
    """Sizes, formats and thresholds of a network, and the shape of its core."""
    activation = QFormat(draw(st.integers(1, 6)), draw(st.integers(2, 10)))
    q = Quantization(
        activation,
        QFormat(draw(st.integers(1, 2)), draw(st.integers(2, 8))),
        QFormat(draw(st.integers(1, 2)), draw(st.integers(1, 8))),
        rounding=draw(st.sampled_from(["nearest", "floor"])),
    )
    sizes = st.integers(1, 20)
    lanes, width = draw(st.sampled_from([1, 2, 4, 8, 16])), draw(st.sampled_from([1, 2, 4, 8, 16]))
    pipes = draw(st.sampled_from([p for p in (1, 2, 4, 8, 16) if p <= min(lanes, width)]))
    thresholds = st.integers(0, min(activation.int_max, 2 * activation.scale))
    cell, gamma = draw(st.sampled_from([("GRU", 0.0), ("LSTM", 0.0), ("LSTM", 0.6)]))
    network = random_network(
        cell,
        draw(sizes),
        tuple(draw(st.lists(sizes, min_size=1, max_size=3))),
        tuple(draw(st.lists(sizes, max_size=2))),
        q,
        (draw(thresholds), draw(thresholds)),
        draw(st.integers(0, 2**32 - 1)),
        gamma,
    )
    matrices = part_matrices(network)
    whole = tuple(-(-len(matrix) // lanes) for matrix in matrices)
    compressed = gamma > 0 and stored_lengths(matrices, lanes) != whole
    return network, {"lanes": lanes, "encoder_width": width, "activation_pipes": pipes, "compressed": compressed}


@settings(max_examples=EXAMPLES, derandomize=EXAMPLES < 10, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn_networks(), st.booleans(), st.integers(0, 1000))
def test_any_network_in_any_core(tmp_path_factory, drawn, stalled, seed):
    needs_simulator()
    network, options = drawn
    frames = random_frames(network, 40, seed)
    frames[25:] = random_frames(network, 15, seed, extreme=True)
    design = export_rtl(network, tmp_path_factory.mktemp("drawn"), frames, **options)
    simulation = simulate(design, design.stimulus(), optimize=0)
    check(network, design, frames, simulation)
    if stalled:
        compare(design, simulate(design, design.stimulus(), stalls=0.5, seed=seed))
