"""Integer DeltaGRU and DeltaLSTM layers: MATH §6, general profile, in stored integers.

No floating-point value takes part: every tensor is integers of its format. With one format A of activations, W of
weights and N of gates, the arithmetic equals the quantised torch layers to the last bit; with formats tensor by tensor
it is the int8 engine's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deltarnn.fixed.arithmetic import IntArray, requantize, saturate
from deltarnn.fixed.formats import LayerFormats
from deltarnn.fixed.qformat import QFormat, Quantization
from deltarnn.fixed.tables import LookUpTable, gate_tables

Cell = Literal["GRU", "LSTM"]
BoolArray = NDArray[np.bool_]


class IntegerState(NamedTuple):
    """State of one layer in stored integers.

    x_hat (B, I), h, h_hat (B, H) and, for the LSTM, c (B, H) in their formats X, H, C. m (B, 4H) with the memories'
    fraction bits, in the order r, z, nx, nh (GRU) or i, f, g, o (LSTM). c is None for the GRU.
    """

    x_hat: IntArray
    h: IntArray
    h_hat: IntArray
    m: IntArray
    c: IntArray | None = None


class IntegerRun(NamedTuple):
    """What one layer made of a sequence.

    y: (T, B, H) hidden states in H. state: after the last step. fired_x (T, B, I), fired_h (T, B, H): where Δ ≠ 0.
    l1_delta_h: Σ|Δh|, a real number.
    """

    y: IntArray
    state: IntegerState
    fired_x: BoolArray
    fired_h: BoolArray
    l1_delta_h: float


@dataclass(frozen=True)
class IntegerLayer:
    """One quantised delta layer and direction, in stored integers.

    Attributes
    ----------
    cell: "GRU" (gates r, z, n) or "LSTM" (gates i, f, g, o).
    weight_ih (GH, I), weight_hh (GH, H): in their formats.
    memory: (4H,) start of M with its fraction bits; GRU order r, z, nx, nh.
    thx, thh: thresholds in X and in H.
    formats, hard_activations: formats and activation functions.
    """

    cell: Cell
    weight_ih: IntArray
    weight_hh: IntArray
    memory: IntArray
    thx: int
    thh: int
    formats: LayerFormats
    hard_activations: bool = False

    @classmethod
    def quantize(
        cls,
        cell: Cell,
        weight_ih: ArrayLike,
        weight_hh: ArrayLike,
        bias_ih: ArrayLike | None,
        bias_hh: ArrayLike | None,
        thx: float,
        thh: float,
        formats: Quantization | LayerFormats,
        hard_activations: bool = False,
    ) -> "IntegerLayer":
        """Round a layer's parameters, in PyTorch's names, shapes and gate order, to its formats.

        Raises
        ------
        ValueError
            If θ is not a value of X or H (`round_threshold` finds the nearest), or shapes do not fit.
        """
        f = LayerFormats.uniform(formats) if isinstance(formats, Quantization) else formats
        w_ih, w_hh = f.weight_ih.to_int(weight_ih), f.weight_hh.to_int(weight_hh)
        hidden, gates = w_hh.shape[1], 3 if cell == "GRU" else 4
        for name, weight, columns in (("weight_ih", w_ih, w_ih.shape[1]), ("weight_hh", w_hh, hidden)):
            if weight.shape != (gates * hidden, columns):
                raise ValueError(
                    f"{name} has shape {weight.shape}: a {cell} of {hidden} units needs {gates * hidden} rows"
                )
        none = np.zeros(gates * hidden)
        b_ih, b_hh = (np.asarray(none if b is None else b, dtype=np.float64) for b in (bias_ih, bias_hh))
        return cls(
            cell,
            w_ih,
            w_hh,
            memory_start(entering_biases(cell, b_ih, b_hh), cell, f),
            _stored_threshold("thx", thx, f.input),
            _stored_threshold("thh", thh, f.hidden),
            f,
            hard_activations,
        )

    @property
    def input_size(self) -> int:
        """I."""
        return int(self.weight_ih.shape[1])

    @property
    def hidden_size(self) -> int:
        """H."""
        return int(self.weight_hh.shape[1])

    @property
    def memory_fraction_bits(self) -> int:
        """Fraction bits of M."""
        return self.formats.memory_fraction_bits

    @property
    def memory_bound(self) -> int:
        """The largest |M| any input can cause: max over the rows of Σ|W|·max|X or H| + |b| (M telescopes, MATH §4)."""
        from_x = np.abs(self.weight_ih).sum(axis=1) * -self.formats.input.int_min
        from_h = np.abs(self.weight_hh).sum(axis=1) * -self.formats.hidden.int_min
        rows = from_x + from_h
        if self.cell == "GRU":
            hidden = self.hidden_size
            rows = np.concatenate([rows[: 2 * hidden], from_x[2 * hidden :], from_h[2 * hidden :]])
        return int((rows + np.abs(self.memory)).max())

    @property
    def tables(self) -> tuple[LookUpTable, LookUpTable]:
        """σ and tanh from P to N."""
        f = self.formats
        return gate_tables(Quantization(f.address, gate=f.gate, rounding=f.rounding), self.hard_activations)

    def initial_state(self, batch_size: int = 1) -> IntegerState:
        """All zero, M at the biases."""
        zeros_x = np.zeros((batch_size, self.input_size), dtype=np.int64)
        zeros = np.zeros((batch_size, self.hidden_size), dtype=np.int64)
        m = np.tile(self.memory, (batch_size, 1))
        return IntegerState(zeros_x, zeros, zeros, m, None if self.cell == "GRU" else zeros)

    def run(self, x: IntArray, state: IntegerState | None = None) -> IntegerRun:
        """A sequence x (T, B, I) of stored integers in X, from `state` (default: reset)."""
        if x.ndim != 3 or x.shape[2] != self.input_size:
            raise ValueError(f"x has shape {x.shape}: must be (T, B, {self.input_size})")
        state = self.initial_state(x.shape[1]) if state is None else state
        x_hat, delta_x = _encode(x, state.x_hat, self.thx)
        # float64 products of these integers are exact (sums stay far below 2⁵³) and use the BLAS.
        added_x = (delta_x.astype(np.float64) @ self.weight_ih.T.astype(np.float64)).astype(np.int64)
        columns_h = np.ascontiguousarray(self.weight_hh.T, dtype=np.float64)
        hidden, update = self.hidden_size, self._update()
        _, _, h_hat, m, _ = state
        m, h, c = m.copy(), state.h, state.c
        y, delta_h = (np.empty((*x.shape[:2], hidden), dtype=np.int64) for _ in range(2))
        for t in range(len(x)):
            delta = h - h_hat
            delta[np.abs(delta) < self.thh] = 0
            h_hat = h_hat + delta
            active = np.flatnonzero(delta.any(axis=0))
            added_h = (delta[:, active].astype(np.float64) @ columns_h[active]).astype(np.int64)
            if self.cell == "GRU":
                m[:, : 3 * hidden] += added_x[t]
                m[:, : 2 * hidden] += added_h[:, : 2 * hidden]
                m[:, 3 * hidden :] += added_h[:, 2 * hidden :]
            else:
                m += added_x[t] + added_h
            h, c = update(m, h, c)
            y[t], delta_h[t] = h, delta
        l1 = float(np.abs(delta_h).sum() * self.formats.hidden.step)
        after = IntegerState(x_hat, h, h_hat, m, c)
        return IntegerRun(y, after, delta_x != 0, delta_h != 0, l1)

    def _update(self) -> Callable[[IntArray, IntArray, IntArray | None], tuple[IntArray, IntArray | None]]:
        return self._gru_update if self.cell == "GRU" else self._lstm_update

    def _gru_update(self, m: IntArray, h: IntArray, _: IntArray | None) -> tuple[IntArray, None]:
        """h = H(H((1 − z)∘n) + H(z∘h)), n = N(tanh(P(M_nx + r∘P(M_nh))))."""
        f, (sigmoid, tanh) = self.formats, self.tables
        n_m, n_g, n_p = f.memory_fraction_bits, f.gate.fraction_bits, f.address.fraction_bits
        m_r, m_z, m_nx, m_nh = np.split(m, 4, axis=1)
        r, z = (sigmoid(requantize(part, n_m, f.address, f.rounding)) for part in (m_r, m_z))
        # M_nx has n_M fraction bits, r∘P(M_nh) has n_P + n_N: both are brought to the larger, exactly.
        n_sum = max(n_m, n_p + n_g)
        m_n = (m_nx << (n_sum - n_m)) + ((r * requantize(m_nh, n_m, f.address, f.rounding)) << (n_sum - n_p - n_g))
        n = tanh(requantize(m_n, n_sum, f.address, f.rounding))
        new = requantize((f.gate.scale - z) * n, 2 * n_g, f.hidden, f.rounding)
        kept = requantize(z * h, n_g + f.hidden.fraction_bits, f.hidden, f.rounding)
        return saturate(new + kept, f.hidden.bits), None

    def _lstm_update(self, m: IntArray, _: IntArray, c: IntArray | None) -> tuple[IntArray, IntArray]:
        """c = C(f∘c + i∘g), h = H(o∘N(tanh(P(c))))."""
        assert c is not None
        f, (sigmoid, tanh) = self.formats, self.tables
        n_g, n_c = f.gate.fraction_bits, f.cell.fraction_bits
        i, forget, g, o = np.split(requantize(m, f.memory_fraction_bits, f.address, f.rounding), 4, axis=1)
        n_sum = n_g + max(n_c, n_g)
        total = ((sigmoid(forget) * c) << (n_sum - n_g - n_c)) + ((sigmoid(i) * tanh(g)) << (n_sum - 2 * n_g))
        c = requantize(total, n_sum, f.cell, f.rounding)
        squashed = tanh(requantize(c, n_c, f.address, f.rounding))
        return requantize(sigmoid(o) * squashed, 2 * n_g, f.hidden, f.rounding), c


def run_layers(layers: Sequence[IntegerLayer], frames: ArrayLike) -> list[IntegerRun]:
    """A stack of layers over frames (T, B, I), real numbers, from reset: h is brought to the next layer's X."""
    signal = layers[0].formats.input.to_int(frames, layers[0].formats.rounding)
    runs: list[IntegerRun] = []
    for layer, before in zip(layers, [None, *layers], strict=False):
        if before is not None:
            fraction_bits = before.formats.hidden.fraction_bits
            signal = requantize(signal, fraction_bits, layer.formats.input, layer.formats.rounding)
        runs.append(layer.run(signal))
        signal = runs[-1].y
    return runs


