"""What the C library of a quantised model stores: types, memories and constant arrays; and whether its sums fit."""

import numpy as np
from numpy.typing import NDArray

from deltarnn.fixed.arithmetic import IntArray
from deltarnn.fixed.cells import IntegerLayer
from deltarnn.fixed.network import ACCUMULATOR_BITS, IntegerNetwork
from deltarnn.fixed.parameters import UnsupportedModelError
from deltarnn.hardware.c_weights import INDEX_BITS, Compressed, best_elements, columns, padded, units


def integer_type(bits: int) -> str:
    """The C type of stored integers of `bits` bits."""
    return "int8_t" if bits <= 8 else "int16_t"


def check_intermediates(network: IntegerNetwork) -> None:
    """Raise UnsupportedModelError if a sum inside a cell, or a format, does not fit the C code's integers."""
    q = network.quantization
    for name in ("activation", "weight", "gate"):
        if getattr(q, name).bits > 16:
            raise UnsupportedModelError(f"{name} format {getattr(q, name)}: the C library stores at most 16 bits")
    a, n = -q.activation.int_min, -q.gate.int_min
    n_a, n_g = q.activation.fraction_bits, q.gate.fraction_bits
    for index, layer in enumerate(network.layers):
        if layer.cell == "GRU":
            n_sum = sum_fraction(layer)
            largest = (layer.memory_bound << (n_sum - layer.memory_fraction_bits)) + ((n * a) << (n_sum - n_a - n_g))
        else:
            largest = ((n * a) << (sum_fraction(layer) - n_a - n_g)) + ((n * n) << (sum_fraction(layer) - 2 * n_g))
        # A single Δ may span the whole range of A, so its product may be twice what M ever reaches.
        weight = max(int(np.abs(w).max()) for w in (layer.weight_ih, layer.weight_hh))
        # Rounding adds at most half of what is shifted out, the distance from a table's first entry at most a.
        largest = max(largest, layer.memory_bound) + (1 << max(sum_fraction(layer) - n_a, 0)) + a
        largest = max(largest, 2 * a * weight, (2 * n * n) << max(n_a - 2 * n_g, 0))
        if largest >= 1 << (ACCUMULATOR_BITS - 1):
            raise UnsupportedModelError(
                f"sums inside layer {index} can reach {largest}: {ACCUMULATOR_BITS} bits hold "
                f"{(1 << (ACCUMULATOR_BITS - 1)) - 1}; use fewer fraction bits than {q.activation}, {q.weight} and "
                f"{q.gate}"
            )
    for index, dense in enumerate(network.head[:-1]):
        if dense.memory_bound + (1 << max(dense.fraction_bits - n_a, 0)) >= 1 << (ACCUMULATOR_BITS - 1):
            raise UnsupportedModelError(
                f"sums of head layer {index} can reach {dense.memory_bound}, to which {ACCUMULATOR_BITS} bits cannot "
                f"add what rounding does; use fewer fraction bits than {q.activation}"
            )


def sum_fraction(layer: IntegerLayer) -> int:
    """Fraction bits at which the terms of n's (GRU) or c's (LSTM) argument are added."""
    f = layer.formats
    n_g = f.gate.fraction_bits
    if layer.cell == "GRU":
        return max(f.memory_fraction_bits, f.address.fraction_bits + n_g)
    return n_g + max(f.cell.fraction_bits, n_g)


def is_dense(layer: IntegerLayer) -> bool:
    """Whether a layer's thresholds are 0: then its products are computed as a whole, without events."""
    return layer.thx == 0 and layer.thh == 0


def memory_type(network: IntegerNetwork) -> str:
    """The C type of the memories M: the narrowest that holds whatever any input can cause.

    Wide ones beside a dense part, whose words of activations are aligned as the memories before them are.
    """
    narrow = all(layer.memory_bound < 1 << 15 and not is_dense(layer) for layer in network.layers)
    return "int16_t" if narrow and not network.head else "int32_t"


def memory_size(layer: IntegerLayer) -> int:
    """Memories in the state: 4H, and those that only the padding of columns reaches."""
    hidden, rows = layer.hidden_size, layer.weight_hh.shape[0]
    return padded(max(4 * hidden, 4 * hidden - rows + padded(rows)))


