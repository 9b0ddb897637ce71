"""Accuracy, confusion matrix, and the metrics.json that every run leaves."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from deltarnn.files import write_json


@dataclass(frozen=True)
class Confusion:
    """counts[i][j]: clips of class i that were taken for class j."""

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, predicted: Tensor, targets: Tensor, labels: list[str]) -> "Confusion":
        """From classes (N,) that were decided and classes (N,) that were right."""
        matrix = multiclass_confusion_matrix(predicted.cpu(), targets.cpu(), num_classes=len(labels))
        return cls(tuple(labels), tuple(tuple(int(v) for v in row) for row in matrix))

    @property
    def accuracy(self) -> float:
        """Fraction of all clips that were decided right."""
        total = sum(map(sum, self.counts))
        return sum(row[i] for i, row in enumerate(self.counts)) / total if total else 0.0

    @property
    def per_class(self) -> dict[str, float]:
        """Fraction of each class's clips that were decided right; classes without clips are left out."""
        return {
            label: row[i] / sum(row)
            for i, (label, row) in enumerate(zip(self.labels, self.counts, strict=True))
            if sum(row)
        }

    def __str__(self) -> str:
        width = max(5, *(len(label) for label in self.labels)) + 1
        lines = [" " * width + "".join(f"{label:>{width}}" for label in self.labels) + "   right"]
        for label, row in zip(self.labels, self.counts, strict=True):
            share = f"{self.per_class[label]:8.1%}" if label in self.per_class else "       –"
            lines.append(f"{label:<{width}}" + "".join(f"{count:>{width}}" for count in row) + share)
        return "\n".join(lines)


def write_metrics(path: str | Path, metrics: dict[str, Any]) -> Path:
    """Write metrics.json; numbers rounded to six digits, tensors never."""
    path = Path(path)
    write_json(path, _rounded(metrics))
    return path


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    if isinstance(value, torch.Tensor):
        raise TypeError("metrics are plain numbers, not tensors")
    return value
