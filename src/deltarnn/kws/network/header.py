"""What a keyword model's file header says beside its layers, checked: a damaged one gives one sentence."""

from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from deltarnn.engine.model_file import Header, ModelFileError
from deltarnn.fixed.qformat import QFormat
from deltarnn.kws.network.decision import DecisionRule, Target
from deltarnn.kws.paths import work_folder

MAX_WINDOW = 100_000
"""The longest window of a decision rule, frames."""


def check_header(path: Path, header: Header, classes: int) -> None:
    """ModelFileError unless the labels, and what there is of the other fields, are what `pretrain` writes."""
    labels = header.get("labels")
    if labels is None:
        raise ModelFileError(f"{path}: names no labels: not a model that `pretrain` or `retrain` wrote")
    sound = {
        "labels": isinstance(labels, list)
        and len(labels) == classes == len(set(map(str, labels)))
        and all(isinstance(label, str) for label in labels),
        "decision": "decision" not in header or _is_rule(header["decision"]),
        "class_quantization": _are_formats(header.get("class_quantization")),
        "features": "features" not in header
        or (isinstance(header["features"], dict) and _is_positive(header["features"].get("frame_stride"))),
        "training": isinstance(header.get("training", {}), dict)
        and isinstance(header.get("training", {}).get("feature_folder", ""), str),
        "clip_seconds": _is_positive(header.get("clip_seconds", 1.0)),
    }
    wrong = [name for name, right in sound.items() if not right]
    if wrong:
        raise ModelFileError(f"{path}: {wrong[0]} in its header is not what a keyword model has: damaged")


def require(path: Path, header: Header, *names: str) -> None:
    """ModelFileError where the header lacks one of these fields."""
    for name in names:
        if name not in header:
            raise ModelFileError(f"{path}: its header has no {name}: not a model that `pretrain` or `retrain` wrote")


def feature_folder(path: Path, recorded: str) -> str:
    """The folder of the features that a model was trained on, wherever its work folder lies by now."""
    root = work_folder(path, "save")
    return recorded if root is None or not (root / recorded).is_dir() else str(root / recorded)


def _is_rule(values: Any) -> bool:
    if not isinstance(values, dict) or {"unknown_weight", *values} != {f.name for f in fields(DecisionRule)}:
        return False  # older files have no unknown_weight
    windows = (values["smoothing_window"], values["confidence_window"])
    threshold, weight = values["fire_threshold"], values.get("unknown_weight", 1.0)
    return (
        isinstance(values["smooth"], bool)
        and all(type(window) is int and 1 <= window <= MAX_WINDOW for window in windows)
        and isinstance(threshold, (int, float))
        and 0 <= threshold <= 1
        and _is_positive(weight)
        and weight <= 1
        and values["target"] in get_args(Target)
    )


def _are_formats(values: Any) -> bool:
    if values is None:
        return True
    try:
        for name in ("score", "weight"):
            QFormat(*values[name]["format"])
            if values[name]["mode"] not in (0, 1, 2):
                return False
    except (TypeError, ValueError, KeyError):
        return False
    return True


def _is_positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and 0 < value < 1e6
