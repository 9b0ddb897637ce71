"""EdgeDRNN: DeltaGRU inference with weights streamed from external memory (JETCAS 2020).

C. Gao, A. Rios-Navarro, X. Chen, S.-C. Liu, T. Delbruck, "EdgeDRNN: Recurrent Neural Network Accelerator for Edge
Inference", IEEE JETCAS 10(4), 2020, doi:10.1109/JETCAS.2020.3040300.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deltarnn.fixed.arithmetic import IntArray
from deltarnn.fixed.cells import Cell, entering_biases, round_threshold
from deltarnn.fixed.edgedrnn import ACTIVATION, BIAS_DELTA, GATE, THRESHOLD_MAX, WEIGHT, edgedrnn_forward
from deltarnn.fixed.network import check_range
from deltarnn.fixed.parameters import NetworkParameters, UnsupportedModelError
from deltarnn.fixed.qformat import Quantization
from deltarnn.hardware.accelerator import Accelerator, Events, Work, check_columns, parameter

QUANTIZATION = Quantization(ACTIVATION, WEIGHT, GATE)
MAX_LAYERS = 4
MAX_HIDDEN = 1023


class EdgeDRNNIntegers(NamedTuple):
    """A model in the accelerator's words: layers as `edgedrnn_forward` takes them, thresholds in 1/256, notes."""

    layers: list[tuple[IntArray, IntArray, IntArray]]
    thx: int
    thh: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class EdgeDRNN(Accelerator):
    """Event-exact model: cycles are within 2 (one layer) to 4 (two) of simulation of the public RTL."""

    name: ClassVar[str] = "EdgeDRNN"
    cell: ClassVar[Cell] = "GRU"

    num_pe: int = parameter(8, "", "verified", "processing elements, one 8-bit weight each per clock")
    clock_hz: float = parameter(125e6, "Hz", "recalled", "clock on XC7Z007S (MiniZed)")
    power_w: float = parameter(2.3, "W", "recalled", "wall power of the board")
    memory_latency_cycles: int = parameter(
        0, "clocks", "verified", "from a layer's first weight request to its data", True
    )
    burst_gap_cycles: int = parameter(0, "clocks", "verified", "idle clocks of the memory between column bursts", True)

    @property
    def num_macs(self) -> int:
        """One per processing element."""
        return self.num_pe

    def cycles(self, input_size: int, hidden_sizes: Sequence[int], fired_columns: Sequence[Sequence[int]]) -> int:
        """Clock cycles of one step.

        Parameters
        ----------
        input_size: I of the first layer.
        hidden_sizes: H of each layer, multiples of num_pe.
        fired_columns: per layer the rising indices of the columns that fired: 0 the bias, 1..I the inputs of that
            layer, I+1..I+H its hidden units.

        Notes
        -----
        Per layer, from the time t at which it starts, with G = H / num_pe: column k is known k + 9 clocks after t and
        then occupies the PEs for 3G clocks; both encoders scan I + H elements; the activation loop takes 5(G + 1) + 2.
        Memory latency delays what is fetched by as much; gaps lie between the bursts of a layer.
        """
        layers = check_columns(input_size, hidden_sizes, fired_columns, bias=True)
        self._check_sizes(hidden_sizes)
        time, inputs = 0, input_size
        for hidden, columns in zip(hidden_sizes, layers, strict=True):
            time += self._layer_cycles(inputs, hidden, columns)
            inputs = hidden
        return time

    def _layer_cycles(self, inputs: int, hidden: int, columns: IntArray) -> int:
        groups = hidden // self.num_pe
        burst = 3 * groups + self.burst_gap_cycles
        # m = max(m, k + 9) + burst over the columns in order, unrolled: the last busy clock is set by whichever
        # column k had to be waited for, and by all the bursts from it on.
        known = columns + 9 + self.memory_latency_cycles
        remaining = len(columns) - np.arange(len(columns))
        products = int((known + burst * remaining).max(initial=0)) - self.burst_gap_cycles
        scan = 1 + inputs + hidden + 8
        return max(products, scan) + 5 * (groups + 1) + 2

    def check(self, model: NetworkParameters) -> None:
        super().check(model)
        self._check_sizes(model.hidden_sizes)
        if model.hard_activations:
            raise UnsupportedModelError("hard_activations=True: EdgeDRNN's tables hold the logistic function and tanh")

    def _check_sizes(self, hidden_sizes: Sequence[int]) -> None:
        if len(hidden_sizes) > MAX_LAYERS:
            raise UnsupportedModelError(f"num_layers={len(hidden_sizes)}: EdgeDRNN holds at most {MAX_LAYERS} layers")
        for hidden in hidden_sizes:
            if hidden > MAX_HIDDEN:
                raise UnsupportedModelError(
                    f"hidden_size={hidden}: EdgeDRNN holds at most {MAX_HIDDEN} units per layer"
                )
            if hidden % self.num_pe:
                raise UnsupportedModelError(
                    f"hidden_size={hidden}: EdgeDRNN needs a multiple of its {self.num_pe} processing elements"
                )

    def number_formats(self, model: NetworkParameters) -> Quantization:
        return QUANTIZATION

    def integers(self, model: NetworkParameters) -> EdgeDRNNIntegers:
        """Round a float model to the accelerator's words.

        Raises
        ------
        UnsupportedModelError
            If b_hn is not 0, θ differs between layers or leaves its register, or weights leave Q1.7.
        """
        self.check(model)
        notes = []
        thresholds = {}
        for name, limit, why in (
            ("thx", BIAS_DELTA, "a larger one keeps the bias column from ever firing; retrain with a smaller --thx"),
            ("thh", THRESHOLD_MAX, "the register has 10 bits; retrain with a smaller --thh"),
        ):
            values = [getattr(layer, name) for layer in model.layers]
            if len(set(values)) > 1:
                raise UnsupportedModelError(f"{name}={values}: EdgeDRNN has one register for all layers; use one value")
            if values[0] > limit / ACTIVATION.scale:
                raise UnsupportedModelError(
                    f"{name}={values[0]:g}: EdgeDRNN takes at most {limit / ACTIVATION.scale:g}: {why}"
                )
            rounded = round_threshold(name, values[0], QUANTIZATION)
            if f"{rounded:g}" != f"{values[0]:g}":
                notes.append(f"{name} rounded from {values[0]:g} to {rounded:g} (1/256)")
            thresholds[name] = int(ACTIVATION.to_int(rounded))

        layers = []
        own = model.quantization is not None and model.quantization.weight == WEIGHT
        for index, layer in enumerate(model.layers):
            biases = entering_biases("GRU", layer.bias_ih, layer.bias_hh)
            gate_rows = len(layer.weight_ih)
            b_hn = biases[gate_rows:]
            if b_hn.any():
                raise UnsupportedModelError(
                    f"b_hn of layer {index} reaches {np.abs(b_hn).max():.4g}: EdgeDRNN has one bias per gate row, so "
                    "it must be 0; train with --zero_b_hn 1"
                )
            if not own:
                for name in ("weight_ih", "weight_hh"):
                    check_range(f"{name}_l{index}", getattr(layer, name), WEIGHT)
                check_range(f"the bias (b_ih + b_hh) of layer {index}", biases[:gate_rows], WEIGHT)
            weights = WEIGHT.to_int(layer.weight_ih), WEIGHT.to_int(layer.weight_hh)
            layers.append((*weights, WEIGHT.to_int(biases[:gate_rows])))
        return EdgeDRNNIntegers(layers, thresholds["thx"], thresholds["thh"], tuple(notes))

    def events(self, model: NetworkParameters, sequences: Sequence[NDArray[np.float64]]) -> Events:
        integers = self.integers(model)
        sizes = list(zip((model.input_size, *model.hidden_sizes), model.hidden_sizes, strict=False))
        steps = sum(map(len, sequences))
        fired = [np.zeros((steps, 1 + inputs + hidden), dtype=np.bool_) for inputs, hidden in sizes]
        first = np.zeros(steps, dtype=np.bool_)
        step = saturated = 0
        for sequence in sequences:
            first[step] = True
            saturated += int(((sequence < ACTIVATION.min) | (sequence > ACTIVATION.max)).sum())
            x = ACTIVATION.to_int(sequence)
            _, columns = edgedrnn_forward(x, integers.layers, integers.thx, integers.thh, return_fired=True)
            for per_layer in columns:
                for index, indices in enumerate(per_layer):
                    fired[index][step, indices] = True
                step += 1
        notes = integers.notes
        if saturated:
            notes += (f"{saturated} input values were outside {ACTIVATION} and saturated",)
        return Events(
            [f[:, 1 : 1 + inputs] for f, (inputs, _) in zip(fired, sizes, strict=True)],
            [f[:, 1 + inputs :] for f, (inputs, _) in zip(fired, sizes, strict=True)],
            first,
            notes,
        )

    def work(self, model: NetworkParameters, events: Events) -> Work:
        steps = len(events.first)
        cycles, columns = np.zeros(steps, dtype=np.int64), np.zeros(steps, dtype=np.int64)
        weights = np.zeros(steps, dtype=np.int64)
        for fired_x, fired_h in zip(events.fired_x, events.fired_h, strict=True):
            fired = np.concatenate([events.first[:, None], fired_x, fired_h], axis=1)
            inputs, hidden = fired_x.shape[1], fired_h.shape[1]
            cycles += [self._layer_cycles(inputs, hidden, np.flatnonzero(row)) for row in fired]
            columns += fired.sum(axis=1)
            weights += 3 * hidden * fired.sum(axis=1)
        # Every processing element takes every fired column: the work is balanced by construction.
        busy = columns.astype(np.float64)
        return Work(cycles, weights, weights, busy, busy)
