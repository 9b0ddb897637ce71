"""A model in floating point without torch: the reference against which formats are chosen."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deltarnn.fixed.cells import entering_biases
from deltarnn.fixed.parameters import FloatArray, NetworkParameters, RecurrentWeights
from deltarnn.fixed.tables import activation_function


class FloatRun(NamedTuple):
    """output: (T, B, ·) class scores, or hidden states of a bare layer. signals: internal signals by name, flat."""

    output: FloatArray
    signals: dict[str, FloatArray]


def run_float(model: NetworkParameters, frames: NDArray[np.float64]) -> FloatRun:
    """Run frames (T, B, I) from reset (MATH §1–3)."""
    signals = {"input": frames.ravel()}
    signal = frames
    for index, layer in enumerate(model.layers):
        signal, inside = _run_layer(model, layer, signal)
        signals |= {f"{name} of layer {index}": values.ravel() for name, values in inside.items()}
    for dense in model.head:
        signal = signal @ dense.weight.T + dense.bias
        if dense.activation == "relu":
            signal = np.maximum(signal, 0)
            signals["dense layer"] = signal.ravel()
    return FloatRun(signal, signals)


def _run_layer(
    model: NetworkParameters, layer: RecurrentWeights, x: FloatArray
) -> tuple[FloatArray, dict[str, FloatArray]]:
    steps, batch, hidden = *x.shape[:2], layer.weight_hh.shape[1]
    sigmoid, tanh = (activation_function(name, model.hard_activations) for name in ("sigmoid", "tanh"))
    m = np.tile(entering_biases(model.cell, layer.bias_ih, layer.bias_hh), (batch, 1))
    h, c, h_hat = (np.zeros((batch, hidden)) for _ in range(3))
    x_hat = np.zeros((batch, x.shape[2]))
    y, cells = (np.empty((steps, batch, hidden)) for _ in range(2))
    memories = np.empty((steps, batch, 4 * hidden))
    for t in range(steps):
        delta_x, delta_h = x[t] - x_hat, h - h_hat
        delta_x[np.abs(delta_x) < layer.thx] = 0
        delta_h[np.abs(delta_h) < layer.thh] = 0
        x_hat, h_hat = x_hat + delta_x, h_hat + delta_h
        from_x, from_h = delta_x @ layer.weight_ih.T, delta_h @ layer.weight_hh.T
        if model.cell == "GRU":
            m[:, : 3 * hidden] += from_x
            m[:, : 2 * hidden] += from_h[:, : 2 * hidden]
            m[:, 3 * hidden :] += from_h[:, 2 * hidden :]
            r, z = (sigmoid(part) for part in np.split(m[:, : 2 * hidden], 2, axis=1))
            n = tanh(m[:, 2 * hidden : 3 * hidden] + r * m[:, 3 * hidden :])
            h = (1 - z) * n + z * h
        else:
            m += from_x + from_h
            i, f, g, o = np.split(m, 4, axis=1)
            c = sigmoid(f) * c + sigmoid(i) * tanh(g)
            h = sigmoid(o) * tanh(c)
        y[t], cells[t], memories[t] = h, c, m
    signals = {"hidden state": y, "pre-activations": memories}
    if model.cell == "LSTM":
        signals["cell state"] = cells
    return y, signals
