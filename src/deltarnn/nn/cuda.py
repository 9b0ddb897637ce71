"""Whole sequences of the delta layers on a GPU: the CUDA kernels of the operators in `operators`, and a shortcut past
their dispatch for the usual call, in eager mode and from a fresh state. See docs/training.md.
"""

from typing import Any

import torch
from torch import Tensor

from deltarnn.nn import cuda_passes
from deltarnn.nn.cuda_passes import Gradients, Layer, Record
from deltarnn.nn.operands import allocate, allocate_gradients, check_arguments, check_tape, contiguous
from deltarnn.nn.operators import LIBRARY
from deltarnn.nn.state import FreshState, LayerOptions, LayerParameters, SequenceActivity, SequenceResult


def unsupported(x: Tensor) -> str | None:
    """Why the CUDA kernels cannot compute this call; None if they can."""
    if not runs(x):
        return f"the device is {x.device.type}"
    if x.dtype != torch.float32:
        return f"the dtype is {x.dtype}, not torch.float32"
    reason: str | None = cuda_passes.device.unavailable(x.device.index)
    return reason


def runs(x: Tensor) -> bool:
    """Whether x is on a device that these kernels are for."""
    kind: str = cuda_passes.device.kind
    return x.device.type == kind


def layout_used(x: Tensor, mode: str, hidden: int) -> str:
    """How the kernels lay this layer on the GPU."""
    return Layer.of(x, mode == "LSTM", hidden, False).forward.plan.description


def fresh_sequence(
    x: Tensor, state: FreshState, parameters: LayerParameters, options: LayerOptions, *_: Any
) -> SequenceResult:
    """One layer over x (T, B, I) from `state`: its output and its final h, of an LSTM c too, as a FreshState."""
    y, *final = _run(False, x, state, parameters, options)
    return SequenceResult(y, FreshState(*final), None)


def recorded_sequence(
    x: Tensor, state: FreshState, parameters: LayerParameters, options: LayerOptions, *_: Any
) -> SequenceResult:
    """As `fresh_sequence`, and its activity, but for which deltas fired."""
    l1, counts, y, *final = _run(True, x, state, parameters, options)
    return SequenceResult(y, FreshState(*final), SequenceActivity(counts, l1, None, None))


def _run(
    record: bool, x: Tensor, state: FreshState, parameters: LayerParameters, options: LayerOptions
) -> tuple[Tensor, ...]:
    h, c = state
    weight_ih, weight_hh, bias_ih, bias_hh, _ = parameters
    rows, hidden = weight_hh.shape
    layer = Layer.of(x, rows == 4 * hidden, hidden, options.hard_activations)
    tensors = (x, h, c, weight_ih, weight_hh, bias_ih, bias_hh)
    if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors):
        # Not by way of Function.apply, which looks for the transforms of torch.func: this call is none of theirs.
        apply = super(torch.autograd.Function, _Fresh).apply
        results: tuple[Tensor, ...] = apply(layer, options[:3], record, *tensors)  # type: ignore[no-untyped-call]
        return results
    return _forward(layer, options[:3], record, tensors, None)


def _forward(
    layer: Layer,
    settings: tuple[float, float, bool],
    record: bool,
    tensors: tuple[Tensor | None, ...],
    tape: Tensor | None,
) -> tuple[Tensor, ...]:
    """y, h and of an LSTM c; before them, if they are to be recorded, Σ|Δh| and counts. tensors: x, h, c, weight_ih,
    weight_hh, bias_ih, bias_hh."""
    x, h, c, weight_ih, weight_hh, bias_ih, bias_hh = tensors
    assert x is not None
    assert weight_hh is not None
    steps, batch, _ = x.shape
    hidden = weight_hh.shape[1]
    if x.stride(2) != 1:
        x = x.contiguous()
    y, h_after = x.new_empty((steps, batch, hidden)), x.new_empty((batch, hidden))
    c_after = x.new_empty((batch, hidden)) if layer.gates == 4 else None
    results = (y, h_after) if c_after is None else (y, h_after, c_after)
    activity = None
    if record:
        activity = Record(x.new_empty(()), x.new_empty(4, dtype=torch.int64), None, None, None)
        results = (activity.l1, activity.counts, *results)
    start, final = (None, contiguous(h), None, contiguous(c), None), (None, h_after, None, c_after, None)
    parameters = tuple(map(contiguous, (weight_ih, weight_hh, bias_ih, bias_hh)))
    cuda_passes.forward(layer, x, start, parameters, None, settings, y, final, tape, activity)
    return results


