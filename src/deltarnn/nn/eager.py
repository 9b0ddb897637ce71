"""The delta layers in plain torch operations: any device, any floating dtype, the oracle of every other backend.

A sequence is computed in the held-state form of MATH §4, M_t = M_0 + W (x̂_t − x̂_0) + U (ĥ_t − ĥ_0), the same function
as the event form of MATH §2–3. What does not depend on the recurrence (x̂ and W x̂ of all steps) is computed at once;
only ĥ and the gates are left to the loop. Autograd gives the gradients; the comparison |d| ≥ θ has none.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from deltarnn.fixed.fake_quant import fake_quantize, look_up
from deltarnn.fixed.tables import MAX_ADDRESS_BITS, gate_tables
from deltarnn.nn.state import (
    DeltaGRUResetBeforeState,
    DeltaGRUState,
    DeltaLSTMState,
    LayerOptions,
    LayerParameters,
    SequenceActivity,
    SequenceResult,
)

Function = Callable[[Tensor], Tensor]


def gru_sequence(
    x: Tensor,
    state: DeltaGRUState,
    parameters: LayerParameters,
    options: LayerOptions,
    lengths: Tensor | None = None,
    record_events: bool = False,
) -> SequenceResult:
    """One DeltaGRU layer over a sequence x (T, B, I), from `state` (MATH §2).

    lengths (B,): steps of each sample; beyond them nothing fires, the state is held and the output is 0. With
    `options.quantization`, x, the state and the parameters are expected on their grids, in float64 (MATH §6).
    """
    sigmoid, candidate, to_activation = _arithmetic(options)
    valid = valid_steps(x, lengths)
    hidden = state.h.shape[1]
    x_hat = encode(x, state.x_hat, options.thx, valid)

    # M = memory_x + memory_h: the parts that W x̂ and U ĥ are added to, less what the initial x̂ and ĥ contribute.
    memory_x = F.linear(x_hat - state.x_hat, parameters.weight_ih) + state.m[:, : 3 * hidden]
    start_h = F.pad(state.m[:, 3 * hidden :], (2 * hidden, 0)) - F.linear(state.h_hat, parameters.weight_hh)

    h, h_hat = state.h, state.h_hat
    outputs, h_hats = [], [h_hat]
    for step, m_x in enumerate(memory_x.unbind(0)):
        valid_now = None if valid is None else valid[step]
        h_hat = hold(h, h_hat, options.thh, valid_now)
        m_h = torch.addmm(start_h, h_hat, parameters.weight_hh.t())
        m_rz = m_x[:, : 2 * hidden] + m_h[:, : 2 * hidden]
        m_nx, m_nh = m_x[:, 2 * hidden :], m_h[:, 2 * hidden :]
        r, z = sigmoid(m_rz).chunk(2, dim=1)
        if options.quantization is None:
            n = candidate(torch.addcmul(m_nx, r, m_nh))
            h_new = torch.lerp(n, h, z)  # (1 − z) ∘ n + z ∘ h
        else:
            n = candidate(m_nx + r * to_activation(m_nh))
            h_new = to_activation(to_activation((1 - z) * n) + to_activation(z * h))
        h = h_new if valid_now is None else torch.where(valid_now, h_new, h)
        outputs.append(h)
        h_hats.append(h_hat)

    state_after = DeltaGRUState(x_hat[-1], h, h_hat, torch.cat([m_rz, m_nx, m_nh], dim=1))
    activity = _activity(torch.cat([state.x_hat[None], x_hat]), [h_hats], valid, record_events)
    return SequenceResult(_stack_outputs(outputs, valid), state_after, activity)


def gru_reset_before_sequence(
    x: Tensor,
    state: DeltaGRUResetBeforeState,
    parameters: LayerParameters,
    options: LayerOptions,
    lengths: Tensor | None = None,
    record_events: bool = False,
) -> SequenceResult:
    """One layer of DeltaGRU(reset_after=False) over a sequence; arguments as of `gru_sequence`, in float only."""
    sigmoid, candidate, _ = _arithmetic(options)
    valid = valid_steps(x, lengths)
    hidden = state.h.shape[1]
    x_hat = encode(x, state.x_hat, options.thx, valid)

    weight_rz, weight_n = parameters.weight_hh.tensor_split([2 * hidden])
    memory_x = F.linear(x_hat - state.x_hat, parameters.weight_ih) + state.m[:, : 3 * hidden]
    start_rz = -F.linear(state.h_hat, weight_rz)
    start_nh = state.m[:, 3 * hidden :] - F.linear(state.rh_hat, weight_n)

    h, h_hat, rh_hat = state.h, state.h_hat, state.rh_hat
    outputs, h_hats, rh_hats = [], [h_hat], [rh_hat]
    for step, m_x in enumerate(memory_x.unbind(0)):
        valid_now = None if valid is None else valid[step]
        h_hat = hold(h, h_hat, options.thh, valid_now)
        m_rz = m_x[:, : 2 * hidden] + torch.addmm(start_rz, h_hat, weight_rz.t())
        r, z = sigmoid(m_rz).chunk(2, dim=1)
        rh_hat = hold(r * h, rh_hat, options.thh, valid_now)
        m_nx, m_nh = m_x[:, 2 * hidden :], torch.addmm(start_nh, rh_hat, weight_n.t())
        h_new = torch.lerp(candidate(m_nx + m_nh), h, z)  # (1 − z) ∘ n + z ∘ h
        h = h_new if valid_now is None else torch.where(valid_now, h_new, h)
        outputs.append(h)
        h_hats.append(h_hat)
        rh_hats.append(rh_hat)

    state_after = DeltaGRUResetBeforeState(x_hat[-1], h, h_hat, rh_hat, torch.cat([m_rz, m_nx, m_nh], dim=1))
    activity = _activity(torch.cat([state.x_hat[None], x_hat]), [h_hats, rh_hats], valid, record_events)
    return SequenceResult(_stack_outputs(outputs, valid), state_after, activity)


def lstm_sequence(
    x: Tensor,
    state: DeltaLSTMState,
    parameters: LayerParameters,
    options: LayerOptions,
    lengths: Tensor | None = None,
    record_events: bool = False,
) -> SequenceResult:
    """One DeltaLSTM layer over a sequence x (T, B, I), from `state` (MATH §3); arguments as of `gru_sequence`.

    With a projection, h = W_hr (o ∘ tanh(c)), rounded to A under quantisation.
    """
    sigmoid, tanh, to_activation = _arithmetic(options)
    valid = valid_steps(x, lengths)
    hidden = state.c.shape[1]
    x_hat = encode(x, state.x_hat, options.thx, valid)

    start = state.m - F.linear(state.h_hat, parameters.weight_hh)
    memory_x = F.linear(x_hat - state.x_hat, parameters.weight_ih) + start

    h, c, h_hat = state.h, state.c, state.h_hat
    outputs, h_hats = [], [h_hat]
    for step, m_x in enumerate(memory_x.unbind(0)):
        valid_now = None if valid is None else valid[step]
        h_hat = hold(h, h_hat, options.thh, valid_now)
        m = torch.addmm(m_x, h_hat, parameters.weight_hh.t())
        i, f = sigmoid(m[:, : 2 * hidden]).chunk(2, dim=1)
        g, o = tanh(m[:, 2 * hidden : 3 * hidden]), sigmoid(m[:, 3 * hidden :])
        c_new = to_activation(torch.addcmul(f * c, i, g))
        h_new = to_activation(o * tanh(c_new))
        if parameters.weight_hr is not None:
            h_new = to_activation(F.linear(h_new, parameters.weight_hr))
        c = c_new if valid_now is None else torch.where(valid_now, c_new, c)
        h = h_new if valid_now is None else torch.where(valid_now, h_new, h)
        outputs.append(h)
        h_hats.append(h_hat)

    state_after = DeltaLSTMState(x_hat[-1], h, h_hat, c, m)
    activity = _activity(torch.cat([state.x_hat[None], x_hat]), [h_hats], valid, record_events)
    return SequenceResult(_stack_outputs(outputs, valid), state_after, activity)


def hold(value: Tensor, memory: Tensor, threshold: float, valid: Tensor | None = None) -> Tensor:
    """One step of the delta encoder (MATH §1): `value` where it fires, else `memory`, all (B, N).

    valid (B, 1): which samples are still running.
    """
    if threshold == 0 and valid is None:
        return value
    return torch.where(_quiet(value, memory, threshold, valid), memory, value)


def encode(signal: Tensor, memory: Tensor, threshold: float, valid: Tensor | None = None) -> Tensor:
    """The held signal v̂ (T, B, N) of a whole `signal` (T, B, N), its memory before the first step (B, N).

    Which step fired last is found without gradients; the one differentiable operation is picking those values.
    """
    if threshold == 0 and valid is None:
        return signal
    return torch.cat([memory[None], signal]).gather(0, last_fired(signal, memory, threshold, valid))


def last_fired(signal: Tensor, memory: Tensor, threshold: float, valid: Tensor | None = None) -> Tensor:
    """At each step, that at which every element (T, B, N) fired last, from 1, 0 for none; arguments as of `encode`."""
    held, last = memory.detach(), torch.zeros_like(memory, dtype=torch.int64)
    steps = []
    for step, value in enumerate(signal.detach().unbind(0)):
        quiet = _quiet(value, held, threshold, None if valid is None else valid[step])
        held, last = torch.where(quiet, held, value), torch.where(quiet, last, step + 1)
        steps.append(last)
    return torch.stack(steps)


def _quiet(value: Tensor, memory: Tensor, threshold: float, valid: Tensor | None) -> Tensor:
    """Where nothing fires: |value − memory| < θ. A NaN is never quiet, so that it shows in the result."""
    quiet = (value.detach() - memory.detach()).abs() < threshold
    return quiet if valid is None else quiet | ~valid


def valid_steps(x: Tensor, lengths: Tensor | None) -> Tensor | None:
    """(T, B, 1) bool: the steps that belong to each sample; None if all do."""
    if lengths is None:
        return None
    steps = torch.arange(len(x), device=x.device)
    return (steps[:, None] < lengths.to(x.device))[..., None]


def _arithmetic(options: LayerOptions) -> tuple[Function, Function, Function]:
    """σ, tanh (or the candidate's function) and the rounding to A of MATH §6; in float plain, without rounding."""
    hard, quantization = options.hard_activations, options.quantization
    sigmoid: Function = hard_sigmoid if hard else torch.sigmoid
    tanh: Function = hard_tanh if hard else torch.tanh
    if options.candidate == "relu":
        tanh = torch.relu
    if quantization is None:
        return sigmoid, tanh, lambda values: values

    def to_activation(values: Tensor) -> Tensor:
        return fake_quantize(values, quantization.activation, quantization.rounding)

    if quantization.activation.bits <= MAX_ADDRESS_BITS:
        of_sigmoid, of_tanh = (partial(look_up, table) for table in gate_tables(quantization, hard))
        return lambda m: of_sigmoid(to_activation(m)), lambda m: of_tanh(to_activation(m)), to_activation

    def to_gate(values: Tensor) -> Tensor:
        return fake_quantize(values, quantization.gate, quantization.rounding)

    return lambda m: to_gate(sigmoid(to_activation(m))), lambda m: to_gate(tanh(to_activation(m))), to_activation


def hard_sigmoid(values: Tensor) -> Tensor:
    """clip(x/4 + 1/2, 0, 1) (MATH §3)."""
    return torch.clamp(values / 4 + 0.5, 0, 1)


def hard_tanh(values: Tensor) -> Tensor:
    """clip(x, −1, 1) (MATH §3)."""
    return torch.clamp(values, -1, 1)


def _stack_outputs(outputs: list[Tensor], valid: Tensor | None) -> Tensor:
    stacked = torch.stack(outputs)
    return stacked if valid is None else stacked.masked_fill(~valid, 0)


def _activity(
    x_hats: Tensor, hidden: list[list[Tensor]], valid: Tensor | None, record_events: bool
) -> SequenceActivity:
    """Counts of the deltas between successive held values: x_hats (T + 1, B, I); hidden: per signal T + 1 of (B, H)."""
    delta_x = x_hats.detach().diff(dim=0)
    deltas = [torch.stack(h_hats).diff(dim=0) for h_hats in hidden]
    steps = delta_x.shape[0] * delta_x.shape[1] if valid is None else valid.sum()
    numels = torch.tensor([delta.shape[2] for delta in (delta_x, *deltas)], device=delta_x.device) * steps
    fired = torch.stack([delta.count_nonzero() for delta in (delta_x, *deltas)])
    return SequenceActivity(
        counts=torch.cat([numels - fired, numels]),
        l1_delta_h=torch.stack([delta.abs().sum() for delta in deltas]).sum(),
        fired_x=delta_x != 0 if record_events else None,
        fired_h=torch.cat(deltas, dim=2) != 0 if record_events else None,
    )
