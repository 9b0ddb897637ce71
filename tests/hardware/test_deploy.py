"""`deltarnn estimate` and `deltarnn export`, as typed."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from deltarnn import Quantization
from deltarnn.cli import main
from deltarnn.fixed.network import IntegerNetwork
from deltarnn.hardware import EdgeDRNN, NetworkParameters, Spartus, cortex_m
from deltarnn.hardware.compilers import find_compiler
from deltarnn.hardware.design_space import DesignGrid, best_points, explore, pruned
from deltarnn.kws.config.options_data import FeatureConfig
from deltarnn.kws.data.audio import write_wav
from deltarnn.kws.features.pipeline import FeaturePipeline
from deltarnn.kws.features.store import FeatureSet, save_features
from deltarnn.kws.network.decision import DecisionRule
from deltarnn.kws.network.model import Architecture, KeywordModel
from deltarnn.kws.spotter.rule import StreamRule
from deltarnn.kws.training.finishing import hold_hidden_bias

CLASSES = ["_silence_", "_unknown_", "yes"]


def write_model(path: Path, cell: str, thx=0.1, thh=0.1, quantization=None, b_hn=0.0) -> KeywordModel:
    torch.manual_seed(0)
    model = KeywordModel(Architecture(16, 3, cell, hidden_size=64)).to_delta((thx,), (thh,), quantization)
    with torch.no_grad():
        model.rnn.bias_hh_l0[128:192] = b_hn
    rule = {"smooth": False, "smoothing_window": 60, "confidence_window": 80, "fire_threshold": 0.0, "target": "clip"}
    model.save(path, labels=CLASSES, features=pipeline().to_dict(), decision=rule)
    return model


def pipeline() -> FeaturePipeline:
    return FeaturePipeline(FeatureConfig()).with_statistics(mean=20.0, std=40.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("deploy")
    write_model(folder / "gru.safetensors", "GRU")
    write_model(folder / "lstm.safetensors", "LSTM", thx=0.125, thh=0.125, quantization=Quantization())
    rng = np.random.default_rng(0)
    features = (20 + 40 * rng.normal(size=(12, 30, 16)).cumsum(axis=1) * 0.2).astype(np.float32)
    lengths, labels = np.full(12, 30), np.arange(12) % 3
    save_features(folder / "test.safetensors", FeatureSet(features, lengths, labels, ["a"] * 12, CLASSES, pipeline()))
    write_wav(folder / "a.wav", (rng.normal(size=16000) * 3000).astype(np.int16))
    return folder


def deltarnn(capsys, *arguments) -> str:
    status = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    assert status == 0, captured.err
    return captured.out


def refused(capsys, *arguments) -> str:
    assert main([str(a) for a in arguments]) == 1
    return capsys.readouterr().err


@pytest.mark.parametrize(("target", "model"), [("edgedrnn", "gru"), ("deltarnn", "gru"), ("spartus", "lstm")])
def test_estimate_prints_a_table_and_writes_json_and_a_plot(folder, tmp_path, capsys, target, model):
    out = deltarnn(
        capsys, "estimate", "--model", folder / f"{model}.safetensors", "--target", target, "--features",
        folder / "test.safetensors", "--clips", 5, "--out", tmp_path,
    )  # fmt: skip
    report = json.loads((tmp_path / f"{target}.json").read_text())
    assert report["steps"] == 150
    assert f"{report['latency']['mean_s'] * 1e6:.2f}" in out
    assert all(f"[{p['mark']}]" in out for p in report["parameters"])
    assert "the dense head runs on the host" in out
    assert (tmp_path / f"{target}.png").stat().st_size > 1000


def test_estimate_reads_audio_and_flags(folder, capsys):
    common = ("estimate", "--model", folder / "gru.safetensors", "--target", "edgedrnn", "--audio", folder / "a.wav")
    assert "steps measured            61" in deltarnn(capsys, *common)
    out = deltarnn(capsys, *common, "--num_array_pe_ext", 16, "--op_freq", 1e8, "--power", 1.5, "--thx", 1, "--thh", 3)
    assert "num_pe                 16        [given]" in out
    assert "1e+08 Hz     [given]" in out
    assert "zero deltas" in out
    assert "rounded" not in out  # 1 and 3 are on the grid


def test_what_the_hardware_or_the_command_cannot_do_is_refused(folder, tmp_path, capsys):
    lstm, gru = folder / "lstm.safetensors", folder / "gru.safetensors"
    wav = ("--audio", folder / "a.wav")
    base = ("estimate", "--target", "edgedrnn", *wav)
    assert "EdgeDRNN runs DeltaGRU layers: this model is a DeltaLSTM" in refused(capsys, *base, "--model", lstm)
    assert "--scan_width does nothing for edgedrnn" in refused(capsys, *base, "--model", gru, "--scan_width", 3)
    assert "--sweep_pe does nothing without" in refused(capsys, *base, "--model", gru, "--sweep_pe", "4")
    assert "--sweep_clock 1e13: must be at most 1e+12" in refused(
        capsys, *base, "--model", gru, "--sweep_clock", "1e8,1e13"
    )
    assert "--sweep_pe 2.5: must be a whole number" in refused(capsys, *base, "--model", gru, "--sweep_pe", "2.5")
    for empty in ("", "8,,16"):
        assert "needs a number before and after each" in refused(capsys, *base, "--model", gru, "--sweep_pe", empty)
    assert "--op_freq -1.0: must be above 0" in refused(capsys, *base, "--model", gru, "--op_freq", -1)
    assert "accuracy takes clips with labels" in refused(capsys, *base, "--model", gru, "--design-space")
    assert "thx=1.5: EdgeDRNN takes at most 1" in refused(capsys, *base, "--model", gru, "--thx", 1.5)
    write_model(tmp_path / "bias", "GRU", b_hn=0.25)
    assert "b_hn of layer 0 reaches 0.25" in refused(capsys, *base, "--model", tmp_path / "bias")
    write_model(tmp_path / "dense", "GRU", thx=0.0, thh=0.0)
    assert "has no thresholds" in refused(capsys, *base, "--model", tmp_path / "dense")
    assert "zero deltas" in deltarnn(capsys, *base, "--model", tmp_path / "dense", "--thx", 0.25)
    assert "no such" in refused(capsys, *base, "--model", tmp_path / "none")
    bare = ("export", "--model", gru, "--out", tmp_path / "out")
    assert "--format hex needs --features or --audio" in refused(capsys, *bare, "--format", "hex")
    export = (*bare, *wav)
    long = ("--stim_head", 1000, "--stim_len", 1000)
    assert "asks for frame 1999, but only 61 were given" in refused(capsys, *export, *long, "--format", "hex")
    short = ("--stim_head", 10, "--stim_len", 40)
    assert "--w_sp_ext does nothing for c" in refused(capsys, *export, *short, "--format", "c", "--w_sp_ext", 0.5)
    assert "Spartus runs DeltaLSTM" in refused(capsys, *export, *short, "--format", "spartus")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("model", "form", "file"),
    [
        ("gru", "edgedrnn", "weights.hex"),
        ("lstm", "spartus", "layer0_array7.hex"),
        ("lstm", "hex", "head0_weight.hex"),
        ("gru", "c", "delta_network.c"),
    ],
)
def test_export_writes_what_it_names(folder, tmp_path, capsys, model, form, file):
    out = deltarnn(
        capsys, "export", "--model", folder / f"{model}.safetensors", "--format", form, "--out", tmp_path,
        "--features", folder / "test.safetensors", "--stim_head", 100, "--stim_len", 200,
    )  # fmt: skip
    assert file in out
    assert "stimulus frames: 200" in out
    assert "read back and compared: equal" in out
    assert {path.name for path in tmp_path.iterdir()} >= {file}
    if form == "c" and find_compiler():
        assert "flash bytes, code and constants" in out


def test_export_to_c_takes_samples_or_the_network_alone(folder, tmp_path, capsys):
    """The whole spotter; what its front end has not is named, and the network can be had without it."""
    base = ("export", "--format", "c", "--audio", folder / "a.wav", "--stim_head", 0, "--stim_len", 20)
    out = deltarnn(capsys, *base, "--model", folder / "gru.safetensors", "--out", tmp_path / "whole", "--name", "ear")
    assert "ear_push_test.c" in out
    assert "threshold 3: the model stores none" in out
    assert "ear_push(" in (tmp_path / "whole" / "ear.h").read_text()
    usual = StreamRule.at(pipeline().framing.hop / pipeline().config.sample_rate)  # as `Spotter.load` takes it
    written = "".join(path.read_text() for path in (tmp_path / "whole").glob("*.[ch]"))
    assert re.search(rf"RULE_SMOOTHING\D+{usual.smoothing}\b", written)
    model = write_model(tmp_path / "m", "GRU")
    model.save(tmp_path / "m", labels=CLASSES, features={**pipeline().to_dict(), "gain_ctrl": True})
    told = refused(capsys, *base, "--model", tmp_path / "m", "--out", tmp_path / "none")
    assert "no --gain_ctrl" in told
    assert "--network_only" in told
    out = deltarnn(capsys, *base, "--model", tmp_path / "m", "--out", tmp_path / "alone", "--network_only")
    assert "push" not in out + (tmp_path / "alone" / "delta_network.h").read_text()


@pytest.mark.skipif(not cortex_m.available(), reason=cortex_m.MISSING)
def test_export_to_c_measures_on_a_core(folder, tmp_path, capsys):
    base = ("export", "--format", "c", "--features", folder / "test.safetensors", "--stim_head", 0, "--stim_len", 20)
    out = deltarnn(
        capsys, *base, "--model", folder / "gru.safetensors", "--out", tmp_path, "--cpu", "cortex-m4", "--network_only"
    )
    told = out.split("measured on cortex-m4:\n")[1]
    for line in ("flash", "RAM", "network", "a second", "clock for real time"):
        assert f"  {line} " in told
    assert "front end" not in told
    assert "--cpu does nothing for hex" in refused(
        capsys, "export", "--format", "hex", *base[3:], "--model", folder / "gru.safetensors", "--out", tmp_path / "n",
        "--cpu", "cortex-m4",
    )  # fmt: skip


def test_export_chooses_formats_on_request(folder, tmp_path, capsys):
    out = deltarnn(
        capsys, "export", "--model", folder / "gru.safetensors", "--format", "hex", "--out", tmp_path, "--features",
        folder / "test.safetensors", "--stim_head", 0, "--stim_len", 30, "--choose_formats", 0.1,
    )  # fmt: skip
    assert "formats tried" in out
    chosen = out.split("weights ")[1].split(",")[0]
    assert json.loads((tmp_path / "tensors.json").read_text())["weight_hh_l0"]["format"] == chosen


def test_the_design_space_of_edgedrnn(folder, tmp_path, capsys):
    out = deltarnn(
        capsys, "estimate", "--model", folder / "gru.safetensors", "--target", "edgedrnn", "--features",
        folder / "test.safetensors", "--clips", 3, "--out", tmp_path, "--design-space", "--sweep_pe", "8,16,24",
        "--sweep_clock", "1e8", "--sweep_threshold", "0,0.25",
    )  # fmt: skip
    points = json.loads((tmp_path / "edgedrnn_design_space.json").read_text())
    assert [(p["num_pe"], p["thx"]) for p in points] == [(8, 0), (16, 0), (8, 0.25), (16, 0.25)]
    assert "left out: num_pe=24: hidden_size=64" in out
    latency = [p["latency_mean_s"] for p in points]
    assert latency[0] > latency[1] > latency[3]
    assert latency[0] > latency[2] > latency[3]
    assert (tmp_path / "edgedrnn_design_space.png").stat().st_size > 1000


def test_the_design_space_measures_pruned_models_and_their_accuracy():
    module = KeywordModel(Architecture(16, 3, "LSTM", hidden_size=64)).to_delta((0.125,), (0.125,), Quantization())
    model = NetworkParameters.of(module)
    frames = [np.random.default_rng(i).normal(size=(20, 16)) for i in range(4)]
    labels = np.array([0, 1, 2, 1])
    rule = DecisionRule(smooth=False)

    def accuracy(changed):
        network = IntegerNetwork.convert(changed)
        scores = network.to_float(network.run(np.stack(frames, axis=1)).output)
        return float((rule(torch.from_numpy(scores)).numpy() == labels).mean())

    spartus = Spartus(num_pe=16)
    grid = DesignGrid([spartus], [2e8], [(0.125, 0.125), (0.5, 0.5)], (0.0, 0.75))
    points = explore(model, frames, grid, accuracy)
    assert len(points) == 4
    for point in points:
        changed = pruned(model.with_thresholds(point.thx, point.thh), point.gamma, 16)
        assert point.latency_mean_s == spartus.estimate(changed, frames).latency.mean_s
        assert point.accuracy == accuracy(changed)
    front = best_points(points)
    assert front[0].latency_mean_s == min(p.latency_mean_s for p in points)
    assert max(p.accuracy for p in front) == max(p.accuracy for p in points)


def test_training_can_hold_b_hn_at_zero():
    """--zero_b_hn: after optimiser steps with weight decay b_hn is still 0, and nothing else is."""
    model = KeywordModel(Architecture(4, 3, "GRU", 8, 2)).to_delta((0.1,), (0.1,))
    hold_hidden_bias(model)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(9, 2, 4))[0].square().sum().backward()
        optimizer.step()
    for bias in (model.rnn.bias_hh_l0, model.rnn.bias_hh_l1):
        assert (bias[16:] == 0).all()
        assert (bias[:16] != 0).all()
    EdgeDRNN().integers(NetworkParameters.of(model))
