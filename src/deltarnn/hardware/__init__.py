"""Models of the accelerators that delta networks were built for and of our own, and exports to them. Without torch."""

from typing import TYPE_CHECKING

from deltarnn.lazy import lazy_names

if TYPE_CHECKING:
    from deltarnn.fixed.parameters import NetworkParameters, UnsupportedModelError
    from deltarnn.hardware.delta_core import DeltaCore
    from deltarnn.hardware.deltarnn_fpga import DeltaRNNFPGA
    from deltarnn.hardware.edgedrnn import EdgeDRNN
    from deltarnn.hardware.report import AcceleratorReport
    from deltarnn.hardware.spartus import Spartus

__all__ = [
    "AcceleratorReport",
    "DeltaCore",
    "DeltaRNNFPGA",
    "EdgeDRNN",
    "NetworkParameters",
    "Spartus",
    "UnsupportedModelError",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "AcceleratorReport": "report",
        "DeltaCore": "delta_core",
        "DeltaRNNFPGA": "deltarnn_fpga",
        "EdgeDRNN": "edgedrnn",
        "NetworkParameters": "accelerator",  # which takes it, and the next, from deltarnn.fixed
        "Spartus": "spartus",
        "UnsupportedModelError": "accelerator",
    },
)
