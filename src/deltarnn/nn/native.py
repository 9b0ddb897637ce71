"""Whole sequences of the delta layers in the native core: float32 on the CPU, forward and backward (MATH §1–5).

The CPU kernels of the two operators in `operators`. Time and memory are in proportion to the events where a threshold
is above 0 (event lists), and dense matrix products where it is 0, since then everything fires, and for inputs with
outliers (held-state products). See docs/training.md.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from deltarnn.native import native_core
from deltarnn.nn.eager import last_fired, valid_steps
from deltarnn.nn.operands import address, allocate, allocate_gradients, check_arguments, check_tape, contiguous
from deltarnn.nn.operators import LIBRARY, is_tracing
from deltarnn.nn.state import (
    DeltaGRUState,
    DeltaLSTMState,
    FreshState,
    LayerOptions,
    LayerParameters,
    SequenceActivity,
    SequenceResult,
)

_native: Any = native_core()  # None, with one warning, where it was built without a compiler

OUTLIER = 1024.0
"""Sums of deltas keep what they round: after an input of this size, up to 6·10⁻⁵ times its weight, and more after a
larger one. So sequences with a larger one are multiplied as held values, W (x̂ − x̂₀), whose sums forget it (MATH §4)."""


def unsupported(x: Tensor) -> str | None:
    """Why the native kernels cannot compute this call; None if they can."""
    if _native is None:
        return "the native extension is not built"
    if x.device.type != "cpu":
        return f"the device is {x.device.type}"
    if x.dtype != torch.float32:
        return f"the dtype is {x.dtype}, not torch.float32"
    return None


def products_used(options: LayerOptions) -> str:
    """Which form of the products the native kernels use for these thresholds."""
    forms = {True: "held-state products", False: "events"}
    of_x, of_h = forms[options.thx == 0], forms[options.thh == 0]
    return of_x if of_x == of_h else f"{of_x} for inputs, {of_h} for hidden states"


def _run(
    lstm: bool,
    x: Tensor,
    state: DeltaGRUState | DeltaLSTMState | FreshState,
    parameters: LayerParameters,
    options: LayerOptions,
    lengths: Tensor | None = None,
    record_events: bool = False,
) -> SequenceResult:
    """One DeltaGRU or DeltaLSTM layer over x (T, B, I) from `state`; the rest as of `eager.gru_sequence`."""
    weights, start, biases = parameters[:2], _start(state), parameters[2:4]
    if start[-1] is not None:
        biases = (None, None)  # they are in M
    tensors = (x, *start, *weights, *biases)
    # In a trace the flag would be a constant: the operator then sees for itself whether gradients are wanted.
    training = (
        torch.is_grad_enabled()
        and not is_tracing()
        and any(tensor is not None and tensor.requires_grad for tensor in tensors)
    )
    output, x_hat, h, h_hat, c, m, l1, counts, fired_x, fired_h, _, _ = torch.ops.deltarnn.sequence.default(
        *(lstm, *tensors, lengths),
        *(options.thx, options.thh, options.hard_activations, training),
    )
    activity = SequenceActivity(
        counts,
        l1,
        _unpack_bits(fired_x, x.shape[2]) if record_events else None,
        _unpack_bits(fired_h, h.shape[1]) if record_events else None,
    )
    after = DeltaLSTMState(x_hat, h, h_hat, c, m) if lstm else DeltaGRUState(x_hat, h, h_hat, m)
    return SequenceResult(output, after, activity)


gru_sequence = partial(_run, False)
lstm_sequence = partial(_run, True)


def _start(state: DeltaGRUState | DeltaLSTMState | FreshState) -> tuple[Tensor | None, ...]:
    """x_hat, h, h_hat, c, m of a state; None for 0, m for the biases."""
    if isinstance(state, FreshState):
        return None, state.h, None, state.c, None
    return state.x_hat, state.h, state.h_hat, state.c if isinstance(state, DeltaLSTMState) else None, state.m


def _unpack_bits(words: Tensor, count: int) -> Tensor:
    """int64 words (T, B, W) to booleans (T, B, count), bit j of word k being element 64 k + j."""
    bits = (words[..., None] >> torch.arange(64, device=words.device)) & 1
    return bits.flatten(2)[..., :count].bool()


def _sequence(
    lstm: bool,
    x: Tensor,
    x_hat: Tensor | None,
    h: Tensor | None,
    h_hat: Tensor | None,
    c: Tensor | None,
    m: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    lengths: Tensor | None,
    thx: float,
    thh: float,
    hard: bool,
    training: bool,
) -> tuple[Tensor, ...]:
    given = (x_hat, h, h_hat, c, m, weight_ih, weight_hh, bias_ih, bias_hh)
    check_arguments(lstm, x, given, lengths)
    if (last := _held_steps(x, x_hat, lengths, thx)) is not None:
        x, thx = _held(x, x_hat, last), 0.0
    if x.stride(2) != 1:
        x = x.contiguous()
    kept = [contiguous(tensor) for tensor in given]
    results = allocate(lstm, x, weight_hh, training)
    *record, l1, counts, fired_x, fired_h, events, tape = results
    _native.train_forward(
        *(lstm, hard, *x.shape, weight_hh.shape[1], thx, thh, x.data_ptr(), x.stride(0), x.stride(1)),
        *map(address, (lengths, *kept, *record, fired_x, fired_h, events, tape if training else None, counts, l1)),
        torch.get_num_threads(),
    )
    return results


def _sequence_backward(
    lstm: bool,
    x: Tensor,
    x_hat: Tensor | None,
    h: Tensor | None,
    h_hat: Tensor | None,
    c: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    lengths: Tensor | None,
    thx: float,
    thh: float,
    hard: bool,
    output: Tensor,
    fired_x: Tensor,
    fired_h: Tensor,
    events: Tensor,
    tape: Tensor,
    grad_output: Tensor,
    grad_x_hat: Tensor | None,
    grad_h: Tensor | None,
    grad_h_hat: Tensor | None,
    grad_c: Tensor | None,
    grad_m: Tensor | None,
    grad_l1: Tensor | None,
    input: bool,
    memory: bool,
    bias: bool,
) -> tuple[Tensor, ...]:
    check_tape(tape, x)
    if (last := _held_steps(x, x_hat, lengths, thx)) is not None:
        x, thx = _held(x, x_hat, last), 0.0
    if x.stride(2) != 1:
        x = x.contiguous()
    start = (x_hat, h, h_hat, c)
    kept = (*start, weight_ih, weight_hh, output, fired_x, fired_h, events, tape)
    incoming = (grad_output, grad_x_hat, grad_h, grad_h_hat, grad_c, grad_m, grad_l1)
    read = [contiguous(tensor) for tensor in (*kept, *incoming)]
    grads = allocate_gradients(x, start, weight_ih, weight_hh, input, memory, bias)
    _native.train_backward(
        *(lstm, hard, *x.shape, weight_hh.shape[1], thx, thh, x.data_ptr(), x.stride(0), x.stride(1)),
        *map(address, (lengths, *read, *grads)),
        torch.get_num_threads(),
    )
    if last is not None and input:
        of_held, of_memory = grads[:2]
        of_values = x.new_zeros(len(x) + 1, *x.shape[1:]).scatter_add_(0, last, of_held)
        of_held.copy_(of_values[1:])
        if x_hat is not None:
            of_memory.add_(of_values[0])
    return grads


def _held_steps(x: Tensor, x_hat: Tensor | None, lengths: Tensor | None, thx: float) -> Tensor | None:
    """If x (T, B, I) has outliers, the steps from which x̂ is, as of `last_fired`; else None."""
    if thx == 0 or x.numel() == 0:
        return None
    low, high = torch.aminmax(x)
    if max(-float(low), float(high)) <= OUTLIER:  # never of NaN
        return None
    return last_fired(x, x.new_zeros(x.shape[1:]) if x_hat is None else x_hat, thx, valid_steps(x, lengths))


def _held(x: Tensor, x_hat: Tensor | None, last: Tensor) -> Tensor:
    """x̂ (T, B, I): with threshold 0, its deltas are those of x with its own."""
    start = x.new_zeros(x.shape[1:]) if x_hat is None else x_hat
    return torch.cat([start[None], x]).gather(0, last)


torch.library.impl("deltarnn::sequence", "CPU", _sequence, lib=LIBRARY)
torch.library.impl("deltarnn::sequence_backward", "CPU", _sequence_backward, lib=LIBRARY)
