"""Instructions of the exported C library on Cortex-M, at a network's thresholds and at 0 (docs/embedded.md).

At thresholds 0 the library's code is dense: dual multiply-accumulates over whole rows, no events. Both are compiled
with the same flags, run over the same frames, and compared with the integer cells frame by frame. No clock is read.
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltarnn.bench.workload import calibrated_engine, lively_layer, random_changes
from deltarnn.engine.model_file import load_model, read_quantization
from deltarnn.files import write_text
from deltarnn.fixed.network import IntegerNetwork
from deltarnn.fixed.parameters import NetworkParameters
from deltarnn.hardware.cortex_m import CPUS, FLAGS
from deltarnn.hardware.export_c import export_c
from deltarnn.hardware.microcontroller import Measured, measure_c
from deltarnn.kws.features.pipeline import FeaturePipeline
from deltarnn.kws.features.store import load_features
from deltarnn.nn import DeltaGRU

FRAMES, QUICK = 1200, 120
SPARSITY = 0.86
"""Of the made-up network, where no model is given."""


@dataclass(frozen=True)
class Comparison:
    """One core: the library at the network's thresholds, and at thresholds 0."""

    delta: Measured
    dense: Measured

    @property
    def ratio(self) -> float:
        """Instructions of thresholds 0 over those of the network's."""
        return self.dense.mean / self.delta.mean


def run(output: Path, quick: bool, model: Path | None = None, features: Path | None = None) -> None:
    """Measure a keyword model over its features, or a made-up GRU 16→64; print and write mcu.md and mcu.json."""
    if (model is None) != (features is None):
        raise ValueError("--model and --data go together: a keyword model and features of the same front end")
    count = QUICK if quick else FRAMES
    if model is None or features is None:
        network, frames = _made_up(count)
    else:
        network, frames = _trained(model, features, count)
    sparsity, compared = compare(network, frames)
    text = table(sparsity, compared)
    print(text, end="", flush=True)
    write_text(output / "mcu.md", text)
    record = {
        "flags": FLAGS,
        "zero deltas": sparsity,
        "frames": len(frames),
        "cores": {
            name: {part: _record(getattr(found, part)) for part in ("delta", "dense")}
            for name, found in compared.items()
        },
    }
    write_text(output / "mcu.json", json.dumps(record, indent=1) + "\n")


def compare(model: NetworkParameters, frames: NDArray[np.float64]) -> tuple[float, dict[str, Comparison]]:
    """The fraction of zero deltas over the frames (T, I), and each core's comparison."""
    models = model, model.with_thresholds(0, 0)
    networks = [IntegerNetwork.convert(each, model.formats) for each in models]
    x = networks[0].quantization.activation.to_int(frames, networks[0].quantization.rounding)
    runs = networks[0].run(frames).layers
    fired = [part for layer in runs for part in (layer.fired_x, layer.fired_h)]
    sparsity = 1 - sum(int(part.sum()) for part in fired) / sum(part.size for part in fired)
    found: dict[str, list[Measured]] = {cpu: [] for cpu in CPUS}
    with tempfile.TemporaryDirectory() as folder:
        for network, parameters in zip(networks, models, strict=True):
            export_c(parameters, frames[:1], folder, model.formats, "net")
            for cpu, measured in found.items():
                measured.append(measure_c(Path(folder), "net", cpu, network, x))
    return sparsity, {cpu: Comparison(*measured) for cpu, measured in found.items()}


def table(sparsity: float, compared: dict[str, Comparison]) -> str:
    """Markdown, a row per core and thresholds."""
    frames = len(next(iter(compared.values())).delta.instructions)
    lines = [
        f"{sparsity:.1%} zero deltas over {frames} frames; {' '.join(FLAGS[:3])}",
        "",
        "| core | network | flash | RAM: state + stack | instructions per frame | worst frame | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for cpu, both in compared.items():
        for name, found, ratio in (
            ("its thresholds", both.delta, f"{both.ratio:.1f}"),
            ("thresholds 0, dense code", both.dense, ""),
        ):
            lines.append(
                f"| {cpu} | {name} | {found.flash} | {found.state} + {found.stack} | {found.mean:.0f} | {found.worst} "
                f"| {ratio} |"
            )
    return "\n".join(lines) + "\n"


def _record(found: Measured) -> dict[str, Any]:
    return {
        "flash": found.flash,
        "state": found.state,
        "stack": found.stack,
        "instructions": {"mean": found.mean, "worst": found.worst, **found.by_function},
    }


def _made_up(count: int) -> tuple[NetworkParameters, NDArray[np.float64]]:
    frames = random_changes(count, 16, SPARSITY)
    dense = lively_layer("GRU", (16, 64, 1))
    engine = calibrated_engine(dense, frames, SPARSITY, "int8")
    layer = DeltaGRU(16, 64, thx=list(engine.thx), thh=list(engine.thh))
    layer.load_state_dict(dense.state_dict())
    return NetworkParameters.of(layer), frames.astype(np.float64)


def _trained(path: Path, features: Path, count: int) -> tuple[NetworkParameters, NDArray[np.float64]]:
    tensors, header = load_model(path)
    model = NetworkParameters.from_model_file(tensors, header, read_quantization(header))
    if not any(layer.thx or layer.thh for layer in model.layers):
        raise ValueError(f"{path}: has no thresholds to compare with 0: retrain it as a delta network")
    stored = load_features(features)
    if "features" not in header or stored.pipeline.to_dict() != FeaturePipeline.from_dict(header["features"]).to_dict():
        raise ValueError(f"{features}: made with another feature configuration than {path}'s")
    clips = np.linspace(0, len(stored) - 1, -(-count // stored.features.shape[1])).round().astype(int)
    return model, np.concatenate(list(stored.normalised[clips]))[:count].astype(np.float64)
