"""Model files of random networks, which hear keywords in noise."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deltarnn import QFormat, Quantization
from deltarnn.kws.config.options_data import FeatureConfig
from deltarnn.kws.features.pipeline import FeaturePipeline, FeatureStatistics
from deltarnn.kws.network.model import Architecture, KeywordModel

LABELS = ["_silence_", "_unknown_", "yes", "no", "stop"]
FORMATS = Quantization(QFormat(8, 8), QFormat(3, 5), QFormat(2, 6))


def save_random_model(
    path: Path, quantization: Quantization | None = None, cell: str = "GRU", seed: int = 0, **features: Any
) -> KeywordModel:
    """Write a random network over 16 features for `LABELS`; `features`: options that differ from the defaults."""
    pipeline = FeaturePipeline(FeatureConfig(**features), FeatureStatistics(mean=110.0, std=20.0))
    torch.manual_seed(seed)
    model = KeywordModel(Architecture(pipeline.num_features, len(LABELS), cell, 24))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
        model.head[-1].weight.mul_(3.0)
    model.to_delta((0.125,), (0.0625,), quantization)
    model.save(path, labels=LABELS, features=pipeline.to_dict())
    return model.eval()


@pytest.fixture(scope="session")
def model_path(tmp_path_factory) -> Path:
    """A float32 model without a calibrated threshold."""
    path = tmp_path_factory.mktemp("spotter") / "model.safetensors"
    save_random_model(path)
    return path


@pytest.fixture(scope="session")
def fixed_path(tmp_path_factory) -> Path:
    """A model in fixed point."""
    path = tmp_path_factory.mktemp("spotter") / "fixed.safetensors"
    save_random_model(path, FORMATS)
    return path


def noise(seed: int, samples: int) -> np.ndarray:
    """(N,) int16: noise whose level and colour change every few frames."""
    rng = np.random.default_rng(seed)
    pieces = []
    while sum(map(len, pieces)) < samples:
        piece = rng.normal(size=int(rng.integers(300, 4000))) * 10 ** rng.uniform(0, 4)
        pieces.append(np.convolve(piece, rng.normal(size=int(rng.integers(1, 9)))))
    return np.clip(np.concatenate(pieces)[:samples], -32768, 32767).astype(np.int16)