class _Fresh(torch.autograd.Function):
    """`_forward` with its gradients.

    The output belongs to the caller, who may write into it: it is not saved as the inputs are, and if its version says
    that it was written to, the backward pass computes it again.
    """

    @staticmethod
    def forward(
        ctx: Any, layer: Layer, settings: tuple[float, float, bool], record: bool, *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        x = tensors[0]
        assert x is not None
        tape = x.new_empty((x.shape[0] * x.shape[1], layer.tape_width))
        results = _forward(layer, settings, record, tensors, tape)
        if record:
            ctx.mark_non_differentiable(results[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, tape)
        ctx.layer, ctx.settings, ctx.record = layer, settings, record
        ctx.output, ctx.version = None, 0
        if layer.gates == 3:
            y = results[2 * record]
            ctx.output, ctx.version = y.detach(), y._version
        return results

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("the CUDA kernels have no second derivatives (create_graph=True): use backend='eager'")
        x, h, c, weight_ih, weight_hh, bias_ih, bias_hh, tape = ctx.saved_tensors
        layer, output = ctx.layer, ctx.output
        if output is not None and output._version != ctx.version:
            output = _forward(layer, ctx.settings, False, (x, h, c, weight_ih, weight_hh, bias_ih, bias_hh), None)[0]
        grad_l1, _, *grads_of = grads if ctx.record else (None, None, *grads)
        grad_y, grad_h, grad_c = (*map(contiguous, grads_of), None)[:3]
        if grad_y is None:
            grad_y = x.new_zeros((*x.shape[:2], weight_hh.shape[1]))
        h, c = contiguous(h), contiguous(c)
        weights = weight_ih.contiguous(), weight_hh.contiguous()
        gradients = Gradients(
            *(torch.empty_like(x, memory_format=torch.contiguous_format) if ctx.needs_input_grad[3] else None, None),
            *(None if h is None else torch.empty_like(h), None, None if c is None else torch.empty_like(c), None),
            *map(torch.empty_like, weights),
            *(None, None) if bias_ih is None else (torch.empty_like(bias_ih), torch.empty_like(bias_ih)),
        )
        incoming = (grad_y, None, grad_h, None, grad_c, None, grad_l1)
        cuda_passes.backward(layer, x.shape, (h, c), weights, None, ctx.settings, output, tape, incoming, gradients)
        wanted = (gradients.x, gradients.h, gradients.c, *gradients[6:])
        needed = ctx.needs_input_grad[3:]
        return None, None, None, *(g if need else None for g, need in zip(wanted, needed, strict=True))


def _sequence(*arguments: Any) -> tuple[Tensor, ...]:
    """The operator deltarnn::sequence."""
    lstm, x, *start, weight_ih, weight_hh, bias_ih, bias_hh, lengths, thx, thh, hard, training = arguments
    parameters = weight_ih, weight_hh, bias_ih, bias_hh
    check_arguments(lstm, x, (*start, *parameters), lengths)
    if x.stride(2) != 1:
        x = x.contiguous()
    results = allocate(lstm, x, weight_hh, training)
    y, *final, l1, counts, fired_x, fired_h, events, tape = results
    if x.shape[1] == 0:
        return _of_no_samples(results)
    layer, record = Layer.of(x, lstm, weight_hh.shape[1], hard), Record(l1, counts, fired_x, fired_h, events)
    entering = tuple(map(contiguous, start)), tuple(map(contiguous, parameters))
    cuda_passes.forward(
        layer, x, *entering, _on_device(lengths, x), (thx, thh, hard), y, tuple(final),
        tape if training else None, record,
    )  # fmt: skip
    return results


def _sequence_backward(*arguments: Any) -> tuple[Tensor, ...]:
    """The operator deltarnn::sequence_backward."""
    lstm, x, *start, weight_ih, weight_hh, lengths, thx, thh, hard, output, _, _, _, tape = arguments[:17]
    incoming, wanted = arguments[17:24], arguments[24:]
    check_tape(tape, x)
    grads = allocate_gradients(x, tuple(start), weight_ih, weight_hh, *wanted)
    if x.shape[1] == 0:
        return _of_no_samples(grads)
    _, h, _, c = map(contiguous, start)
    cuda_passes.backward(
        *(
            Layer.of(x, lstm, weight_hh.shape[1], hard),
            x.shape,
            (h, c),
            (weight_ih.contiguous(), weight_hh.contiguous()),
        ),
        *(_on_device(lengths, x), (thx, thh, hard), output.contiguous(), tape.contiguous()),
        *(tuple(map(contiguous, incoming)), Gradients(*grads)),
    )
    return grads


def _on_device(lengths: Tensor | None, x: Tensor) -> Tensor | None:
    return None if lengths is None else lengths.to(x.device, non_blocking=True)


def _of_no_samples(results: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    for tensor in results:
        tensor.zero_()
    return results


torch.library.impl("deltarnn::sequence", "CUDA", _sequence, lib=LIBRARY)
torch.library.impl("deltarnn::sequence_backward", "CUDA", _sequence_backward, lib=LIBRARY)
