"""Torch-free streaming inference over the native core, and the model file format."""

from typing import TYPE_CHECKING

from deltarnn.lazy import lazy_names

if TYPE_CHECKING:
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

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Activity": "activity",
        "Engine": "engine",
        "LayerActivity": "activity",
        "ModelFileError": "model_file",
        "UnsupportedModelError": "description",
        "export_onnx_step": "onnx_step",
        "load_model": "model_file",
        "save_model": "model_file",
    },
)
