"""What all accelerator models share: marked parameters, and the estimate from the measured events of real frames."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deltarnn.fixed.cells import Cell
from deltarnn.fixed.parameters import NetworkParameters, UnsupportedModelError
from deltarnn.fixed.qformat import Quantization
from deltarnn.hardware.report import AcceleratorReport, Latency, Mark, Parameter

BoolArray = NDArray[np.bool_]
FRAME_PERIOD_S = 0.016384


def parameter(default: Any, unit: str, mark: Mark, meaning: str, may_be_zero: bool = False) -> Any:
    """A dataclass field of an accelerator: its default, unit, the mark of that default, and what it means."""
    metadata = {"unit": unit, "mark": mark, "meaning": meaning, "may_be_zero": may_be_zero}
    return dataclasses.field(default=default, metadata=metadata)


class Events(NamedTuple):
    """What fired while a model ran: per layer fired_x (S, I) and fired_h (S, H) over all S steps of all sequences.

    first: (S,) whether a step is the first of its sequence. notes: what conversion rounded or saturated.
    fired_dense: of an accelerator with a dense head, likewise, which inputs of each dense layer changed.
    """

    fired_x: list[BoolArray]
    fired_h: list[BoolArray]
    first: BoolArray
    notes: tuple[str, ...]
    fired_dense: tuple[BoolArray, ...] = ()


class Work(NamedTuple):
    """What the accelerator did, per step: cycles (S,), weights multiplied (S,), bytes of weights read (S,).

    busy_mean, busy_max: (S,) fired columns of the average and of the busiest unit that columns are spread over.
    """

    cycles: NDArray[np.int64]
    macs: NDArray[np.int64]
    weight_bytes: NDArray[np.int64]
    busy_mean: NDArray[np.float64]
    busy_max: NDArray[np.float64]


@dataclass(frozen=True)
class Accelerator:
    """A model of one accelerator. Subclasses declare parameters, the limits of the hardware, and its work per step."""

    name: ClassVar[str]
    cell: ClassVar[Cell]

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, may_be_zero = getattr(self, field.name), field.metadata["may_be_zero"]
            if not isinstance(value, (int, float, np.integer)):
                continue
            if not (0 < value < math.inf or (value == 0 and may_be_zero)):
                least = "at least 0" if may_be_zero else "above 0"
                raise ValueError(f"{field.name}={value}: {self.name} needs a finite number {least}")
            if isinstance(field.default, int) and value % 1 != 0:
                raise ValueError(f"{field.name}={value}: {self.name} needs a whole number")

    @property
    def clock_hz(self) -> float:
        """Clock frequency, a field of every subclass."""
        raise NotImplementedError

    @property
    def power_w(self) -> float:
        """Stated power, a field of every subclass."""
        raise NotImplementedError

    @property
    def num_macs(self) -> int:
        """Multipliers that work at once."""
        raise NotImplementedError

    @property
    def peak_throughput_ops(self) -> float:
        """Operations per second with every multiplier busy, 2 per multiplication: 2·MACs·clock."""
        return 2.0 * self.num_macs * self.clock_hz

    def check(self, model: NetworkParameters) -> None:
        """Raise UnsupportedModelError if the hardware cannot hold `model`."""
        if model.cell != self.cell:
            raise UnsupportedModelError(f"{self.name} runs Delta{self.cell} layers: this model is a Delta{model.cell}")

    def number_formats(self, model: NetworkParameters) -> Quantization:
        """The Q formats in which `model` runs."""
        raise NotImplementedError

    def events(self, model: NetworkParameters, sequences: Sequence[NDArray[np.float64]]) -> Events:
        """Run the model, bit-true, over frames (T, I) of each sequence."""
        raise NotImplementedError

    def work(self, model: NetworkParameters, events: Events) -> Work:
        """Cycles and traffic of every step."""
        raise NotImplementedError

    def estimate(
        self, model: Any, frames: ArrayLike | Sequence[ArrayLike], frame_period_s: float = FRAME_PERIOD_S
    ) -> AcceleratorReport:
        """Run a model on real frames and report what the accelerator would have done.

        Parameters
        ----------
        model: a delta layer, a keyword model (its recurrent part is modelled; the dense head runs on the host), or
            NetworkParameters.
        frames: (T, I) features as the model takes them, or a sequence of such arrays, each run from reset.
        frame_period_s: time between frames, for the real-time factor.

        Raises
        ------
        UnsupportedModelError
            If the cell is wrong, or sizes, values or thresholds are beyond the hardware; limit and value are named.
        """
        network = NetworkParameters.of(model)
        self.check(network)
        return self.report(network, self.events(network, check_frames(frames, network.input_size)), frame_period_s)

    def report(
        self, network: NetworkParameters, events: Events, frame_period_s: float = FRAME_PERIOD_S
    ) -> AcceleratorReport:
        """What the accelerator would have done with these events of `network`."""
        if not 0 < frame_period_s < math.inf:
            raise ValueError(f"frame_period_s={frame_period_s}: must be a finite number of seconds above 0")
        work = self.work(network, events)
        latency = Latency.of(work.cycles, self.clock_hz)
        operations, power = network.operations, self.power_w
        quiet_x, quiet_h = (
            1 - sum(int(f.sum()) for f in fired) / sum(f.size for f in fired)
            for fired in (events.fired_x, events.fired_h)
        )
        notes = events.notes
        if events.fired_dense:
            notes += ("the clocks of the dense head are counted, its operations are not",)
        elif network.head:
            notes += ("the dense head runs on the host and is not counted",)
        return AcceleratorReport(
            target=self.name,
            cell=network.cell,
            input_size=network.input_size,
            hidden_sizes=network.hidden_sizes,
            parameter_count=operations // 2,
            operations_per_step=operations,
            steps=len(work.cycles),
            sparsity_x=quiet_x,
            sparsity_h=quiet_h,
            effective_sparsity=_effective_sparsity(network, events),
            cycles_mean=float(work.cycles.mean()),
            latency=latency,
            effective_throughput_ops=operations / latency.mean_s,
            peak_throughput_ops=self.peak_throughput_ops,
            mac_utilisation=float(work.macs.sum() / (self.num_macs * work.cycles.sum())),
            weight_bytes_per_step=float(work.weight_bytes.mean()),
            weight_bytes_total=int(work.weight_bytes.sum()),
            balance_ratio=float(work.busy_mean.sum() / work.busy_max.sum()) if work.busy_max.any() else 1.0,
            frame_period_s=frame_period_s,
            real_time_factor=latency.mean_s / frame_period_s,
            energy_per_step_j=power * latency.mean_s,
            parameters=self.parameters,
            notes=notes,
        )

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Every parameter, with its mark; one that differs from its default is marked "given"."""
        return tuple(
            Parameter(
                field.name,
                getattr(self, field.name),
                field.metadata["unit"],
                field.metadata["mark"] if getattr(self, field.name) == field.default else "given",
                field.metadata["meaning"],
            )
            for field in dataclasses.fields(self)
        )


