"""Errors of delta layers about their arguments: RuntimeErrors, as nn.GRU raises, that are ValueErrors too."""


class ShapeError(RuntimeError, ValueError):
    """A tensor's sizes do not fit the layer."""


class DtypeError(RuntimeError, ValueError):
    """A tensor's dtype is not the layer's."""


class DeviceError(RuntimeError, ValueError):
    """Tensors are on different devices."""
