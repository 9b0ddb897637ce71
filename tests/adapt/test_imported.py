"""Tuning and distilling networks imported from ONNX files."""

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("onnxruntime")

from tests.onnx.models import Builder, onnx_runtime, recurrent_node, slow_signal

import deltarnn
from deltarnn.onnx import load, lowering


def two_layers(folder: Path) -> Path:
    """x (T, B, 6) → GRU 10 → tanh → LSTM 12 → linear → y (T, B, 3)."""
    b = Builder(4)
    recurrent_node(b, "GRU", 6, 10, "x", prefix="first")
    axis = b.constant("axis", np.array([1]))
    hidden = b.node("Tanh", b.node("Squeeze", "first_y", axis))
    recurrent_node(b, "LSTM", 10, 12, hidden, prefix="second")
    b.node("MatMul", b.node("Squeeze", "second_y", axis), b.parameter("W_out", 12, 3), outputs=["y"])
    return b.save(folder / "two.onnx", {"x": ["T", "B", 6]}, ["y"])


def feeds(count: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    return [{"x": slow_signal(10 * seed + i, 60, 2, 6)} for i in range(count)]


def error(net, path: Path, items) -> float:
    y = np.concatenate([net.run(None, item)[0] for item in items])
    expected = np.concatenate([onnx_runtime(path).run(None, item)[0] for item in items])
    return float(np.square(y - expected).sum() / np.square(expected - expected.mean()).sum())


def test_tune_sets_the_thresholds_of_every_part(tmp_path):
    path = two_layers(tmp_path)
    net = load(path)
    tuned = deltarnn.tune(net, feeds(4), budget=0.02, held_out=feeds(2, 5))
    assert tuned.model is net
    assert tuned.thresholds == net.thresholds
    assert list(tuned.thresholds) == net.recurrent == ["first", "second"]
    net.reset()
    assert tuned.loss == pytest.approx(error(net, path, feeds(4)), rel=1e-3)
    assert tuned.loss <= 0.02
    assert tuned.effective_sparsity > 0.4


def test_the_loss_gets_the_network(tmp_path):
    net = load(two_layers(tmp_path))
    tuned = deltarnn.tune(net, feeds(4), lambda n: sum(th for pairs in n.thresholds.values() for th in pairs[0]), 0.4)
    assert tuned.loss <= 0.4 < 1.2 * tuned.loss


def test_a_stream_of_many_calls_is_one_item(tmp_path):
    b = Builder(3)
    recurrent_node(
        b, "LSTM", 6, 12, b.node("Unsqueeze", "x", b.constant("axis", np.array([0]))), prefix="rnn", states=["h", "c"]
    )
    b.node("Identity", "rnn_h", outputs=["y"])
    path = b.save(tmp_path / "step.onnx", {"x": ["B", 6], "h": [1, "B", 12], "c": [1, "B", 12]}, ["y", "rnn_c"])

    def stream(seed):
        def run(net):
            h = c = np.zeros((1, 1, 12), np.float32)
            outputs = []
            for x in slow_signal(seed, 50, 1, 6):
                h, c = net.run(["y", "rnn_c"], {"x": x, "h": h, "c": c})
                outputs.append(h)
            return [np.concatenate(outputs)]

        return run

    tuned = deltarnn.tune(load(path), [stream(seed) for seed in range(4)], budget=0.05)
    assert tuned.effective_sparsity > 0.3  # with new delta memories in each call nearly everything would fire


def test_distill_trains_the_parts_and_the_network_uses_them(tmp_path):
    path, others = two_layers(tmp_path), feeds(3, 5)
    net = load(path, thresholds=0.2)
    before = error(net, path, others)
    assert deltarnn.distill(net, feeds(24), epochs=30, lr=3e-3) is net
    assert net.thresholds == {"first": [(0.2, 0.2)], "second": [(0.2, 0.2)]}
    net.reset()
    after = error(net, path, others)
    assert after < 0.8 * before
    net.save(tmp_path / "trained.onnx")
    assert error(load(tmp_path / "trained.onnx"), path, others) == pytest.approx(after, rel=1e-3)


def test_what_cannot_be_trained_around_the_parts_is_refused(tmp_path):
    net = load(two_layers(tmp_path), thresholds=0.1)
    with pytest.raises(ValueError, match="of an imported network only its parts learn"):
        deltarnn.distill(net, feeds(1), freeze=False)


def test_tune_in_int8_reports_its_loss_and_keeps_formats_in_the_file(tmp_path):
    path = two_layers(tmp_path)
    net = load(path)
    tuned = deltarnn.tune(net, feeds(4), budget=0.02, held_out=feeds(2, 5), precision="int8")
    assert error(net, path, feeds(2, 5)) == pytest.approx(tuned.int8_loss, rel=0.05)
    assert tuned.int8_loss < tuned.held_out_loss + 0.01
    assert "in int8" in str(tuned)
    for name in net.recurrent:
        engine = net.engine(name)
        assert (engine.precision, engine.accumulator_bits) == ("int8", (32,))
    net.save(tmp_path / "tuned.onnx")
    again = load(tmp_path / "tuned.onnx")
    (expected,), (actual,) = (n.stream().run(None, feeds(1)[0]) for n in (net, again))
    np.testing.assert_array_equal(actual, expected)
    assert load(tmp_path / "tuned.onnx", precision="float32").engine("first").precision == "float32"
    with pytest.raises(TypeError, match=r"precision='int8' is for networks of deltarnn\.onnx\.load"):
        deltarnn.tune(torch.nn.GRU(2, 3), [torch.zeros(4, 1, 2)], precision="int8")


def test_dense_products_in_int8_where_sessions_run_them(tmp_path, monkeypatch):
    monkeypatch.setattr(lowering, "LARGEST", -1)
    path = two_layers(tmp_path)
    net, item = load(path), feeds(1)[0]
    (exact,) = net.run(None, item)
    net.quantize(feeds(3))
    (recurrent,) = net.stream().run(None, item)
    net.quantize(feeds(3), dense=True)
    (whole,) = net.stream().run(None, item)
    assert not np.array_equal(whole, recurrent)
    assert np.square(whole - exact).sum() < 1e-3 * np.square(exact - exact.mean()).sum()
    net.save(tmp_path / "whole.onnx")
    np.testing.assert_array_equal(load(tmp_path / "whole.onnx").run(None, item)[0], whole)
    (back,) = load(tmp_path / "whole.onnx", precision="float32").run(None, item)
    np.testing.assert_array_equal(back, exact)


def test_quantize_names_what_it_cannot(tmp_path):
    net = load(two_layers(tmp_path))
    with pytest.raises(ValueError, match="'first' did not run over the calibration data"):
        net.quantize([])
    b = Builder(4)
    recurrent_node(b, "GRU", 6, 10, "x", prefix="before", linear_before_reset=0)
    net = load(b.save(tmp_path / "before.onnx", {"x": ["T", "B", 6]}, ["before_y"]))
    with pytest.raises(ValueError, match=r"^before: precision='int8' does not combine with reset_after=False"):
        net.quantize(feeds(1))
