"""What `deltarnn estimate` and `deltarnn export` work on: a keyword model in numpy, and clips as it takes them."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deltarnn.engine.model_file import load_model, read_quantization
from deltarnn.files import check_writable
from deltarnn.fixed.parameters import NetworkParameters, UnsupportedModelError
from deltarnn.kws.commands.choice import add_model, chosen_model
from deltarnn.kws.commands.designs import add_designs
from deltarnn.kws.config.arguments import add_number
from deltarnn.kws.data.audio import read_audio
from deltarnn.kws.features.pipeline import FeaturePipeline
from deltarnn.kws.features.store import load_features
from deltarnn.kws.network.decision import DecisionRule
from deltarnn.kws.network.header import check_header, require

Frames = NDArray[np.float64]


@dataclass(frozen=True)
class Clips:
    """Normalised frames (T, I) of every clip, and labels (N,) if they are known."""

    frames: list[Frames]
    labels: NDArray[np.int64] | None = None

    def spread(self, count: int) -> "Clips":
        """At most `count` clips, evenly spread: files are sorted by class."""
        chosen = np.unique(np.linspace(0, len(self.frames) - 1, min(count, len(self.frames))).round().astype(int))
        return Clips([self.frames[i] for i in chosen], None if self.labels is None else self.labels[chosen])

    @property
    def batch(self) -> Frames:
        """(T, N, I), or one long sequence (T, 1, I) where lengths differ."""
        if len({len(clip) for clip in self.frames}) == 1:
            return np.stack(self.frames, axis=1)
        return np.concatenate(self.frames)[:, None]


def add_source_arguments(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Flags of the model, the clips and the accelerators. required: whether clips must be given."""
    add_model(parser)
    source = parser.add_mutually_exclusive_group(required=required)
    source.add_argument("--features", type=Path, help="feature file of --step feature, such as feat/…/test.safetensors")
    source.add_argument("--audio", type=Path, nargs="+", help="audio files, each one sequence")
    add_number(parser, "clips", int, 1, 1e9, "clips of --features to measure on", default=200)
    add_number(parser, "thx", float, 0, 1e6, "input threshold of all layers, instead of the model's")
    add_number(parser, "thh", float, 0, 1e6, "hidden-state threshold of all layers, instead of the model's")
    add_designs(parser)


def read_model(arguments: argparse.Namespace) -> tuple[NetworkParameters, dict[str, Any]]:
    """The model that the flags name, at their thresholds, and its header; `--out` is checked first."""
    arguments.model = chosen_model(arguments)
    if arguments.out is not None:
        check_writable(arguments.out)
    tensors, header = load_model(arguments.model)
    model = NetworkParameters.from_model_file(tensors, header, read_quantization(header))
    return _with_thresholds(model, arguments.thx, arguments.thh), header


def pipeline_of(arguments: argparse.Namespace, header: dict[str, Any]) -> FeaturePipeline:
    """The front end of a keyword model. ValueError where the model is none."""
    if not isinstance(header.get("features"), dict) or "labels" not in header:
        raise ValueError(f"{arguments.model} is no keyword model: its header has no feature configuration and labels")
    check_header(arguments.model, header, len(header["labels"]) if isinstance(header["labels"], list) else 0)
    return FeaturePipeline.from_dict(header["features"])


def clips_of(arguments: argparse.Namespace, pipeline: FeaturePipeline) -> Clips:
    """The clips that --features or --audio name, as the model takes them."""
    if arguments.features is not None:
        stored = load_features(arguments.features)
        if stored.pipeline.to_dict() != pipeline.to_dict():
            raise ValueError(f"{arguments.features}: made with another feature configuration than {arguments.model}'s")
        return Clips(list(stored.normalised.astype(np.float64)), stored.labels)
    audio = (read_audio(path, pipeline.config.sample_rate) for path in arguments.audio)
    return Clips([pipeline.normalise(pipeline(samples[None]))[0].astype(np.float64) for samples in audio])


def accuracy_of(header: dict[str, Any], labels: NDArray[np.int64] | None) -> Callable[[Frames], float] | None:
    """Of scores (T, N, C): the fraction of clips that the model's decision rule gets right; None without labels."""
    if labels is None:
        return None
    require(Path("the model"), header, "decision")
    rule = DecisionRule(**header["decision"])
    return lambda scores: float(np.mean(rule(torch.from_numpy(scores)).numpy() == labels))


def _with_thresholds(model: NetworkParameters, thx: float | None, thh: float | None) -> NetworkParameters:
    """The model with the thresholds asked for; a dense one, all thresholds 0, only if --thx and --thh say so."""
    layers = tuple(
        replace(layer, thx=layer.thx if thx is None else thx, thh=layer.thh if thh is None else thh)
        for layer in model.layers
    )
    if thx is None and thh is None and not any(layer.thx or layer.thh for layer in layers):
        raise UnsupportedModelError(
            "the model has no thresholds (all are 0): retrain it as a delta network, or give --thx and --thh (or 0)"
        )
    return replace(model, layers=layers)
