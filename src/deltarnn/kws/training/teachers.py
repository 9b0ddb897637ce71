"""The networks that a run learns from, beside its labels."""

import hashlib
from pathlib import Path

from deltarnn.engine.model_file import load_model, model_bytes
from deltarnn.kws.config.resolve import Config
from deltarnn.kws.data.description import read_description
from deltarnn.kws.evaluation.scoring import fits
from deltarnn.kws.features.levels import front_end_of, takes_levels
from deltarnn.kws.features.pipeline import FeaturePipeline
from deltarnn.kws.features.store import FeatureSet
from deltarnn.kws.features.teacher import Teacher
from deltarnn.kws.network.model import load_keyword_model
from deltarnn.kws.spotter.calibration import STREAM
from deltarnn.kws.training.runs import pretrained_models


def teacher_paths(config: Config, start: Path | None) -> list[Path]:
    """The model files to learn from. In pretrain "start" and "all" stand for none."""
    paths: list[Path] = []
    for name in filter(None, (part.strip() for part in config.training.teacher.split(","))):
        if name not in ("start", "all"):
            paths.append(Path(name))
        elif start is not None:
            paths += [start] if name == "start" else sorted(pretrained_models(config))
    for path in paths:
        if not path.is_file():
            raise ValueError(f"--teacher {path}: no such file")
    return list(dict.fromkeys(paths))


def load_teacher(config: Config, path: Path, features: FeatureSet, pooled_otherwise: bool) -> Teacher:
    """A network to learn from.

    ValueError unless it knows the same classes and takes the same features, or, where they are made of levels and if
    `pooled_otherwise`, features whose bands or frames are pooled otherwise.
    """
    model, header = load_keyword_model(path)
    pipeline = FeaturePipeline.from_dict(header["features"]) if "features" in header else features.pipeline
    levels = pooled_otherwise and takes_levels(config, read_description(config))
    same_levels = levels and front_end_of(pipeline.config) == front_end_of(config.features)
    if not fits(header, features) and not (same_levels and header["labels"] == features.class_names):
        raise ValueError(f"--teacher {path}: trained on other features or classes than this run's")
    return Teacher(model, pipeline, file_digest(path))


def file_digest(path: Path) -> str:
    """Sixteen hexadecimal digits that stand for a model file as training wrote it.

    A threshold that `evaluate --stream` wrote into it since teaches nothing: a run would not find its checkpoint again.
    """
    tensors, header = load_model(path)
    data = path.read_bytes()
    if header.pop(STREAM, None) is not None:
        data = model_bytes(path, tensors, header)
    return hashlib.sha256(data).hexdigest()[:16]
