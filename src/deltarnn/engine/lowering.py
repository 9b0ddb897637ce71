"""From a model's description to what the native core takes: arrays in PyTorch's gate order, integers for int8."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltarnn.engine.description import Description
from deltarnn.fixed.arithmetic import requantize
from deltarnn.fixed.cells import entering_biases
from deltarnn.fixed.qformat import QFormat, Quantization
from deltarnn.fixed.tables import LookUpTable, gate_tables
from deltarnn.fixed.verification import UnsupportedModelError

Layer = dict[str, Any]


def float32_layers(description: Description) -> list[Layer]:
    """The recurrent layers in float32."""
    cell = description.architecture["cell"]
    layers = []
    for index in range(description.architecture["num_layers"]):
        biases = entering_biases(cell, description.layer(index, "bias_ih"), description.layer(index, "bias_hh"))
        layers.append(
            {
                **_shape(description, index),
                "hard": description.architecture["hard_activations"],
                "relu": description.candidate == "relu",
                "thx": description.header["thx"][index],
                "thh": description.header["thh"][index],
                "memory": _contiguous(biases, np.float32),
                **{name: _contiguous(w, np.float32) for name, w in _weights(description, index).items()},
            }
        )
    return layers


def int8_layers(description: Description, quantization: Quantization) -> list[Layer]:
    """The recurrent layers in integers (MATH §6); thresholds must lie on the activation grid.

    Raises
    ------
    UnsupportedModelError
        If a format has more bits than the core holds, or the GRU is one without integer arithmetic.

    Warns
    -----
    UserWarning
        Naming each matrix that W clips; not of a layer with these formats, which was clipped to them in training.
    """
    if not description.reset_after or description.candidate != "tanh":
        option = "reset_after=False" if not description.reset_after else f"candidate={description.candidate!r}"
        raise UnsupportedModelError(f"precision='int8' does not combine with {option}: use precision='float32'")
    a, w, n = quantization.activation, quantization.weight, quantization.gate
    for name, fmt, bits in (("activation", a, 16), ("weight", w, 8), ("gate", n, 16)):
        if fmt.bits > bits:
            raise UnsupportedModelError(
                f"{name} format {fmt} has {fmt.bits} bits: the int8 engine holds at most {bits}"
            )
    trained_on_grid = description.quantization is not None and description.quantization.weight == w
    cell = description.architecture["cell"]
    sigmoid, tanh = gate_tables(quantization, description.architecture["hard_activations"])
    layers = []
    for index in range(description.architecture["num_layers"]):
        weights = _weights(description, index)
        biases = entering_biases(cell, description.layer(index, "bias_ih"), description.layer(index, "bias_hh"))
        if not trained_on_grid:
            for name, values in {**weights, "bias": biases}.items():
                _warn_if_clipped(f"{name} of layer {index}", values, w)
        layers.append(
            {
                **_shape(description, index),
                "activation_bits": a.bits,
                "activation_fraction": a.fraction_bits,
                "weight_fraction": w.fraction_bits,
                "gate_fraction": n.fraction_bits,
                "floor": quantization.rounding == "floor",
                "thx": int(a.to_int(description.header["thx"][index])),
                "thh": int(a.to_int(description.header["thh"][index])),
                "sigmoid": _table(sigmoid),
                "tanh": _table(tanh),
                "memory": _memory(cell, biases, quantization),
                **{name: _contiguous(w.to_int(values), np.int8) for name, values in weights.items()},
            }
        )
    return layers


def head_layers(description: Description) -> list[Layer]:
    """The dense head, in float32 whatever the precision of the recurrent layers."""
    return [
        {
            "inputs": weight.shape[1],
            "outputs": weight.shape[0],
            "relu": relu,
            "weight": _contiguous(weight, np.float32),
            "bias": _contiguous(bias, np.float32),
        }
        for weight, bias, relu in description.head()
    ]


def rounded_thresholds(description: Description, quantization: Quantization) -> Description:
    """The description with its thresholds on the activation grid (MATH §6).

    Raises
    ------
    ValueError
        If a threshold > 0 would round to 0.

    Warns
    -----
    UserWarning
        Naming each threshold that changed, and its new value.
    """
    header = dict(description.header)
    for name in ("thx", "thh"):
        rounded = [quantization.round_threshold(value) for value in header[name]]
        for index, (before, after) in enumerate(zip(header[name], rounded, strict=True)):
            if before != after:
                grid = quantization.activation
                warnings.warn(
                    f"{name} of layer {index} rounded from {before:g} to {after:g}, on the grid of {grid}", stacklevel=4
                )
        header[name] = rounded
    return Description(description.tensors, header)


def _shape(description: Description, index: int) -> Layer:
    a = description.architecture
    return {
        "lstm": a["cell"] == "LSTM",
        "input": description.layer(index, "weight_ih").shape[1],
        "hidden": a["hidden_size"],
        "projection": a["proj_size"],
        "reset_before": not description.reset_after,
    }


def _weights(description: Description, index: int) -> dict[str, NDArray[Any]]:
    names = ["weight_ih", "weight_hh"] + (["weight_hr"] if description.architecture["proj_size"] else [])
    return {name: description.layer(index, name) for name in names}


def _contiguous(values: NDArray[Any], dtype: Any) -> NDArray[Any]:
    return np.ascontiguousarray(values, dtype=dtype)


def _table(table: LookUpTable) -> tuple[int, list[int]]:
    first, entries = table.trimmed()
    return first, entries.tolist()


def _memory(cell: str, biases: NDArray[Any], q: Quantization) -> NDArray[np.int64]:
    """M before the first step: the biases rounded to W, b_hn to A as well, with n_A + n_W fraction bits (MATH §6)."""
    rounded = q.weight.to_int(biases)
    memory = rounded << q.activation.fraction_bits
    if cell == "GRU":
        hidden = len(biases) // 4
        b_hn = requantize(rounded[3 * hidden :], q.weight.fraction_bits, q.activation, q.rounding)
        memory[3 * hidden :] = b_hn << q.weight.fraction_bits
    return memory


def _warn_if_clipped(name: str, values: NDArray[Any], target: QFormat) -> None:
    peak = float(values.flat[np.abs(values).argmax()])
    if not target.min - target.step <= peak <= target.max + target.step:
        warnings.warn(
            f"{name} reaches {peak:.4g}: {target} holds {target.min:g} to {target.max:g} and clips it; give a "
            "quantization whose weight format has more integer bits, or train with one",
            stacklevel=5,
        )