def round_threshold(name: str, threshold: float, quantization: Quantization) -> float:
    """`quantization.round_threshold(threshold)`, with errors that name the threshold."""
    try:
        return quantization.round_threshold(threshold)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _stored_threshold(name: str, threshold: float, grid: QFormat) -> int:
    if threshold < 0 or not grid.contains(threshold):
        below, above = grid.neighbours(threshold)
        raise ValueError(
            f"{name}={threshold:g} is not a non-negative value of {grid}: the nearest are {below:g} and {above:g}"
        )
    return int(grid.to_int(threshold))


def entering_biases(cell: Cell, bias_ih: NDArray[np.float64], bias_hh: NDArray[np.float64]) -> NDArray[np.float64]:
    """(4H,) the real numbers that M starts at, before rounding: sums, but b_in and b_hn apart (MATH §2–3)."""
    if cell == "LSTM":
        return bias_ih + bias_hh
    gates = 2 * len(bias_ih) // 3
    return np.concatenate([bias_ih[:gates] + bias_hh[:gates], bias_ih[gates:], bias_hh[gates:]])


def memory_start(biases: NDArray[np.floating[Any]], cell: Cell, formats: LayerFormats) -> IntArray:
    """(4H,) M before the first step, of `entering_biases`: rounded to the format of biases, M_nh's to P as well."""
    n_m = formats.memory_fraction_bits
    if formats.bias is None:
        return np.rint(biases.astype(np.float64) * 2.0**n_m).astype(np.int64)
    rounded, grid = formats.bias.to_int(biases), formats.bias.fraction_bits
    memory = rounded << (n_m - grid)
    if cell == "GRU":
        hidden = len(biases) // 4
        b_hn = requantize(rounded[3 * hidden :], grid, formats.address, formats.rounding)
        memory[3 * hidden :] = b_hn << (n_m - formats.address.fraction_bits)
    return memory


def _encode(x: IntArray, held: IntArray, threshold: int) -> tuple[IntArray, IntArray]:
    """The delta encoder (MATH §1) over a sequence: the memory x̂ after it (B, I), and Δ (T, B, I)."""
    deltas = np.empty_like(x)
    for t, frame in enumerate(x):
        delta = frame - held
        delta[np.abs(delta) < threshold] = 0
        held = held + delta
        deltas[t] = delta
    return held, deltas
