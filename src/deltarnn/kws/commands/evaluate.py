"""`deltarnn evaluate`: a model file on real clips, in float and in fixed point, states reset and carried on."""

import argparse
import copy
import re
from pathlib import Path
from typing import Any

import torch

from deltarnn.files import read_json
from deltarnn.fixed.parameters import NetworkParameters
from deltarnn.fixed.qformat import QFormat, Quantization
from deltarnn.kws.commands import evaluate_stream
from deltarnn.kws.commands.choice import add_model, chosen_folder, chosen_model
from deltarnn.kws.config.arguments import add_number
from deltarnn.kws.data.corpus import GROUPS
from deltarnn.kws.evaluation.integers import IntegerScoring
from deltarnn.kws.evaluation.metrics import write_metrics
from deltarnn.kws.evaluation.scoring import (
    Clips,
    Evaluation,
    clips_of,
    device_clips,
    evaluate,
    evaluate_carried,
    fits,
)
from deltarnn.kws.features.pipeline import FeaturePipeline
from deltarnn.kws.features.store import FeatureSet, load_features
from deltarnn.kws.network.decision import DecisionRule
from deltarnn.kws.network.header import require
from deltarnn.kws.network.losses import LossOptions
from deltarnn.kws.network.model import KeywordModel, load_keyword_model
from deltarnn.kws.report.page import ReportData, write_report
from deltarnn.kws.spotter.device import DeviceSpotter
from deltarnn.kws.training.outcome import model_metrics
from deltarnn.kws.training.runs import METRICS
from deltarnn.nn.conversion import quantize

BATCH = 256
"""Clips per step, unless --batch_size_eval says otherwise."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `deltarnn evaluate`."""
    add_model(parser, out="report.html and metrics.json")
    parser.add_argument("--features", type=Path, help="folder of feature files (default: the one it was trained on)")
    parser.add_argument("--groups", help="groups of clips (default: validation,test)")
    parser.add_argument("--activation", help="fixed point: bits of activations (default: 8.8)")
    parser.add_argument("--weight", help="of weights (default: 8 bits, as many before the point as needed)")
    parser.add_argument("--gate", help="of the outputs of σ and tanh (default: 2.6)")
    parser.add_argument(
        "--arithmetic", choices=("device",),
        help="device: front end, network and rule as the exported C library computes them, beside the others",
    )  # fmt: skip
    add_number(parser, "batch_size_eval", int, 1, 65536, f"clips per step (default: {BATCH})")
    parser.add_argument("--use_cuda", type=int, choices=(0, 1), default=0, help="1: evaluate clips on the GPU")
    evaluate_stream.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate, print, and write report.html and metrics.json beside the model."""
    arguments.model = chosen_model(arguments)
    evaluate_stream.check(arguments)
    if arguments.use_cuda and (arguments.stream or not torch.cuda.is_available()):
        raise ValueError(f"--use_cuda 1: {'a stream runs on the CPU' if arguments.stream else 'there is no GPU here'}")
    if arguments.stream:
        return evaluate_stream.run(arguments)
    groups = "validation,test" if arguments.groups is None else arguments.groups
    wanted = [name for name in groups.split(",") if name]
    if not wanted:
        raise ValueError(f"--groups: names none; there are {', '.join(GROUPS)}")
    unknown = set(wanted) - set(GROUPS)
    if unknown:
        raise ValueError(f"--groups {min(unknown)}: there are {', '.join(GROUPS)}")
    batch = arguments.batch_size_eval or BATCH
    model, header = load_keyword_model(arguments.model)
    require(arguments.model, header, "decision", "features")
    folder = chosen_folder(arguments, arguments.model)
    stored_features = load_feature_sets(header, arguments.features, wanted)
    clips = {name: clips_of(features) for name, features in stored_features.items()}
    rule = DecisionRule(**header["decision"])
    loss = LossOptions(target=rule.target)
    device = torch.device("cuda" if arguments.use_cuda else "cpu")
    moved = {name: group.to(device) for name, group in clips.items()}
    variants: dict[str, dict[str, dict[str, Evaluation]]] = {}
    for precision, candidate in precisions(
        model, *(getattr(arguments, n) for n in ("activation", "weight", "gate"))
    ).items():
        variants[precision] = _evaluated(candidate.to(device), moved, rule, loss, batch)
        candidate.cpu()
    if arguments.arithmetic == "device":
        spotter = DeviceSpotter.load(arguments.model, threshold=0.0).integers
        heard = {name: device_clips(features, spotter) for name, features in stored_features.items()}
        network = IntegerScoring(spotter.network, header["architecture"])
        variants["device"] = _evaluated(network, heard, rule, loss, batch)
    stored = variants["float" if "float" in variants else "fixed"]["reset"]
    last = wanted[-1]
    print(f"{arguments.model}: {model.rnn}, {model.parameter_count} parameters")
    print(f"{last}, state reset per clip:\n{stored[last].confusion}")
    print(table(variants))
    stride = FeaturePipeline.from_dict(header["features"]).config.frame_seconds
    record = read_json(arguments.model.with_name(METRICS)) or {}
    metrics = {
        **(record if record.get("model") == arguments.model.name else {"model": arguments.model.name}),
        **model_metrics(model, stored, stride),
        "evaluation": {
            precision: {
                state: {name: result.fields() for name, result in results.items()} for state, results in states.items()
            }
            for precision, states in variants.items()
        },
    }
    data = ReportData.gather(arguments.model, model, metrics, clips[last], rule, stride)
    print(f"report: {write_report(folder / 'report.html', data)}")
    print(write_metrics(folder / METRICS, metrics))
    return 0


def load_groups(header: dict[str, Any], folder: Path | None, groups: list[str]) -> dict[str, Clips]:
    """Clips of the groups from feature files made as the model's were. ValueError names what does not fit."""
    return {name: clips_of(features) for name, features in load_feature_sets(header, folder, groups).items()}


