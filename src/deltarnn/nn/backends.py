"""Which implementation computes a sequence: the native kernels where they support it, else eager torch operations."""

from collections.abc import Callable
from typing import Literal, NamedTuple

from torch import Tensor

from deltarnn.nn import eager, native, operators
from deltarnn.nn.state import LayerOptions, LayerParameters, SequenceResult

Backend = Literal["auto", "eager", "native"]

_EAGER: dict[str, Callable[..., SequenceResult]] = {"GRU": eager.gru_sequence, "LSTM": eager.lstm_sequence}
_NATIVE: dict[str, Callable[..., SequenceResult]] = {"GRU": native.gru_sequence, "LSTM": native.lstm_sequence}


class Choice(NamedTuple):
    """A sequence function, whether it is the native one, which takes a FreshState too, and what to tell the user."""

    run: Callable[..., SequenceResult]
    native: bool
    description: str


def choose(requested: Backend, mode: str, x: Tensor, parameters: LayerParameters, options: LayerOptions) -> Choice:
    """The sequence function for x (T, B, I).

    Raises
    ------
    ValueError
        If "native" was asked for and cannot compute this call; with the reason.
    """
    run_eager = _EAGER[mode] if options.reset_after else eager.gru_reset_before_sequence
    if requested == "eager":
        return Choice(run_eager, False, "eager (as asked)")
    reason = operators.unsupported() or native.unsupported(x, parameters, options)
    if reason is None:
        return Choice(_NATIVE[mode], True, f"native ({native.products_used(options)})")
    if requested == "native":
        raise ValueError(f"backend='native' cannot compute this call: {reason}; use backend='auto' or 'eager'")
    return Choice(run_eager, False, f"eager ({reason})")
