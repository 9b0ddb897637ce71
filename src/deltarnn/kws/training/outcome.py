"""What a training run was asked for and what it achieved: the metrics, one line for the user, errors for no-ops."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from deltarnn.engine.model_file import ModelFileError, load_model
from deltarnn.files import read_json, replacing
from deltarnn.kws.config.resolve import Config
from deltarnn.kws.evaluation.scoring import Clips, Evaluation
from deltarnn.kws.network.model import KeywordModel
from deltarnn.kws.spotter.calibration import STREAM
from deltarnn.kws.training.finishing import zero_fraction
from deltarnn.kws.training.runs import Run
from deltarnn.nn.activity import record_activity


class NothingAchieved(ValueError):
    """A requested feature did nothing."""


def operations_per_second(model: KeywordModel, frame_stride: float, effective_sparsity: float = 0.0) -> float:
    """Arithmetic operations for one second of audio: 2 per weight fetched, at the given sparsity; the head is dense."""
    recurrent = sum(p.numel() for name, p in model.rnn.named_parameters() if name.startswith("weight"))
    dense = sum(p.numel() for name, p in model.head.named_parameters() if name.endswith("weight"))
    return 2 * (recurrent * (1 - effective_sparsity) + dense) / frame_stride


def model_metrics(model: KeywordModel, results: dict[str, Evaluation], frame_stride: float) -> dict[str, Any]:
    """Fields of metrics.json from the results by group ("validation", "test").

    The sparsities at the top level are the test group's, or the last group's there is.
    """
    metrics: dict[str, Any] = {f"{group}_accuracy": result.accuracy for group, result in results.items()}
    measured = list(results.values())[-1] if results else None
    effective = 0.0
    if measured is not None and measured.sparsity is not None:
        metrics |= vars(measured.sparsity)
        effective = measured.sparsity.effective_sparsity
    metrics |= {
        "parameters": model.parameter_count,
        "model_bytes_int8": model.parameter_count,
        "operations_per_second_dense": operations_per_second(model, frame_stride),
        "operations_per_second": operations_per_second(model, frame_stride, effective),
        "weight_sparsity": zero_fraction(model),
    }
    if measured is not None:
        metrics["labels"] = list(measured.confusion.labels)
    return metrics | {group: result.fields() for group, result in results.items()}


def added_since(run: Run, best: KeywordModel) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of a finished run that is called again: what `evaluate` added to the model's header, the threshold for streams;
    and the metrics there are, among them those that are not asked for again. Nothing where the model is another one."""
    try:
        tensors, header = load_model(run.model_path)
    except (FileNotFoundError, ModelFileError):
        return {}, {}
    state = best.state_dict()
    if tensors.keys() != state.keys() or any(not np.array_equal(state[name].cpu(), tensors[name]) for name in state):
        return {}, {}
    metrics = read_json(run.metrics)
    return {name: header[name] for name in (STREAM,) if name in header}, metrics if isinstance(metrics, dict) else {}


def summary(config: Config, step: str, model: KeywordModel, metrics: dict[str, Any]) -> str:
    """One line: what was requested and what was achieved. NothingAchieved where a requested feature did nothing."""
    parts = []
    if step == "retrain":
        parts.append(_thresholds(model, metrics))
    if config.pruning.cbtd:
        parts.append(_pruning(config, metrics))
    if config.quantization.qw or config.quantization.qa:
        parts.append(_rounding(config, model))
    accuracies = [
        f"{group} accuracy {metrics[f'{group}_accuracy']:.2%}"
        for group in ("validation", "test")
        if f"{group}_accuracy" in metrics
    ]
    return "; ".join(accuracies + parts)


