"""What the benchmark compares is what it says: same function, wanted sparsity, right bytes. (No times are tested.)"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deltarnn.bench.engine import EngineCase, Result, table
from deltarnn.bench.figure import draw
from deltarnn.bench.timing import Times
from deltarnn.bench.workload import calibrated_engine, fired_bytes, lively_layer, random_changes


def test_random_changes_hold_or_change() -> None:
    frames = random_changes(4000, 8, 0.8)
    still = (np.diff(frames, axis=0) == 0).mean()
    assert still == pytest.approx(0.8, abs=0.02)
    np.testing.assert_array_equal(frames * 256, np.rint(frames * 256))


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("cell", ["GRU", "LSTM"])
def test_calibration_reaches_the_sparsity_of_every_signal(cell: str, precision: Any) -> None:
    frames = random_changes(600, 40, 0.8)
    engine = calibrated_engine(lively_layer(cell, (40, 64, 2)), frames, 0.8, precision)
    engine.run(frames)
    for layer in engine.activity.per_layer:
        assert layer.sparsity_x == pytest.approx(0.8, abs=0.05)
        assert layer.sparsity_h == pytest.approx(0.8, abs=0.05)
    rows = 3 * 64 if cell == "GRU" else 4 * 64
    weights = rows * (40 + 64 + 64 + 64) * (4 if precision == "float32" else 1)
    assert fired_bytes(engine) == pytest.approx((1 - engine.activity.effective_sparsity) * weights)


@pytest.mark.parametrize("cell", ["GRU", "LSTM"])
def test_the_onnxruntime_peer_is_the_same_function(cell: str) -> None:
    pytest.importorskip("onnxruntime")
    from deltarnn.bench.peers import onnxruntime_call, torch_call

    dense, frames = lively_layer(cell, (5, 12, 2)), random_changes(9, 5, 0.0)
    expected = torch_call(dense, frames, 1)()[0].numpy()
    np.testing.assert_allclose(onnxruntime_call(dense, frames, 1)()[0][:, 0], expected, rtol=0, atol=1e-5)


def test_table_and_figure(tmp_path: Path) -> None:
    times = Times(1e-6, 2e-6, 3e-6, 4e-6)
    peers = {f"onnxruntime {what}, 1 thread": times for what in ("one frame", "100 steps")}
    cases = [EngineCase(precision, 0.9, 0.91, times, times, 0.5e-6) for precision in ("float32", "int8")]
    result = Result("GRU", (40, 768, 2), {"float32": 5e10, "int8": 1e11}, peers, cases)
    assert "| engine int8 run | 0.910 | 2 | 3 | 1 | 4.00 |" in table(result).splitlines()
    assert result.name == "GRU 40→2×768"
    draw([result], tmp_path / "engine.png")
    assert (tmp_path / "engine.png").read_bytes().startswith(b"\x89PNG")
