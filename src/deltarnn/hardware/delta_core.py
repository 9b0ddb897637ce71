"""DeltaCore: the cycle model of the project's own accelerator (rtl/), equal to its simulation clock for clock."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deltarnn.fixed.cells import Cell
from deltarnn.fixed.network import IntegerNetwork
from deltarnn.fixed.parameters import NetworkParameters
from deltarnn.fixed.qformat import Quantization
from deltarnn.hardware.accelerator import Accelerator, BoolArray, Events, Work, check_columns, parameter
from deltarnn.hardware.core_layout import PIPE_TICKS, QUEUE_DEPTH, CoreLayout, default_shape
from deltarnn.hardware.core_package import part_matrices, stored_lengths
from deltarnn.hardware.measure import integer_events

DENSE_TICKS = 2
"""Clocks from a dense layer's accumulator asked for to its result written."""


class CoreClocks(NamedTuple):
    """Clocks of one step: in all, from each layer's first product to its last, and multiplying."""

    cycles: int
    products: int
    busy: int


@dataclass(frozen=True)
class DeltaCore(Accelerator):
    """Cycle-exact model of the core that `deltarnn export --format rtl` writes, dense head included."""

    name: ClassVar[str] = "DeltaCore"
    cell: ClassVar[Cell] = "GRU"

    lanes: int = parameter(8, "", "given", "multiplier lanes P, a power of two")
    encoder_width: int = parameter(0, "", "given", "values the encoder looks at per clock; 0: as the export", True)
    activation_pipes: int = parameter(0, "", "given", "units the activation takes at once; 0: as the export", True)
    skip_zero_weights: bool = parameter(False, "", "given", "leave out an LSTM's pruned weights (CBCSC)", True)
    clock_hz: float = parameter(12e6, "Hz", "given", "clock; what closes depends on the device")
    power_w: float = parameter(0.0, "W", "given", "stated power; 0: none, and no energy", True)

    @property
    def num_macs(self) -> int:
        """One per lane."""
        return self.lanes

    def layout(
        self,
        cell: Cell,
        input_size: int,
        hidden_sizes: Sequence[int],
        head_sizes: Sequence[int] = (),
        stored: tuple[int, ...] = (),
    ) -> CoreLayout:
        """Where a network of these sizes lies in this core. UnsupportedModelError for lanes it cannot have."""
        width, pipes = default_shape(self.lanes)
        return CoreLayout(
            cell,
            input_size,
            tuple(hidden_sizes),
            tuple(head_sizes),
            self.lanes,
            self.encoder_width or width,
            self.activation_pipes or pipes,
            stored,
        )

    def cycles(
        self,
        input_size: int,
        hidden_sizes: Sequence[int],
        fired_columns: Sequence[Sequence[int]],
        cell: Cell = "GRU",
    ) -> int:
        """Clock cycles of one step of recurrent layers, without a head and with all weights stored.

        Parameters
        ----------
        input_size, hidden_sizes: I, and H of each layer.
        fired_columns: per layer the rising indices of the columns that fired: 0..I−1 the inputs of that layer,
            I..I+H−1 its hidden units.
        """
        layers = check_columns(input_size, hidden_sizes, fired_columns, bias=False)
        layout = self.layout(cell, input_size, hidden_sizes)
        fired = []
        for part in layout.parts:
            flags = np.zeros(part.columns, dtype=np.bool_)
            offset = layout.layers[part.layer].inputs if part.hidden else 0
            columns = layers[part.layer] - offset
            flags[columns[(columns >= 0) & (columns < part.columns)]] = True
            fired.append(flags)
        return step_clocks(layout, fired).cycles

    def check(self, model: NetworkParameters) -> None:
        """Raise UnsupportedModelError if lanes, encoder or pipes cannot be built. All sizes and both cells fit."""
        stored = (1,) * self.skip_zero_weights
        self.layout(model.cell, model.input_size, model.hidden_sizes, stored=stored)

    def number_formats(self, model: NetworkParameters) -> Quantization:
        return model.quantization or Quantization()

    def events(self, model: NetworkParameters, sequences: Sequence[NDArray[np.float64]]) -> Events:
        return integer_events(model, sequences, self.number_formats(model), head=True)

    def work(self, model: NetworkParameters, events: Events) -> Work:
        stored: tuple[int, ...] = ()
        if self.skip_zero_weights:
            network = IntegerNetwork.convert(model, self.number_formats(model))
            stored = stored_lengths(part_matrices(network), self.lanes)
        head_sizes = [len(dense.bias) for dense in model.head]
        layout = self.layout(model.cell, model.input_size, model.hidden_sizes, head_sizes, stored)
        steps = len(events.first)
        fired_x, fired_h, _, _, fired_dense = events
        per_part = [core_fired(layout, i, fired_x, fired_h, fired_dense) for i in range(len(layout.parts))]
        clocks = np.array([step_clocks(layout, [fired[step] for fired in per_part]).cycles for step in range(steps)])
        macs, columns = np.zeros(steps, dtype=np.int64), np.zeros(steps, dtype=np.int64)
        for part, fired in zip(layout.parts, per_part, strict=True):
            weights = part.clocks * self.lanes if stored else layout.layers[part.layer].rows
            macs += weights * fired.sum(axis=1)
            columns += fired.sum(axis=1)
        # All lanes take each column together: balanced by construction.
        busy = columns.astype(np.float64)
        bits = self.number_formats(model).weight.bits + layout.index_bits
        return Work(clocks, macs, -(-macs * bits // 8), busy, busy)


def step_clocks(layout: CoreLayout, fired: Sequence[BoolArray]) -> CoreClocks:
    """Clocks of one step, whose values `fired` as given: of each part (`layout.parts`) one flag per column.

    Clock 0 is the one that starts the step; each stage of the ring passes on what it has in order, so every time is the
    latest of what it waits for:

        a word is read when the one before has been compared, and, of a lower layer's output, when it has been written;
        it is compared the clock after, or when the last event of the word before has entered the queue;
        its events enter the queue from the clock after, one a clock, while the queue has room;
        an event occupies the lanes for its column's clocks, from the clock after it entered; a layer's end for one;
        the activation begins two clocks after the end, and takes 4 clocks (dense: 1) for `pipes` units.
    """
    compared, pushed = 1, 0
    taken: list[int] = []
    products = busy = 0
    span: list[int] = []
    ready: list[int] = []
    for part, flags in zip(layout.parts, fired, strict=True):
        words = layout.words(part.columns)
        counts = np.add.reduceat(flags, range(0, part.columns, layout.width), dtype=np.int64).tolist()
        for word, count in enumerate(counts):
            read = max(compared, ready[word]) if part.follows else compared
            compared = max(read + 1, pushed)
            clock = compared
            ends = part.ends and word == words - 1
            for item in range(count + ends):
                clock += 1
                if len(taken) >= QUEUE_DEPTH:
                    clock = max(clock, taken[-QUEUE_DEPTH] + 1)
                begin = max(clock + 1, taken[-1] + 1 if taken else 0)
                if item < count:
                    span += [begin, begin + part.clocks]
                    busy += part.clocks
                    taken.append(begin + part.clocks - 1)
                else:
                    taken.append(begin)
                pushed = clock
        if part.ends:
            products += span[-1] - span[0] if span else 0
            span.clear()
            ready = _written(layout, part.layer, taken[-1] + 2)
    return CoreClocks(ready[-1], products, busy)


def _written(layout: CoreLayout, layer: int, begin: int) -> list[int]:
    """From when on each word of a layer's output can be read, whose activation begins at a clock."""
    recurrent = layout.layers[layer].kind != "dense"
    interval, ticks = (4, PIPE_TICKS[layout.cell]) if recurrent else (1, DENSE_TICKS)
    count, per_word = layout.unit_words(layer), layout.width // layout.pipes
    return [begin + interval * (min(w, count) - 1) + ticks + 1 for w in range(per_word, count + per_word, per_word)]


def core_fired(
    layout: CoreLayout,
    index: int,
    fired_x: Sequence[BoolArray],
    fired_h: Sequence[BoolArray],
    fired_dense: Sequence[BoolArray],
) -> BoolArray:
    """(S, columns) what fired of part `index`, of `Events`."""
    part, recurrent = layout.parts[index], len(layout.hidden_sizes)
    if part.layer >= recurrent:
        return fired_dense[part.layer - recurrent]
    return (fired_h if part.hidden else fired_x)[part.layer]
