"""The one generated module of DeltaCore: a SystemVerilog package with the sizes, addresses and formats of a network."""

import textwrap
from collections.abc import Iterable

import numpy as np

from deltarnn.fixed.arithmetic import IntArray
from deltarnn.fixed.network import IntegerNetwork
from deltarnn.fixed.tables import LookUpTable
from deltarnn.hardware.core_layout import PIPE_TICKS, QUEUE_DEPTH, CoreLayout

WHOLE_TABLE_BITS = 9


def part_matrices(network: IntegerNetwork) -> list[IntArray]:
    """The weights (rows, columns) of each part of a step: of a recurrent layer the hidden state's, then the input's."""
    recurrent = [matrix for layer in network.layers for matrix in (layer.weight_hh, layer.weight_ih)]
    return [*recurrent, *(dense.weight for dense in network.head)]


def stored_lengths(matrices: Iterable[IntArray], lanes: int) -> tuple[int, ...]:
    """Of each matrix, the most non-zero weights that a lane has of a column, at least 1."""
    padded = (np.pad(matrix != 0, ((0, -len(matrix) % lanes), (0, 0))) for matrix in matrices)
    return tuple(max(1, int(m.reshape(-1, lanes, m.shape[1]).sum(axis=0).max())) for m in padded)


def core_layout(network: IntegerNetwork, lanes: int, width: int, pipes: int, compressed: bool = False) -> CoreLayout:
    """The layout of a network; compressed: its zero weights are left out."""
    return CoreLayout(
        network.layers[0].cell,
        network.input_size,
        tuple(layer.hidden_size for layer in network.layers),
        tuple(len(dense.bias) for dense in network.head),
        lanes,
        width,
        pipes,
        stored_lengths(part_matrices(network), max(1, lanes)) if compressed else (),
    )


def accumulator_bits(network: IntegerNetwork) -> int:
    """Bits of the accumulators: the fewest that hold what any input can add up to, and an activation."""
    bounds = [layer.memory_bound for layer in network.layers] + [dense.memory_bound for dense in network.head]
    return max(max(bounds).bit_length() + 1, network.quantization.activation.bits)


def entry_bits(network: IntegerNetwork, layout: CoreLayout) -> int:
    """Bits of an entry of the weight memory, one for each lane: a weight, and its row where zeros are left out."""
    return network.quantization.weight.bits + layout.index_bits


def address_bits(words: int) -> int:
    """Bits that address so many words, at least one."""
    return max(1, (words - 1).bit_length())


def thresholds(network: IntegerNetwork) -> list[int]:
    """The threshold registers: thx, thh of each recurrent layer."""
    return [theta for layer in network.layers for theta in (layer.thx, layer.thh)]


