"""What DeltaCore's memories start with, as `$readmemh` files."""

import numpy as np

from deltarnn.fixed.arithmetic import IntArray
from deltarnn.fixed.network import IntegerNetwork
from deltarnn.hardware.core_layout import CoreLayout, CorePart
from deltarnn.hardware.core_package import accumulator_bits, entry_bits, part_matrices, stored_table
from deltarnn.prune.cbcsc import CBCSC

IMAGES = ("weights.hex", "biases.hex", "sigmoid.hex", "tanh.hex")


def memory_images(network: IntegerNetwork, layout: CoreLayout) -> dict[str, tuple[IntArray, int]]:
    """The contents of the memories: integers (words, values per word), first lane first, and bits of a value."""
    q, lanes = network.quantization, layout.lanes
    columns = [_weight_words(layout, part, m) for part, m in zip(layout.parts, part_matrices(network), strict=True)]
    starts = []
    biases = [layer.memory for layer in network.layers] + [dense.bias for dense in network.head]
    for start, core in zip(biases, layout.layers, strict=True):
        memory = np.zeros((core.accumulator_words, lanes), dtype=np.int64)
        memory.ravel()[: core.rows] = start[: core.rows]
        if core.kind == "GRU":
            row = core.apart_row + core.apart_offset * lanes
            memory.ravel()[row : row + core.units] = start[core.rows :]
        starts.append(memory)
    sigmoid, tanh = (stored_table(table)[1] for table in network.layers[0].tables)
    return {
        "weights.hex": (np.concatenate(columns), entry_bits(network, layout)),
        "biases.hex": (np.concatenate(starts).reshape(-1, 1), accumulator_bits(network)),
        "sigmoid.hex": (sigmoid[:, None], q.gate.bits),
        "tanh.hex": (tanh[:, None], q.gate.bits),
    }


def _weight_words(layout: CoreLayout, part: CorePart, matrix: IntArray) -> IntArray:
    """(words, lanes) of one part: columns one after another, rows dealt to the lanes in turn; or CBCSC pairs."""
    if not layout.stored:
        padded = np.pad(matrix, ((0, -len(matrix) % layout.lanes), (0, 0)))
        return padded.T.reshape(-1, layout.lanes)
    rows = layout.layers[part.layer].groups
    # BLEN = rows − ⌊rows · γ⌋; the half keeps γ off the point where rounding decides.
    stored = CBCSC.encode(matrix, (rows - part.clocks + 0.5) / rows, layout.lanes)
    entries = (stored.values << layout.index_bits) | stored.indices
    return np.asarray(entries.transpose(0, 2, 1).reshape(-1, layout.lanes), dtype=np.int64)


def memory_sizes(network: IntegerNetwork, layout: CoreLayout) -> dict[str, int]:
    """Bits of every memory."""
    q, acc = network.quantization, accumulator_bits(network)
    word = layout.width * q.activation.bits
    entries = sum(len(stored_table(table)[1]) for table in network.layers[0].tables)
    return {
        "weight bits": layout.weight_words * layout.lanes * entry_bits(network, layout),
        "signal bits": layout.signal_words * word,
        "held bits": layout.held_words * word,
        "accumulator bits": 2 * layout.accumulator_words * layout.lanes * acc,
        "bias bits": layout.accumulator_words * layout.lanes * acc,
        "state bits": layout.state_words * layout.pipes * q.activation.bits,
        "table bits": layout.pipes * entries * q.gate.bits,
        "accumulator width": acc,
    }


def image_text(values: IntArray, bits: int) -> str:
    """One word a line: the values of a row, the first in the lowest bits."""
    mask, digits = (1 << bits) - 1, -(-bits * values.shape[1] // 4)
    words = (sum((int(v) & mask) << (bits * i) for i, v in enumerate(row)) for row in values)
    return "".join(f"{word:0{digits}x}\n" for word in words)


def read_image(text: str, lanes: int, bits: int) -> IntArray:
    """Read back `image_text`."""
    mask, sign = (1 << bits) - 1, 1 << (bits - 1)
    words = [int(line, 16) for line in text.split()]
    values = [[((word >> (bits * i) & mask) ^ sign) - sign for i in range(lanes)] for word in words]
    return np.array(values, dtype=np.int64)
