"""Keyword spotting, in packages of which each imports only those after it (docs/architecture.md):

commands · report · training · evaluation · spotter · features · network · data · config.

The public names load on first use: importing one does not import all.
"""

from typing import TYPE_CHECKING

from deltarnn.lazy import lazy_names

if TYPE_CHECKING:
    from deltarnn.kws.features.frontend import LogFilterBank
    from deltarnn.kws.features.iir import IIRFilterBank
    from deltarnn.kws.features.log_mel import LogMelFilterBank
    from deltarnn.kws.network.model import KeywordModel

__all__ = ["IIRFilterBank", "KeywordModel", "LogFilterBank", "LogMelFilterBank"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "IIRFilterBank": "features.iir",
        "KeywordModel": "network.model",
        "LogFilterBank": "features.frontend",
        "LogMelFilterBank": "features.log_mel",
    },
)
