"""Where everything of a network lies in DeltaCore: layers, parts of a step, and addresses in its memories."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from deltarnn.fixed.cells import Cell
from deltarnn.fixed.parameters import UnsupportedModelError

MAX_LANES = 256
MAX_WIDTH = 32
"""Of the encoder and of the activation pipes."""

QUEUE_DEPTH = 8

PIPE_TICKS = {"GRU": 9, "LSTM": 10}
"""Clocks from the first accumulator of a unit asked for to its hidden state written."""


def default_shape(lanes: int, target: str = "generic") -> tuple[int, int]:
    """Encoder width and activation pipes that suit P lanes; on an iCE40, which has few multipliers, a single pipe."""
    wide = min(16, max(1, lanes))
    return max(4, wide), 1 if target == "ice40" else wide


@dataclass(frozen=True)
class CoreLayer:
    """A recurrent or dense layer. rows are those of a column (3H, 4H or O), groups = ⌈rows / P⌉ clocks.

    A dense layer is a delta layer of threshold 0 without hidden state: the same sums, of what changed alone.
    """

    kind: Cell | Literal["dense"]
    inputs: int
    units: int
    lanes: int

    @property
    def rows(self) -> int:
        """Of a column: 3H, 4H or O."""
        return self.units * {"GRU": 3, "LSTM": 4, "dense": 1}[self.kind]

    @property
    def groups(self) -> int:
        """Clocks that a column takes, ⌈rows / P⌉."""
        return -(-self.rows // self.lanes)

    @property
    def apart_row(self) -> int:
        """First row of a GRU's candidate, whose products of the hidden state have accumulators of their own (M_nh)."""
        return 2 * self.units if self.kind == "GRU" else 0

    @property
    def apart_offset(self) -> int:
        """Distance in words from a row's accumulator to the one apart."""
        return self.groups - self.apart_row // self.lanes if self.kind == "GRU" else 0

    @property
    def accumulator_words(self) -> int:
        """In every lane: one of each group, and those apart."""
        return self.groups + self.apart_offset

    @property
    def slot_rows(self) -> tuple[int, int, int, int]:
        """First row of the accumulators that the activation reads, in its order: r, z, nh, nx or f, i, g, o."""
        h = self.units
        return {"GRU": (0, h, 2 * h, 2 * h), "LSTM": (h, 0, 2 * h, 3 * h), "dense": (0, 0, 0, 0)}[self.kind]


@dataclass(frozen=True)
class CorePart:
    """Part of a step: columns of one layer that the encoder scans: its hidden state, or its input.

    clocks: that a column takes. signal, held, weight: first word in those memories. follows: the input is the layer
    before's output. threshold: index of its register, or None for 0. ends: the layer's last.
    """

    layer: int
    hidden: bool
    columns: int
    clocks: int
    signal: int
    held: int
    weight: int
    frame: bool
    follows: bool
    threshold: int | None
    ends: bool


