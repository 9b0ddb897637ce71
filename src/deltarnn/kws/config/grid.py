"""A Q format together with its way of rounding, as the --q? options choose them."""

from dataclasses import dataclass

from torch import Tensor

from deltarnn.fixed.fake_quant import fake_quantize
from deltarnn.fixed.qformat import QFormat, Rounding
from deltarnn.kws.config.options import ROUNDINGS


@dataclass(frozen=True)
class Grid:
    """Rounds tensors to the values of a Q format."""

    format: QFormat
    rounding: Rounding

    def __call__(self, values: Tensor) -> Tensor:
        """Grid values of `values`, without a gradient."""
        return fake_quantize(values.detach(), self.format, self.rounding)


def grid_of(mode: int, integer_bits: int, fraction_bits: int) -> Grid | None:
    """The grid of a --q? option: 0 off (None), 1 to nearest, 2 down."""
    return Grid(QFormat(integer_bits, fraction_bits), ROUNDINGS[mode - 1]) if mode else None
