"""Fixed point: Q formats, rounding, look-up tables, integer cells, format choice. Imports without torch."""

from deltarnn.fixed.arithmetic import requantize, saturate, shift_right, wrap
from deltarnn.fixed.edgedrnn import edgedrnn_forward
from deltarnn.fixed.qformat import QFormat, Quantization
from deltarnn.fixed.tables import LookUpTable, gate_tables

__all__ = [
    "LookUpTable",
    "QFormat",
    "Quantization",
    "edgedrnn_forward",
    "gate_tables",
    "requantize",
    "saturate",
    "shift_right",
    "wrap",
]
