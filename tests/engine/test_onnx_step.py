"""The exported one-step model in ONNX Runtime against the eager layer."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.engine.cases import eager, signal
from tests.layers import guarded
from torch import nn

from deltarnn import DeltaGRU, DeltaLSTM, Quantization
from deltarnn.engine import UnsupportedModelError, export_onnx_step

onnxruntime = pytest.importorskip("onnxruntime")


def run_steps(path: Path, frames: np.ndarray) -> np.ndarray:
    """(T, ·): the graph over frames (T, I), its states handed from step to step."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    state = {node.name: np.zeros((1, node.shape[1]), np.float32) for node in session.get_inputs()[1:]}
    names = [node.name for node in session.get_outputs()]
    outputs = []
    for frame in frames:
        result = dict(zip(names, session.run(None, {"frame": frame[None], **state}), strict=True))
        outputs.append(result["output"][0])
        state = {name: result[f"next_{name}"] for name in state}
    return np.stack(outputs)


@pytest.mark.parametrize(
    ("cell", "options"),
    [
        (DeltaGRU, {"num_layers": 2}),
        (DeltaGRU, {"bias": False, "thx": 0.0, "thh": 0.0}),
        (DeltaGRU, {"hard_activations": True}),
        (DeltaGRU, {"num_layers": 2, "reset_after": False, "candidate": "relu"}),
        (DeltaLSTM, {"num_layers": 2, "thx": [0.25, 0.0625]}),
        (DeltaLSTM, {"proj_size": 5, "hard_activations": True}),
    ],
)
def test_every_step_is_the_layers(cell: Any, options: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer = cell(7, 18, **{"thx": 0.25, "thh": 0.0625, "backend": "eager", **options}).eval()
    frames = signal(25, 7, 1, 0.5)
    if not options.keys() & {"hard_activations", "proj_size", "bias"}:
        assert guarded(layer, torch.from_numpy(frames)[:, None])
    export_onnx_step(layer, tmp_path / "step.onnx")
    np.testing.assert_allclose(run_steps(tmp_path / "step.onnx", frames), eager(layer, frames), rtol=0, atol=1e-5)


def test_a_whole_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Module()
    model.rnn = DeltaGRU(7, 18, thx=0.25, thh=0.125, backend="eager").eval()
    model.head = nn.Sequential(nn.Linear(18, 9), nn.ReLU(), nn.Linear(9, 4, bias=False))
    frames = signal(20, 7, 1)
    with torch.no_grad():
        expected = model.head(model.rnn(torch.from_numpy(frames))[0]).numpy()
    export_onnx_step(model, tmp_path / "step.onnx")
    np.testing.assert_allclose(run_steps(tmp_path / "step.onnx", frames), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("options", [{"bidirectional": True}, {"quantization": Quantization()}])
def test_what_the_graph_cannot_carry_is_refused(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=r"bidirectional|fixed-point"):
        export_onnx_step(DeltaGRU(3, 4, **options), tmp_path / "step.onnx")
    assert not list(tmp_path.iterdir())
