"""C99 text of a quantised model: constant arrays, the shared runtime, and the functions of this model."""

from collections.abc import Iterable
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from deltarnn.fixed.cells import IntegerLayer
from deltarnn.fixed.network import ACCUMULATOR_BITS, IntegerNetwork
from deltarnn.fixed.parameters import UnsupportedModelError


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
        largest = max(largest, 2 * a * weight, (2 * n * n) << max(n_a - 2 * n_g, 0))
        if largest >= 1 << (ACCUMULATOR_BITS - 1):
            raise UnsupportedModelError(
                f"sums inside layer {index} can reach {largest}: {ACCUMULATOR_BITS} bits hold "
                f"{(1 << (ACCUMULATOR_BITS - 1)) - 1}; use fewer fraction bits than {q.activation}, {q.weight} and "
                f"{q.gate}"
            )


def sum_fraction(layer: IntegerLayer) -> int:
    """Fraction bits at which the terms of n's (GRU) or c's (LSTM) argument are added."""
    f = layer.formats
    n_g = f.gate.fraction_bits
    if layer.cell == "GRU":
        return max(f.memory_fraction_bits, f.address.fraction_bits + n_g)
    return n_g + max(f.cell.fraction_bits, n_g)


def data_arrays(network: IntegerNetwork) -> dict[str, tuple[str, NDArray[np.int64]]]:
    """The constant arrays by name: C type and values. Recurrent weights lie column by column."""
    q = network.quantization
    weight, gate = (integer_type(f.bits) for f in (q.weight, q.gate))
    arrays: dict[str, tuple[str, NDArray[np.int64]]] = {}
    for name, table in zip(("sigmoid", "tanh"), network.layers[0].tables, strict=True):
        arrays[f"{name}_table"] = (gate, table.trimmed()[1])
    for index, layer in enumerate(network.layers):
        arrays[f"weight_ih_{index}"] = (weight, layer.weight_ih.T.ravel())
        arrays[f"weight_hh_{index}"] = (weight, layer.weight_hh.T.ravel())
        arrays[f"memory_{index}"] = ("int32_t", layer.memory)
    for index, dense in enumerate(network.head):
        arrays[f"head_weight_{index}"] = (weight, dense.weight.ravel())
        arrays[f"head_bias_{index}"] = ("int32_t", dense.bias)
    return arrays


def source_text(network: IntegerNetwork, name: str) -> str:
    """The library: data, runtime, functions."""
    q, first = network.quantization, network.layers[0]
    sigmoid, tanh = (table.trimmed() for table in first.tables)
    macros = {
        "CELL_GRU": int(first.cell == "GRU"),
        "HEAD_LAYERS": len(network.head),
        "ROUND_NEAREST": int(q.rounding == "nearest"),
        "ACT_FRACTION": q.activation.fraction_bits,
        "ACT_MIN": f"({q.activation.int_min})",
        "ACT_MAX": q.activation.int_max,
        "GATE_FRACTION": q.gate.fraction_bits,
        "MEMORY_FRACTION": first.memory_fraction_bits,
        "SUM_FRACTION": sum_fraction(first),
        "SIGMOID_FIRST": f"({sigmoid[0]})",
        "SIGMOID_LAST": f"({sigmoid[0] + len(sigmoid[1]) - 1})",
        "TANH_FIRST": f"({tanh[0]})",
        "TANH_LAST": f"({tanh[0] + len(tanh[1]) - 1})",
    }
    types = {"act_t": q.activation.bits, "weight_t": q.weight.bits, "gate_t": q.gate.bits}
    parts = [
        f'/* Generated with {name}.h. */\n#include "{name}.h"\n\n#include <stddef.h>\n#include <string.h>\n',
        "\n".join(f"#define {macro} {value}" for macro, value in macros.items()),
        "\n".join(f"typedef {integer_type(bits)} {alias};" for alias, bits in types.items()),
        *(array_text(array, kind, values) for array, (kind, values) in data_arrays(network).items()),
        files("deltarnn.hardware").joinpath("runtime.c").read_text(encoding="utf-8"),
        _functions_text(network, name),
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def array_text(name: str, kind: str, values: NDArray[np.int64]) -> str:
    """A constant array definition."""
    return f"static const {kind} {name}[{values.size}] = {{\n{_lines(values.ravel().tolist())}\n}};"


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
    reset = ["    memset(state, 0, sizeof *state);"]
    step, signal = [], "input"
    for index, layer in enumerate(network.layers):
        hidden, gru = layer.hidden_size, layer.cell == "GRU"
        rows = (3 if gru else 4) * hidden
        # A GRU keeps what h adds to the candidate in M_nh, H rows further on.
        split, shift = (2 * hidden, hidden) if gru else (rows, 0)
        reset.append(f"    memcpy(state->m_{index}, memory_{index}, sizeof memory_{index});")
        step += [
            f"    add_changes({signal}, state->x_hat_{index}, {layer.input_size}, {layer.thx}, weight_ih_{index},",
            f"                {rows}, {rows}, 0, state->m_{index});",
            f"    add_changes(state->h_{index}, state->h_hat_{index}, {hidden}, {layer.thh}, weight_hh_{index},",
            f"                {rows}, {split}, {shift}, state->m_{index});",
            f"    update(state->m_{index}, {hidden}, state->h_{index}{'' if gru else f', state->c_{index}'});",
        ]
        signal = f"state->h_{index}"
    declarations = ["    int i;"]
    for index, dense in enumerate(network.head):
        outputs, inputs = dense.weight.shape
        acc = f"dense(head_weight_{index} + i * {inputs}, head_bias_{index}[i], {signal}, {inputs})"
        if dense.activation is None:
            result = f"output[i] = {acc};"
        else:
            declarations.append(f"    act_t dense_{index}[{outputs}];")
            declarations.append(f"    int32_t acc_{index};")
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
            *reset,
            "}",
            "",
            f"void {name}_step({arguments})",
            "{",
            *declarations,
            *step,
            "}",
        ]
    )


def test_text(network: IntegerNetwork, name: str, x: NDArray[np.int64], expected: NDArray[np.int64]) -> str:
    """A program that runs the vectors x (T, I) and compares with expected (T, O); it exits with 1 at a difference."""
    upper, act = name.upper(), integer_type(network.quantization.activation.bits)
    return f"""/* Test of {name}.c, generated: {len(x)} frames, every output compared. */
#include "{name}.h"

#include <stdio.h>

#define FRAMES {len(x)}

{array_text("stimulus", act, x)}

{array_text("expected", "int32_t", expected)}

int main(void)
{{
    static {name}_state state;
    int32_t output[{upper}_OUTPUTS];
    int t, i;
    {name}_reset(&state);
    for (t = 0; t < FRAMES; ++t) {{
        {name}_step(&state, stimulus + t * {upper}_INPUTS, output);
        for (i = 0; i < {upper}_OUTPUTS; ++i) {{
            if (output[i] != expected[t * {upper}_OUTPUTS + i]) {{
                printf("frame %d, output %d: %ld, expected %ld\\n", t, i, (long)output[i],
                       (long)expected[t * {upper}_OUTPUTS + i]);
                return 1;
            }}
        }}
    }}
    printf("%d frames equal; state %lu bytes\\n", FRAMES, (unsigned long)sizeof state);
    return 0;
}}
"""
