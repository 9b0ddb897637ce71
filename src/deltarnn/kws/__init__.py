"""Keyword spotting, in wings; each imports only those below it (docs/architecture.md):

commands · report · training · evaluation · spotter · features · network · data · config, and on the ground files, draw.

The public names load on first use: importing one does not import all.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deltarnn.kws.features.frontend import IIRFilterBank, LogFilterBank
    from deltarnn.kws.network.model import KeywordModel

_HOME = {
    "IIRFilterBank": "deltarnn.kws.features.frontend",
    "KeywordModel": "deltarnn.kws.network.model",
    "LogFilterBank": "deltarnn.kws.features.frontend",
}

__all__ = ["IIRFilterBank", "KeywordModel", "LogFilterBank"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'deltarnn.kws' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
