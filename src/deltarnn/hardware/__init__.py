"""Models of the accelerators that delta networks were built for, and exports to them. Imports without torch."""

from deltarnn.fixed.parameters import NetworkParameters, UnsupportedModelError
from deltarnn.hardware.deltarnn_fpga import DeltaRNNFPGA
from deltarnn.hardware.edgedrnn import EdgeDRNN
from deltarnn.hardware.report import AcceleratorReport
from deltarnn.hardware.spartus import Spartus

__all__ = ["AcceleratorReport", "DeltaRNNFPGA", "EdgeDRNN", "NetworkParameters", "Spartus", "UnsupportedModelError"]
