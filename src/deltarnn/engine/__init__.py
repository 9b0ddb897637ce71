"""Torch-free streaming inference over the native core, and the model file format."""

from deltarnn.engine.activity import Activity, LayerActivity
from deltarnn.engine.engine import Engine
from deltarnn.engine.model_file import ModelFileError, load_model, save_model
from deltarnn.engine.onnx_step import export_onnx_step
from deltarnn.fixed.verification import UnsupportedModelError

__all__ = [
    "Activity",
    "Engine",
    "LayerActivity",
    "ModelFileError",
    "UnsupportedModelError",
    "export_onnx_step",
    "load_model",
    "save_model",
]
