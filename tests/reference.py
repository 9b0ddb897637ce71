"""MATH §1–3 and §5 to the letter, in numpy float64, in the event form: an oracle sharing no code with the layers."""

from dataclasses import dataclass, field

import numpy as np

Array = np.ndarray


@dataclass
class Encoder:
    """The delta encoder of one signal (MATH §1), and how close it came to deciding otherwise."""

    memory: Array
    threshold: float
    margin: float = np.inf
    fired: list[Array] = field(default_factory=list)
    deltas: list[Array] = field(default_factory=list)

    def __call__(self, value: Array) -> Array:
        d = value - self.memory
        fires = np.abs(d) >= self.threshold
        if self.threshold > 0:
            self.margin = min(self.margin, float(np.abs(np.abs(d) - self.threshold).min()))
        self.memory = np.where(fires, value, self.memory)
        self.fired.append(fires)
        self.deltas.append(np.where(fires, d, 0.0))
        return self.deltas[-1]


@dataclass
class Run:
    """A layer's output, final state, events and saved values; margin: the least ||d| − θ| of all decisions."""

    y: Array
    state: dict[str, Array]
    x_encoder: Encoder
    h_encoder: Encoder
    saved: list[tuple[Array, ...]]
    rh_encoder: Encoder | None = None

    @property
    def hidden_encoders(self) -> list[Encoder]:
        return [self.h_encoder] + ([self.rh_encoder] if self.rh_encoder else [])

    @property
    def margin(self) -> float:
        return min(encoder.margin for encoder in (self.x_encoder, *self.hidden_encoders))

    @property
    def zeros(self) -> tuple[int, ...]:
        return tuple(int(sum((d == 0).sum() for d in e.deltas)) for e in (self.x_encoder, *self.hidden_encoders))

    @property
    def l1_delta_h(self) -> float:
        return float(sum(np.abs(d).sum() for encoder in self.hidden_encoders for d in encoder.deltas))


def sigmoid(m: Array) -> Array:
    return 1 / (1 + np.exp(-m))


def gru(
    x: Array, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array, thx: float, thh: float, state=None, relu=False
) -> Run:
    """MATH §2 over x (T, B, I)."""
    (_, batch, inputs), hidden = x.shape, w_hh.shape[1]
    w_r, w_z, w_n = np.split(w_ih, 3)
    u_r, u_z, u_n = np.split(w_hh, 3)
    if state is None:
        b_i, b_h = np.split(b_ih, 3), np.split(b_hh, 3)
        start = np.concatenate([b_i[0] + b_h[0], b_i[1] + b_h[1], b_i[2], b_h[2]])
        zeros = np.zeros((batch, hidden))
        state = {"x_hat": np.zeros((batch, inputs)), "h": zeros, "h_hat": zeros, "m": np.tile(start, (batch, 1))}
    h = state["h"]
    m_r, m_z, m_nx, m_nh = np.split(state["m"], 4, axis=1)
    encode_x, encode_h = Encoder(state["x_hat"], thx), Encoder(state["h_hat"], thh)
    ys, saved = [], []
    for x_t in x:
        dx, dh = encode_x(x_t), encode_h(h)
        m_r = m_r + dx @ w_r.T + dh @ u_r.T
        m_z = m_z + dx @ w_z.T + dh @ u_z.T
        m_nx = m_nx + dx @ w_n.T
        m_nh = m_nh + dh @ u_n.T
        r, z = sigmoid(m_r), sigmoid(m_z)
        n = np.maximum(m_nx + r * m_nh, 0) if relu else np.tanh(m_nx + r * m_nh)
        saved.append((r, z, n, m_nh, h))
        h = (1 - z) * n + z * h
        ys.append(h)
    m = np.concatenate([m_r, m_z, m_nx, m_nh], axis=1)
    final = {"x_hat": encode_x.memory, "h": h, "h_hat": encode_h.memory, "m": m}
    return Run(np.stack(ys), final, encode_x, encode_h, saved)


def gru_reset_before(
    x: Array, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array, thx: float, thh: float, relu: bool = False
) -> Run:
    """MATH §2 with the reset gate before the product, over x (T, B, I)."""
    (_, batch, inputs), hidden = x.shape, w_hh.shape[1]
    w_r, w_z, w_n = np.split(w_ih, 3)
    u_r, u_z, u_n = np.split(w_hh, 3)
    b_i, b_h = np.split(b_ih, 3), np.split(b_hh, 3)
    m_r, m_z, m_nx, m_nh = (np.tile(b, (batch, 1)) for b in (b_i[0] + b_h[0], b_i[1] + b_h[1], b_i[2], b_h[2]))
    h = np.zeros((batch, hidden))
    encode_x, encode_h, encode_rh = Encoder(np.zeros((batch, inputs)), thx), Encoder(h, thh), Encoder(h, thh)
    ys = []
    for x_t in x:
        dx, dh = encode_x(x_t), encode_h(h)
        m_r = m_r + dx @ w_r.T + dh @ u_r.T
        m_z = m_z + dx @ w_z.T + dh @ u_z.T
        m_nx = m_nx + dx @ w_n.T
        r, z = sigmoid(m_r), sigmoid(m_z)
        m_nh = m_nh + encode_rh(r * h) @ u_n.T
        n = np.maximum(m_nx + m_nh, 0) if relu else np.tanh(m_nx + m_nh)
        h = (1 - z) * n + z * h
        ys.append(h)
    m = np.concatenate([m_r, m_z, m_nx, m_nh], axis=1)
    final = {"x_hat": encode_x.memory, "h": h, "h_hat": encode_h.memory, "rh_hat": encode_rh.memory, "m": m}
    return Run(np.stack(ys), final, encode_x, encode_h, [], encode_rh)