def load_feature_sets(header: dict[str, Any], folder: Path | None, groups: list[str]) -> dict[str, FeatureSet]:
    """The feature files of the groups. ValueError where they were made otherwise than the model's."""
    recorded = header.get("training", {}).get("feature_folder")
    if folder is None and recorded is None:
        raise ValueError("the model does not say on which features it was trained: name their folder with --features")
    if folder is None and not Path(recorded).is_dir():
        raise ValueError(
            f"{recorded}: the features that the model was trained on are not there: name their folder with --features, "
            "or make them with --step feature"
        )
    folder = folder or Path(recorded)
    loaded = {}
    for group in groups:
        path = folder / f"{group}.safetensors"
        features = load_features(path)
        if not fits(header, features):
            raise ValueError(
                f"{path}: made with other feature options, statistics or classes than the model was trained on"
            )
        loaded[group] = features
    return loaded


def _evaluated(
    model: KeywordModel | IntegerScoring, groups: dict[str, Clips], rule: DecisionRule, loss: LossOptions, batch: int
) -> dict[str, dict[str, Evaluation]]:
    """Each group with states reset and carried on."""
    return {
        "reset": {name: evaluate(model, clips, rule, loss, batch) for name, clips in groups.items()},
        "carried": {name: evaluate_carried(model, clips, rule, loss) for name, clips in groups.items()},
    }


def precisions(
    model: KeywordModel, activation: str | None = None, weight: str | None = None, gate: str | None = None
) -> dict[str, KeywordModel]:
    """The model in the arithmetics it is evaluated in: "float", unless it is a fixed-point model itself, and "fixed".

    activation, weight, gate: formats such as "8.8"; None for 8.8, 8 bits that hold the largest weight, and 2.6.
    ValueError if one is given for a fixed-point model.
    """
    assert model.delta is not None
    if model.delta.quantization is not None:
        given = [
            n for n, value in (("activation", activation), ("weight", weight), ("gate", gate)) if value is not None
        ]
        if given:
            raise ValueError(f"--{given[0]} does nothing: the model is in fixed point, {model.delta.quantization}")
        return {"fixed": model}
    formats = Quantization(
        activation=_format("activation", activation or "8.8"),
        weight=NetworkParameters.of(model).formats.weight if weight is None else _format("weight", weight),
        gate=_format("gate", gate or "2.6"),
    )
    fixed = copy.deepcopy(model)
    print(f"fixed point: activations {formats.activation}, weights {formats.weight}, gates {formats.gate}")
    for name, (thx, thh) in quantize(fixed, formats).items():
        print(f"fixed point: thresholds of {name} rounded to x {thx}, h {thh}")
    return {"float": model, "fixed": fixed}


def _format(name: str, text: str) -> QFormat:
    match = re.fullmatch(r"(\d+)\.(\d+)", text)
    if match is None:
        raise ValueError(f"--{name} {text}: must be integer and fraction bits, such as 8.8")
    try:
        return QFormat(int(match[1]), int(match[2]))
    except ValueError as error:
        raise ValueError(f"--{name} {text}: {error}") from None


def table(variants: dict[str, dict[str, dict[str, Evaluation]]]) -> str:
    """One line per arithmetic, state and group."""
    lines = [
        f"{'arithmetic':<11}{'state':<9}{'group':<12}{'accuracy':>9}{'sparsity':>10}{'Δx':>8}{'Δh':>8}{'effective':>11}"
    ]
    for precision, states in variants.items():
        for state, results in states.items():
            for group, result in results.items():
                line = f"{precision:<11}{state:<9}{group:<12}{result.accuracy:>9.2%}"
                s = result.sparsity
                if s is not None:
                    line += f"{s.sparsity:>10.1%}{s.sparsity_x:>8.1%}{s.sparsity_h:>8.1%}{s.effective_sparsity:>11.1%}"
                lines.append(line)
    return "\n".join(lines)
