"""What the tests of the layers share: golden files, random cases, and the guard of comparisons in floating point."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests import reference
from torch import Tensor, nn

from deltarnn import DeltaGRU, DeltaLSTM, QFormat, Quantization, record_activity

GOLDEN = Path(__file__).parent / "data" / "layers"
CELLS = {"GRU": DeltaGRU, "LSTM": DeltaLSTM}
DENSE = {"GRU": nn.GRU, "LSTM": nn.LSTM}
GUARD = 1e-5
"""Two ways of computing in floating point may decide differently where ||d| − θ| is less than this."""


def golden_files(pattern: str = "*.npz") -> list[Path]:
    return sorted(GOLDEN.glob(pattern))


def load_golden(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files if name != "meta"}
        return arrays, json.loads(file["meta"].tobytes())


def golden_layer(path: Path, **options: Any) -> tuple[nn.Module, dict[str, np.ndarray], dict[str, Any]]:
    """The layer of a golden file in eval mode, with the file's arrays and its meta entry."""
    arrays, meta = load_golden(path)
    quantization = None
    if meta["qa"]:
        formats = [QFormat(meta[f"{part}qi"], meta[f"{part}qf"]) for part in "awn"]
        quantization = Quantization(*formats, rounding={1: "nearest", 2: "floor"}[meta["qa"]])
    layer = CELLS[meta["kind"]](
        *(meta[name] for name in ("input_size", "hidden_size", "num_layers")),
        thx=meta["thx"],
        thh=meta["thh"],
        quantization=quantization,
        hard_activations=bool(meta["hard"]),
        **options,
    ).eval()
    parameters = {name[6:]: torch.from_numpy(array) for name, array in arrays.items() if name.startswith("param.")}
    layer.load_state_dict(parameters)
    return layer, arrays, meta


def smooth_input(steps: int, batch: int, features: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """A slowly changing signal (T, B, I): a random walk."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(steps, batch, features, generator=generator, dtype=torch.float64).cumsum(0).mul(0.2).to(dtype)


def reference_runs(layer: nn.Module, x: Tensor) -> list[reference.Run]:
    """The layers of a unidirectional `layer`, by the reference, one run per layer; each fed the output of the last."""
    runs: list[reference.Run] = []
    signal = x.detach().double().numpy()
    cell = partial(reference.gru, relu=layer.candidate == "relu") if isinstance(layer, DeltaGRU) else reference.lstm
    if not layer.reset_after:
        cell = partial(reference.gru_reset_before, relu=layer.candidate == "relu")
    for index in range(layer.num_layers):
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        weights = [getattr(layer, f"{name}_l{index}").detach().double().numpy() for name in names]
        runs.append(cell(signal, *weights, layer.thx[index], layer.thh[index]))
        signal = runs[-1].y
    return runs


def assert_equals_its_definition(layer: nn.Module, x: Tensor) -> None:
    """Outputs, final states, counts, events and Σ|Δh| of a float64 layer over x (T, B, I) against the reference's."""
    runs = reference_runs(layer, x)
    with record_activity(layer, events=True) as activity:
        y, states = layer(x, layer.initial_state(x.shape[1]))
    assert relative_error(y, runs[-1].y) < 1e-10
    for run, state, entry in zip(runs, states, activity.per_layer, strict=True):
        assert isinstance(state, layer.state_type)
        assert set(state._fields) == run.state.keys()
        for name, value in run.state.items():
            assert relative_error(getattr(state, name), value) < 1e-10, name
        (call,) = entry.calls
        assert tuple(call.counts.tolist()[: len(run.zeros)]) == run.zeros
        deltas_h = np.concatenate([encoder.deltas for encoder in run.hidden_encoders], axis=2)
        for fired, deltas in zip(entry.events, (np.stack(run.x_encoder.deltas), deltas_h), strict=True):
            np.testing.assert_array_equal(fired, deltas != 0)
    assert relative_error(activity.l1_delta_h, sum(run.l1_delta_h for run in runs)) < 1e-10


def guarded(layer: nn.Module, x: Tensor) -> bool:
    """Whether every decision of this run is at least GUARD away from going the other way."""
    return min(run.margin for run in reference_runs(layer, x)) > GUARD


def relative_error(actual: Any, expected: Any) -> float:
    """The largest difference over the largest magnitude expected."""
    actual, expected = np.asarray(_plain(actual), np.float64), np.asarray(_plain(expected), np.float64)
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    return float(np.abs(actual - expected).max(initial=0) / max(np.abs(expected).max(initial=0), 1e-30))


def _plain(values: Any) -> Any:
    return values.detach().numpy() if isinstance(values, Tensor) else values
