"""Keywords in an endless stream of samples: the decision rule, its threshold, and the spotter that runs it all."""

from deltarnn.kws.spotter.device import DeviceSpotter
from deltarnn.kws.spotter.spotter import Detection, Spotter

__all__ = ["Detection", "DeviceSpotter", "Spotter"]
