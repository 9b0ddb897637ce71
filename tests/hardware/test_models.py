"""Accelerator models against simulation of public RTL, and against the published figures they must reproduce."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.golden_edgedrnn import CASES, load

from deltarnn import DeltaGRU, DeltaLSTM, Quantization
from deltarnn.fixed import QFormat, edgedrnn_forward
from deltarnn.hardware import DeltaCore, DeltaRNNFPGA, EdgeDRNN, NetworkParameters, Spartus, UnsupportedModelError
from deltarnn.prune import column_balanced_dropout


@pytest.mark.parametrize("case", CASES)
def test_edgedrnn_cycles_of_every_step_of_the_rtl(case):
    """With ideal memory, and with 40 clocks of latency and 3 between bursts."""
    golden = load(case)
    _, fired = edgedrnn_forward(golden.x, golden.layers, golden.thx, golden.thh, return_fired=True)
    ideal, delayed = {1: (2, 2), 2: (3, 4)}[len(golden.layers)]
    for accelerator, simulated, tolerance in (
        (EdgeDRNN(), golden.cycles_ideal, ideal),
        (EdgeDRNN(memory_latency_cycles=40, burst_gap_cycles=3), golden.cycles_latency40_gap3, delayed),
    ):
        cycles = [accelerator.cycles(golden.x.shape[1], golden.hidden_sizes, step) for step in fired]
        assert np.abs(np.array(cycles) - simulated).max() <= tolerance


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(1, 3), st.integers(0, 5), st.data())
def test_edgedrnn_cycles_equal_the_loop_of_its_definition(inputs, groups, gap, data):
    hidden = 8 * groups
    columns = sorted(data.draw(st.sets(st.integers(0, inputs + hidden))))
    m = 0
    for k in columns:
        m = max(m, k + 9) + 3 * groups + gap
    m = max(m - gap if columns else 0, 1 + inputs + hidden + 8)
    expected = m + 5 * (groups + 1) + 2
    assert EdgeDRNN(burst_gap_cycles=gap).cycles(inputs, [hidden], [columns]) == expected


TABLE = [  # docs/accelerators.md: layers, H, parameters, operations per step, dense cycles, activation cycles
    (1, 256, 0.227e6, 0.45e6, 28_416, 167),
    (2, 256, 0.621e6, 1.24e6, 77_568, 334),
    (1, 512, 0.848e6, 1.70e6, 105_984, 327),
    (2, 512, 2.421e6, 4.84e6, 302_592, 654),
    (1, 768, 1.862e6, 3.72e6, 232_704, 487),
    (2, 768, 5.401e6, 10.80e6, 675_072, 974),
]


@pytest.mark.parametrize(("layers", "hidden", "parameters", "operations", "dense", "activation"), TABLE)
def test_edgedrnn_table(layers, hidden, parameters, operations, dense, activation):
    network = NetworkParameters.of(DeltaGRU(40, hidden, layers))
    assert network.operations / 2 == pytest.approx(parameters, abs=500)
    assert network.operations == pytest.approx(operations, abs=5_000)
    edgedrnn, sizes = EdgeDRNN(), [hidden] * layers
    widths = [40 + hidden] + [2 * hidden] * (layers - 1)
    silent = edgedrnn.cycles(40, sizes, [[]] * layers)
    scan = sum(1 + width + 8 for width in widths)
    assert silent - scan == activation
    # Every input and hidden column fires: what is left beyond products and activation is a few clocks of start-up.
    full = edgedrnn.cycles(40, sizes, [range(1, 1 + width) for width in widths])
    assert full - activation - dense == pytest.approx(0, abs=10 * layers)


def test_edgedrnn_published_throughput():
    """20.2 GOp/s ⇔ 535 µs ⇔ 90.2 % sparsity on 2L-768H; with nothing firing 3 336 cycles; peak 2 GOp/s."""
    edgedrnn = EdgeDRNN()
    assert edgedrnn.peak_throughput_ops == 2e9
    assert edgedrnn.cycles(40, [768, 768], [[], []]) == 3_336
    operations = 2 * 2304 * (40 + 768 + 768 + 768)
    rng = np.random.default_rng(0)
    cycles = []
    for _ in range(50):
        fired = [np.sort(rng.choice(width, round(0.098 * width), replace=False)) + 1 for width in (808, 1536)]
        cycles.append(edgedrnn.cycles(40, [768, 768], fired))
    seconds = np.mean(cycles) / edgedrnn.clock_hz
    assert seconds == pytest.approx(535e-6, rel=0.01)
    assert operations / seconds == pytest.approx(20.2e9, rel=0.01)


def test_deltarnn_published_throughput():
    """Dense step 296 clocks = 2.37 µs; peak 192 GOp/s; 1.2 TOp/s ⇔ 47 clocks; a scan of 7 per clock is enough."""
    deltarnn = DeltaRNNFPGA()
    operations = 2 * 768 * (40 + 256)
    assert deltarnn.peak_throughput_ops == 192e9
    assert deltarnn.cycles(40, [256], [range(296)]) == 296
    assert 296 / deltarnn.clock_hz == pytest.approx(2.37e-6, rel=2e-3)
    assert deltarnn.cycles(40, [256], [range(47)]) == 47
    assert operations * deltarnn.clock_hz / 47 == pytest.approx(1.2e12, rel=0.01)
    assert deltarnn.cycles(40, [256], [[]]) == 43  # ceil(296 / 7): the encoder alone
    assert DeltaRNNFPGA(scan_width=6).cycles(40, [256], [range(47)]) > 47
    assert deltarnn.power_w == pytest.approx(1.2e12 / 164e9, rel=0.01)


def test_spartus_published_throughput():
    """204.8 GOp/s peak, 9.396 MOp; CBTD alone 648 clocks = 3.24 µs = 2.90 TOp/s; 1 µs ⇔ 32 columns; 46 × peak."""
    spartus = Spartus()
    operations = 2 * 4096 * (123 + 1024)
    assert operations == pytest.approx(9.396e6, rel=1e-4)
    assert spartus.peak_throughput_ops == 204.8e9
    assert spartus.cycles(123, [1024], [range(1147)]) == 648
    assert operations / (648 / 200e6) == pytest.approx(2.90e12, rel=2e-3)
    one_array = range(0, 8 * 32, 8)
    assert spartus.cycles(123, [1024], [one_array]) == 200  # 1 µs
    assert operations / 1e-6 == pytest.approx(9.4e12, rel=1e-3)
    assert operations / 1e-6 / spartus.peak_throughput_ops == pytest.approx(46, rel=5e-3)
    assert operations / spartus.peak_throughput_ops == pytest.approx(45.9e-6, rel=1e-3)
    spread = range(32)  # four columns per array
    assert spartus.cycles(123, [1024], [spread]) == 4 * 4 + 4 * 16 + 8


def layer(kind, hidden=64, layers=1, **options):
    torch.manual_seed(0)
    module = kind(10, hidden, layers, **{"thx": 0.125, "thh": 0.125} | options)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.startswith("bias_hh"):
                parameter.zero_()
    return module


def frames(steps=60, seed=0):
    return np.random.default_rng(seed).normal(size=(steps, 10)).cumsum(axis=0) * 0.2


def test_edgedrnn_estimate_is_the_cycle_model_on_the_measured_events():
    module, x = layer(DeltaGRU, layers=2), frames()
    report = EdgeDRNN().estimate(module, x)
    words = EdgeDRNN().integers(NetworkParameters.of(module))
    _, fired = edgedrnn_forward(QFormat(8, 8).to_int(x), words.layers, words.thx, words.thh, return_fired=True)
    cycles = np.array([EdgeDRNN().cycles(10, [64, 64], step) for step in fired])
    columns = np.array([sum(map(len, step)) for step in fired])
    assert report.cycles_mean == pytest.approx(cycles.mean())
    assert report.latency.minimum_s == cycles.min() / 125e6
    assert report.latency.maximum_s == cycles.max() / 125e6
    assert sum(report.latency.histogram_counts) == report.steps == 60
    assert report.weight_bytes_total == 192 * columns.sum()
    assert report.mac_utilisation == pytest.approx(192 * columns.sum() / (8 * cycles.sum()))
    operations = 2 * 192 * (10 + 64 + 64 + 64)
    assert report.effective_throughput_ops == pytest.approx(operations * 125e6 / cycles.mean())
    assert report.real_time_factor == pytest.approx(cycles.mean() / 125e6 / 0.016384)
    assert report.energy_per_step_j == pytest.approx(2.3 * cycles.mean() / 125e6)
    weighted = 1 - (columns.sum() - 2) / (60 * 202)  # all columns are equally long; the two bias columns are no deltas
    assert report.effective_sparsity == pytest.approx(weighted)


def test_spartus_estimate_measures_what_the_weights_and_the_events_are():
    module, x = layer(DeltaLSTM, quantization=Quantization()), frames()
    with torch.no_grad():
        for weight in (module.weight_ih_l0, module.weight_hh_l0):
            weight.copy_(column_balanced_dropout(weight, 0.75, 16))
    spartus = Spartus(num_pe=16, num_arrays=4)
    report = spartus.estimate(module, [x[:40], x[:20], x[:40]])
    from deltarnn.fixed.network import IntegerNetwork

    total = worst = average = 0
    for sequence in (x[:40], x[:20], x[:40]):
        run = IntegerNetwork.convert(module).run(sequence).layers[0]
        fired = np.concatenate([run.fired_x, run.fired_h], axis=2)[:, 0]
        per_array = np.stack([fired[:, n::4].sum(axis=1) for n in range(4)])
        total += (4 * per_array.max(axis=0) + 4 * 4 + 8).sum()  # 16 weights per sub-column, of which γ = 0.75 leaves 4
        worst += per_array.max(axis=0).sum()
        average += per_array.mean(axis=0).sum()
    assert report.steps == 100
    assert report.cycles_mean == pytest.approx(total / 100)
    assert report.balance_ratio == pytest.approx(average / worst)
    assert report.weight_bytes_total == 4 * average * 4 * 16 * (8 + 4) // 8  # VAL 8 bits, LIDX 4
    unpruned = spartus.estimate(layer(DeltaLSTM, quantization=Quantization()), x)
    assert unpruned.cycles_mean > 1.5 * report.cycles_mean


def test_deltarnn_estimate_counts_events():
    module, x = layer(DeltaGRU), frames()
    report = DeltaRNNFPGA(scan_width=40).estimate(module, x)
    fired = (1 - report.sparsity_x) * 10 + (1 - report.sparsity_h) * 64
    assert report.weight_bytes_per_step == pytest.approx(fired * 192 * 2)
    assert report.cycles_mean >= fired


def test_silence_and_larger_thresholds_cost_less():
    x = frames()
    means = [EdgeDRNN().estimate(layer(DeltaGRU, thx=t, thh=t), x).cycles_mean for t in (0.0, 0.125, 0.5)]
    assert means[0] > means[1] > means[2]
    silent = EdgeDRNN().estimate(layer(DeltaGRU, bias=False), np.zeros((5, 10)))
    assert silent.latency.maximum_s == EdgeDRNN().cycles(10, [64], [[0]]) / 125e6
    assert silent.sparsity_x == silent.sparsity_h == 1


def test_the_report_names_every_parameter_and_its_mark(tmp_path):
    report = EdgeDRNN(num_pe=16).estimate(layer(DeltaGRU, thx=0.1), frames())
    marks = {p.name: p.mark for p in report.parameters}
    assert marks["num_pe"] == "given"
    assert marks["clock_hz"] == marks["power_w"] == "recalled"
    text = str(report)
    assert all(f"[{p.mark}]" in text and p.name in text for p in report.parameters)
    assert "thx rounded from 0.1 to 0.101562" in text
    report.write_json(str(tmp_path / "report.json"))
    data = json.loads((tmp_path / "report.json").read_text())
    assert data["latency"]["mean_s"] == report.latency.mean_s
    assert data["parameters"][0]["mark"] in ("verified", "derived", "recalled", "given")
    report.plot(str(tmp_path / "report.png"))
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.json", "report.png"]


BAD_MODELS = [
    (EdgeDRNN(), layer(DeltaLSTM), "EdgeDRNN runs DeltaGRU layers: this model is a DeltaLSTM"),
    (DeltaRNNFPGA(), layer(DeltaLSTM), "DeltaRNN runs DeltaGRU layers: this model is a DeltaLSTM"),
    (Spartus(), layer(DeltaGRU), "Spartus runs DeltaLSTM layers: this model is a DeltaGRU"),
    (EdgeDRNN(), torch.nn.GRU(10, 64), "GRU has no thresholds"),
    (EdgeDRNN(), layer(DeltaGRU, hidden=12), "hidden_size=12: EdgeDRNN needs a multiple of its 8"),
    (EdgeDRNN(), layer(DeltaGRU, hidden=1024), "hidden_size=1024: EdgeDRNN holds at most 1023"),
    (EdgeDRNN(), layer(DeltaGRU, hidden=8, layers=5), "num_layers=5: EdgeDRNN holds at most 4"),
    (EdgeDRNN(), layer(DeltaGRU, thx=1.25), r"thx=1.25: EdgeDRNN takes at most 1:.*bias.*--thx"),
    (EdgeDRNN(), layer(DeltaGRU, thh=4.0), r"thh=4: EdgeDRNN takes at most 3.99609: the register has 10 bits"),
    (EdgeDRNN(), layer(DeltaGRU, thx=0.001), r"thx: threshold 0.001 rounds to 0 in Q8.8"),
    (EdgeDRNN(), layer(DeltaGRU, layers=2, thx=(0.1, 0.2)), r"thx=\[0.1, 0.2\]: EdgeDRNN has one register"),
    (EdgeDRNN(), layer(DeltaGRU, hard_activations=True), "hard_activations=True"),
    (DeltaRNNFPGA(), layer(DeltaGRU, hidden=300), r"hidden_size=300: with 768 multipliers.*at most 256"),
    (DeltaRNNFPGA(), layer(DeltaGRU, layers=2), "num_layers=2: DeltaRNN holds 1 layer"),
    (Spartus(), layer(DeltaLSTM, hidden=96), "hidden_size=96: Spartus needs a multiple of its 64"),
]


@pytest.mark.parametrize(("accelerator", "model", "message"), BAD_MODELS)
def test_models_beyond_the_hardware_are_refused_with_limit_and_value(accelerator, model, message):
    with pytest.raises(ValueError, match=message):
        accelerator.estimate(model, frames())


def test_edgedrnn_refuses_a_hidden_bias_and_wide_weights():
    with pytest.raises(UnsupportedModelError, match=r"b_hn of layer 0 reaches 0.1\d+.*--zero_b_hn"):
        EdgeDRNN().estimate(DeltaGRU(10, 64, thx=0.1), frames())
    module = layer(DeltaGRU)
    with torch.no_grad():
        module.weight_ih_l0[3, 4] = 1.5
    with pytest.raises(UnsupportedModelError, match=r"weight_ih_l0 reaches 1.5: Q1.7 holds -1 to"):
        EdgeDRNN().estimate(module, frames())


def test_bad_frames_are_refused():
    module = layer(DeltaGRU)
    with pytest.raises(ValueError, match=r"shape \(5, 3\): this model takes \(T, 10\)"):
        EdgeDRNN().estimate(module, np.zeros((5, 3)))
    with pytest.raises(ValueError, match="no frames"):
        EdgeDRNN().estimate(module, [])
    with pytest.raises(ValueError, match="NaN"):
        EdgeDRNN().estimate(module, np.full((5, 10), np.nan))
    with pytest.raises(ValueError, match="must rise"):
        EdgeDRNN().cycles(10, [64], [[3, 2]])
    with pytest.raises(ValueError, match="at most 74"):
        EdgeDRNN().cycles(10, [64], [[75]])


def test_parameters_in_order():
    assert EdgeDRNN(16, 1e8) == EdgeDRNN(num_pe=16, clock_hz=1e8)
    assert Spartus(4, 32).num_macs == 128


@pytest.mark.parametrize(
    ("accelerator", "columns", "message"),
    [
        (EdgeDRNN(), [[0, 13]], r"rise from 0 \(the bias\) to at most 12"),
        (EdgeDRNN(), [[3, 3]], "must rise"),
        (Spartus(num_pe=8), [[12]], r"rise from 0 \(the first input\) to at most 11"),
        (Spartus(num_pe=8), [[-1]], "must rise"),
        (DeltaRNNFPGA(), [[1, 1]], "must rise"),
        (DeltaRNNFPGA(), [[0], [1]], "fired_columns has 2 layers, hidden_sizes has 1"),
        (DeltaCore(), [[1.5]], "of type float64: must be the indices"),
        (DeltaCore(), [[False, True]], "of type bool: must be the indices"),
    ],
)
def test_columns_that_do_not_exist_are_refused(accelerator, columns, message):
    with pytest.raises(ValueError, match=message):
        accelerator.cycles(4, [8], columns)


@pytest.mark.parametrize("accelerator", [EdgeDRNN(), Spartus(num_pe=8), DeltaRNNFPGA(), DeltaCore()])
@pytest.mark.parametrize(("inputs", "hidden"), [(0, [8]), (-3, [8]), (4, [0]), (4, [7.5]), (2.5, [8]), (4, [])])
def test_sizes_that_no_network_has_are_refused(accelerator, inputs, hidden):
    with pytest.raises(ValueError, match=r"must be whole numbers of at least 1|num_layers=0"):
        accelerator.cycles(inputs, hidden, [[] for _ in hidden])


def test_edgedrnn_counts_no_clocks_of_more_layers_than_it_holds():
    with pytest.raises(UnsupportedModelError, match="num_layers=5: EdgeDRNN holds at most 4 layers"):
        EdgeDRNN().cycles(4, [8] * 5, [[]] * 5)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_a_frame_takes_time(seconds):
    with pytest.raises(ValueError, match="frame_period_s="):
        DeltaCore().estimate(DeltaGRU(2, 4), np.zeros((3, 2)), seconds)


@pytest.mark.parametrize(
    ("accelerator", "parameters"),
    [
        (EdgeDRNN, {"num_pe": 0}),
        (EdgeDRNN, {"clock_hz": -1.0}),
        (Spartus, {"clock_hz": float("nan")}),
        (DeltaRNNFPGA, {"scan_width": 0}),
        (Spartus, {"num_pe": np.int64(-1)}),
    ],
)
def test_parameters_that_no_hardware_has_are_refused(accelerator, parameters):
    ((name, value),) = parameters.items()
    with pytest.raises(ValueError, match=f"{name}={value}: .* needs a finite number above 0"):
        accelerator(**parameters)


def test_what_is_counted_is_whole():
    with pytest.raises(ValueError, match=r"num_pe=1.5: EdgeDRNN needs a whole number"):
        EdgeDRNN(num_pe=1.5)
