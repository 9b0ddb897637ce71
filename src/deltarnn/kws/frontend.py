"""The front ends' former home, for one release more: they are public names of `deltarnn.kws`."""

import warnings

from deltarnn.kws.features.frontend import FrontEnd, LogFilterBank
from deltarnn.kws.features.iir import IIRFilterBank

__all__ = ["FrontEnd", "IIRFilterBank", "LogFilterBank"]

warnings.warn(
    "deltarnn.kws.frontend moves: import LogFilterBank and IIRFilterBank from deltarnn.kws",
    DeprecationWarning,
    stacklevel=2,
)
