"""DeltaGRU and DeltaLSTM: nn.GRU and nn.LSTM that compute only on changes larger than a threshold."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from deltarnn.fixed.qformat import Quantization
from deltarnn.nn.backends import Backend
from deltarnn.nn.base import DeltaRNNBase, DenseState
from deltarnn.nn.state import (
    Candidate,
    DeltaGRUResetBeforeState,
    DeltaGRUState,
    DeltaLSTMState,
    DeltaState,
    FreshState,
)
from deltarnn.nn.thresholds import Thresholds


class DeltaGRU(DeltaRNNBase):
    """nn.GRU that updates only on changes of at least a threshold (MATH §1–2).

    Per step, with Δx, Δh the changes that reached their threshold since they were last seen, else 0:

        M_r  += W_ir Δx + W_hr Δh          r = σ(M_r)
        M_z  += W_iz Δx + W_hz Δh          z = σ(M_z)
        M_nx += W_in Δx                    n = tanh(M_nx + r ∘ M_nh)
        M_nh += W_hn Δh                    h = (1 − z) ∘ n + z ∘ h

    With thresholds 0 it equals nn.GRU. All arguments but the keyword-only ones, the shapes, and the names and shapes of
    the parameters are those of nn.GRU.

    Parameters
    ----------
    thx, thh: thresholds of inputs and hidden states, ≥ 0, a number or one per layer.
    quantization: formats of fixed-point inference in eval mode; in training mode the weights are rounded, with a
        straight-through gradient (MATH §6).
    hard_activations: clip(x/4 + 1/2, 0, 1) for σ and clip(x, −1, 1) for tanh.
    reset_after: False applies the reset gate before the recurrent product, n = tanh(M_nx + M_nh) with
        M_nh += W_hn Δ(r ∘ h) (MATH §2): Keras' reset_after=False, linear_before_reset=0 of ONNX. Deltas of r ∘ h have
        the threshold thh; the state is a `DeltaGRUResetBeforeState`.
    candidate: the function of n, "tanh" or "relu".
    backend: "eager", "native", "cuda", or "auto", which takes the kernels of the device where they support the call.
        What ran, and why, is in `backend_used` after a call.

    Source: D. Neil, J. H. Lee, T. Delbruck, S.-C. Liu, "Delta Networks for Optimized Recurrent Network Computation",
    ICML 2017.
    """

    state_type: type[DeltaState] = DeltaGRUState
    gates = 3

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        thx: Thresholds = 0.0,
        thh: Thresholds = 0.0,
        quantization: Quantization | None = None,
        hard_activations: bool = False,
        reset_after: bool = True,
        candidate: Candidate = "tanh",
        backend: Backend = "auto",
        **unknown: Any,
    ) -> None:
        if "proj_size" in unknown:
            raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
        if unknown:
            raise TypeError(f"DeltaGRU() got an unexpected keyword argument {next(iter(unknown))!r}")
        super().__init__(
            "GRU",
            *(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, device, dtype),
            thx=thx,
            thh=thh,
            quantization=quantization,
            hard_activations=hard_activations,
            backend=backend,
            reset_after=reset_after,
            candidate=candidate,
        )
        if not reset_after:
            self.state_type = DeltaGRUResetBeforeState

    def _dense_parts(self, hx: Any) -> dict[str, Any]:
        return {"h": hx}

    def _to_dense(self, states: Sequence[DeltaState | FreshState], dtype: torch.dtype, batched: bool) -> DenseState:
        return self._stack([state.h for state in states], dtype, batched)


class DeltaLSTM(DeltaRNNBase):
    """nn.LSTM that updates only on changes of at least a threshold (MATH §1, §3).

    Per step, with Δx, Δh the changes that reached their threshold since they were last seen, else 0:

        M += W_ih Δx + W_hh Δh             i, f, o = σ, g = tanh of M's parts
        c = f ∘ c + i ∘ g                  h = o ∘ tanh(c)

    With thresholds 0 it equals nn.LSTM. Arguments as of `DeltaGRU`, and proj_size as of nn.LSTM: the size P of a
    projection h = W_hr (o ∘ tanh(c)), 0 for none; deltas are then taken of the projected h.

    Source: D. Neil, J. H. Lee, T. Delbruck, S.-C. Liu, "Delta Networks for Optimized Recurrent Network Computation",
    ICML 2017.
    """

    state_type = DeltaLSTMState
    gates = 4
    # Of nn.LSTM, for subclasses that call them.
    get_expected_cell_size = nn.LSTM.get_expected_cell_size
    check_forward_args = nn.LSTM.check_forward_args  # type: ignore[assignment]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        thx: Thresholds = 0.0,
        thh: Thresholds = 0.0,
        quantization: Quantization | None = None,
        hard_activations: bool = False,
        backend: Backend = "auto",
    ) -> None:
        super().__init__(
            "LSTM",
            *(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, device, dtype),
            thx=thx,
            thh=thh,
            quantization=quantization,
            hard_activations=hard_activations,
            backend=backend,
        )

    def _dense_parts(self, hx: Any) -> dict[str, Any]:
        if not isinstance(hx, (tuple, list)) or len(hx) != 2:
            raise TypeError(f"hx is a {type(hx).__name__}: must be (h_0, c_0), or a delta state from initial_state()")
        return {"h": hx[0], "c": hx[1]}

    def _to_dense(self, states: Sequence[DeltaState | FreshState], dtype: torch.dtype, batched: bool) -> DenseState:
        cells = [state.c for state in states if isinstance(state, (DeltaLSTMState, FreshState))]
        return self._stack([state.h for state in states], dtype, batched), self._stack(cells, dtype, batched)