def check_columns(
    input_size: int, hidden_sizes: Sequence[int], fired_columns: Sequence[Sequence[int]], bias: bool
) -> list[NDArray[np.int64]]:
    """The fired columns of each layer as arrays, checked: rising, and within I + H columns (one more with a bias).

    ValueError where they are not, or sizes are not those of a network.
    """
    if not len(hidden_sizes) or any(size < 1 or size % 1 != 0 for size in (input_size, *hidden_sizes)):
        raise ValueError(
            f"input_size={input_size}, hidden_sizes={list(hidden_sizes)}: must be whole numbers of at least 1, one of "
            "them for each layer"
        )
    if len(hidden_sizes) != len(fired_columns):
        raise ValueError(f"fired_columns has {len(fired_columns)} layers, hidden_sizes has {len(hidden_sizes)}")
    layers = []
    for inputs, hidden, fired in zip([input_size, *hidden_sizes], hidden_sizes, fired_columns, strict=False):
        given, last = np.asarray(fired), inputs + hidden - (not bias)
        if given.size and given.dtype.kind not in "iu":
            raise ValueError(f"fired columns are of type {given.dtype}: must be the indices of those that fired")
        columns = given.astype(np.int64)
        if columns.size and not (columns[0] >= 0 and columns[-1] <= last and (np.diff(columns) > 0).all()):
            first = "0 (the bias)" if bias else "0 (the first input)"
            raise ValueError(f"fired columns must rise from {first} to at most {last}: {list(fired)}")
        layers.append(columns)
    return layers


def check_frames(frames: ArrayLike | Sequence[ArrayLike], input_size: int) -> list[NDArray[np.float64]]:
    """One array (T, I) or several, as a list, checked against the model's input size."""
    given = frames if isinstance(frames, (list, tuple)) else [frames]
    sequences = [np.asarray(sequence, dtype=np.float64) for sequence in given]
    if not sequences:
        raise ValueError("no frames were given: latency is measured on real input")
    for sequence in sequences:
        if sequence.ndim != 2 or sequence.shape[1] != input_size or len(sequence) == 0:
            raise ValueError(f"frames have shape {sequence.shape}: this model takes (T, {input_size}), T at least 1")
        if not np.isfinite(sequence).all():
            raise ValueError("frames hold NaN or infinite values")
    return sequences


def _effective_sparsity(model: NetworkParameters, events: Events) -> float:
    """Γ_eff: each delta weighed by the weights it would have fetched (MATH §1)."""
    fetched = total = 0
    for layer, fired_x, fired_h in zip(model.layers, events.fired_x, events.fired_h, strict=True):
        rows = len(layer.weight_ih)
        fetched += rows * (int(fired_x.sum()) + int(fired_h.sum()))
        total += rows * (fired_x.size + fired_h.size)
    return 1 - fetched / total
