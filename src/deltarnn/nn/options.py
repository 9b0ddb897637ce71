"""The options that make a recurrent module a delta module: thresholds, formats, activation functions, backend."""

from dataclasses import dataclass
from typing import Any, get_args

from torch import Tensor, nn

from deltarnn.fixed.fake_quant import fake_quantize, fake_quantize_straight_through
from deltarnn.fixed.qformat import Quantization
from deltarnn.nn import backends
from deltarnn.nn.state import Candidate, DeltaState, SequenceActivity
from deltarnn.nn.thresholds import Thresholds, per_layer


@dataclass(eq=False)
class ActivityRecorder:
    """Where a delta module writes its activity: one list of calls per layer and direction."""

    calls: list[list[SequenceActivity]]
    events: bool


class DeltaOptions(nn.Module):
    """What makes a module with a dense twin's parameters a delta module; `set_options` comes after their init."""

    mode: str
    state_type: type[DeltaState]
    gates: int
    num_layers: int
    input_size: int
    hidden_size: int
    proj_size: int
    bidirectional: bool
    bias: bool
    reset_after: bool
    candidate: Candidate

    def set_options(
        self,
        thx: Thresholds,
        thh: Thresholds,
        quantization: Quantization | None,
        hard_activations: bool,
        backend: backends.Backend,
        reset_after: bool = True,
        candidate: Candidate = "tanh",
    ) -> None:
        """Set all options, checked."""
        if backend not in get_args(backends.Backend):
            raise ValueError(f"backend={backend!r}: must be one of {', '.join(map(repr, get_args(backends.Backend)))}")
        if candidate not in get_args(Candidate):
            raise ValueError(f"candidate={candidate!r}: must be one of {', '.join(map(repr, get_args(Candidate)))}")
        self.reset_after = bool(reset_after)
        self.candidate = candidate
        self._quantization: Quantization | None = None
        self.thx = thx
        self.thh = thh
        self.quantization = quantization
        self.hard_activations = bool(hard_activations)
        self.backend = backend
        self.backend_used: str | None = None
        self.recorders: list[ActivityRecorder] = []

    @property
    def thx(self) -> tuple[float, ...]:
        """Thresholds of the inputs, one per layer, or per layer and direction; may be set to a number or a sequence."""
        return self._thx

    @thx.setter
    def thx(self, value: Thresholds) -> None:
        self._thx = per_layer("thx", value, self.num_layers, self.quantization, 1 + self.bidirectional)

    @property
    def thh(self) -> tuple[float, ...]:
        """Thresholds of the hidden states, as of `thx`."""
        return self._thh

    @thh.setter
    def thh(self, value: Thresholds) -> None:
        self._thh = per_layer("thh", value, self.num_layers, self.quantization, 1 + self.bidirectional)

    @property
    def quantization(self) -> Quantization | None:
        """Formats of quantised inference, or None. In training mode only the weights are rounded (MATH §6)."""
        return self._quantization

    @quantization.setter
    def quantization(self, value: Quantization | None) -> None:
        if value is not None and not isinstance(value, Quantization):
            raise TypeError(f"quantization={value!r}: must be a Quantization or None")
        if value is not None and not (self.reset_after and self.candidate == "tanh"):
            option = "reset_after=False" if not self.reset_after else f"candidate={self.candidate!r}"
            raise ValueError(f"quantization does not combine with {option}: set quantization=None to compute in float")
        per_layer("thx", self.thx, self.num_layers, value, 1 + self.bidirectional)
        per_layer("thh", self.thh, self.num_layers, value, 1 + self.bidirectional)
        self._quantization = value

    @property
    def gate_rows(self) -> int:
        """Rows of the weight matrices: 3H (GRU) or 4H (LSTM)."""
        return self.gates * self.hidden_size

    @property
    def delta_rows(self) -> tuple[int, ...]:
        """How many weights a delta of x, of h and, with reset_after=False, of r ∘ h fetches."""
        if self.reset_after:
            return self.gate_rows, self.gate_rows
        return self.gate_rows, 2 * self.hidden_size, self.hidden_size

    @property
    def _quantized(self) -> bool:
        return self.quantization is not None and not self.training

    def _rounded(self, values: Tensor) -> Tensor:
        """Activations on the grid A, in float64 so that sums of products are exact; in float inference unchanged."""
        if self.quantization is None or self.training:
            return values
        return fake_quantize(values.double(), self.quantization.activation, self.quantization.rounding)

    def _rounded_weight(self, values: Tensor) -> Tensor:
        """Weights or biases on the grid W: in training with a straight-through gradient, in inference in float64."""
        if self.quantization is None:
            return values
        if self.training:
            return fake_quantize_straight_through(values, self.quantization.weight)
        return fake_quantize(values.double(), self.quantization.weight)

    def _options_repr(self) -> str:
        text = ""
        for name in ("thx", "thh"):
            values = getattr(self, name)
            text += f", {name}={values[0] if len(set(values)) == 1 else values}"
        if not self.reset_after:
            text += ", reset_after=False"
        if self.candidate != "tanh":
            text += f", candidate={self.candidate!r}"
        if self.quantization is not None:
            formats = self.quantization
            text += f", quantization={formats.activation}/{formats.weight}/{formats.gate} {formats.rounding}"
        if self.hard_activations:
            text += ", hard_activations=True"
        if self.backend != "auto":
            text += f", backend={self.backend!r}"
        return text

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]
        state["recorders"] = []  # a copy does not report to the blocks that record the original
        return state
