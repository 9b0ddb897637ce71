"""Delta networks: recurrent layers that compute only on changes.

The public names load on first use, so that `deltarnn.engine`, `deltarnn.fixed` and
`deltarnn.hardware` can be imported where torch is not installed.
"""

from typing import TYPE_CHECKING

from deltarnn.lazy import lazy_names

if TYPE_CHECKING:
    from deltarnn.adapt import Tuned, distill, tune
    from deltarnn.fixed.qformat import QFormat, Quantization
    from deltarnn.nn import (
        DeltaGRU,
        DeltaGRUCell,
        DeltaGRUResetBeforeState,
        DeltaGRUState,
        DeltaLSTM,
        DeltaLSTMCell,
        DeltaLSTMState,
        convert,
        record_activity,
    )

__version__ = "0.1.0"

__all__ = [
    "DeltaGRU",
    "DeltaGRUCell",
    "DeltaGRUResetBeforeState",
    "DeltaGRUState",
    "DeltaLSTM",
    "DeltaLSTMCell",
    "DeltaLSTMState",
    "QFormat",
    "Quantization",
    "Tuned",
    "__version__",
    "convert",
    "distill",
    "record_activity",
    "tune",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "DeltaGRU": "nn",
        "DeltaGRUCell": "nn",
        "DeltaGRUResetBeforeState": "nn",
        "DeltaGRUState": "nn",
        "DeltaLSTM": "nn",
        "DeltaLSTMCell": "nn",
        "DeltaLSTMState": "nn",
        "QFormat": "fixed.qformat",
        "Quantization": "fixed.qformat",
        "Tuned": "adapt",
        "convert": "nn",
        "distill": "adapt",
        "record_activity": "nn",
        "tune": "adapt",
    },
)
