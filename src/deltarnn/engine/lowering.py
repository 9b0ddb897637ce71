"""Lowers a model's description to the native core's arguments: arrays in PyTorch's gate order, integers for int8."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltarnn.engine.description import Description
from deltarnn.fixed.cells import entering_biases, memory_start
from deltarnn.fixed.formats import LayerFormats
from deltarnn.fixed.qformat import QFormat, Quantization
from deltarnn.fixed.tables import LookUpTable, gate_tables
from deltarnn.fixed.verification import UnsupportedModelError

Layer = dict[str, Any]


def float32_layers(description: Description, bfloat16: bool = False) -> list[Layer]:
    """The recurrent layers in float32; bfloat16: their weights to be stored so."""
    cell = description.architecture["cell"]
    layers = []
    for index in range(description.architecture["num_layers"]):
        biases = entering_biases(cell, description.layer(index, "bias_ih"), description.layer(index, "bias_hh"))
        layers.append(
            {
                **_shape(description, index),
                "bfloat16": bfloat16,
                "hard": description.architecture["hard_activations"],
                "relu": description.candidate == "relu",
                "thx": description.header["thx"][index],
                "thh": description.header["thh"][index],
                "memory": _contiguous(biases, np.float32),
                **{name: _contiguous(w, np.float32) for name, w in _weights(description, index).items()},
            }
        )
    return layers


def check_integer_form(description: Description) -> None:
    """Raise UnsupportedModelError for a GRU without fixed-point arithmetic (MATH §2)."""
    if not description.reset_after or description.candidate != "tanh":
        option = "reset_after=False" if not description.reset_after else f"candidate={description.candidate!r}"
        raise UnsupportedModelError(f"precision='int8' does not combine with {option}: use precision='float32'")


def int8_layers(description: Description, formats: Sequence[LayerFormats]) -> list[Layer]:
    """The recurrent layers in integers (MATH §6), one entry of `formats` each; thresholds must lie on their grids.

    Raises
    ------
    UnsupportedModelError
        If a format has more bits than the core holds.

    Warns
    -----
    UserWarning
        Naming each matrix that its format clips; not of a layer with these formats, which was clipped in training.
    """
    own = description.quantization
    cell = description.architecture["cell"]
    layers = []
    for index, f in enumerate(formats):
        weights = _weights(description, index)
        grids = {"weight_ih": f.weight_ih, "weight_hh": f.weight_hh, "weight_hr": f.weight_hh}
        # The quantised layers add float32 biases in float32 before they round them to W.
        own_bias = [description.layer(index, name) for name in ("bias_ih", "bias_hh")]
        exact_bias = own_bias if f.bias is not None else [bias.astype(np.float64) for bias in own_bias]
        biases = entering_biases(cell, *exact_bias)
        if own is None or own.weight != f.bias:
            for name, values in weights.items():
                _warn_if_clipped(f"{name} of layer {index}", values, grids[name])
            if f.bias is not None:
                _warn_if_clipped(f"bias of layer {index}", biases, f.bias)
        stored = {name: grids[name].to_int(values) for name, values in weights.items()}
        _check_bits(f, stored)
        tables = Quantization(f.address, gate=f.gate, rounding=f.rounding)
        sigmoid, tanh = gate_tables(tables, description.architecture["hard_activations"])
        layers.append(
            {
                **_shape(description, index),
                **{f"{name}_format": (grid.bits, grid.fraction_bits) for name, grid in _activations(f).items()},
                "memory_fraction": f.memory_fraction_bits,
                "gate_fraction": f.gate.fraction_bits,
                "projection_fraction": f.weight_hh.fraction_bits,
                "floor": f.rounding == "floor",
                "thx": int(f.input.to_int(description.header["thx"][index])),
                "thh": int(f.hidden.to_int(description.header["thh"][index])),
                "sigmoid": _table(sigmoid),
                "tanh": _table(tanh),
                "memory": memory_start(biases, cell, f),
                **{name: _contiguous(values, np.int8) for name, values in stored.items()},
            }
        )
    return layers


def _activations(f: LayerFormats) -> dict[str, QFormat]:
    return {"input": f.input, "hidden": f.hidden, "cell": f.cell, "address": f.address}


def _check_bits(f: LayerFormats, stored: dict[str, NDArray[np.int64]]) -> None:
    for name, grid in {**_activations(f), "gate": f.gate}.items():
        if grid.bits > 16:
            raise UnsupportedModelError(f"{name} format {grid} has {grid.bits} bits: the int8 engine holds at most 16")
    if f.bias is not None and f.bias.bits > 8:  # the one format of weights and biases
        raise UnsupportedModelError(f"weight format {f.bias} has {f.bias.bits} bits: the int8 engine holds at most 8")
    for name, values in stored.items():
        if values.min() < -128 or values.max() > 127:
            grid = f.weight_ih if name == "weight_ih" else f.weight_hh
            raise UnsupportedModelError(
                f"{name} needs more than 8 bits in {grid}: the int8 engine holds 8, so use fewer fraction bits"
            )


def narrower_quantization(description: Description, quantization: Quantization, core: Any) -> Quantization | None:
    """The formats nearest to `quantization` with which every layer's sums fit 32 bits; None if there are none.

    Fraction bits are taken from the activations, else from the gates, else from both.
    """
    a, n = quantization.activation, quantization.gate
    for taken in range(1, max(a.fraction_bits, n.fraction_bits) + 1):
        for of_a, of_n in ((taken, 0), (0, taken), (taken, taken)):
            if of_a > a.fraction_bits or of_n > n.fraction_bits:
                continue
            candidate = replace(
                quantization,
                activation=QFormat(a.integer_bits, a.fraction_bits - of_a),
                gate=QFormat(n.integer_bits, n.fraction_bits - of_n),
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of clipped weights: the same as now
                layers = int8_layers(
                    description, (LayerFormats.uniform(candidate),) * description.architecture["num_layers"]
                )
            if not any(core.needs_wide(layer) for layer in layers):
                return candidate
    return None


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


def rounded_thresholds(
    description: Description, formats: Sequence[LayerFormats], tolerance: float = 0.0
) -> Description:
    """The description with its thresholds on the grids of x and h (MATH §6).

    Raises
    ------
    ValueError
        If a threshold > 0 would round to 0.

    Warns
    -----
    UserWarning
        Naming each threshold that changed, by more than `tolerance` times its value, and its new value.
    """
    header = dict(description.header)
    for name, grids in (("thx", [f.input for f in formats]), ("thh", [f.hidden for f in formats])):
        rounded = [grid.round_threshold(value) for grid, value in zip(grids, header[name], strict=True)]
        for index, (before, after, grid) in enumerate(zip(header[name], rounded, grids, strict=True)):
            if abs(after - before) > tolerance * before and f"{before:g}" != f"{after:g}":
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


def _warn_if_clipped(name: str, values: NDArray[Any], target: QFormat) -> None:
    peak = float(values.flat[np.abs(values).argmax()])
    if not target.min - target.step <= peak <= target.max + target.step:
        warnings.warn(
            f"{name} reaches {peak:.4g}: {target} holds {target.min:g} to {target.max:g} and clips it; give a "
            "quantization whose weight format has more integer bits, or train with one",
            stacklevel=5,
        )
