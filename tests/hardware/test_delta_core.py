"""DeltaCore's cycle model and its export, as far as they need no simulator (tests/hardware/test_rtl.py has one)."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.golden_edgedrnn import CASES, load
from tests.hardware.rtl_designs import random_frames, random_network

from deltarnn import DeltaGRU, QFormat, Quantization
from deltarnn.fixed import edgedrnn_forward
from deltarnn.hardware import DeltaCore, NetworkParameters, UnsupportedModelError
from deltarnn.hardware.core_layout import CoreLayout
from deltarnn.hardware.delta_core import step_clocks
from deltarnn.hardware.export_rtl import RtlDesign, export_rtl
from deltarnn.hardware.files import ExportError


@pytest.mark.parametrize("case", CASES)
def test_fewer_clocks_than_edgedrnn_on_its_own_events(case):
    """At as many lanes as it has multipliers, in every step of the public RTL's simulation; the lanes never wait."""
    golden, core = load(case), DeltaCore(lanes=8)
    inputs = golden.x.shape[1]
    _, fired = edgedrnn_forward(golden.x, golden.layers, golden.thx, golden.thh, return_fired=True)
    columns = [[[k - 1 for k in layer if k > 0] for layer in step] for step in fired]  # its column 0 is the bias
    cycles = np.array([core.cycles(inputs, golden.hidden_sizes, step) for step in columns])
    assert cycles.mean() < golden.cycles_ideal.mean()
    assert (cycles < golden.cycles_ideal).all()
    layout = core.layout("GRU", inputs, golden.hidden_sizes)
    busy = products = 0
    for step in columns:
        clocks = step_clocks(layout, flags(layout, step))
        busy, products = busy + clocks.busy, products + clocks.products
    assert busy >= 0.9 * products


def flags(layout, step):
    """Columns of each layer as the parts of the layout, one flag per column."""
    parts = []
    for part in layout.parts:
        first = layout.layers[part.layer].inputs if part.hidden else 0
        parts.append(np.isin(np.arange(first, first + part.columns), step[part.layer]))
    return parts


@st.composite
def drawn_steps(draw):
    sizes = st.integers(1, 30)
    lanes, width = draw(st.sampled_from([1, 4, 16])), draw(st.sampled_from([1, 4, 16]))
    pipes = draw(st.sampled_from([p for p in (1, 4, 16) if p <= min(lanes, width)]))
    layout = CoreLayout(
        draw(st.sampled_from(["GRU", "LSTM"])),
        draw(sizes),
        tuple(draw(st.lists(sizes, min_size=1, max_size=3))),
        tuple(draw(st.lists(sizes, max_size=2))),
        lanes,
        width,
        pipes,
    )
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    return layout, [rng.random(part.columns) < draw(st.floats(0, 1)) for part in layout.parts]


@settings(deadline=None)
@given(drawn_steps(), st.data())
def test_a_step_takes_its_groups_and_an_event_less_takes_no_longer(drawn, data):
    layout, fired = drawn
    clocks = step_clocks(layout, fired)
    groups = [layout.layers[part.layer].groups for part in layout.parts]
    assert clocks.busy == sum(g * int(f.sum()) for g, f in zip(groups, fired, strict=True))
    assert clocks.busy <= clocks.products < clocks.cycles
    part = data.draw(st.integers(0, len(fired) - 1))
    fewer = [f.copy() for f in fired]
    fewer[part][data.draw(st.integers(0, len(fewer[part]) - 1))] = False
    assert step_clocks(layout, fewer).cycles <= clocks.cycles


def test_cycles_of_columns_are_those_of_flags():
    layout = DeltaCore(lanes=4).layout("LSTM", 5, [7])
    step = [[0, 3, 4, 5, 11]]
    expected = step_clocks(layout, flags(layout, step)).cycles
    assert DeltaCore(lanes=4).cycles(5, [7], step, cell="LSTM") == expected
    with pytest.raises(ValueError, match=r"from 0 \(the first input\) to at most 11"):
        DeltaCore(lanes=4).cycles(5, [7], [[12]])


