"""Torch-free streaming inference over the native core, and the model file format."""

from deltarnn.engine.activity import Activity, LayerActivity
from deltarnn.engine.description import UnsupportedModelError
from deltarnn.engine.engine import Engine
from deltarnn.engine.model_file import ModelFileError, load_model, save_model

__all__ = [
    "Activity",
    "Engine",
    "LayerActivity",
    "ModelFileError",
    "UnsupportedModelError",
    "load_model",
    "save_model",
]
