"""C99 text of a quantised model: constant arrays, the shared runtime, and the functions of this model."""

from collections.abc import Iterable
from importlib.resources import files

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
        # Rounding adds at most half of what is shifted out.
        largest = max(largest, layer.memory_bound) + (1 << max(sum_fraction(layer) - n_a, 0))
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


DUAL_TEXT = """\
#if defined(__ARM_FEATURE_SAT) && __ARM_FEATURE_SAT
#include <arm_acle.h>
#define SATURATING
#endif
/* Dual multiply-accumulates of four 8-bit weights a word, where the core has them. */
#if WEIGHT_BITS <= 8 && defined(__ARM_FEATURE_SIMD32) && __ARM_FEATURE_SIMD32 && !defined(__ARM_BIG_ENDIAN)
#define DUAL 1
#define LANES (ACT_BITS > 8 ? 2 : 4)
#define ALIGNED __attribute__((aligned(4)))
#else
#define DUAL 0
#define ALIGNED
#endif"""


def source_text(network: IntegerNetwork, name: str) -> str:
    """The library: data, runtime, functions."""
    q, first = network.quantization, network.layers[0]
    sigmoid, tanh = (table.trimmed() for table in first.tables)
    arrays, stored = data_arrays(network), compressed(network)
    macros = {
        "CELL_GRU": int(first.cell == "GRU"),
        "GATES": 3 if first.cell == "GRU" else 4,
        "DENSE_LAYERS": sum(is_dense(layer) for layer in network.layers),
        "EVENTS": int(not all(is_dense(layer) for layer in network.layers)),
        "PLAIN": int(len(stored) < 2 * sum(not is_dense(layer) for layer in network.layers)),
        "ELEMENTS": next((each.elements for each in stored.values()), 0),
        "HEAD_LAYERS": len(network.head),
        "ROUND_NEAREST": int(q.rounding == "nearest"),
        "SWAPPED": int(is_swapped(network)),
        "WEIGHT_BITS": q.weight.bits,
        "ACT_BITS": q.activation.bits,
        "ACT_FRACTION": q.activation.fraction_bits,
        "ACT_MIN": f"({q.activation.int_min})",
        "ACT_MAX": q.activation.int_max,
        "GATE_FRACTION": q.gate.fraction_bits,
        "MEMORY_FRACTION": first.memory_fraction_bits,
        "SUM_FRACTION": sum_fraction(first),
        "START_SCALE": start_scale(network),
        "SIGMOID_FIRST": f"({sigmoid[0]})",
        "SIGMOID_LAST": f"({sigmoid[0] + len(sigmoid[1]) - 1})",
        "TANH_FIRST": f"({tanh[0]})",
        "TANH_LAST": f"({tanh[0] + len(tanh[1]) - 1})",
    }
    types = {alias: integer_type(getattr(q, part).bits) for alias, part in TYPES.items()}
    types |= {"memory_t": memory_type(network), "start_t": arrays["memory_0"][0]}
    parts = [
        f'/* Generated with {name}.h. */\n#include "{name}.h"\n',
        "\n".join(f"#define {macro} {value}" for macro, value in macros.items()),
        DUAL_TEXT,
        "\n".join(f"typedef {kind} {alias};" for alias, kind in types.items()),
        *(array_text(array, kind, values) for array, (kind, values) in arrays.items()),
        files("deltarnn.hardware").joinpath("runtime.c").read_text(encoding="utf-8"),
        _functions_text(network, name),
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


TYPES = {"act_t": "activation", "weight_t": "weight", "gate_t": "gate"}


def array_text(name: str, kind: str, values: NDArray[np.int64]) -> str:
    """A constant array definition."""
    aligned = " ALIGNED" if "weight" in name else ""
    return f"static const {kind} {name}[{values.size}]{aligned} = {{\n{_lines(values.ravel().tolist())}\n}};"


def _lines(values: Iterable[int], width: int = 118) -> str:
    lines, line = [], ""
    for value in values:
        item = f"{value},"
        if len(line) + len(item) > width:
            lines.append(line)
            line = ""
        line += item
    return "\n".join([*lines, line])


def _functions_text(network: IntegerNetwork, name: str) -> str:
    reset = ["    for (i = 0; i < (int)sizeof *state; ++i) {", "        bytes[i] = 0;", "    }"]
    declarations, step, signal = _matrices_text(network), [], "input"
    for index, layer in enumerate(network.layers):
        reset += _start_text(index, layer)
        step += _dense_layer(index, layer, signal) if is_dense(layer) else _delta_layer(index, layer, signal)
        step.append(
            f"    update(state->m_{index}, {layer.hidden_size}, state->h_{index}"
            f"{'' if layer.cell == 'GRU' else f', state->c_{index}'});"
        )
        signal = f"state->h_{index}"
    for index, dense in enumerate(network.head):
        outputs, inputs = len(dense.bias), padded(dense.weight.shape[1])
        acc = f"dense(head_weight_{index} + i * {inputs}, head_bias_{index}[i], {signal}, {inputs})"
        if dense.activation is None:
            result = f"output[i] = {acc};"
        else:
            rest = " = {0}" if outputs % 4 else ""
            declarations += [f"    act_t dense_{index}[{padded(outputs)}] ALIGNED{rest};", f"    int32_t acc_{index};"]
            result = (
                f"acc_{index} = {acc};\n        "
                f"dense_{index}[i] = (act_t)to_act(acc_{index} > 0 ? acc_{index} : 0, {dense.fraction_bits});"
            )
            signal = f"dense_{index}"
        step += [f"    for (i = 0; i < {outputs}; ++i) {{", f"        {result}", "    }"]
    if not network.head:
        step += [f"    for (i = 0; i < {network.output_size}; ++i) {{", f"        output[i] = {signal}[i];", "    }"]
    act, upper = integer_type(network.quantization.activation.bits), name.upper()
    arguments = f"{name}_state *state, const {act} input[{upper}_INPUTS], int32_t output[{upper}_OUTPUTS]"
    return "\n".join(
        [
            f"void {name}_reset({name}_state *state)",
            "{",
            "    unsigned char *bytes = (unsigned char *)state;",
            "    int i;",
            *reset,
            "}",
            "",
            f"void {name}_step({arguments})",
            "{",
            "    int i;",
            *declarations,
            *step,
            "}",
        ]
    )


def _matrices_text(network: IntegerNetwork) -> list[str]:
    """Declarations that say how each matrix of events is stored."""
    stored, texts = compressed(network), []
    for index, layer in enumerate(network.layers):
        for name, matrix in ({} if is_dense(layer) else recurrent_matrices(index, layer)).items():
            if name in stored:
                fields = f"{name}, {name}_places, {stored[name].elements * stored[name].length}"
            else:
                fields = f"{name}, 0, {padded(matrix.shape[0])}"
            texts.append(f"    const struct matrix matrix_{name[7:]} = {{{fields}}};")
    return texts


def _delta_layer(index: int, layer: IntegerLayer, signal: str) -> list[str]:
    """The products of one layer's events."""
    from_h = 4 * layer.hidden_size - layer.weight_hh.shape[0]
    # An integer Δ ≠ 0 has at least 1: threshold 0 is 1.
    return [
        f"    add_changes({signal}, state->x_hat_{index}, {layer.input_size}, {max(layer.thx, 1)}, &matrix_ih_{index},",
        f"                state->m_{index});",
        f"    add_changes(state->h_{index}, state->h_hat_{index}, {layer.hidden_size}, {max(layer.thh, 1)},"
        f" &matrix_hh_{index},",
        f"                state->m_{index}{f' + {from_h}' if from_h else ''});",
    ]


def _dense_layer(index: int, layer: IntegerLayer, signal: str) -> list[str]:
    """The products of one layer without thresholds."""
    hidden, inputs, inner = layer.hidden_size, padded(layer.input_size), padded(layer.hidden_size)
    from_h = 4 * hidden - layer.weight_hh.shape[0]
    return [
        *_start_text(index, layer),
        f"    for (i = 0; i < {layer.input_size}; ++i) {{",
        f"        state->x_hat_{index}[i] = {signal}[i];",
        "    }",
        f"    multiply(state->x_hat_{index}, {inputs}, weight_ih_{index}, {hidden}, state->m_{index});",
        f"    multiply(state->h_{index}, {inner}, weight_hh_{index}, {hidden}, state->m_{index} + {from_h});",
    ]


def _start_text(index: int, layer: IntegerLayer) -> list[str]:
    """M at its biases."""
    return [
        f"    for (i = 0; i < {4 * layer.hidden_size}; ++i) {{",
        f"        state->m_{index}[i] = (memory_t)(memory_{index}[i] * POW2(START_SCALE));",
        "    }",
    ]
