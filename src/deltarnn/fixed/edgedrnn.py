"""The EdgeDRNN profile: a stack of DeltaGRU layers in the integers of that accelerator (MATH §6, JETCAS 2020).

Bit-exact with simulation of the accelerator's public RTL: activations Q8.8, weights Q1.7, 24-bit memories with 15
fraction bits, both tables with entries in multiples of 1/16.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deltarnn.fixed.arithmetic import IntArray, shift_right, wrap
from deltarnn.fixed.qformat import QFormat
from deltarnn.fixed.tables import LookUpTable

ACTIVATION = QFormat(8, 8)
WEIGHT = QFormat(1, 7)
GATE = QFormat(2, 4)
MEMORY_BITS = 24
THRESHOLD_MAX = 1023
"""The threshold registers have 10 bits, in 1/256."""
BIAS_DELTA = 256
"""What the bias column sees as its input: the constant 1.0, once."""

SIGMOID = LookUpTable("sigmoid", ACTIVATION, GATE)
TANH = LookUpTable("tanh", ACTIVATION, GATE)

LayerWeights = tuple[ArrayLike, ArrayLike, ArrayLike]
FiredColumns = list[list[list[int]]]


class _Layer(NamedTuple):
    """Columns in their order of the weight memory, as rows of an exact float64 matrix (I + H, 3H); bias (3H,)."""

    columns: NDArray[np.float64]
    bias: IntArray
    input_size: int
    hidden_size: int


@overload
def edgedrnn_forward(
    x: ArrayLike, layers: Sequence[LayerWeights], thx: int, thh: int, return_fired: Literal[False] = False
) -> NDArray[np.int16]: ...
@overload
def edgedrnn_forward(
    x: ArrayLike, layers: Sequence[LayerWeights], thx: int, thh: int, return_fired: Literal[True]
) -> tuple[NDArray[np.int16], FiredColumns]: ...
def edgedrnn_forward(
    x: ArrayLike, layers: Sequence[LayerWeights], thx: int, thh: int, return_fired: bool = False
) -> NDArray[np.int16] | tuple[NDArray[np.int16], FiredColumns]:
    """Run a stack of DeltaGRU layers from reset, in EdgeDRNN's arithmetic.

    Per step and layer, with M 24-bit wrapping accumulators and rne(·, s) a half-to-even shift:

        r = σ(rne(M_r, 7));  u = σ(rne(M_u, 7));  c = tanh(rne(2·M_cx + r·rne(M_ch, 7), 8))
        h = rne((256 − u)·c, 8) + rne(u·h, 8)

    Parameters
    ----------
    x: (T, I) integers in Q8.8 (int16 range).
    layers: per layer (weight_ih (3H, I), weight_hh (3H, H), bias (3H,)) int8 in Q1.7, rows r, u, c.
    thx: threshold on every layer's input, in 1/256; at most 256, beyond which the bias column would never fire.
    thh: threshold on every layer's hidden state, in 1/256; at most 1023.
    return_fired: also return which columns fired.

    Returns
    -------
    y: (T, H) int16, the hidden states of the last layer; with `return_fired` also, per step, one rising list of column
        indices per layer: 0 the bias, 1..I the inputs, I+1..I+H the hidden units.

    Raises
    ------
    ValueError
        If shapes do not fit, or values are outside their words.
    """
    frames = _integers(x, "x", 2, ACTIVATION)
    stack = _check(layers, frames.shape[1])
    _check_threshold("thx", thx, BIAS_DELTA, "a larger one keeps the bias column from ever firing")
    _check_threshold("thh", thh, THRESHOLD_MAX, "the register has 10 bits")

    fired: FiredColumns = [[] for _ in range(len(frames))]
    for layer in stack:
        frames = _run_layer(frames, layer, thx, thh, fired)
    y = frames.astype(np.int16)
    return (y, fired) if return_fired else y


def _run_layer(x: IntArray, layer: _Layer, thx: int, thh: int, fired: FiredColumns) -> IntArray:
    size, inputs = layer.hidden_size, layer.input_size
    threshold = np.concatenate([np.full(inputs, thx), np.full(size, thh)])
    held = np.zeros(inputs + size, dtype=np.int64)
    h = np.zeros(size, dtype=np.int64)
    m_ch = np.zeros(size, dtype=np.int64)
    memory = wrap(layer.bias * BIAS_DELTA, MEMORY_BITS)  # r, u, cx; the bias column of step 0
    y = np.empty((len(x), size), dtype=np.int64)
    for t, frame in enumerate(x):
        delta = np.concatenate([frame, h]) - held
        columns = np.flatnonzero((np.abs(delta) >= threshold) & (delta != 0))
        held[columns] += delta[columns]
        fired[t].append([0] * (t == 0) + (columns + 1).tolist())

        # float64 products of these integers are exact (sums stay far below 2⁵³) and use the BLAS.
        split = int(np.searchsorted(columns, inputs))
        from_x, from_h = (
            (delta[part].astype(np.float64) @ layer.columns[part]).astype(np.int64)
            for part in (columns[:split], columns[split:])
        )
        memory = memory + from_x
        memory[: 2 * size] += from_h[: 2 * size]
        memory = wrap(memory, MEMORY_BITS)
        m_ch = wrap(m_ch + from_h[2 * size :], MEMORY_BITS)

        m_r, m_u, m_cx = memory.reshape(3, size)
        r, u = (SIGMOID(shift_right(m, 7)) * 16 for m in (m_r, m_u))
        c = TANH(shift_right(2 * m_cx + r * shift_right(m_ch, 7), 8)) * 16
        h = shift_right((256 - u) * c, 8) + shift_right(u * h, 8)
        y[t] = h
    return y


def _check(layers: Sequence[LayerWeights], input_size: int) -> list[_Layer]:
    if not layers:
        raise ValueError("layers is empty: at least one (weight_ih, weight_hh, bias) is needed")
    stack = []
    for index, (weight_ih, weight_hh, bias) in enumerate(layers):
        w_ih = _integers(weight_ih, f"weight_ih of layer {index}", 2, WEIGHT)
        w_hh = _integers(weight_hh, f"weight_hh of layer {index}", 2, WEIGHT)
        b = _integers(bias, f"bias of layer {index}", 1, WEIGHT)
        hidden = w_hh.shape[1]
        for name, array, expected in (
            ("weight_ih", w_ih, (3 * hidden, input_size)),
            ("weight_hh", w_hh, (3 * hidden, hidden)),
            ("bias", b, (3 * hidden,)),
        ):
            if array.shape != expected:
                raise ValueError(f"{name} of layer {index} has shape {array.shape}: must be {expected}")
        columns = np.ascontiguousarray(np.concatenate([w_ih, w_hh], axis=1).T, dtype=np.float64)
        stack.append(_Layer(columns, b, input_size, hidden))
        input_size = hidden
    return stack


def _integers(values: ArrayLike, name: str, ndim: int, word: QFormat) -> IntArray:
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} has dtype {array.dtype}: must be integers, stored as {word}")
    if array.ndim != ndim:
        raise ValueError(f"{name} has shape {array.shape}: must have {ndim} dimensions")
    if array.size and not (word.int_min <= array.min() and array.max() <= word.int_max):
        raise ValueError(
            f"{name} holds integers from {array.min()} to {array.max()}: {word} stores {word.int_min} to {word.int_max}"
        )
    return array.astype(np.int64)


def _check_threshold(name: str, value: int, limit: int, why: str) -> None:
    if isinstance(value, bool) or not 0 <= value <= limit or int(value) != value:
        raise ValueError(f"{name}={value!r}: must be a whole number of 1/256 from 0 to {limit}; {why}")