def test_an_estimate_counts_the_head_and_states_no_energy():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    layer = DeltaGRU(6, 16, 2, thx=0.125, thh=0.125, quantization=Quantization())
    frames = np.random.default_rng(0).normal(size=(40, 6)).cumsum(axis=0) * 0.2
    bare = NetworkParameters.of(layer.eval())
    report = DeltaCore(lanes=4).estimate(bare, frames)
    assert report.peak_throughput_ops == 2 * 4 * 12e6
    assert 0.5 < report.mac_utilisation < 1
    assert "no power stated" in str(report)
    assert "µJ" in str(DeltaCore(lanes=4, power_w=0.01).estimate(bare, frames))
    network = random_network("GRU", 6, (16,), (9, 3))
    with pytest.raises(UnsupportedModelError, match=r"lanes=12: DeltaCore takes a power of two from 1 to 256"):
        DeltaCore(lanes=12).estimate(bare, frames)
    layout = DeltaCore(lanes=4).layout("GRU", network.input_size, (16,), (9, 3))
    assert [layer.kind for layer in layout.layers] == ["GRU", "dense", "dense"]


@pytest.fixture
def network():
    return random_network("GRU", 3, (4,), (2,))


def test_a_design_is_read_back(tmp_path, network):
    frames = random_frames(network, 5)
    design = export_rtl(network, tmp_path, frames, lanes=2)
    assert RtlDesign.read(tmp_path) == design
    np.testing.assert_array_equal(design.expected(), network.run(frames).output[:, 0])
    np.testing.assert_array_equal(design.stimulus(), network.quantization.activation.to_int(frames))
    # Word 0 is what the hidden unit 0 is multiplied by in the first clock: the rows of lanes 0 and 1.
    np.testing.assert_array_equal(design.weights()[0], network.layers[0].weight_hh[:2, 0])
    assert len(design.weights()) == (4 + 3) * 6 + 4 * 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lanes": 0}, r"lanes=0: DeltaCore takes a power of two from 1 to 256"),
        ({"lanes": 6}, r"lanes=6: DeltaCore takes a power of two"),
        ({"encoder_width": 64}, r"encoder_width=64: .* from 1 to 32"),
        ({"lanes": 2, "activation_pipes": 4}, r"activation_pipes=4: .* from 1 to 2, no more than lanes"),
        ({"compressed": True}, r"DeltaCore leaves out the pruned weights of an LSTM: this is a GRU"),
        ({"target": "asic"}, r"target='asic': must be one of generic, ice40, ecp5"),
    ],
)
def test_what_cannot_be_built_is_refused(tmp_path, network, options, message):
    with pytest.raises(ValueError, match=message):
        export_rtl(network, tmp_path, random_frames(network, 2), **options)
    assert not list(tmp_path.iterdir())


def test_pruned_weights_are_left_out_where_there_are_some(tmp_path):
    pruned = random_network("LSTM", 4, (8,), gamma=0.5)
    frames = random_frames(pruned, 5)
    whole, short = (
        export_rtl(pruned, tmp_path / "a", frames, 4),
        export_rtl(pruned, tmp_path / "b", frames, 4, compressed=True),
    )
    assert whole.weight_words == (4 + 8) * 8
    assert short.stored == (4, 4)
    assert short.weight_words == (4 + 8) * 4
    assert short.weight_bits == 8 + 3  # a row of 8
    fired = [np.ones(part.columns, dtype=np.bool_) for part in whole.layout.parts]
    assert step_clocks(short.layout, fired).busy == step_clocks(whole.layout, fired).busy / 2
    with pytest.raises(UnsupportedModelError, match=r"prune with num_pe=4"):
        export_rtl(random_network("LSTM", 4, (8,)), tmp_path, frames, 4, compressed=True)
    wide = random_network("LSTM", 1, (80,), gamma=0.5)
    with pytest.raises(UnsupportedModelError, match=r"takes 17 bits, DeltaCore's at most 16: use more lanes than 1"):
        export_rtl(wide, tmp_path, random_frames(wide, 2), 1, compressed=True)


def test_wide_formats_are_refused(tmp_path):
    network = random_network("GRU", 2, (2,), q=Quantization(weight=QFormat(1, 17)))
    with pytest.raises(UnsupportedModelError, match=r"weight format Q1\.17: DeltaCore takes 2 to 16 bits"):
        export_rtl(network, tmp_path, random_frames(network, 2))


def test_a_folder_that_is_no_design_is_named(tmp_path, network):
    with pytest.raises(ExportError, match=r"design\.json cannot be read: give a folder"):
        RtlDesign.read(tmp_path)
    export_rtl(network, tmp_path, random_frames(network, 2), lanes=2)
    (tmp_path / "tanh.hex").unlink()
    with pytest.raises(ExportError, match=r"lacks tanh\.hex: export again"):
        RtlDesign.read(tmp_path)
    record = json.loads((tmp_path / "design.json").read_text())
    (tmp_path / "design.json").write_text(json.dumps({**record, "more": 1}))
    with pytest.raises(ExportError, match="not of this version"):
        RtlDesign.read(tmp_path)
