"""DeltaGRUCell and DeltaLSTMCell: one step of a delta layer a call, the state in the caller's hands."""

import warnings
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.fx import Proxy

from deltarnn.fixed.qformat import Quantization
from deltarnn.nn.backends import Backend
from deltarnn.nn.base import DeltaRNNBase, DenseState
from deltarnn.nn.delta_module import DeltaModule, check_dense_state
from deltarnn.nn.delta_rnn import DeltaGRU, DeltaLSTM
from deltarnn.nn.errors import ShapeError
from deltarnn.nn.state import (
    Candidate,
    DeltaGRUResetBeforeState,
    DeltaGRUState,
    DeltaLSTMState,
    DeltaState,
    FreshState,
)
from deltarnn.nn.thresholds import Thresholds


class DeltaCell(nn.RNNCellBase, DeltaModule):
    """What DeltaGRUCell and DeltaLSTMCell share.

    Attributes
    ----------
    dense_states: false by default. `convert` sets it, so that the cell takes and returns h, or (h, c), as the dense
        cell in its place did. The delta memory stays inside and continues wherever the h that comes in is the one that
        went out last, copied or not; any other h starts a new one, with a warning if two steps running bring one.
    """

    num_layers = 1
    bidirectional = False
    proj_size = 0
    dense_states = False
    _last: tuple[Tensor, DeltaState] | None = None
    _foreign: bool = False  # whether the last step was given an h other than 0 that no step had returned

    def initial_state(self, batch_size: int) -> DeltaState:
        """The delta state before the first step: zeros, m the biases (MATH §2–3)."""
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: must be at least 1")
        return self._materialized(FreshState(), "", batch_size)

    def as_layer(self) -> DeltaRNNBase:
        """A DeltaGRU or DeltaLSTM of one layer over the same parameters: whole sequences in one call."""
        options: dict[str, Any] = {"thx": self.thx, "thh": self.thh, "quantization": self.quantization}
        options |= {"hard_activations": self.hard_activations, "backend": self.backend}
        with torch.device("meta"):
            if self.mode == "GRU":
                options |= {"reset_after": self.reset_after, "candidate": self.candidate}
                layer: DeltaRNNBase = DeltaGRU(self.input_size, self.hidden_size, bias=self.bias, **options)
            else:
                layer = DeltaLSTM(self.input_size, self.hidden_size, bias=self.bias, **options)
        for name, parameter in self.named_parameters():
            setattr(layer, f"{name}_l0", parameter)
        return layer.train(self.training)

    def forward(self, input: Tensor | Proxy, state: DeltaState | DenseState | None = None) -> DeltaState | DenseState:
        """One step.

        Parameters
        ----------
        input: (B, I), or (I,).
        state: the delta state of `initial_state` or the step before; or h (B, H), for the LSTM (h, c), as of the dense
            cell, or None for zeros, which start one.

        Returns
        -------
        The delta state after the step, whose h is the output; its parts have no B if the input has none. With
        `dense_states`, for a state as of the dense cell, one as of the dense cell.

        Raises
        ------
        ShapeError, DtypeError, DeviceError, TypeError, ValueError
            If shapes, dtypes, devices or states do not fit, or under quantisation the input holds NaN.
        """
        if isinstance(input, Proxy):
            return self._leaf(input, state)  # type: ignore[no-any-return]
        if not isinstance(input, Tensor) or input.dim() not in (1, 2):
            shape = tuple(input.shape) if isinstance(input, Tensor) else type(input).__name__
            raise ShapeError(f"input is {shape}: a cell takes one step, (batch, features) or (features,)")
        batched = input.dim() == 2
        x, state, full_precision = self._at_full_precision((input if batched else input[None])[None], state)
        self._check_input(x)
        carried = isinstance(state, DeltaState)
        with full_precision:
            start = self._start(state, x, batched)
            result = self._run_layer(0, self._rounded(x), start)
        for recorder in self.recorders:
            assert result.activity is not None
            recorder.calls[0].append(result.activity)
        final = cast(DeltaState, result.state)
        if carried or not self.dense_states:
            return _map(final, lambda part: part if batched else part.squeeze(0))
        self._last = final.h.detach(), final
        return self._to_dense(final, x.dtype, batched)

    def _start(self, state: Any, x: Tensor, batched: bool) -> DeltaState | FreshState:
        if isinstance(state, DeltaState):
            return self._checked_state("", _map(state, lambda part: part if batched else part.unsqueeze(0)), x)
        given = {}
        for field, tensor in self._dense_parts(state).items():
            expected = (x.shape[1], self.hidden_size) if batched else (self.hidden_size,)
            check_dense_state(field, tensor, expected, x)
            given[field] = self._rounded(tensor if batched else tensor[None])
        if self.dense_states and "h" in given:
            return self._continued(given)
        return FreshState(**given)

    def _continued(self, given: dict[str, Tensor]) -> DeltaState | FreshState:
        """The delta state that the caller's h belongs to, else a new one."""
        if torch.compiler.is_compiling():
            raise RuntimeError(
                "a compiled or exported cell cannot keep its delta memory inside: set cell.dense_states = False and "
                "carry the delta state, state = cell(input, state)"
            )
        h = given["h"]
        if self._last is None or not torch.equal(self._last[0], h.detach()):
            before, self._foreign = self._foreign, bool(h.count_nonzero())
            # Once is how a decoder begins, with the encoder's h; twice in a row, no step goes on from the one before.
            if before and self._foreign and any(max(thresholds) > 0 for thresholds in (self.thx, self.thh)):
                warnings.warn(
                    f"{type(self).__name__}: h is not what the last step returned, again, so its delta memory starts "
                    "anew and little is skipped: call cell(input, state), each sequence with a delta state of its own",
                    stacklevel=5,
                )
            return FreshState(**given)
        self._foreign = False
        state = self._last[1]
        if not h.requires_grad:  # detached: gradients must not flow into earlier steps through the memories either
            state = _map(state, Tensor.detach)
        return state._replace(**given)

    def _dense_parts(self, state: Any) -> dict[str, Any]:
        """The dense cell's state by the fields of the delta state."""
        raise NotImplementedError

    def _to_dense(self, state: DeltaState, dtype: torch.dtype, batched: bool) -> DenseState:
        """The state as the dense cell returns it."""
        parts = (state.h, state.c) if isinstance(state, DeltaLSTMState) else (state.h,)
        shaped = tuple((part if batched else part.squeeze(0)).to(dtype) for part in parts)
        return shaped if len(shaped) == 2 else shaped[0]

    def extra_repr(self) -> str:
        return str(super().extra_repr()) + self._options_repr()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_last": None, "_foreign": False}


