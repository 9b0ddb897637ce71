"""Networks from ONNX files, their recurrent parts run as delta layers (docs/onnx.md)."""

from deltarnn.onnx.graph import UnsupportedGraphError
from deltarnn.onnx.loading import load
from deltarnn.onnx.network import Network

__all__ = ["Network", "UnsupportedGraphError", "load"]
