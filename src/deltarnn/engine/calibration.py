"""Formats for int8, tensor by tensor, from a model's weights and what its signals reach on calibration data."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deltarnn.engine.description import Description
from deltarnn.engine.lowering import float32_layers
from deltarnn.fixed.cells import entering_biases
from deltarnn.fixed.formats import LayerFormats
from deltarnn.fixed.qformat import QFormat
from deltarnn.fixed.verification import UnsupportedModelError
from deltarnn.native import native_core

HEADROOM = 2.0
"""How far beyond what the calibration data reached a signal may go before it saturates."""

ADDRESS_FRACTION_BITS = 9
"""Of what σ and tanh look up: their tables then have at most 10 000 entries, and stay in the caches."""

MAX_EXCESS = 13
"""Fraction bits that M may have beyond the address, and N at all, for gates in 32 bits (MATH §6)."""

MIN_HIDDEN_FRACTION_BITS = 8
ACCUMULATOR_LIMIT = (1 << 31) - 1


def automatic_formats(description: Description, sequences: Sequence[NDArray[np.float32]]) -> tuple[LayerFormats, ...]:
    """Formats of each layer that use the 8 bits of the weights and the 16 of the activations, in 32-bit accumulators.

    Weights: the most fraction bits that hold each matrix. x, c: the most that hold what the data reached, twice; h: all
    it can reach. Both of x and h are lowered, together, until M's largest value fits 32 bits for certain.

    sequences: (T, I) each, from reset.

    Raises
    ------
    UnsupportedModelError
        If weights or signals are too large for any format, or the layer has no such integer form.
    """
    if description.architecture["proj_size"]:
        raise UnsupportedModelError(
            "calibration does not combine with proj_size: give formats with quantization=, or use precision='bfloat16'"
        )
    inputs = max(float(np.abs(frames).max(initial=0)) for frames in sequences)
    cells = _largest_cells(description, sequences)
    formats = []
    for index, largest_cell in enumerate(cells):
        try:
            formats.append(_layer_formats(description, index, HEADROOM * inputs if index == 0 else 1.0, largest_cell))
        except UnsupportedModelError as error:
            raise UnsupportedModelError(f"layer {index}: {error}") from None
    return tuple(formats)


def calibration_sequences(calibration: Any, input_size: int) -> list[NDArray[np.float32]]:
    """Calibration data (T, I), or a list of such sequences, checked."""
    given: list[ArrayLike] = list(calibration) if isinstance(calibration, (list, tuple)) else [calibration]
    sequences = [np.asarray(frames, dtype=np.float32) for frames in given]
    for frames in sequences:
        if frames.ndim != 2 or frames.shape[1] != input_size or not frames.size:
            raise ValueError(f"calibration has shape {frames.shape}: must be (T, {input_size}), or a list of such")
        if not np.isfinite(frames).all():
            raise ValueError("calibration holds NaN or infinity, from which no range can be taken")
    if not sequences:
        raise ValueError("calibration is empty: give frames (T, I) that are typical of the model's input")
    return sequences


def _largest_cells(description: Description, sequences: Sequence[NDArray[np.float32]]) -> list[float]:
    """Per layer the largest |c| of an LSTM in float32; 0 for a GRU."""
    largest = [0.0] * description.architecture["num_layers"]
    if description.architecture["cell"] == "GRU":
        return largest
    core = native_core()
    assert core is not None  # the engine was asked for
    stream = core.Model.float32(float32_layers(description), []).stream()
    for frames in sequences:
        stream.reset()
        for frame in frames:
            stream.step(frame)
            for index, before in enumerate(largest):
                largest[index] = max(before, float(np.abs(stream.read(index, "c")).max()))
    return largest


def _layer_formats(description: Description, index: int, x_reach: float, c_reach: float) -> LayerFormats:
    weights = [description.layer(index, name).astype(np.float64) for name in ("weight_ih", "weight_hh")]
    names = [description.layer(index, name) for name in ("bias_ih", "bias_hh")]
    biases = entering_biases(description.architecture["cell"], *names)
    w_x, w_h = (_weight_fraction_bits(weight) for weight in weights)
    x_integer_bits = 1 + max(0, _integer_bits(x_reach, "x"))
    m = min(16 - x_integer_bits + w_x, 15 + w_h, ADDRESS_FRACTION_BITS + MAX_EXCESS)
    w_h = min(w_h, max(m - MIN_HIDDEN_FRACTION_BITS, 0))
    while m >= max(w_x, w_h) and _memory_bound(weights, biases, (w_x, w_h), m, x_integer_bits) > ACCUMULATOR_LIMIT:
        m -= 1
    if m < max(w_x, w_h):
        raise UnsupportedModelError(
            f"its weights on inputs up to {x_reach:.3g}, with headroom, leave no fraction bits in 32-bit accumulators: "
            "scale the inputs down"
        )
    p = min(ADDRESS_FRACTION_BITS, m)
    hidden = QFormat(1, m - w_h)
    lstm = description.architecture["cell"] == "LSTM"
    cell, gate = _cell_formats(c_reach) if lstm else (hidden, QFormat(2, MAX_EXCESS))
    return LayerFormats(
        input=QFormat(x_integer_bits, m - w_x),
        hidden=hidden,
        cell=cell,
        address=QFormat(16 - p, p),
        weight_ih=QFormat(max(1, 8 - w_x), w_x),
        weight_hh=QFormat(max(1, 8 - w_h), w_h),
        gate=gate,
    )


def _memory_bound(
    weights: Sequence[NDArray[np.float64]],
    biases: NDArray[Any],
    fraction_bits: tuple[int, int],
    m: int,
    x_integer_bits: int,
) -> float:
    """An upper bound of |M|, in its steps, over all inputs."""
    w_x, w_h = fraction_bits
    rows = [np.abs(np.rint(w * 2.0**n)).sum(axis=1) for w, n in zip(weights, fraction_bits, strict=True)]
    reach = rows[0] * 2.0 ** (x_integer_bits - 1 + m - w_x) + rows[1] * 2.0 ** (m - w_h)
    return float(reach.max() + np.abs(biases).max() * 2.0**m)


def _cell_formats(c_reach: float) -> tuple[QFormat, QFormat]:
    """Of c and the gates of an LSTM: f ∘ c + i ∘ g must fit 30 bits."""
    c = 15 - max(0, _integer_bits(HEADROOM * c_reach, "c"))
    for n in range(MAX_EXCESS, 3, -1):
        common = max(c, n)
        if 15 + n + common - c <= 29 and n + common <= 29:
            return QFormat(16 - c, c), QFormat(2, n)
    raise UnsupportedModelError(f"the cell state reaches {c_reach:.3g}: no format of 16 bits holds it beside the gates")


def _weight_fraction_bits(weight: NDArray[np.float64]) -> int:
    """The most, up to 20, with which every weight is at most 127 steps."""
    largest = float(np.abs(weight).max(initial=0))
    for bits in range(20, -1, -1):
        if np.rint(largest * 2.0**bits) <= 127:
            return bits
    raise UnsupportedModelError(f"weights reach {largest:.4g}: 8 bits hold at most 127")


def _integer_bits(reach: float, name: str) -> int:
    """The fewest bits before the point, sign not counted, that hold ±reach; negative for small values."""
    bits = int(np.ceil(np.log2(reach))) if reach > 0 else 0
    if bits > 15:
        raise UnsupportedModelError(f"{name} reaches {reach:.4g}, with headroom: 16 bits hold at most 32767")
    return bits
