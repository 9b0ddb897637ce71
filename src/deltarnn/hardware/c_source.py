"""C99 text of a quantised model: constant arrays, the shared runtime, and the functions of this model."""

from collections.abc import Iterable
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from deltarnn.fixed.cells import IntegerLayer
from deltarnn.fixed.network import IntegerNetwork
from deltarnn.hardware.c_data import (
    compressed,
    data_arrays,
    integer_type,
    is_dense,
    is_swapped,
    memory_type,
    recurrent_matrices,
    start_scale,
    sum_fraction,
)
from deltarnn.hardware.c_weights import padded

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
