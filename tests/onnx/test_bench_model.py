"""`deltarnn bench --model`: the table, what it is made of, and how many calls it takes."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from tests.onnx.models import Builder, onnx_runtime, recurrent_node, slow_signal
from tests.onnx.test_network import streaming_lstm

from deltarnn.bench.network import CALLS, ELEMENTS, Calls
from deltarnn.cli import main
from deltarnn.onnx import load

STREAMING = ["--shape", "x=1,6", "--shape", "state=2,1,16", "--state", "state=next"]


def arguments(**given: Any) -> SimpleNamespace:
    return SimpleNamespace(**{"data": None, "shape": [], "set": [], "state": [], **given})


def sequences(folder: Path) -> Path:
    b = Builder()
    y = recurrent_node(b, "GRU", 4, 6, "x", prefix="rnn")
    return b.save(folder / "m.onnx", {"x": ["T", "B", 4]}, [y])


def test_the_table_names_the_parts(tmp_path: Path, capsys: Any) -> None:
    path = streaming_lstm(tmp_path)
    np.savez(tmp_path / "calls.npz", x=slow_signal(1, 40, 1, 6))
    command = ["bench", "--model", str(path), "--quick", "--threshold", "0.05", "--data", str(tmp_path / "calls.npz")]
    assert main([*command, *STREAMING]) == 0
    table = capsys.readouterr().out
    for text in ("ONNX Runtime, the file as it is", "| imported |", "| of it rnn |", "| of it all else |"):
        assert text in table
    assert 0 < float(table.rsplit("first output: ", 1)[1].rstrip(".\n")) < 0.1


def test_states_are_handed_on(tmp_path: Path) -> None:
    path = streaming_lstm(tmp_path)
    calls = Calls(onnx_runtime(path), arguments(shape=["x=1,6", "state=2,1,16"], state=["state=next"]))
    assert len(calls.feeds) == CALLS
    net, state = load(path), np.zeros((2, 1, 16), np.float32)
    for feed, first in zip(calls.feeds, calls.run(load(path)), strict=True):
        y, state = net.run(["y", "next"], {**feed, "state": state})
        np.testing.assert_array_equal(first, y)


def test_long_calls_are_fewer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that only the runner moves: half a second a call."""
    session, now = onnx_runtime(sequences(tmp_path)), [0.0]

    def run(names: Any, feed: Any) -> list[np.ndarray]:
        now[0] += 0.5
        return [feed["x"]]

    monkeypatch.setattr(time, "thread_time", lambda: now[0])
    for seconds, expected in ((4.0, 8), (0.1, 1), (1e9, CALLS)):
        calls = Calls(session, arguments(shape=["x=10,1,4"]))
        calls.shorten(SimpleNamespace(run=run), seconds)
        assert len(calls.feeds) == expected
    assert len(Calls(session, arguments(shape=[f"x={ELEMENTS // 12},1,4"])).feeds) == 3
    assert len(Calls(session, arguments(shape=[f"x={ELEMENTS},1,4"])).feeds) == 1


def test_signals_of_several_numbers_of_calls(tmp_path: Path) -> None:
    path = streaming_lstm(tmp_path)
    np.savez(tmp_path / "calls.npz", x=slow_signal(1, 40, 1, 6), state=slow_signal(1, 30, 2, 1, 16))
    with pytest.raises(ValueError, match=r"the signals \(x, state\) must have the same number of calls"):
        Calls(onnx_runtime(path), arguments(data=tmp_path / "calls.npz"))
    np.savez(tmp_path / "calls.npz", x=slow_signal(1, 400, 1, 6))
    mixed = Calls(onnx_runtime(path), arguments(data=tmp_path / "calls.npz", shape=["state=2,1,16"]))
    assert len(mixed.feeds) == CALLS


BENCH, IMPORT = ["bench", "--quick", "--model"], ["import", "--operators", "out.onnx"]


@pytest.mark.parametrize(
    ("command", "flags", "message"),
    [
        (BENCH, ["--shape", "x=4,k"], "--shape x=4,k: must be whole numbers separated by commas"),
        (BENCH, ["--set", "x=abc"], "--set x=abc: must be a number"),
        (BENCH, ["--data", "scalar.npz"], "scalar.npz: must be an .npz file with an array (calls, …) for each input"),
        (BENCH, ["--data", "empty.npz"], "empty.npz: must be an .npz"),
        (BENCH, ["--data", "array.npy"], "array.npy: must be an .npz"),
        (BENCH, ["--data", "broken.npz"], "broken.npz: must be an .npz"),
        (IMPORT, ["--shape", "x=4,k"], "--shape x=4,k: must be whole numbers separated by commas"),
        (IMPORT, ["--shape", "x=2,1,4", "--set", "x=abc"], "--set x=abc: must be a number"),
    ],
)
def test_wrong_values_are_named(tmp_path, monkeypatch, capsys, command, flags, message) -> None:
    path = sequences(tmp_path)
    monkeypatch.chdir(tmp_path)
    np.savez("scalar.npz", x=np.float32(3))
    np.savez("empty.npz", x=np.zeros((0, 4, 1, 4), np.float32))
    np.save("array.npy", np.zeros(3))
    Path("broken.npz").write_bytes(b"PK\x03\x04broken")
    assert main([*command, str(path), *flags]) == 1
    assert capsys.readouterr().err.startswith(f"error: {message}")
