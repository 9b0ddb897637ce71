"""What DeltaGRU and DeltaLSTM share: options of nn.RNNBase, thresholds, delta states, the run over layers."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import Proxy
from torch.nn.utils.rnn import PackedSequence

from deltarnn.fixed.qformat import Quantization
from deltarnn.nn import backends
from deltarnn.nn.delta_module import DeltaModule, check_dense_state
from deltarnn.nn.errors import ShapeError
from deltarnn.nn.initialization import Initialization, initialize
from deltarnn.nn.layout import Layout, reverse
from deltarnn.nn.state import (
    Candidate,
    DeltaState,
    FreshState,
    SequenceActivity,
)
from deltarnn.nn.thresholds import Thresholds

DenseState = Tensor | tuple[Tensor, Tensor]


class DeltaRNNBase(nn.RNNBase, DeltaModule):
    """What DeltaGRU and DeltaLSTM share: parameters and options of nn.RNNBase, thresholds, the delta state.

    stand_in: if set, forward passes its arguments to it and returns its result, so that a tracer sees the layer as one
    opaque operation.
    """

    stand_in: Callable[[Any, Any], Any] | None = None
    _stepped = False  # whether the last call was one step from a dense state

    def __init__(
        self,
        mode: Literal["GRU", "LSTM"],
        *dense_arguments: Any,
        thx: Thresholds,
        thh: Thresholds,
        quantization: Quantization | None,
        hard_activations: bool,
        backend: backends.Backend,
        reset_after: bool = True,
        candidate: Candidate = "tanh",
    ) -> None:
        super().__init__(mode, *dense_arguments)
        directions = ["", "_reverse"] if self.bidirectional else [""]
        self._layer_names = [f"l{layer}{direction}" for layer in range(self.num_layers) for direction in directions]
        self.set_options(thx, thh, quantization, hard_activations, backend, reset_after, candidate)

    @property
    def layer_names(self) -> list[str]:
        """Suffixes of the parameter names, one per layer and direction: l0, l0_reverse, l1, …"""
        return self._layer_names

    def reset_parameters(self, scheme: Initialization = "uniform") -> None:
        """Draw new parameters.

        "uniform": U(−1/√H, 1/√H) for all, as nn.GRU and nn.LSTM do. "orthogonal": Xavier-uniform per gate for the input
        weights of layer 0, orthogonal per gate for all other matrices, biases 0.
        """
        if scheme == "uniform":
            super().reset_parameters()
        else:
            initialize(self, scheme)

    def initial_state(self, batch_size: int) -> tuple[DeltaState, ...]:
        """The delta state before the first step, one entry per layer and direction.

        Delta memories and hidden states are 0, m holds the biases (MATH §2–3). Made from the present biases: ask for a
        new one after they changed.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: must be at least 1")
        return tuple(self._materialized(FreshState(), name, batch_size) for name in self.layer_names)

    def forward(
        self, input: Tensor | PackedSequence | Proxy, hx: DenseState | Sequence[DeltaState] | None = None
    ) -> tuple[Tensor | PackedSequence, DenseState | tuple[DeltaState, ...]]:
        """Run over a whole sequence or a chunk of one.

        Parameters
        ----------
        input: (T, B, I), (B, T, I) with batch_first, (T, I), or a PackedSequence.
        hx: initial states as of the dense layer, or the delta state of `initial_state` or an earlier call, which
            continues that sequence exactly. A backward direction starts from its own state at the end of this input.

        Returns
        -------
        The output in the layout of the input, (…, D·H), and the final state in the form that was given: as of the dense
        layer, or the full delta state.

        Raises
        ------
        ShapeError, DtypeError, DeviceError
            If the input or a state does not fit this layer. Each is a ValueError and a RuntimeError.
        TypeError, ValueError
            If a state is of another kind, or under quantisation the input holds NaN.
        """
        if self.stand_in is not None:
            return self.stand_in(input, hx)  # type: ignore[no-any-return]
        if isinstance(input, Proxy):
            return self._leaf(input, hx)  # type: ignore[no-any-return]
        if not any(self.thx) and not any(self.thh) and self._is_dense(input, hx):
            self.backend_used = f"nn.{self.mode} (thresholds are 0)"
            return self._dense()(input, hx)  # type: ignore[no-any-return]
        x, layout = Layout.of(input, self.batch_first)
        x, hx, full_precision = self._at_full_precision(x, hx)
        self._check_input(x)
        with full_precision:
            carried = _is_delta_state(hx)
            states: Sequence[DeltaState | FreshState] = (
                self._carried_states(hx, x, layout) if carried else self._dense_states(hx, x, layout)
            )
            self._warn_of_steps(x, states)
            output, finals = self._run_layers(self._rounded(x), states, layout)
        if layout.packed is not None:
            written = cast(tuple[DeltaState, ...], finals)  # where lengths differ, whole states are made
            finals = tuple(type(state)(*(layout.unsort(part, 0) for part in state)) for state in written)
        output = output if output.dtype == x.dtype else output.to(x.dtype)
        if carried:
            return layout.restore(output), cast(tuple[DeltaState, ...], finals)
        return layout.restore(output), self._to_dense(finals, x.dtype, layout.batched)

    def _warn_of_steps(self, x: Tensor, states: Sequence[DeltaState | FreshState]) -> None:
        """Warn where every step begins with a dense state, and with it a new delta memory, so that nothing goes on."""
        if backends.is_recorded():
            return
        dense = isinstance(states[0], FreshState) and states[0].h is not None
        stepped = dense and x.shape[0] == 1 and any((*self.thx, *self.thh))
        if stepped != self._stepped:
            self._stepped = stepped  # which takes nn.Module 3 µs
        elif stepped:
            warnings.warn(
                f"{type(self).__name__}: one step from a dense state, again, so its delta memory starts anew and little"
                " is skipped: begin with the state initial_state(batch_size), and hand on what each call returns",
                stacklevel=5,
            )

    def _is_dense(self, input: Tensor | PackedSequence, hx: Any) -> bool:
        """Whether, at thresholds 0, torch's own operator is to compute this: on a GPU it is the fastest."""
        data = input.data if isinstance(input, PackedSequence) else input
        return (
            isinstance(data, Tensor)
            and backends.on_gpu(self.backend, data)
            and not (self.recorders or self.hard_activations or self.quantization or _is_delta_state(hx))
            and self.reset_after
            and self.candidate == "tanh"
            and not backends.is_recorded()
        )

    def _dense(self) -> nn.RNNBase:
        """The dense layer that this one is at thresholds 0: the same parameters, the same everything."""
        kind = nn.GRU if self.mode == "GRU" else nn.LSTM
        dense = kind.__new__(kind)
        dense.__dict__ = self.__dict__
        return dense

    def _run_layers(
        self, x: Tensor, states: Sequence[DeltaState | FreshState], layout: Layout
    ) -> tuple[Tensor, tuple[DeltaState | FreshState, ...]]:
        lengths = layout.lengths
        directions = len(self.layer_names) // self.num_layers
        finals: list[DeltaState | FreshState] = []
        for layer in range(self.num_layers):
            outputs = []
            for direction in range(directions):
                index = layer * directions + direction
                sequence = reverse(x, lengths) if direction else x
                whole_state = lengths is not None or not isinstance(states[index], FreshState)
                result = self._run_layer(index, sequence, states[index], lengths, whole_state)
                outputs.append(reverse(result.output, lengths) if direction else result.output)
                finals.append(result.state)
                for recorder in self.recorders:
                    assert result.activity is not None
                    recorder.calls[index].append(_in_callers_order(result.activity, bool(direction), layout))
            x = torch.cat(outputs, dim=-1) if len(outputs) > 1 else outputs[0]
            if self.dropout and layer < self.num_layers - 1:
                x = layout.map_steps(lambda steps: F.dropout(steps, self.dropout, self.training), x)
        return x, tuple(finals)

    def _carried_states(self, states: Any, x: Tensor, layout: Layout) -> tuple[DeltaState, ...]:
        """The caller's delta states, checked, in the order and precision of this run."""
        if len(states) != len(self.layer_names):
            raise ShapeError(f"the state has {len(states)} entries: this layer has {len(self.layer_names)}")
        checked = (self._checked_state(name, state, x) for name, state in zip(self.layer_names, states, strict=True))
        return tuple(type(state)(*(layout.sort(part, 0) for part in state)) for state in checked)

    def _dense_states(self, hx: Any, x: Tensor, layout: Layout) -> tuple[FreshState, ...]:
        """Fresh states with the dense layer's initial states in them."""
        if hx is None:
            return (FreshState(),) * len(self.layer_names)
        parts = self._dense_parts(hx)
        batch_size = x.shape[1]
        given = {}
        for field, tensor in parts.items():
            width = self.hidden_size if field == "c" else self.proj_size or self.hidden_size
            expected = (len(self.layer_names), batch_size, width) if layout.batched else (len(self.layer_names), width)
            check_dense_state(f"{field}_0", tensor, expected, x)
            tensor = tensor if layout.batched else tensor.unsqueeze(1)
            given[field] = self._rounded(layout.sort(tensor, 1)).unbind(0)
        return tuple(
            FreshState(**{field: tensors[index] for field, tensors in given.items()})
            for index in range(len(self.layer_names))
        )

    def _dense_parts(self, hx: Any) -> dict[str, Any]:
        """The dense layer's hx by the fields of the delta state."""
        raise NotImplementedError

    def _to_dense(self, states: Sequence[DeltaState | FreshState], dtype: torch.dtype, batched: bool) -> DenseState:
        """The final states as the dense layer returns them."""
        raise NotImplementedError

    def _stack(self, parts: list[Tensor | None], dtype: torch.dtype, batched: bool) -> Tensor:
        """One part of every layer's final state, which has it."""
        given = cast(list[Tensor], parts)
        stacked = torch.stack(given) if len(given) > 1 else given[0].unsqueeze(0)
        stacked = stacked if stacked.dtype == dtype else stacked.to(dtype)
        return stacked if batched else stacked.squeeze(1)

    def extra_repr(self) -> str:
        return str(super().extra_repr()) + self._options_repr()


def _in_callers_order(activity: SequenceActivity, backwards: bool, layout: Layout) -> SequenceActivity:
    """Events in the order of the caller's steps and samples."""
    if activity.fired_x is None or activity.fired_h is None:
        return activity
    events = (activity.fired_x, activity.fired_h)
    fired_x, fired_h = (reverse(fired, layout.lengths) if backwards else fired for fired in events)
    return activity._replace(fired_x=layout.unsort(fired_x, 1), fired_h=layout.unsort(fired_h, 1))


def _is_delta_state(hx: Any) -> bool:
    return isinstance(hx, (tuple, list)) and len(hx) > 0 and isinstance(hx[0], DeltaState)
