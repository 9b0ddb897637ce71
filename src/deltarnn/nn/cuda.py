"""Whole sequences of the delta layers on a GPU: the CUDA implementation of the operators of `native`, and a way past
them for what most calls are, eager ones of a fresh sequence whose activity nobody records. See docs/training.md.
"""

from typing import Any

import torch
from torch import Tensor

from deltarnn.nn import cuda_passes, native
from deltarnn.nn.cuda_passes import Gradients, Layer, Record, contiguous
from deltarnn.nn.operators import LIBRARY
from deltarnn.nn.state import FreshState, LayerOptions, LayerParameters, SequenceResult


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
    plan = Layer.of(x, mode == "LSTM", hidden).forward.plan
    if plan.scope == "block":
        return "one block per sequence"
    where = "" if plan.resident else ", weights in memory"
    return f"{'clusters' if plan.scope == 'cluster' else 'teams'} of {plan.blocks} blocks{where}"


def gru_output(
    x: Tensor, state: FreshState, parameters: LayerParameters, options: LayerOptions, *_: Any
) -> SequenceResult:
    """One DeltaGRU layer over x (T, B, I) from `state`: its output and its final h, as a FreshState; no activity."""
    y, h = _output(False, x, (state.h, None), parameters, options)
    return SequenceResult(y, FreshState(h), None)


def lstm_output(
    x: Tensor, state: FreshState, parameters: LayerParameters, options: LayerOptions, *_: Any
) -> SequenceResult:
    """One DeltaLSTM layer over x (T, B, I) from `state`: its output and its final h and c; no activity."""
    y, h, c = _output(True, x, (state.h, state.c), parameters, options)
    return SequenceResult(y, FreshState(h, c), None)


def _output(
    lstm: bool,
    x: Tensor,
    start: tuple[Tensor | None, Tensor | None],
    parameters: LayerParameters,
    options: LayerOptions,
) -> tuple[Tensor, ...]:
    tensors = (x, *start, *parameters[:4])
    settings = options[:3]
    if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors):
        results: tuple[Tensor, ...] = _Output.apply(settings, *tensors)  # type: ignore[no-untyped-call]
        return results
    return _run(settings, tensors, None)


def _run(
    settings: tuple[float, float, bool], tensors: tuple[Tensor | None, ...], tape: Tensor | None
) -> tuple[Tensor, ...]:
    """y, h and of an LSTM c. tensors: x, h, c, weight_ih, weight_hh, bias_ih, bias_hh."""
    x, h, c, *parameters = tensors
    assert x is not None
    weight_hh = parameters[1]
    assert weight_hh is not None
    rows, hidden = weight_hh.shape
    steps, batch, _ = x.shape
    if x.stride(2) != 1:
        x = x.contiguous()
    results = [x.new_empty(steps, batch, hidden)]
    results += [x.new_empty(batch, hidden) for _ in range(rows // hidden - 2)]
    start = None, contiguous(h), None, contiguous(c), None
    final = None, results[1], None, results[2] if len(results) > 2 else None, None
    cuda_passes.forward(
        *(Layer.of(x, len(results) > 2, hidden), x, start, tuple(map(contiguous, parameters)), None, settings),
        *(results[0], final, tape, None),
    )
    return tuple(results)


class _Output(torch.autograd.Function):
    """`_run` with its gradients.

    The output belongs to the caller, who may write into it: it is not saved as the inputs are, and if its version says
    that it was written to, the backward pass computes it again.
    """

    @staticmethod
    def forward(ctx: Any, settings: tuple[float, float, bool], *tensors: Tensor | None) -> tuple[Tensor, ...]:
        x, weight_hh = tensors[0], tensors[4]
        assert x is not None
        assert weight_hh is not None
        layer = Layer.of(x, weight_hh.shape[0] == 4 * weight_hh.shape[1], weight_hh.shape[1])
        tape = x.new_empty(x.shape[0] * x.shape[1], layer.tape_width)
        results = _run(settings, tensors, tape)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, tape)
        ctx.layer, ctx.settings = layer, settings
        ctx.output = results[0].detach() if layer.gates == 3 else None
        ctx.version = results[0]._version
        return results

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("the CUDA kernels have no second derivatives (create_graph=True): use backend='eager'")
        *tensors, tape = ctx.saved_tensors
        x, h, c, weight_ih, weight_hh, bias_ih, _ = tensors
        output = ctx.output
        if output is not None and output._version != ctx.version:
            output = _run(ctx.settings, tuple(tensors), None)[0]
        grad_y, grad_h, grad_c = (*map(contiguous, grads), None)[:3]
        if grad_y is None:
            grad_y = x.new_zeros(*x.shape[:2], weight_hh.shape[1])
        gradients = Gradients(
            *(x.new_empty(x.shape) if ctx.needs_input_grad[1] else None, None),
            *(None if h is None else torch.empty_like(h), None, None if c is None else torch.empty_like(c), None),
            *(x.new_empty(weight_ih.shape), x.new_empty(weight_hh.shape)),
            *(None if bias_ih is None else x.new_empty(bias_ih.shape) for _ in range(2)),
        )
        start, weights = (contiguous(h), contiguous(c)), (weight_ih.contiguous(), weight_hh.contiguous())
        incoming = (grad_y, None, grad_h, None, grad_c, None, None)
        cuda_passes.backward(ctx.layer, x.shape, start, weights, None, ctx.settings, output, tape, incoming, gradients)
        wanted = (gradients.x, gradients.h, gradients.c, *gradients[6:])
        return None, *(
            gradient if need else None for gradient, need in zip(wanted, ctx.needs_input_grad[1:], strict=True)
        )


def _sequence(*arguments: Any) -> tuple[Tensor, ...]:
    """The operator deltarnn::sequence."""
    lstm, x, *given, lengths, thx, thh, hard, training = arguments
    native._check(lstm, x, tuple(given), lengths)
    if x.stride(2) != 1:
        x = x.contiguous()
    results = native._allocate(lstm, x, given[6], training)
    y, *final, l1, counts, fired_x, fired_h, events, tape = results
    if x.shape[1] == 0:
        return _of_no_samples(results)
    *start, weight_ih, weight_hh, bias_ih, bias_hh = map(contiguous, given)
    layer, parameters = Layer.of(x, lstm, given[6].shape[1]), (weight_ih, weight_hh, bias_ih, bias_hh)
    record = Record(l1, counts, fired_x, fired_h, events)
    cuda_passes.forward(
        layer, x, tuple(start), parameters, _on_device(lengths, x), (thx, thh, hard), y, tuple(final),
        tape if training else None, record,
    )  # fmt: skip
    return results


def _sequence_backward(*arguments: Any) -> tuple[Tensor, ...]:
    """The operator deltarnn::sequence_backward."""
    lstm, x, *start, weight_ih, weight_hh, lengths, thx, thh, hard, output = arguments[:13]
    tape, *incoming = arguments[16:24]
    if tape.numel() == 0 and x.numel() > 0:
        raise ValueError("this sequence was computed with training=False, which keeps nothing for a backward pass")
    grads = native._allocate_gradients(x, tuple(start), weight_ih, weight_hh, *arguments[24:])
    if x.shape[1] == 0:
        return _of_no_samples(grads)
    _, h, _, c = map(contiguous, start)
    cuda_passes.backward(
        *(Layer.of(x, lstm, weight_hh.shape[1]), x.shape, (h, c), (weight_ih.contiguous(), weight_hh.contiguous())),
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