def _thresholds(model: KeywordModel, metrics: dict[str, Any]) -> str:
    layer = model.delta
    assert layer is not None
    requested = f"thresholds x {_listed(layer.thx)}, h {_listed(layer.thh)}"
    if "sparsity" not in metrics:
        return f"{requested}, not evaluated"
    for name, thresholds in (("x", layer.thx), ("h", layer.thh)):
        if max(thresholds) > 0 and metrics[f"sparsity_{name}"] == 0:
            raise NothingAchieved(f"--th{name} {_listed(thresholds)} made no delta zero: is it far too small?")
    achieved = (
        f"sparsity {metrics['sparsity']:.1%} (x {metrics['sparsity_x']:.1%}, h {metrics['sparsity_h']:.1%}, "
        f"effective {metrics['effective_sparsity']:.1%})"
    )
    return f"{requested}: {achieved}"


def _pruning(config: Config, metrics: dict[str, Any]) -> str:
    gammas = f"pruning {config.pruning.gamma_rnn:g} recurrent, {config.pruning.gamma_fc:g} dense"
    if metrics["weight_sparsity"] == 0:
        raise NothingAchieved(
            f"--cbtd 1 pruned nothing: train past --alpha_anneal_epoch {config.pruning.alpha_anneal_epoch}, or raise "
            "--gamma_rnn or --gamma_fc"
        )
    return f"{gammas}: {metrics['weight_sparsity']:.1%} of all weights are zero"


def _rounding(config: Config, model: KeywordModel) -> str:
    weight = config.quantization.weight
    values = torch.cat([p.detach().flatten() for p in model.rnn.parameters()]) * weight.scale
    share = float((values == values.round()).float().mean())
    if config.quantization.qw and share < 1:
        raise NothingAchieved(
            f"--qw {config.quantization.qw}: only {share:.1%} of the weights are on {weight}'s grid, to which an "
            "epoch rounds them: train for one or more"
        )
    layer = config.quantization.layer
    if layer is None:
        return f"weights {weight}"
    bits, width = accumulator_bits(model), config.quantization.bw_acc
    verdict = "fit" if bits <= width else "MAY OVERFLOW"
    return (
        f"weights {weight}, activations {layer.activation}, gates {layer.gate}; sums of up to {bits} bits {verdict} in "
        f"accumulators of --bw_acc {width}"
    )


def accumulator_bits(model: KeywordModel) -> int:
    """Bits, sign included, that hold every memory M of a quantised delta network: |M| ≤ |b| + Σ|w|·max|A| (MATH §6)."""
    assert model.delta is not None
    assert model.delta.quantization is not None
    formats = model.delta.quantization
    largest_activation = 2.0 ** (formats.activation.integer_bits - 1)
    largest = 0.0
    for name in model.delta.layer_names:
        weight_ih, weight_hh, bias_ih, bias_hh = (
            getattr(model.delta, f"{part}_{name}").detach().double().abs()
            for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        rows = (weight_ih.sum(1) + weight_hh.sum(1)) * largest_activation + bias_ih + bias_hh
        largest = max(largest, float(rows.max()))
    return int(largest * formats.activation.scale * formats.weight.scale).bit_length() + 1


@torch.no_grad()
def write_signals(path: Path, model: KeywordModel, clips: Clips, count: int = 4) -> None:
    """The signals of the first `count` clips as a NumPy archive: features, labels, class scores, and per layer of a
    delta network the events fired_x and fired_h; all (T, B, …) but labels (B,)."""
    features = clips.features[:, :count]
    signals = {"features": features, "labels": clips.labels[:count]}
    if model.delta is None:
        signals["scores"] = model(features)[0]
    else:
        with record_activity(model, events=True) as activity:
            signals["scores"] = model(features)[0]
        for layer in activity.per_layer:
            name = layer.name.rsplit(".", 1)[-1]
            signals[f"fired_x_{name}"], signals[f"fired_h_{name}"] = layer.events
    arrays: dict[str, Any] = {name: tensor.cpu().numpy() for name, tensor in signals.items()}
    with replacing(path) as part:
        np.savez_compressed(part, **arrays)


def _listed(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:g}" for value in (values if len(set(values)) > 1 else values[:1]))
