"""What a delta layer raises where an argument does not fit: a RuntimeError, as nn.GRU, that is a ValueError too."""


class ShapeError(RuntimeError, ValueError):
    """A tensor's sizes do not fit the layer."""


class DtypeError(RuntimeError, ValueError):
    """A tensor's dtype is not the layer's."""


class DeviceError(RuntimeError, ValueError):
    """Tensors are on different devices."""
