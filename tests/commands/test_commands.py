"""`deltarnn tune` and `deltarnn distill`, as a user types them."""

import json
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import deltarnn
from deltarnn.cli import main
from deltarnn.commands.inputs import function_of

SOURCE = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.GRU(6, 10)

def items():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(40, 1, 6, generator=generator).cumsum(0).mul(0.2) for _ in range(4)]

def loss(model, items):
    return sum(model.thx) + sum(model.thh)

def other():
    return 3

def word(model, items):
    return "good"
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(SOURCE)
    (tmp_path / "data").mkdir()
    for seed in range(4):
        x = np.random.default_rng(seed).normal(0, 0.2, (40, 1, 6)).cumsum(0).astype(np.float32)
        np.save(tmp_path / "data" / f"{seed}.npy", x)
    return tmp_path


def test_a_torch_module_is_tuned_then_distilled(folder, capsys):
    assert main(["tune", "mine.py:build", "--calibration", "data", "--budget", "0.1"]) == 0
    record = json.loads((folder / "tuned" / "tuned.json").read_text())
    assert f"{record['effective_sparsity']:.0%} at the budget" in capsys.readouterr().out
    assert (folder / "tuned" / "curve.png").read_bytes()[:4] == b"\x89PNG"
    items = [torch.from_numpy(np.load(folder / "data" / f"{seed}.npy")) for seed in range(4)]
    dense = torch.nn.GRU(6, 10)
    torch.manual_seed(0)
    dense.reset_parameters()
    assert deltarnn.tune(dense, items, budget=0.1).thresholds[""] == [tuple(record["thresholds"][""][0])]

    given = ["--sequences", "data", "--thresholds", "tuned/tuned.json", "--epochs", "4", "--lr", "0.003"]
    assert main(["distill", "mine.py:build", *given]) == 0
    weights = load_file(folder / "distilled" / "weights.safetensors")
    student = deltarnn.distill(dense, items, thresholds={"": record["thresholds"][""]}, epochs=4, lr=0.003)
    assert all(torch.equal(value, weights[name]) for name, value in student.state_dict().items())
    assert [path.name for path in (folder / "distilled").iterdir()] == ["weights.safetensors"]


def test_data_and_loss_come_from_functions(folder):
    flags = ["--calibration", "mine.py:items", "--held_out", "mine.py:items", "--loss", "mine.py:loss"]
    assert main(["tune", "mine.py:build", *flags, "--budget", "0.3", "--output", "out"]) == 0
    record = json.loads((folder / "out" / "tuned.json").read_text())
    assert record["loss"] == record["held_out_loss"] == pytest.approx(sum(record["thresholds"][""][0]))
    assert 0.25 < record["loss"] <= 0.3


def test_functions_may_use_what_lies_beside_them_and_shadow_nothing(folder, monkeypatch):
    """As where Python runs their file or module; a file may have the name of a module that is used already."""
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    (folder / "nets" / "own").mkdir(parents=True)
    (folder / "nets" / "signal.py").write_text("from helpers import build, items")
    (folder / "nets" / "helpers.py").write_text(SOURCE)
    (folder / "nets" / "own" / "nets.py").write_text(SOURCE)
    for text in ("nets/signal.py", "nets.own.nets"):
        assert main(["tune", f"{text}:build", "--calibration", f"{text}:items", "--budget", "0.1"]) == 0
    assert sys.modules["signal"] is signal
    with pytest.raises(ModuleNotFoundError, match=r"--model gone\.away:build: there is no module gone"):
        function_of("--model", "gone.away:build")


def test_an_onnx_file_is_tuned_and_distilled(folder):
    pytest.importorskip("onnxruntime")
    from tests.onnx.models import Builder, recurrent_node

    from deltarnn.onnx import load

    b = Builder()
    recurrent_node(b, "GRU", 6, 10, "x", prefix="rnn")
    b.node("Identity", "rnn_y", outputs=["y"])
    b.save(folder / "net.onnx", {"x": ["T", "B", 6]}, ["y"])
    assert main(["tune", "net.onnx", "--calibration", "data", "--budget", "0.1"]) == 0
    record = json.loads((folder / "tuned" / "tuned.json").read_text())
    tuned = load(folder / "tuned" / "net.delta.onnx")
    assert tuned.thresholds == {"rnn": [tuple(record["thresholds"]["rnn"][0])]}
    np.savez(folder / "one.npz", x=np.load(folder / "data" / "0.npy"))
    assert main(["distill", "tuned/net.delta.onnx", "--sequences", "data", "one.npz", "--epochs", "3"]) == 0
    trained = load(folder / "distilled" / "net.delta.onnx")
    assert trained.thresholds == tuned.thresholds
    x = np.load(folder / "data" / "0.npy")
    assert np.abs(trained.run(None, {"x": x})[0] - tuned.run(None, {"x": x})[0]).max() > 1e-6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tune", "nets", "--calibration", "data"], "--model nets: must be an ONNX file, or file.py:function"),
        (["tune", "no.py:build", "--calibration", "data"], "--model no.py:build: there is no file no.py"),
        (["tune", "mine.py:nothing", "--calibration", "data"], "mine.py has no function nothing"),
        (["tune", "mine.py:other", "--calibration", "data"], "returned a int: must return a torch module"),
        (
            ["tune", "mine.py:build", "--calibration", "empty"],
            "--calibration empty: no .npy or .npz file in this folder",
        ),
        (["tune", "mine.py:build", "--calibration", "x"], "--calibration x: must be .npz files"),
        (
            ["tune", "mine.py:build", "--calibration", "broken.npy"],
            "broken.npy: no file of numpy.save or numpy.savez, or damaged",
        ),
        (["tune", "mine.py:build", "--calibration", "nan.npy"], "nan.npy: the array holds values that are no finite"),
        (["tune", "mine.py:build", "--calibration", "none.npz"], "none.npz: holds no array"),
        (["tune", "mine.py:build", "--calibration", "named.npz", "data"], "an item of the data does not fit "),
        (["tune", "mine.py:build", "--calibration", "data", "--precision", "int8"], "is for networks of deltarnn.onnx"),
        (["tune", "mine.py:build", "--calibration", "data", "--loss", "mine.py:word"], "must return a number"),
        (["tune", "mine.py:build", "--calibration", "data", "--output", "mine.py"], "mine.py: no file can be written"),
        (["distill", "mine.py:build", "--sequences", "data", "--output", "mine.py"], "mine.py: no file can be written"),
        (["bench", "--what", "engine", "--output", "mine.py"], "mine.py: no file can be written"),
        (["distill", "mine.py:build", "--sequences", "gone.npy"], "gone.npy: No such file"),
        (["distill", "mine.py:build", "--sequences", "data"], "all thresholds are 0"),
        (["distill", "mine.py:build", "--sequences", "data", "--thresholds", "mine.py"], "must be a number, or the"),
    ],
)
def test_wrong_input_gives_one_sentence(folder, capsys, arguments, message):
    (folder / "broken.npy").write_bytes(b"no array")
    (folder / "empty").mkdir()
    np.savez(folder / "none.npz")
    np.savez(folder / "named.npz", nothing=np.zeros((3, 1, 4), np.float32))
    np.save(folder / "nan.npy", np.full((3, 1, 4), np.nan, np.float32))
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
