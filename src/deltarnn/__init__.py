"""Delta networks: recurrent layers that compute only on changes.

The public names load on first use, so that `deltarnn.engine`, `deltarnn.fixed` and
`deltarnn.hardware` can be imported where torch is not installed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deltarnn.fixed.qformat import QFormat, Quantization
    from deltarnn.nn import (
        DeltaGRU,
        DeltaGRUResetBeforeState,
        DeltaGRUState,
        DeltaLSTM,
        DeltaLSTMState,
        convert,
        record_activity,
    )

__version__ = "0.1.0"

_HOME = {
    "DeltaGRU": "deltarnn.nn",
    "DeltaGRUResetBeforeState": "deltarnn.nn",
    "DeltaGRUState": "deltarnn.nn",
    "DeltaLSTM": "deltarnn.nn",
    "DeltaLSTMState": "deltarnn.nn",
    "QFormat": "deltarnn.fixed.qformat",
    "Quantization": "deltarnn.fixed.qformat",
    "convert": "deltarnn.nn",
    "record_activity": "deltarnn.nn",
}

__all__ = [
    "DeltaGRU",
    "DeltaGRUResetBeforeState",
    "DeltaGRUState",
    "DeltaLSTM",
    "DeltaLSTMState",
    "QFormat",
    "Quantization",
    "__version__",
    "convert",
    "record_activity",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'deltarnn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
