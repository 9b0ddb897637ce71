"""What delta layers and delta cells share: parameters, the state before the first step, one layer's run."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from deltarnn.nn import backends
from deltarnn.nn.errors import DeviceError, DtypeError, ShapeError
from deltarnn.nn.options import DeltaOptions
from deltarnn.nn.state import DeltaState, FreshState, LayerOptions, LayerParameters, SequenceResult


class DeltaModule(DeltaOptions):
    """A delta layer or cell, over parameters with the names and shapes of its dense twin's."""

    @property
    def layer_names(self) -> list[str]:
        """Suffixes of the parameter names, one per layer and direction; of a cell one, empty."""
        return [""]

    def _run_layer(
        self,
        index: int,
        x: Tensor,
        state: DeltaState | FreshState,
        lengths: Tensor | None = None,
        whole_state: bool = True,
    ) -> SequenceResult:
        """The layer and direction `layer_names[index]` over x (T, B, I).

        whole_state: the final state is wanted in full; False: its h and c are enough.
        """
        names = self.layer_names
        name = names[index]
        thx, thh = self._thx, self._thh  # one per layer, or one per layer and direction
        options = LayerOptions(
            *(thx[index * len(thx) // len(names)], thh[index * len(thh) // len(names)], self.hard_activations),
            *(self.quantization if self._quantized else None, self.reset_after, self.candidate),
        )
        parameters = self._parameters_of(name)
        self._check_parameters(parameters, name, x)
        events = bool(self.recorders) and any(recorder.events for recorder in self.recorders)
        wanted: backends.Wanted = "all"
        if not (whole_state or events or self._quantization):  # whose fresh state has rounded biases, written out
            wanted = "activity" if self.recorders else "output"
        choice = backends.choose(self.backend, self.mode, x, parameters, options, wanted)
        if self.backend_used != choice.description:
            self.backend_used = choice.description
        if isinstance(state, FreshState) and (self.quantization is not None or not choice.takes_fresh):
            state = self._materialized(state, name, x.shape[1])
        return choice.run(x, state, parameters, options, lengths, events)

    def _parameter(self, kind: str, name: str) -> Tensor:
        full = f"{kind}_{name}" if name else kind
        tensor: Tensor | None = self._parameters.get(full)  # faster than by attribute, which a parametrised one is
        return getattr(self, full) if tensor is None else tensor

    def _parameters_of(self, name: str) -> LayerParameters:
        if self._quantization is None and not self.proj_size:
            kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh") if self.bias else ("weight_ih", "weight_hh")
            return LayerParameters(*[self._parameter(kind, name) for kind in kinds])
        return LayerParameters(
            self._rounded_weight(self._parameter("weight_ih", name)),
            self._rounded_weight(self._parameter("weight_hh", name)),
            self._parameter("bias_ih", name) if self.bias else None,
            self._parameter("bias_hh", name) if self.bias else None,
            self._rounded_weight(self._parameter("weight_hr", name)) if self.proj_size else None,
        )

    def _check_parameters(self, parameters: LayerParameters, name: str, x: Tensor) -> None:
        """DeviceError or DtypeError if a parameter does not match x: kernels would read its address all the same."""
        device, dtype = x.device, x.dtype
        quantized = self._quantized  # then weights are float64, as x is; biases are rounded when they enter M
        for kind, tensor in zip(LayerParameters._fields, parameters, strict=True):
            if tensor is None or (tensor.device == device and (quantized or tensor.dtype == dtype)):
                continue
            where = f"{kind}_{name}".rstrip("_")
            check_device(where, tensor, x)
            raise DtypeError(f"{where} is {tensor.dtype}, the input {dtype}: convert one of them, as by model.to()")

    def _biases(self, name: str) -> tuple[Tensor, Tensor]:
        if self.bias:
            return self._parameter("bias_ih", name), self._parameter("bias_hh", name)
        zeros = self._parameter("weight_ih", name).new_zeros(self.gate_rows)
        return zeros, zeros

    def _fresh_memory(self, name: str) -> Tensor:
        """M before the first step: the biases, (4H,)."""
        bias_ih, bias_hh = self._biases(name)
        if self.gates == 4:
            return self._rounded_weight(bias_ih + bias_hh)
        # Split, not sliced: one operation backwards.
        (gates_ih, new_ih), (gates_hh, new_hh) = (b.tensor_split([2 * self.hidden_size]) for b in (bias_ih, bias_hh))
        return torch.cat(
            [
                self._rounded_weight(gates_ih + gates_hh),
                self._rounded_weight(new_ih),
                self._rounded(self._rounded_weight(new_hh)),
            ]
        )

    def _state_widths(self, name: str) -> dict[str, int]:
        widths = {
            "x_hat": self._parameter("weight_ih", name).shape[1],
            "h": self.proj_size or self.hidden_size,
            "h_hat": self.proj_size or self.hidden_size,
            "rh_hat": self.hidden_size,
            "c": self.hidden_size,
            "m": 4 * self.hidden_size,
        }
        return {field: widths[field] for field in self.state_type._fields}

    def _materialized(self, fresh: FreshState, name: str, batch_size: int) -> DeltaState:
        """A fresh state as full tensors: zeros, or what it holds, and m from the biases."""
        memory = self._fresh_memory(name)
        parts = {field: memory.new_zeros(batch_size, width) for field, width in self._state_widths(name).items()}
        parts["m"] = memory.expand(batch_size, -1)
        given = {field: tensor for field, tensor in fresh._asdict().items() if tensor is not None}
        return self.state_type(**{**parts, **given})

    def _checked_state(self, name: str, state: Any, x: Tensor) -> DeltaState:
        """A caller's delta state of one layer, checked, in the precision of this run."""
        where = f"the state of {name}" if name else "the state"
        if not isinstance(state, self.state_type):
            raise TypeError(f"{where} is a {type(state).__name__}: must be {self.state_type.__name__}")
        for field, width in self._state_widths(name).items():
            shape = tuple(getattr(state, field).shape)
            if shape != (x.shape[1], width):
                raise ShapeError(f"{field} of {where} has shape {shape}: needs {(x.shape[1], width)}")
            check_device(f"{field} of {where}", getattr(state, field), x)
        return self.state_type(*(part.to(torch.float64 if self._quantized else x.dtype) for part in state))

    def _at_full_precision(self, x: Tensor, state: Any) -> tuple[Tensor, Any, AbstractContextManager[Any]]:
        """x and state in the weights' dtype, and a context without autocast: thresholds compare small differences."""
        device = x.device.type
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
            x, state = tree_map_only(Tensor, lambda tensor: tensor.to(self._dtype), (x, state))
            return x, state, torch.autocast(device, enabled=False)
        return x, state, nullcontext()

    def _leaf(self, *arguments: Any) -> Any:
        """A call of this module in a graph of torch.fx, as of nn.GRU: what is inside is not traced."""
        tracer = arguments[0].tracer
        return tracer.create_proxy("call_module", tracer.path_of_module(self), arguments, {})

    def __prepare_scriptable__(self) -> Any:
        raise RuntimeError(
            f"{type(self).__name__} cannot be scripted, TorchScript does not know its operations: use torch.jit.trace, "
            "torch.export or torch.compile, or deltarnn.engine to deploy it"
        )

    @property
    def _dtype(self) -> torch.dtype:  # not of self.parameters(): a data-parallel replica has none
        return self._parameter("weight_ih", self.layer_names[0]).dtype

    def _check_input(self, x: Tensor) -> None:
        name = self.layer_names[0]
        weight = self._parameter("weight_ih", name)
        if x.dtype != weight.dtype:
            raise DtypeError(
                f"input is {x.dtype}, the weights are {weight.dtype}: RNN input dtype ({x.dtype}) does not match "
                f"weight dtype ({weight.dtype}). Convert input: input.to({weight.dtype}), or convert model: "
                f"model.to({x.dtype})"
            )
        if x.shape[-1] != self.input_size:
            kind = "layer" if name else "cell"
            raise ShapeError(f"input has {x.shape[-1]} features: this {kind} takes input_size={self.input_size}")
        if x.shape[0] == 0:
            raise ShapeError(f"input has no time steps (shape {tuple(x.shape)}): needs at least 1")
        if self.quantization is None or torch.compiler.is_compiling():
            return
        if self._quantized and x.dtype not in (torch.float32, torch.float64):
            raise DtypeError(f"quantised inference on {x.dtype}: needs float32 or float64, to hold every grid value")
        if torch.isnan(x).any():
            step, sample, feature = torch.isnan(x).nonzero()[0].tolist()
            raise ValueError(
                f"input is NaN at step {step}, sample {sample}, feature {feature}: NaN has no fixed-point value"
            )


def check_dense_state(name: str, tensor: Any, shape: tuple[int, ...], x: Tensor) -> None:
    """TypeError, ShapeError, DtypeError or DeviceError if a part of a dense layer's state does not fit the input x."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} is a {type(tensor).__name__}: must be a Tensor")
    if tuple(tensor.shape) != shape or tensor.dtype != x.dtype:
        kind = ShapeError if tuple(tensor.shape) != shape else DtypeError
        raise kind(f"{name} has shape {tuple(tensor.shape)}, {tensor.dtype}: needs {shape}, {x.dtype}")
    check_device(name, tensor, x)


def check_device(name: str, tensor: Tensor, x: Tensor) -> None:
    """DeviceError, naming the tensor, if it is not where the input x is."""
    if tensor.device != x.device:
        raise DeviceError(f"{name} is on {tensor.device}, the input on {x.device}: move one of them")
