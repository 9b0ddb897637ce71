"""Networks from ONNX files, their recurrent parts run as delta layers (docs/onnx.md)."""

from deltarnn.onnx.export import operator_library
from deltarnn.onnx.graph import UnsupportedGraphError
from deltarnn.onnx.loading import load
from deltarnn.onnx.network import Network

__all__ = ["Network", "UnsupportedGraphError", "load", "operator_library"]
