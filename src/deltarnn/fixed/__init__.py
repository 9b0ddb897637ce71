"""Fixed point: Q formats, rounding, look-up tables, integer cells, format choice. Imports without torch."""

from deltarnn.fixed.arithmetic import requantize, saturate, shift_right, wrap
from deltarnn.fixed.choice import choose_formats
from deltarnn.fixed.edgedrnn import edgedrnn_forward
from deltarnn.fixed.network import IntegerNetwork
from deltarnn.fixed.qformat import QFormat, Quantization
from deltarnn.fixed.tables import LookUpTable, gate_tables

__all__ = [
    "IntegerNetwork",
    "LookUpTable",
    "QFormat",
    "Quantization",
    "choose_formats",
    "edgedrnn_forward",
    "gate_tables",
    "requantize",
    "saturate",
    "shift_right",
    "wrap",
]
