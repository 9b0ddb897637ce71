"""DeltaRNN: a DeltaGRU layer with one multiplier per gate row and all weights on chip (FPGA 2018).

C. Gao, D. Neil, E. Ceolini, S.-C. Liu, T. Delbruck, "DeltaRNN: A Power-efficient Recurrent Neural Network Accelerator",
FPGA 2018, doi:10.1145/3174243.3174261.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from deltarnn.fixed.cells import Cell
from deltarnn.fixed.parameters import NetworkParameters, UnsupportedModelError
from deltarnn.fixed.qformat import QFormat, Quantization
from deltarnn.hardware.accelerator import Accelerator, Events, Work, check_columns, parameter
from deltarnn.hardware.measure import integer_events

FORMATS = Quantization(QFormat(8, 8), QFormat(8, 8), QFormat(8, 8))


@dataclass(frozen=True)
class DeltaRNNFPGA(Accelerator):
    """One fired column per clock, if the delta encoder scans fast enough."""

    name: ClassVar[str] = "DeltaRNN"
    cell: ClassVar[Cell] = "GRU"

    num_mac: int = parameter(768, "", "recalled", "multipliers, one per gate row: 3·256")
    clock_hz: float = parameter(125e6, "Hz", "recalled", "clock on Zynq-7100")
    power_w: float = parameter(7.3, "W", "derived", "1.2 TOp/s at 164 GOp/s/W")
    scan_width: int = parameter(7, "", "derived", "elements the encoder looks at per clock; 1.2 TOp/s needs at least 7")
    activation_overhead: int = parameter(0, "clocks", "recalled", "clocks per step that no product overlaps", True)
    formats: Quantization = parameter(FORMATS, "", "recalled", "formats a float model runs in")  # noqa: RUF009 (frozen)

    @property
    def num_macs(self) -> int:
        """One per gate row."""
        return self.num_mac

    @property
    def max_hidden(self) -> int:
        """Units that have a multiplier for each of their three gate rows."""
        return self.num_mac // 3

    def cycles(self, input_size: int, hidden_sizes: Sequence[int], fired_columns: Sequence[Sequence[int]]) -> int:
        """Clock cycles of one step: max(fired, ceil((I + H) / scan_width)) + activation_overhead.

        Parameters
        ----------
        input_size, hidden_sizes: I, and H of the one layer.
        fired_columns: one list: the indices of the inputs and hidden units that fired (biases preset the memories).
        """
        self._check_sizes(hidden_sizes)
        (columns,) = check_columns(input_size, hidden_sizes, fired_columns, bias=False)
        return int(self._cycles(input_size + hidden_sizes[0], np.array(len(columns))))

    def _cycles(self, columns: int, fired: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.maximum(fired, -(-columns // self.scan_width)) + self.activation_overhead

    def check(self, model: NetworkParameters) -> None:
        super().check(model)
        self._check_sizes(model.hidden_sizes)

    def _check_sizes(self, hidden_sizes: Sequence[int]) -> None:
        if len(hidden_sizes) != 1:
            raise UnsupportedModelError(f"num_layers={len(hidden_sizes)}: DeltaRNN holds 1 layer")
        if hidden_sizes[0] > self.max_hidden:
            raise UnsupportedModelError(
                f"hidden_size={hidden_sizes[0]}: with {self.num_mac} multipliers, one per gate row, DeltaRNN holds "
                f"at most {self.max_hidden} units"
            )

    def number_formats(self, model: NetworkParameters) -> Quantization:
        return model.quantization or self.formats

    def events(self, model: NetworkParameters, sequences: Sequence[NDArray[np.float64]]) -> Events:
        return integer_events(model, sequences, self.number_formats(model))

    def work(self, model: NetworkParameters, events: Events) -> Work:
        fired = events.fired_x[0].sum(axis=1) + events.fired_h[0].sum(axis=1)
        hidden = model.hidden_sizes[0]
        weights = 3 * hidden * fired
        # All multipliers take each column together: balanced by construction.
        busy = fired.astype(np.float64)
        cycles = self._cycles(model.input_size + hidden, fired)
        weight_bits = self.number_formats(model).weight.bits
        return Work(cycles, weights, -(-weights * weight_bits // 8), busy, busy)
