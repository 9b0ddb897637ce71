"""From trained keyword models to accelerators and C: accuracy at each stage, estimates, exports, in one table.

    python examples/deploy_keyword_spotter.py --models DIR --features feat/gscdv2/feat_fft/test.safetensors --out OUT

DIR holds the model files that docs/worked_example.md trains: for gru and lstm each CELL_dense (float, no thresholds),
CELL_delta (float delta network), CELL_quantised (delta, trained on 8-bit grids) and CELL_pruned (quantised and pruned).
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from deltarnn import record_activity
from deltarnn.fixed.network import IntegerNetwork
from deltarnn.fixed.parameters import NetworkParameters
from deltarnn.fixed.qformat import Quantization
from deltarnn.hardware import DeltaRNNFPGA, EdgeDRNN, Spartus
from deltarnn.hardware.export_c import export_c
from deltarnn.hardware.export_edgedrnn import export_edgedrnn
from deltarnn.hardware.export_spartus import export_spartus
from deltarnn.hardware.stimulus import choose_stimulus
from deltarnn.kws.features.store import load_features
from deltarnn.kws.network.decision import DecisionRule
from deltarnn.kws.network.model import load_keyword_model

STAGES = {
    "dense": "float, dense",
    "delta": "float, delta",
    "delta, 8 bit": "the same, rounded to 8 bits (no training)",
    "quantised": "delta, trained on 8-bit grids",
    "pruned": "quantised and pruned",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    features = load_features(arguments.features)
    frames = features.normalised.transpose(1, 0, 2).astype(np.float64)  # (T, N, I)

    results: dict[str, dict] = {}
    for cell in ("gru", "lstm"):
        for stage in STAGES:
            path = arguments.models / f"{cell}_{stage.split(',')[0]}.safetensors"
            results[f"{cell} {stage}"] = measure(path, stage, frames, features.labels)
    print_table(results)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "accuracy.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")

    deploy(arguments.models, frames, arguments.out)


def measure(path: Path, stage: str, frames: np.ndarray, labels: np.ndarray) -> dict:
    """Test accuracy of one stage, zero deltas and zero weights; in integers wherever the stage is quantised."""
    module, header = load_keyword_model(path)
    model = NetworkParameters.of(module)
    rule = DecisionRule(**header["decision"])
    if stage == "delta, 8 bit":
        # The float model's weights may be wider than Q1.7: a model as stored in its formats is clipped to them.
        model = replace(model, quantization=Quantization())
        model = replace(model, layers=tuple(replace(layer, **rounded(layer)) for layer in model.layers))
    if model.quantization is None:
        with torch.no_grad(), record_activity(module) as activity:
            scores, _ = module(torch.from_numpy(frames).float())
        row = {"zero deltas x": activity.sparsity_x, "zero deltas h": activity.sparsity_h}
        weights = [model.layers[0].weight_ih, model.layers[0].weight_hh]
    else:
        network = IntegerNetwork.convert(model)
        run = network.run(frames)
        scores = torch.from_numpy(network.to_float(run.output))
        layer = run.layers[0]
        row = {"zero deltas x": 1 - layer.fired_x.mean(), "zero deltas h": 1 - layer.fired_h.mean()}
        weights = [network.layers[0].weight_ih, network.layers[0].weight_hh]
    row["zero weights"] = sum((w == 0).sum() for w in weights) / sum(w.size for w in weights)
    row["accuracy"] = float((rule(scores).numpy() == labels).mean())
    return {name: float(value) for name, value in row.items()}


def rounded(layer) -> dict[str, float]:
    return {name: Quantization().round_threshold(getattr(layer, name)) for name in ("thx", "thh")}


def print_table(results: dict[str, dict]) -> None:
    columns = ("accuracy", "zero deltas x", "zero deltas h", "zero weights")
    print("| model | " + " | ".join(columns) + " |")
    print("|---" * (1 + len(columns)) + "|")
    for name, row in results.items():
        cell, stage = name.split(" ", 1)
        values = " | ".join(f"{row[c]:.1%}" for c in columns)
        print(f"| {cell.upper()}, {STAGES[stage]} | {values} |")


def deploy(models: Path, frames: np.ndarray, out: Path) -> None:
    """Estimates on the three accelerators and all exports."""
    clips = [frames[:, n] for n in range(0, frames.shape[1], 10)]
    stimulus = choose_stimulus(np.concatenate(clips), 1000, 1000)
    for target, accelerator, name in (
        ("edgedrnn", EdgeDRNN(), "gru_quantised"),
        ("deltarnn", DeltaRNNFPGA(), "gru_quantised"),
        ("spartus", Spartus(), "lstm_quantised"),
        ("spartus_pruned", Spartus(), "lstm_pruned"),
    ):
        model = NetworkParameters.of(load_keyword_model(models / f"{name}.safetensors")[0])
        report = accelerator.estimate(model, clips)
        report.write_json(out / f"{target}.json")
        report.plot(out / f"{target}.png")
        print(f"\n{name} on {report}")
    for name in ("gru_quantised", "lstm_pruned"):
        model = NetworkParameters.of(load_keyword_model(models / f"{name}.safetensors")[0])
        print(export_c(model, stimulus, out / f"{name}_c"))
        if model.cell == "GRU":
            print(export_edgedrnn(model, stimulus, out / f"{name}_edgedrnn"))
        else:
            print(export_spartus(model, stimulus, out / f"{name}_spartus", weight_sparsity=0.5))


if __name__ == "__main__":
    main()
