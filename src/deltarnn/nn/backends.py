"""Which implementation computes a sequence: its device's kernels where they support it, else eager operations."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from deltarnn.nn import cuda, eager, native, operators
from deltarnn.nn.state import LayerOptions, LayerParameters, SequenceResult

Backend = Literal["auto", "eager", "native", "cuda"]

_EAGER: dict[str, Callable[..., SequenceResult]] = {"GRU": eager.gru_sequence, "LSTM": eager.lstm_sequence}
_KERNELS: dict[str, Callable[..., SequenceResult]] = {"GRU": native.gru_sequence, "LSTM": native.lstm_sequence}
Wanted = Literal["all", "output", "activity"]
"""How much of the result a caller uses: "output", the output and the final h and c; "activity", the counts of deltas
too; "all", the full final state and which deltas fired as well. Less than all only from a fresh state, and where all
samples have one length."""


class Choice(NamedTuple):
    """A sequence function, whether it takes a FreshState as it is, and what `layer.backend_used` tells of it."""

    run: Callable[..., SequenceResult]
    takes_fresh: bool
    description: str


def choose(
    requested: Backend,
    mode: str,
    x: Tensor,
    parameters: LayerParameters,
    options: LayerOptions,
    wanted: Wanted = "all",
) -> Choice:
    """The sequence function for x (T, B, I).

    Raises
    ------
    ValueError
        If "native" or "cuda" was asked for and cannot compute this call; with the reason.
    """
    run_eager = _EAGER[mode] if options.reset_after else eager.gru_reset_before_sequence
    if requested == "eager":
        return Choice(run_eager, False, "eager (as asked)")
    gpu = on_gpu(requested, x)
    reason = operators.unsupported(parameters, options) or (cuda if gpu else native).unsupported(x)
    if reason is None and gpu:
        description = f"cuda ({cuda.layout_used(x, mode, parameters.weight_hh.shape[1])})"
        if wanted == "all" or is_recorded():
            return Choice(_KERNELS[mode], True, description)
        return Choice(cuda.fresh_sequence if wanted == "output" else cuda.recorded_sequence, True, description)
    if reason is None:
        return Choice(_KERNELS[mode], True, f"native ({native.products_used(options)})")
    if requested != "auto":
        raise ValueError(f"backend={requested!r} cannot compute this call: {reason}; use backend='auto' or 'eager'")
    return Choice(run_eager, False, f"eager ({reason})")


def on_gpu(requested: Backend, x: Tensor) -> bool:
    """Whether the kernels for GPUs are asked for, or, by "auto", those for the device of x."""
    return requested == "cuda" or (requested == "auto" and cuda.runs(x))


def is_recorded() -> bool:
    """Whether operators are being recorded, or transformed, instead of computed."""
    return (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack() > 0
    )
