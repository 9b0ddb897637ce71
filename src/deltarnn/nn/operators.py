"""The operators deltarnn::sequence and deltarnn::sequence_backward: their schemas and the gradient, for every device.

Kernels are registered where they are: `native` for the CPU, `cuda` for GPUs, those that only tell shapes in `operands`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from deltarnn.nn.state import LayerOptions, LayerParameters

LIBRARY: Any = torch.library.Library("deltarnn", "DEF")  # type: ignore[no-untyped-call]
LIBRARY.define(
    "sequence(bool lstm, Tensor x, Tensor? x_hat, Tensor? h, Tensor? h_hat, Tensor? c, Tensor? m, Tensor weight_ih, "
    "Tensor weight_hh, Tensor? bias_ih, Tensor? bias_hh, Tensor? lengths, float thx, float thh, bool hard, "
    "bool training) -> (Tensor output, Tensor x_hat, Tensor h, Tensor h_hat, Tensor c, Tensor m, Tensor l1_delta_h, "
    "Tensor counts, Tensor fired_x, Tensor fired_h, Tensor events, Tensor tape)"
)
LIBRARY.define(
    "sequence_backward(bool lstm, Tensor x, Tensor? x_hat, Tensor? h, Tensor? h_hat, Tensor? c, Tensor weight_ih, "
    "Tensor weight_hh, Tensor? lengths, float thx, float thh, bool hard, Tensor output, Tensor fired_x, "
    "Tensor fired_h, Tensor events, Tensor tape, Tensor grad_output, Tensor? grad_x_hat, Tensor? grad_h, "
    "Tensor? grad_h_hat, Tensor? grad_c, Tensor? grad_m, Tensor? grad_l1, bool input, bool memory, bool bias) "
    "-> (Tensor x, Tensor x_hat, Tensor h, Tensor h_hat, Tensor c, Tensor m, Tensor weight_ih, Tensor weight_hh, "
    "Tensor bias_ih, Tensor bias_hh)"
)

is_tracing: Callable[[], bool] = torch.jit._trace.is_tracing


def unsupported(parameters: LayerParameters, options: LayerOptions) -> str | None:
    """Why the operators cannot compute this layer, or be part of what torch is doing now, on any device; None if they
    can."""
    if options.quantization is not None:
        return "quantised arithmetic is eager"
    if parameters.weight_hr is not None:
        return "projections are eager"
    if not options.reset_after:
        return "reset_after=False is eager"
    if options.candidate != "tanh":
        return f"candidate={options.candidate!r} is eager"
    if torch.compiler.is_compiling() or is_tracing():
        return "ONNX has no such operator" if torch.onnx.is_in_onnx_export() else None
    if torch._C._are_functorch_transforms_active():
        return "transforms of torch.func differentiate eager operations"
    if forward_ad._current_level >= 0:
        return "forward-mode differentiation needs eager operations"
    return None


class _Differentiable(torch.autograd.Function):
    """deltarnn::sequence with its gradients: torch.library.register_autograd, without what its bookkeeping costs.

    The output belongs to the caller, who may write into it: it is not saved as the inputs are, and if its version says
    that it was written to, the backward pass computes it again.
    """

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, ...]:
        lstm, *tensors, thx, thh, hard, _ = arguments
        with torch._C._AutoDispatchBelowAutograd():
            results: tuple[Tensor, ...] = torch.ops.deltarnn.sequence.default(*arguments)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*results[7:])
        ctx.options = lstm, thx, thh, hard
        ctx.output = results[0].detach()
        ctx.version = ctx.output._version
        ctx.save_for_backward(*tensors, *results[8:])
        return results

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("the native kernels have no second derivatives (create_graph=True): use backend='eager'")
        tensors, record = ctx.saved_tensors[:11], ctx.saved_tensors[11:]
        x, x_hat, h, h_hat, c, m, weight_ih, weight_hh, bias_ih, bias_hh, lengths = tensors
        lstm, thx, thh, hard = ctx.options
        output = ctx.output
        if output._version != ctx.version:
            output, *_ = torch.ops.deltarnn.sequence.default(lstm, *tensors, thx, thh, hard, False)
        grad_output = torch.zeros_like(output) if grads[0] is None else grads[0]
        bias = bias_ih is not None or bias_hh is not None
        gradients = torch.ops.deltarnn.sequence_backward.default(
            *(lstm, x, x_hat, h, h_hat, c, weight_ih, weight_hh, lengths, thx, thh, hard, output, *record),
            *(grad_output, *grads[1:7], any(ctx.needs_input_grad[1:3]), m is not None, bias),
        )
        wanted = zip(gradients, ctx.needs_input_grad[1:11], strict=True)
        return None, *(gradient if needed else None for gradient, needed in wanted), None, None, None, None, None


def _sequence_autograd(*arguments: Any) -> tuple[Tensor, ...]:
    if not arguments[-1] and torch.is_grad_enabled():  # a graph recorded without gradients, say
        arguments = (*arguments[:-1], any(isinstance(a, Tensor) and a.requires_grad for a in arguments))
    results: tuple[Tensor, ...] = _Differentiable.apply(*arguments)  # type: ignore[no-untyped-call]
    return results


torch.library.impl("deltarnn::sequence", "Autograd", _sequence_autograd, lib=LIBRARY)