def data_arrays(network: IntegerNetwork) -> dict[str, tuple[str, NDArray[np.int64]]]:
    """The constant arrays by name: C type and values.

    Recurrent weights lie column by column, padded to words with 0, or as `compressed` says; of a layer with thresholds
    0 unit by unit. Rows and memories of a GRU stand as nx, r, z, nh: what a column reaches is one stretch.
    """
    q = network.quantization
    weight, gate = (integer_type(f.bits) for f in (q.weight, q.gate))
    arrays: dict[str, tuple[str, NDArray[np.int64]]] = {}
    for name, table in zip(("sigmoid", "tanh"), network.layers[0].tables, strict=True):
        arrays[f"{name}_table"] = (gate, table.trimmed()[1])
    scale = start_scale(network)
    starts = [_candidate_first(layer, layer.memory) >> scale for layer in network.layers]
    bits = max(int(np.abs(values).max(initial=0)).bit_length() + 1 for values in starts)
    start = integer_type(bits) if bits <= 16 else "int32_t"
    stored = compressed(network)
    for index, layer in enumerate(network.layers):
        for name, matrix in recurrent_matrices(index, layer).items():
            if name in stored:
                arrays[f"{name}_places"] = ("uint8_t", stored[name].indices)
                arrays[name] = (weight, stored[name].values)
            elif is_dense(layer):
                arrays[name] = (weight, units(matrix, layer.hidden_size, is_swapped(network)))
            else:
                arrays[name] = (weight, columns(matrix))
        arrays[f"memory_{index}"] = (start, starts[index])
    for index, dense in enumerate(network.head):
        arrays[f"head_weight_{index}"] = (weight, units(dense.weight, len(dense.bias), is_swapped(network)))
        arrays[f"head_bias_{index}"] = ("int32_t", dense.bias)
    return arrays


def recurrent_matrices(index: int, layer: IntegerLayer) -> dict[str, IntArray]:
    """Both weight matrices by their names in C, rows in the order of the memories."""
    from_x = _candidate_first(layer, layer.weight_ih)
    return {f"weight_ih_{index}": from_x, f"weight_hh_{index}": layer.weight_hh}


def compressed(network: IntegerNetwork) -> dict[str, Compressed]:
    """By name, the matrices of layers with thresholds that take fewer bytes compressed; all with one number M."""
    width = 1 if network.quantization.weight.bits <= 8 else 2
    layers = [(index, layer) for index, layer in enumerate(network.layers) if not is_dense(layer)]
    matrices = {name: matrix for pair in layers for name, matrix in recurrent_matrices(*pair).items()}
    elements = best_elements(list(matrices.values()), width)
    fitting = {name: matrix for name, matrix in matrices.items() if matrix.shape[0] <= elements << INDEX_BITS}
    stored = {name: Compressed.of(matrix, elements) for name, matrix in fitting.items()}
    return {name: each for name, each in stored.items() if each.size(width) < columns(matrices[name]).size * width}


def _candidate_first(layer: IntegerLayer, rows: IntArray) -> IntArray:
    """Rows (3H or 4H, …) of a GRU turned from r, z, n(x) … to n(x), r, z …; of an LSTM as they are."""
    if layer.cell == "LSTM":
        return rows
    turned = np.roll(rows[: 3 * layer.hidden_size], layer.hidden_size, axis=0)
    return np.concatenate([turned, rows[3 * layer.hidden_size :]])


def start_scale(network: IntegerNetwork) -> int:
    """The power of two that all memories start at a multiple of: biases have fewer fraction bits than M."""
    together = int(np.bitwise_or.reduce(np.concatenate([layer.memory for layer in network.layers])))
    return (together & -together).bit_length() - 1 if together else 0


def is_swapped(network: IntegerNetwork) -> bool:
    """Whether four weights of a row lie as 0 2 1 3: bytes 0 and 2 are then products of one word of activations."""
    return network.quantization.weight.bits <= 8 < network.quantization.activation.bits
