"""Delta layers for PyTorch."""

from deltarnn.nn.activity import Activity, record_activity
from deltarnn.nn.conversion import convert, quantize
from deltarnn.nn.delta_cell import DeltaGRUCell, DeltaLSTMCell
from deltarnn.nn.delta_rnn import DeltaGRU, DeltaLSTM
from deltarnn.nn.state import DeltaGRUResetBeforeState, DeltaGRUState, DeltaLSTMState

__all__ = [
    "Activity",
    "DeltaGRU",
    "DeltaGRUCell",
    "DeltaGRUResetBeforeState",
    "DeltaGRUState",
    "DeltaLSTM",
    "DeltaLSTMCell",
    "DeltaLSTMState",
    "convert",
    "quantize",
    "record_activity",
]