class DeltaGRUCell(DeltaCell):
    """nn.GRUCell that updates only on changes of at least a threshold: one step of a `DeltaGRU` layer (MATH §1–2).

    cell(input (B, I), state) -> state, a `DeltaGRUState` (`DeltaGRUResetBeforeState` with reset_after=False), whose h
    is the output; state=None or a dense h (B, H) starts one.

    >>> cell = DeltaGRUCell(16, 64, thx=0.1, thh=0.1)
    >>> state = None
    >>> for frame in torch.zeros(5, 1, 16):
    ...     state = cell(frame, state)
    >>> state.h.shape
    torch.Size([1, 64])

    Parameters and options as of nn.GRUCell and `DeltaGRU`.
    """

    state_type: type[DeltaState] = DeltaGRUState
    mode = "GRU"
    gates = 3

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
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
    ) -> None:
        super().__init__(input_size, hidden_size, bias, self.gates, device, dtype)
        self.set_options(thx, thh, quantization, hard_activations, backend, reset_after, candidate)
        if not reset_after:
            self.state_type = DeltaGRUResetBeforeState

    def _dense_parts(self, state: Any) -> dict[str, Any]:
        return {} if state is None else {"h": state}


class DeltaLSTMCell(DeltaCell):
    """nn.LSTMCell that updates only on changes of at least a threshold: one step of a `DeltaLSTM` layer (MATH §1, §3).

    cell(input (B, I), state) -> state, a `DeltaLSTMState`, whose h is the output; state=None or a dense pair (h, c),
    each (B, H), starts one. Parameters and options as of nn.LSTMCell and `DeltaLSTM`.
    """

    state_type: type[DeltaState] = DeltaLSTMState
    mode = "LSTM"
    gates = 4

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        thx: Thresholds = 0.0,
        thh: Thresholds = 0.0,
        quantization: Quantization | None = None,
        hard_activations: bool = False,
        backend: Backend = "auto",
    ) -> None:
        super().__init__(input_size, hidden_size, bias, self.gates, device, dtype)
        self.set_options(thx, thh, quantization, hard_activations, backend)

    def _dense_parts(self, state: Any) -> dict[str, Any]:
        if state is None:
            return {}
        if not isinstance(state, (tuple, list)) or len(state) != 2:
            raise TypeError(f"state is a {type(state).__name__}: must be (h, c), a DeltaLSTMState, or None")
        return {"h": state[0], "c": state[1]}


def _map(state: DeltaState, function: Any) -> DeltaState:
    return type(state)(*(function(part) for part in state))
