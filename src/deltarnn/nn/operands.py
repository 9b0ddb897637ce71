"""Arguments and results of the operators deltarnn::sequence and sequence_backward: checks, allocation, fake kernels.

For the kernels of every device, and for torch.compile and torch.export, which ask for shapes alone.
"""

import sys
from typing import Any

import torch
from torch import Tensor

from deltarnn.nn.operators import LIBRARY

_NAMES = ("x_hat", "h", "h_hat", "c", "m", "weight_ih", "weight_hh", "bias_ih", "bias_hh")


def check_arguments(lstm: bool, x: Tensor, others: tuple[Tensor | None, ...], lengths: Tensor | None) -> None:
    """ValueError for shapes or dtypes that the kernels, which check nothing, do not expect. others: see _NAMES."""
    steps, batch, inputs = x.shape
    weight_hh = others[6]
    assert weight_hh is not None
    hidden = weight_hh.shape[1]
    rows = (4 if lstm else 3) * hidden
    per_unit = (batch, hidden)
    expected = ((batch, inputs), per_unit, per_unit, per_unit, (batch, 4 * hidden), (rows, inputs), (rows, hidden))
    for name, tensor, shape in zip(_NAMES, others, (*expected, (rows,), (rows,)), strict=True):
        if tensor is not None and (tensor.shape != shape or tensor.dtype != torch.float32):
            raise ValueError(f"{name} is {tuple(tensor.shape)}, {tensor.dtype}: must be {shape}, torch.float32")
    if x.dtype != torch.float32:
        raise ValueError(f"x is {x.dtype}: must be torch.float32")
    if lengths is not None and (
        lengths.shape != (batch,)
        or lengths.dtype != torch.int64
        or not 0 <= int(lengths.min()) <= int(lengths.max()) <= steps
    ):
        raise ValueError(f"lengths is {lengths}: must be int64, ({batch},), each from 0 to {steps}")


def allocate(
    lstm: bool, x: Tensor, weight_hh: Tensor, training: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The results of deltarnn::sequence, their values not set."""
    steps, batch, inputs = x.shape
    hidden = weight_hh.shape[1]
    tape = tape_shape(lstm, x, hidden) if training else (0,)
    return (
        x.new_empty(steps, batch, hidden),
        x.new_empty(batch, inputs),
        x.new_empty(batch, hidden),
        x.new_empty(batch, hidden),
        x.new_empty((batch, hidden) if lstm else (0,)),
        x.new_empty(batch, 4 * hidden),
        x.new_empty(()),
        x.new_empty(4, dtype=torch.int64),
        x.new_empty((steps, batch, (inputs + 63) // 64), dtype=torch.int64),
        x.new_empty((steps, batch, (hidden + 63) // 64), dtype=torch.int64),
        x.new_empty((2, batch), dtype=torch.int64),
        x.new_empty(tape),
    )


def tape_shape(lstm: bool, x: Tensor, hidden: int) -> tuple[int, ...]:
    """What a backward pass needs of each step: gates, of units padded to 16; on a GPU, the deltas of h and x too."""
    steps, batch, inputs = x.shape
    gates = 5 if lstm else 4
    if x.device.type == "cuda":
        return steps, batch, (gates + 1) * hidden + inputs
    return steps, batch, gates, (hidden + 15) // 16 * 16


def allocate_gradients(
    x: Tensor,
    start: tuple[Tensor | None, ...],
    weight_ih: Tensor,
    weight_hh: Tensor,
    input: bool,
    memory: bool,
    bias: bool,
) -> tuple[Tensor, ...]:
    """The results of deltarnn::sequence_backward, their values not set; empty where not wanted.

    start: the initial x_hat, h, h_hat, c. input: the gradients of x and x_hat are wanted; memory: that of m; bias:
    those of the biases.
    """
    rows, hidden = weight_hh.shape
    x_hat, *units = start
    shapes = (
        x.shape if input else (0,),
        x_hat.shape if input and x_hat is not None else (0,),
        *((0,) if tensor is None else tensor.shape for tensor in units),
        (x.shape[1], 4 * hidden) if memory else (0,),
        *(weight_ih.shape, weight_hh.shape),
        *(((rows,), (rows,)) if bias else ((0,), (0,))),
    )
    return tuple(x.new_empty(shape) for shape in shapes)


def check_tape(tape: Tensor, x: Tensor) -> None:
    """ValueError if a backward pass is asked for where the forward pass kept nothing."""
    if tape.numel() == 0 and x.numel() > 0:
        raise ValueError("this sequence was computed with training=False, which keeps nothing for a backward pass")


def address(tensor: Tensor | None) -> int:
    """Of the data, for a kernel; 0 for None."""
    return 0 if tensor is None else tensor.data_ptr()  # 0 of an empty tensor too


def contiguous(tensor: Tensor | None) -> Tensor | None:
    """The tensor, copied only where it must be; None stays None."""
    return tensor if tensor is None or tensor.is_contiguous() else tensor.contiguous()


def _sequence_fake(*arguments: Any) -> tuple[Tensor, ...]:
    _allow_in_inductor()
    lstm, x, weight_hh, training = arguments[0], arguments[1], arguments[8], arguments[-1]
    return allocate(lstm, x, weight_hh, training)


def _allow_in_inductor() -> None:
    """Let inductor call the operators as they are, with implicit_fallbacks=False too; if it is in use, it is loaded."""
    lowering = sys.modules.get("torch._inductor.lowering")
    if lowering is not None:
        lowering.FALLBACK_ALLOW_LIST.update(("deltarnn::sequence", "deltarnn::sequence_backward"))


def _sequence_backward_fake(*arguments: Any) -> tuple[Tensor, ...]:
    _, x, *start, weight_ih, weight_hh = arguments[:8]
    return allocate_gradients(x, tuple(start), weight_ih, weight_hh, *arguments[-3:])


torch.library.register_fake("deltarnn::sequence", _sequence_fake, lib=LIBRARY)
torch.library.register_fake("deltarnn::sequence_backward", _sequence_backward_fake, lib=LIBRARY)
