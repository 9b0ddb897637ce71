"""Fixed point: Q formats, rounding, look-up tables, integer cells, format choice. Imports without torch."""

from typing import TYPE_CHECKING

from deltarnn.lazy import lazy_names

if TYPE_CHECKING:
    from deltarnn.fixed.arithmetic import requantize, saturate, shift_right, wrap
    from deltarnn.fixed.band_passes import IntegerBandPasses
    from deltarnn.fixed.cells import IntegerLayer, run_layers
    from deltarnn.fixed.choice import choose_formats
    from deltarnn.fixed.edgedrnn import edgedrnn_forward
    from deltarnn.fixed.formats import LayerFormats
    from deltarnn.fixed.log_bank import IntegerLogFilterBank
    from deltarnn.fixed.log_mel_bank import IntegerLogMelFilterBank
    from deltarnn.fixed.network import IntegerNetwork
    from deltarnn.fixed.qformat import QFormat, Quantization
    from deltarnn.fixed.spotter import IntegerSpotter
    from deltarnn.fixed.tables import LookUpTable, gate_tables

__all__ = [
    "IntegerBandPasses",
    "IntegerLayer",
    "IntegerLogFilterBank",
    "IntegerLogMelFilterBank",
    "IntegerNetwork",
    "IntegerSpotter",
    "LayerFormats",
    "LookUpTable",
    "QFormat",
    "Quantization",
    "choose_formats",
    "edgedrnn_forward",
    "gate_tables",
    "requantize",
    "run_layers",
    "saturate",
    "shift_right",
    "wrap",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "IntegerBandPasses": "band_passes",
        "IntegerLayer": "cells",
        "IntegerLogFilterBank": "log_bank",
        "IntegerLogMelFilterBank": "log_mel_bank",
        "IntegerNetwork": "network",
        "IntegerSpotter": "spotter",
        "LayerFormats": "formats",
        "LookUpTable": "tables",
        "QFormat": "qformat",
        "Quantization": "qformat",
        "choose_formats": "choice",
        "edgedrnn_forward": "edgedrnn",
        "gate_tables": "tables",
        "requantize": "arithmetic",
        "run_layers": "cells",
        "saturate": "arithmetic",
        "shift_right": "arithmetic",
        "wrap": "arithmetic",
    },
)