@dataclass(frozen=True)
class CoreLayout:
    """A network's sizes and a core's: input_size, hidden_sizes of the recurrent layers, head_sizes of the dense ones.

    lanes P, width E (values the encoder looks at per clock), pipes U (units the activation takes at once): powers of
    two, U at most P and E. stored: of each part, the weights that a lane stores of a column, where those pruned are
    left out (CBCSC, MATH §7); none: all are stored.

    Raises
    ------
    UnsupportedModelError
        If one of them is not, or for a GRU whose pruned weights are left out.
    """

    cell: Cell
    input_size: int
    hidden_sizes: tuple[int, ...]
    head_sizes: tuple[int, ...]
    lanes: int
    width: int
    pipes: int
    stored: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.stored and self.cell != "LSTM":
            raise UnsupportedModelError(f"DeltaCore leaves out the pruned weights of an LSTM: this is a {self.cell}")
        for name, value, limit in (
            ("lanes", self.lanes, MAX_LANES),
            ("encoder_width", self.width, MAX_WIDTH),
            ("activation_pipes", self.pipes, min(self.lanes, self.width)),
        ):
            if not (0 < value <= limit and value & (value - 1) == 0):
                why = ", no more than lanes and encoder_width" if name == "activation_pipes" else ""
                raise UnsupportedModelError(f"{name}={value}: DeltaCore takes a power of two from 1 to {limit}{why}")

    @cached_property
    def layers(self) -> tuple[CoreLayer, ...]:
        """Recurrent layers, then dense ones."""
        kinds: list[Cell | Literal["dense"]] = [self.cell for _ in self.hidden_sizes]
        kinds += ["dense" for _ in self.head_sizes]
        units = [*self.hidden_sizes, *self.head_sizes]
        inputs = [self.input_size, *units]
        return tuple(
            CoreLayer(kind, before, size, self.lanes) for kind, before, size in zip(kinds, inputs, units, strict=False)
        )

    @property
    def index_bits(self) -> int:
        """Bits beside a weight that tell its row, where pruned ones are left out."""
        return max(1, (max(layer.groups for layer in self.layers) - 1).bit_length()) if self.stored else 0

    @property
    def frame_words(self) -> int:
        """Words of a frame in the signal memory, which has room for two."""
        return self.words(self.input_size)

    def words(self, values: int) -> int:
        """Words of the encoder that hold so many values."""
        return -(-values // self.width)

    def unit_words(self, layer: int) -> int:
        """Times that the activation takes `pipes` units of a layer."""
        return -(-self.layers[layer].units // self.pipes)

    @cached_property
    def outputs(self) -> tuple[int, ...]:
        """First signal word of each layer's output; the last dense layer has none (0)."""
        return self._running([self.words(size) for size in self._stored], 2 * self.frame_words)

    @property
    def _stored(self) -> list[int]:
        return [layer.units for layer in self.layers[: len(self.layers) - bool(self.head_sizes)]]

    @property
    def signal_words(self) -> int:
        """Of two frames and of every layer's output."""
        return 2 * self.frame_words + sum(map(self.words, self._stored))

    @property
    def held_words(self) -> int:
        """Of what the encoder last sent on, of every part."""
        return sum(self.words(part.columns) for part in self.parts)

    @property
    def weight_words(self) -> int:
        """Of the weight memory, each with a weight for every lane."""
        return sum(part.columns * part.clocks for part in self.parts)

    @property
    def state_words(self) -> int:
        """Words of `pipes` values of h (GRU) or c (LSTM)."""
        return sum(self.unit_words(layer) for layer in range(len(self.hidden_sizes)))

    @cached_property
    def accumulators(self) -> tuple[int, ...]:
        """First accumulator word of each layer, in every lane."""
        return self._running([layer.accumulator_words for layer in self.layers])

    @property
    def accumulator_words(self) -> int:
        """Of all layers, in every lane."""
        return sum(layer.accumulator_words for layer in self.layers)

    @property
    def aligned(self) -> bool:
        """Whether the units that the activation takes at once never wrap around the lanes."""
        return all(row % self.pipes == 0 for layer in self.layers for row in layer.slot_rows)

    @cached_property
    def parts(self) -> tuple[CorePart, ...]:
        """The parts of a step, in the encoder's order."""
        parts: list[CorePart] = []
        held = weight = 0
        for index, layer in enumerate(self.layers):
            recurrent = layer.kind != "dense"
            for hidden in (True, False)[not recurrent :]:
                columns = layer.units if hidden else layer.inputs
                frame = not hidden and index == 0
                signal = self.outputs[index] if hidden else 0 if frame else self.outputs[index - 1]
                threshold = 2 * index + hidden if recurrent else None
                follows = not hidden and not frame
                clocks = self.stored[len(parts)] if self.stored else layer.groups
                parts.append(
                    CorePart(
                        index, hidden, columns, clocks, signal, held, weight, frame, follows, threshold, not hidden
                    )
                )
                held += self.words(columns)
                weight += columns * clocks
        return tuple(parts)

    @staticmethod
    def _running(sizes: Sequence[int], start: int = 0) -> tuple[int, ...]:
        starts = [start]
        for size in sizes:
            starts.append(starts[-1] + size)
        return tuple(starts[:-1])