def byte_bits(bits: int) -> int:
    """`bits` rounded up to whole bytes, as AXI4-Stream carries them."""
    return -(-bits // 8) * 8


def stored_table(table: LookUpTable) -> tuple[int, IntArray]:
    """(first, entries) of a table as the core stores it: whole where it is short, which saves the limits' logic."""
    return (table.address.int_min, table.entries) if table.address.bits <= WHOLE_TABLE_BITS else table.trimmed()


def package_text(network: IntegerNetwork, layout: CoreLayout) -> str:
    """core_config.sv."""
    lines = [
        "// Sizes, addresses and formats of one network, generated. In tables the entry of the first layer or part is",
        "// the last: it has the lowest bits.",
        "package core_config;",
        *(f"  localparam int {name} = {value};" for name, value in _sizes(network, layout).items()),
        *(f"  localparam bit {name} = {int(value)};" for name, value in _switches(network, layout).items()),
        *_tables(network, layout),
        "endpackage",
    ]
    return "\n".join(lines) + "\n"


def _sizes(network: IntegerNetwork, layout: CoreLayout) -> dict[str, int]:
    return {**_core_sizes(layout), **_network_sizes(network, layout), **_memory_sizes(network, layout)}


def _core_sizes(layout: CoreLayout) -> dict[str, int]:
    return {
        "LANES": layout.lanes,
        "LANE_SHIFT": layout.lanes.bit_length() - 1,
        "LANE_BITS": address_bits(layout.lanes),
        "ENCODER_WIDTH": layout.width,
        "ENCODER_SHIFT": layout.width.bit_length() - 1,
        "PIPES": layout.pipes,
        "PIPE_SHIFT": layout.pipes.bit_length() - 1,
        "PIPE_TICKS": PIPE_TICKS[layout.cell],
        "QUEUE_SHIFT": QUEUE_DEPTH.bit_length() - 1,
    }


def _network_sizes(network: IntegerNetwork, layout: CoreLayout) -> dict[str, int]:
    q, layers, parts = network.quantization, len(layout.layers), len(layout.parts)
    outputs, entry, registers = network.output_size, entry_bits(network, layout), len(thresholds(network))
    event = {
        "DELTA_BITS": q.activation.bits + 1,
        "PART_BITS": address_bits(parts),
        "WEIGHT_BITS": address_bits(layout.weight_words),
    }
    return {
        "INPUTS": network.input_size,
        "INPUT_INDEX_BITS": address_bits(network.input_size),
        "OUTPUTS": outputs,
        "OUTPUT_INDEX_BITS": address_bits(outputs),
        "LAYERS": layers,
        "RECURRENT": len(network.layers),
        "LAYER_BITS": address_bits(layers),
        "PARTS": parts,
        "THRESHOLDS": registers,
        "THRESHOLD_INDEX_BITS": registers.bit_length(),
        "A_BITS": q.activation.bits,
        "A_FRACTION": q.activation.fraction_bits,
        "W_BITS": q.weight.bits,
        "W_FRACTION": q.weight.fraction_bits,
        "INDEX_BITS": max(1, layout.index_bits),
        "ENTRY_BITS": entry,
        "N_BITS": q.gate.bits,
        "N_FRACTION": q.gate.fraction_bits,
        "ACC_BITS": accumulator_bits(network),
        **event,
        "EVENT_BITS": 1 + sum(event.values()),
        "THRESHOLD_BITS": q.activation.bits - 1,
        "SHIFT_BITS": 8,
        "AXIS_IN_BITS": byte_bits(q.activation.bits),
        "AXIS_USER_BITS": byte_bits(address_bits(outputs)),
        "AXIS_WEIGHT_BITS": byte_bits(entry),
        "GROUP_BITS": max(layer.groups for layer in layout.layers).bit_length(),
        "ROW_BITS": (max(layer.rows for layer in layout.layers) + layout.lanes).bit_length(),
        "UNIT_BITS": max(*map(layout.unit_words, range(layers)), layout.width // layout.pipes - 1).bit_length(),
    }


def _memory_sizes(network: IntegerNetwork, layout: CoreLayout) -> dict[str, int]:
    sigmoid, tanh = (stored_table(table) for table in network.layers[0].tables)
    biases = layout.accumulator_words * layout.lanes
    clear_words = max(biases, layout.signal_words, layout.held_words, layout.state_words)
    score_words = layout.unit_words(len(layout.layers) - 1)
    return {
        "FRAME_WORDS": layout.frame_words,
        "SIGNAL_WORDS": layout.signal_words,
        "SIGNAL_BITS": address_bits(layout.signal_words),
        "HELD_WORDS": layout.held_words,
        "HELD_BITS": address_bits(layout.held_words),
        "WEIGHT_WORDS": layout.weight_words,
        "ACC_WORDS": layout.accumulator_words,
        "ACC_ADDRESS_BITS": address_bits(layout.accumulator_words),
        "BIAS_BITS": address_bits(biases),
        "STATE_WORDS": layout.state_words,
        "STATE_BITS": address_bits(layout.state_words),
        "SCORE_WORDS": score_words,
        "SCORE_BITS": address_bits(2 * score_words),
        "CLEAR_WORDS": clear_words,
        "CLEAR_BITS": clear_words.bit_length(),
        "SIGMOID_FIRST": sigmoid[0],
        "SIGMOID_ENTRIES": len(sigmoid[1]),
        "SIGMOID_BITS": address_bits(len(sigmoid[1])),
        "TANH_FIRST": tanh[0],
        "TANH_ENTRIES": len(tanh[1]),
        "TANH_BITS": address_bits(len(tanh[1])),
    }


def _switches(network: IntegerNetwork, layout: CoreLayout) -> dict[str, bool]:
    return {
        "NEAREST": network.quantization.rounding == "nearest",
        "IS_LSTM": layout.cell == "LSTM",
        "ALIGNED": layout.aligned,
        "FORWARD": bool(layout.stored) or min(layer.groups for layer in layout.layers) == 1,
        "COMPRESSED": bool(layout.stored),
    }


def _tables(network: IntegerNetwork, layout: CoreLayout) -> list[str]:
    layers, parts, indices = layout.layers, layout.parts, range(len(layout.layers))
    of_part = [layers[part.layer] for part in parts]
    count = len(thresholds(network))
    dense = [dense.weight_format.fraction_bits for dense in network.head[:-1]]
    slots = [
        (row, layout.accumulators[index] + layer.apart_offset * (layer.kind == "GRU" and slot == 2))
        for index, layer in enumerate(layers)
        for slot, row in enumerate(layer.slot_rows)
    ]
    return [
        *_table("LAYER_DENSE", None, [layer.kind == "dense" for layer in layers]),
        *_table("LAYER_UNITS", "ROW_BITS", [layer.units for layer in layers]),
        *_table("LAYER_UNIT_WORDS", "UNIT_BITS", [layout.unit_words(index) for index in indices]),
        *_table("LAYER_SIGNAL", "SIGNAL_BITS", [(*layout.outputs, 0)[index] for index in indices]),
        *_table("LAYER_STATE", "STATE_BITS", [_state_word(layout, index) for index in indices]),
        *_table("SLOT_ROW", "ROW_BITS", [row for row, _ in slots]),
        *_table("SLOT_ACC", "ACC_ADDRESS_BITS", [word for _, word in slots]),
        *_table("PART_LAYER", "LAYER_BITS", [part.layer for part in parts]),
        *_table("PART_WORDS", "SIGNAL_BITS", [layout.words(part.columns) for part in parts]),
        *_table("PART_SIGNAL", "SIGNAL_BITS", [part.signal for part in parts]),
        *_table("PART_FRAME", None, [part.frame for part in parts]),
        *_table("PART_FOLLOWS", None, [part.follows for part in parts]),
        *_table("PART_ENDS", None, [part.ends for part in parts]),
        *_table(
            "PART_THRESHOLD", "THRESHOLD_INDEX_BITS", [count if p.threshold is None else p.threshold for p in parts]
        ),
        *_table("PART_CLOCKS", "GROUP_BITS", [part.clocks for part in parts]),
        *_table("PART_NEXT_WEIGHT", "WEIGHT_BITS", [*(part.weight for part in parts[1:]), 0]),
        *_table("PART_ACC", "ACC_ADDRESS_BITS", [layout.accumulators[part.layer] for part in parts]),
        *_table("PART_APART", None, [part.hidden and layout.cell == "GRU" for part in parts]),
        *_table("APART_GROUP", "GROUP_BITS", [layer.apart_row // layout.lanes for layer in of_part]),
        *_table("APART_LANE", "LANE_BITS", [layer.apart_row % layout.lanes for layer in of_part]),
        *_table("APART_OFFSET", "ACC_ADDRESS_BITS", [layer.apart_offset for layer in of_part]),
        *_table("MODEL_THRESHOLDS", "THRESHOLD_BITS", thresholds(network)),
        *_table("DENSE_SHIFT", "SHIFT_BITS", dense or [0]),
    ]


def _state_word(layout: CoreLayout, layer: int) -> int:
    recurrent = range(min(layer, len(layout.hidden_sizes)))
    return sum(layout.unit_words(index) for index in recurrent) if layer < len(layout.hidden_sizes) else 0


def _table(name: str, width: str | None, entries: Iterable[int]) -> list[str]:
    """A packed vector of `entries`, each `width` bits (a name of the package), or one."""
    values = [int(entry) for entry in entries]
    items = [f"1'b{value}" if width is None else f"{width}'({value})" for value in reversed(values)]
    size = f"{len(values) - 1}" if width is None else f"{len(values)}*{width}-1"
    text = f"  localparam bit [{size}:0] {name} = {{{', '.join(items)}}};"
    return textwrap.wrap(text, 118, subsequent_indent="    ", break_long_words=False, initial_indent="  ")
