"""Integer DeltaGRU and DeltaLSTM layers: MATH §6, general profile, in stored integers.

No floating-point value takes part: activations are integers of the format A, weights of W, gates of N, and the
memories M keep n_A + n_W fraction bits. The arithmetic equals the quantised torch layers to the last bit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deltarnn.fixed.arithmetic import IntArray, requantize, saturate
from deltarnn.fixed.qformat import Quantization
from deltarnn.fixed.tables import LookUpTable, gate_tables

Cell = Literal["GRU", "LSTM"]
BoolArray = NDArray[np.bool_]


class IntegerState(NamedTuple):
    """State of one layer in stored integers.

    x_hat (B, I), h, h_hat (B, H) and, for the LSTM, c (B, H) in the format A. m (B, 4H) with n_A + n_W fraction bits,
    in the order r, z, nx, nh (GRU) or i, f, g, o (LSTM). c is None for the GRU.
    """

    x_hat: IntArray
    h: IntArray
    h_hat: IntArray
    m: IntArray
    c: IntArray | None = None


class IntegerRun(NamedTuple):
    """What one layer made of a sequence.

    y: (T, B, H) hidden states in A. state: after the last step. fired_x (T, B, I), fired_h (T, B, H): where Δ ≠ 0.
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
    weight_ih (GH, I), weight_hh (GH, H): in W.
    memory: (4H,) start of M with n_A + n_W fraction bits; GRU order r, z, nx, nh.
    thx, thh: thresholds in A.
    quantization, hard_activations: formats and activation functions.
    """

    cell: Cell
    weight_ih: IntArray
    weight_hh: IntArray
    memory: IntArray
    thx: int
    thh: int
    quantization: Quantization
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
        quantization: Quantization,
        hard_activations: bool = False,
    ) -> "IntegerLayer":
        """Round a layer's parameters, in PyTorch's names, shapes and gate order, to its formats.

        Raises
        ------
        ValueError
            If θ is not a value of A (`round_threshold` finds the nearest), or shapes do not fit.
        """
        q = quantization
        w_ih, w_hh = (q.weight.to_int(w) for w in (weight_ih, weight_hh))
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
            _memory_start(cell, b_ih, b_hh, q),
            _stored_threshold("thx", thx, q),
            _stored_threshold("thh", thh, q),
            q,
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
        """Fraction bits of M: n_A + n_W."""
        return self.quantization.activation.fraction_bits + self.quantization.weight.fraction_bits

    @property
    def memory_bound(self) -> int:
        """The largest |M| any input can cause: max over the rows of Σ|W|·max|A| + |b| (M telescopes, MATH §4)."""
        rows = np.abs(self.weight_ih).sum(axis=1) + np.abs(self.weight_hh).sum(axis=1)
        if self.cell == "GRU":
            hidden = self.hidden_size
            x_rows, h_rows = (np.abs(w).sum(axis=1)[2 * hidden :] for w in (self.weight_ih, self.weight_hh))
            rows = np.concatenate([rows[: 2 * hidden], x_rows, h_rows])
        return int((rows * -self.quantization.activation.int_min + np.abs(self.memory)).max())

    @property
    def tables(self) -> tuple[LookUpTable, LookUpTable]:
        """σ and tanh from A to N."""
        return gate_tables(self.quantization, self.hard_activations)

    def initial_state(self, batch_size: int = 1) -> IntegerState:
        """All zero, M at the biases."""
        zeros_x = np.zeros((batch_size, self.input_size), dtype=np.int64)
        zeros = np.zeros((batch_size, self.hidden_size), dtype=np.int64)
        m = np.tile(self.memory, (batch_size, 1))
        return IntegerState(zeros_x, zeros, zeros, m, None if self.cell == "GRU" else zeros)

    def run(self, x: IntArray, state: IntegerState | None = None) -> IntegerRun:
        """A sequence x (T, B, I) of stored integers in A, from `state` (default: reset)."""
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
        l1 = float(np.abs(delta_h).sum() * self.quantization.activation.step)
        after = IntegerState(x_hat, h, h_hat, m, c)
        return IntegerRun(y, after, delta_x != 0, delta_h != 0, l1)

    def _update(self) -> Callable[[IntArray, IntArray, IntArray | None], tuple[IntArray, IntArray | None]]:
        return self._gru_update if self.cell == "GRU" else self._lstm_update

    def _gru_update(self, m: IntArray, h: IntArray, _: IntArray | None) -> tuple[IntArray, None]:
        """h = A(A((1 − z)∘n) + A(z∘h)), n = N(tanh(A(M_nx + r∘A(M_nh))))."""
        q, (sigmoid, tanh) = self.quantization, self.tables
        n_m, n_g, n_a = self.memory_fraction_bits, q.gate.fraction_bits, q.activation.fraction_bits
        m_r, m_z, m_nx, m_nh = np.split(m, 4, axis=1)
        r, z = (sigmoid(requantize(part, n_m, q.activation, q.rounding)) for part in (m_r, m_z))
        # M_nx has n_A + n_W fraction bits, r∘A(M_nh) has n_A + n_N: both are brought to the larger, exactly.
        n_sum = n_a + max(q.weight.fraction_bits, n_g)
        m_n = (m_nx << (n_sum - n_m)) + ((r * requantize(m_nh, n_m, q.activation, q.rounding)) << (n_sum - n_a - n_g))
        n = tanh(requantize(m_n, n_sum, q.activation, q.rounding))
        new = requantize((q.gate.scale - z) * n, 2 * n_g, q.activation, q.rounding)
        kept = requantize(z * h, n_g + n_a, q.activation, q.rounding)
        return saturate(new + kept, q.activation.bits), None

    def _lstm_update(self, m: IntArray, _: IntArray, c: IntArray | None) -> tuple[IntArray, IntArray]:
        """c = A(f∘c + i∘g), h = A(o∘N(tanh(c)))."""
        assert c is not None
        q, (sigmoid, tanh) = self.quantization, self.tables
        n_g, n_a = q.gate.fraction_bits, q.activation.fraction_bits
        i, f, g, o = np.split(requantize(m, self.memory_fraction_bits, q.activation, q.rounding), 4, axis=1)
        n_sum = n_g + max(n_a, n_g)
        total = ((sigmoid(f) * c) << (n_sum - n_g - n_a)) + ((sigmoid(i) * tanh(g)) << (n_sum - 2 * n_g))
        c = requantize(total, n_sum, q.activation, q.rounding)
        return requantize(sigmoid(o) * tanh(c), 2 * n_g, q.activation, q.rounding), c


def round_threshold(name: str, threshold: float, quantization: Quantization) -> float:
    """`quantization.round_threshold(threshold)`, with errors that name the threshold."""
    try:
        return quantization.round_threshold(threshold)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _stored_threshold(name: str, threshold: float, quantization: Quantization) -> int:
    if threshold < 0 or not quantization.activation.contains(threshold):
        below, above = quantization.nearest_thresholds(threshold)
        raise ValueError(
            f"{name}={threshold:g} is not a non-negative value of {quantization.activation}: "
            f"the nearest are {below:g} and {above:g}"
        )
    return int(quantization.activation.to_int(threshold))


def entering_biases(cell: Cell, bias_ih: NDArray[np.float64], bias_hh: NDArray[np.float64]) -> NDArray[np.float64]:
    """(4H,) the real numbers that M starts at, before rounding: sums, but b_in and b_hn apart (MATH §2–3)."""
    if cell == "LSTM":
        return bias_ih + bias_hh
    gates = 2 * len(bias_ih) // 3
    return np.concatenate([bias_ih[:gates] + bias_hh[:gates], bias_ih[gates:], bias_hh[gates:]])


def _memory_start(cell: Cell, bias_ih: NDArray[np.float64], bias_hh: NDArray[np.float64], q: Quantization) -> IntArray:
    """(4H,) with n_A + n_W fraction bits: the biases rounded to W; M_nh's start rounded to A as well."""
    rounded = q.weight.to_int(entering_biases(cell, bias_ih, bias_hh))
    memory = rounded << q.activation.fraction_bits
    if cell == "GRU":
        hidden = len(bias_ih) // 3
        b_hn = requantize(rounded[3 * hidden :], q.weight.fraction_bits, q.activation, q.rounding)
        memory[3 * hidden :] = b_hn << q.weight.fraction_bits
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
