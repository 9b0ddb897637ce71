"""Spartus: a DeltaLSTM accelerator that skips both quiet columns and pruned weights (TNNLS 2022).

C. Gao, T. Delbruck, S.-C. Liu, "Spartus: A 9.4 TOp/s FPGA-Based LSTM Accelerator Exploiting Spatio-Temporal Sparsity",
IEEE TNNLS 2022, doi:10.1109/TNNLS.2022.3180209.
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
from deltarnn.prune.column_balanced import balanced_length

FORMATS = Quantization(QFormat(8, 8), QFormat(1, 7), QFormat(2, 6))


@dataclass(frozen=True)
class Spartus(Accelerator):
    """Column j of a layer's [W_ih | W_hh] belongs to MAC array j mod num_arrays; the busiest array sets the pace."""

    name: ClassVar[str] = "Spartus"
    cell: ClassVar[Cell] = "LSTM"

    num_arrays: int = parameter(8, "", "verified", "MAC arrays, columns dealt out in turn")
    num_pe: int = parameter(64, "", "verified", "processing elements per array, rows dealt out in turn")
    clock_hz: float = parameter(200e6, "Hz", "verified", "clock")
    power_w: float = parameter(9.4 / 1.1, "W", "derived", "9.4 TOp/s at 1.1 TOp/s/W")
    act_latency: int = parameter(8, "clocks", "verified", "latency of the activation pipeline", True)
    act_interval: int = parameter(4, "clocks", "verified", "clocks per group of num_pe hidden units")
    gamma: float = parameter(
        0.9375, "", "verified", "weight sparsity that cycles() assumes; estimate() measures it", True
    )
    formats: Quantization = parameter(FORMATS, "", "recalled", "formats a float model runs in")  # noqa: RUF009 (frozen)

    @property
    def num_macs(self) -> int:
        """All processing elements of all arrays."""
        return self.num_arrays * self.num_pe

    def cycles(self, input_size: int, hidden_sizes: Sequence[int], fired_columns: Sequence[Sequence[int]]) -> int:
        """Clock cycles of one step: per layer BLEN · max over arrays of fired + act_interval · H/num_pe + act_latency.

        Parameters
        ----------
        input_size, hidden_sizes: I, and H of each layer, multiples of num_pe.
        fired_columns: per layer the indices of the columns that fired: 0..I−1 the inputs, I..I+H−1 the hidden units
            (biases preset the memories).
        """
        layers = check_columns(input_size, hidden_sizes, fired_columns, bias=False)
        total, inputs = 0, input_size
        for hidden, columns in zip(hidden_sizes, layers, strict=True):
            self._check_hidden(hidden)
            fired = np.zeros((1, inputs + hidden), dtype=np.bool_)
            fired[0, columns] = True
            busiest = self._per_array(fired).max(axis=1)
            total += int(self._layer_cycles(hidden, busiest, balanced_length(4 * hidden, self.gamma, self.num_pe))[0])
            inputs = hidden
        return total

    def _per_array(self, fired: NDArray[np.bool_]) -> NDArray[np.int64]:
        """(S, num_arrays) fired columns of each array, of fired (S, I + H)."""
        padding = -fired.shape[1] % self.num_arrays
        dealt = np.pad(fired, ((0, 0), (0, padding))).reshape(len(fired), -1, self.num_arrays)
        return np.asarray(dealt.sum(axis=1), dtype=np.int64)

    def _layer_cycles(self, hidden: int, busiest: NDArray[np.int64], blen: int) -> NDArray[np.int64]:
        return blen * busiest + self.act_interval * (hidden // self.num_pe) + self.act_latency

    def check(self, model: NetworkParameters) -> None:
        super().check(model)
        for hidden in model.hidden_sizes:
            self._check_hidden(hidden)

    def _check_hidden(self, hidden: int) -> None:
        if hidden % self.num_pe:
            raise UnsupportedModelError(
                f"hidden_size={hidden}: Spartus needs a multiple of its {self.num_pe} processing elements per array "
                "(fewer can be modelled: num_pe)"
            )

    def number_formats(self, model: NetworkParameters) -> Quantization:
        return model.quantization or self.formats

    def stored_length(self, model: NetworkParameters) -> list[int]:
        """BLEN of each layer: the most non-zero weights any processing element holds of any column, at least 1."""
        weight = self.number_formats(model).weight
        lengths = []
        for layer in model.layers:
            stored = weight.to_int(np.concatenate([layer.weight_ih, layer.weight_hh], axis=1))
            per_pe = (stored != 0).reshape(-1, self.num_pe, stored.shape[1]).sum(axis=0)
            lengths.append(max(1, int(per_pe.max())))
        return lengths

    def events(self, model: NetworkParameters, sequences: Sequence[NDArray[np.float64]]) -> Events:
        events = integer_events(model, sequences, self.number_formats(model))
        lengths = self.stored_length(model)
        rows = [4 * hidden // self.num_pe for hidden in model.hidden_sizes]
        stored = ", ".join(f"{length} of {s} weights" for length, s in zip(lengths, rows, strict=True))
        note = f"BLEN measured on the stored weights: {stored} per column and processing element"
        return events._replace(notes=(*events.notes, note))

    def work(self, model: NetworkParameters, events: Events) -> Work:
        steps = len(events.first)
        cycles, macs, read_bits = (np.zeros(steps, dtype=np.int64) for _ in range(3))
        busy_mean, busy_max = np.zeros(steps), np.zeros(steps)
        weight_bits = self.number_formats(model).weight.bits
        for layer, blen, fired_x, fired_h in zip(
            model.layers, self.stored_length(model), events.fired_x, events.fired_h, strict=True
        ):
            per_array = self._per_array(np.concatenate([fired_x, fired_h], axis=1))
            cycles += self._layer_cycles(fired_h.shape[1], per_array.max(axis=1), blen)
            pairs = per_array.sum(axis=1) * blen * self.num_pe
            macs += pairs
            index_bits = (len(layer.weight_ih) // self.num_pe - 1).bit_length()
            read_bits += pairs * (weight_bits + index_bits)
            busy_mean += per_array.mean(axis=1)
            busy_max += per_array.max(axis=1)
        return Work(cycles, macs, -(-read_bits // 8), busy_mean, busy_max)
