"""Which implementation computes a sequence: the native kernels where they support it, else eager torch operations."""

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from deltarnn.nn import eager, native
from deltarnn.nn.state import LayerOptions, LayerParameters, SequenceResult

Backend = Literal["auto", "eager", "native"]

_EAGER: dict[str, Callable[..., SequenceResult]] = {"GRU": eager.gru_sequence, "LSTM": eager.lstm_sequence}
_NATIVE: dict[str, Callable[..., SequenceResult]] = {"GRU": native.gru_sequence, "LSTM": native.lstm_sequence}


def choose(
    requested: Backend, mode: str, x: Tensor, parameters: LayerParameters, options: LayerOptions
) -> tuple[Callable[..., SequenceResult], str]:
    """The sequence function for x (T, B, I), and what to tell the user about it.

    Raises
    ------
    ValueError
        If "native" was asked for and cannot compute this call; with the reason.
    """
    if requested == "eager":
        return _EAGER[mode], "eager (as asked)"
    reason = native.unsupported(x, parameters, options)
    if reason is None:
        return _NATIVE[mode], f"native ({native.products_used(options)})"
    if requested == "native":
        raise ValueError(f"backend='native' cannot compute this call: {reason}; use backend='auto' or 'eager'")
    return _EAGER[mode], f"eager ({reason})"