def lstm(x: Array, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array, thx: float, thh: float, state=None) -> Run:
    """MATH §3 over x (T, B, I)."""
    (_, batch, inputs), hidden = x.shape, w_hh.shape[1]
    if state is None:
        zeros = np.zeros((batch, hidden))
        start = np.tile(b_ih + b_hh, (batch, 1))
        state = {"x_hat": np.zeros((batch, inputs)), "h": zeros, "h_hat": zeros, "c": zeros, "m": start}
    h, c, m = state["h"], state["c"], state["m"]
    encode_x, encode_h = Encoder(state["x_hat"], thx), Encoder(state["h_hat"], thh)
    ys, saved = [], []
    for x_t in x:
        m = m + encode_x(x_t) @ w_ih.T + encode_h(h) @ w_hh.T
        m_i, m_f, m_g, m_o = np.split(m, 4, axis=1)
        i, f, g, o = sigmoid(m_i), sigmoid(m_f), np.tanh(m_g), sigmoid(m_o)
        saved.append((i, f, g, o, c))
        c = f * c + i * g
        h = o * np.tanh(c)
        ys.append(h)
    final = {"x_hat": encode_x.memory, "h": h, "h_hat": encode_h.memory, "c": c, "m": m}
    return Run(np.stack(ys), final, encode_x, encode_h, saved)


def gru_gradients(run: Run, w_ih: Array, w_hh: Array, grad_y: Array, beta: float) -> dict[str, Array]:
    """MATH §5: gradients of (y·grad_y).sum() + β·Σ|Δh| by suffix sums, from the events alone."""
    hidden = w_hh.shape[1]

    def pre_activation(t: int, dh: Array, _: Array) -> tuple[Array, Array, Array]:
        r, z, n, m_nh, h_before = run.saved[t]
        g_nx = dh * (1 - z) * (1 - n**2)
        g_r = g_nx * m_nh * r * (1 - r)
        g_z = dh * (h_before - n) * z * (1 - z)
        return np.concatenate([g_r, g_z, g_nx, g_nx * r], axis=1), dh * z, np.zeros_like(dh)

    rows_x, rows_h = np.arange(3 * hidden), np.r_[: 2 * hidden, 3 * hidden : 4 * hidden]
    return _suffix_sums(run, w_ih, w_hh, grad_y, beta, rows_x, rows_h, pre_activation)


def lstm_gradients(run: Run, w_ih: Array, w_hh: Array, grad_y: Array, beta: float) -> dict[str, Array]:
    """As `gru_gradients`."""
    rows = np.arange(len(w_ih))

    def pre_activation(t: int, dh: Array, dc: Array) -> tuple[Array, Array, Array]:
        i, f, g, o, c_before = run.saved[t]
        tanh_c = np.tanh(f * c_before + i * g)
        dc = dc + dh * o * (1 - tanh_c**2)
        parts = [dc * g * i * (1 - i), dc * c_before * f * (1 - f), dc * i * (1 - g**2), dh * tanh_c * o * (1 - o)]
        return np.concatenate(parts, axis=1), np.zeros_like(dh), dc * f

    return _suffix_sums(run, w_ih, w_hh, grad_y, beta, rows, rows, pre_activation)


def _suffix_sums(run, w_ih, w_hh, grad_y, beta, rows_x, rows_h, pre_activation) -> dict[str, Array]:
    steps, batch, hidden = grad_y.shape
    suffix = np.zeros((batch, 4 * hidden))
    grad_x = np.zeros((steps, batch, w_ih.shape[1]))
    grad_w, grad_u = np.zeros_like(w_ih), np.zeros_like(w_hh)
    next_x, next_h = np.zeros_like(grad_x[0]), np.zeros((batch, hidden))
    dh, dc = np.zeros((batch, hidden)), np.zeros((batch, hidden))
    for t in reversed(range(steps)):
        g, dh, dc = pre_activation(t, dh + grad_y[t], dc)
        suffix += g
        delta_x, delta_h = run.x_encoder.deltas[t], run.h_encoder.deltas[t]
        fired_x, fired_h = run.x_encoder.fired[t], run.h_encoder.fired[t]
        to_delta_x = suffix[:, rows_x] @ w_ih
        to_delta_h = suffix[:, rows_h] @ w_hh + beta * np.sign(delta_h)
        grad_w += suffix[:, rows_x].T @ delta_x
        grad_u += suffix[:, rows_h].T @ delta_h
        grad_x[t] = np.where(fired_x, to_delta_x - next_x, 0)
        dh = dh + np.where(fired_h, to_delta_h - next_h, 0)
        next_x, next_h = np.where(fired_x, to_delta_x, next_x), np.where(fired_h, to_delta_h, next_h)
    suffix = suffix.sum(0)
    return {"x": grad_x, "weight_ih": grad_w, "weight_hh": grad_u, "bias_ih": suffix[rows_x], "bias_hh": suffix[rows_h]}
