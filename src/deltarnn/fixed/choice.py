"""Choosing Q formats from a calibration set: the fewest bits whose score stays within a budget."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deltarnn.fixed.cells import entering_biases
from deltarnn.fixed.float_network import FloatRun, run_float
from deltarnn.fixed.network import IntegerNetwork
from deltarnn.fixed.parameters import FloatArray, NetworkParameters, UnsupportedModelError
from deltarnn.fixed.qformat import QFormat, Quantization, Rounding
from deltarnn.fixed.tables import MAX_ADDRESS_BITS

Score = Callable[[FloatArray], float]
Part = Literal["activation", "weight", "gate"]
PARTS: tuple[Part, ...] = ("activation", "weight", "gate")
GATE_INTEGER_BITS = 2
"""Holds the ±1 at which σ and tanh end, which Q1.n does not."""


@dataclass(frozen=True)
class SignalError:
    """Range of a signal in floating point, and what its format does to it: RMS error, fraction outside the range."""

    name: str
    format: QFormat
    minimum: float
    maximum: float
    rms_error: float
    saturated: float


@dataclass(frozen=True)
class FormatChoice:
    """The chosen formats, their score beside the float model's, and range and error of every signal."""

    quantization: Quantization
    score: float
    float_score: float
    budget: float
    evaluations: int
    signals: tuple[SignalError, ...]

    def __str__(self) -> str:
        q = self.quantization
        width = max(len(signal.name) for signal in self.signals)
        rows = [
            f"  {s.name:<{width}}  {s.format!s:<6} {s.minimum:>9.4f} to {s.maximum:<9.4f} "
            f"rms error {s.rms_error:.2e}, {s.saturated:.2%} saturated"
            for s in self.signals
        ]
        head = (
            f"activations {q.activation}, weights {q.weight}, gates {q.gate}: score {self.score:.4f}, float "
            f"{self.float_score:.4f}, budget {self.budget:g} ({self.evaluations} formats tried)"
        )
        return "\n".join([head, *rows])


def choose_formats(
    model: Any,
    frames: ArrayLike,
    score: Score | None = None,
    budget: float = 0.01,
    rounding: Rounding = "nearest",
    max_bits: int = 16,
) -> FormatChoice:
    """The fewest bits of A, W and N with score ≥ float score − budget on a calibration set.

    Each format is first narrowed alone, the others at `max_bits`; of the activation's widths every position of the
    point is tried, since σ and tanh forgive saturation. If the three together miss the budget, the bit that helps most
    is given back, one at a time; at the end no single bit can be taken away.

    Parameters
    ----------
    model: a delta layer, keyword model or NetworkParameters.
    frames: (T, I) or (T, B, I) calibration input.
    score: of outputs (T, B, ·), higher is better, such as the accuracy of decisions. Default: the fraction of frames
        with the float model's class; for a bare layer 1 − RMS error / RMS output.

    Raises
    ------
    UnsupportedModelError
        If not even `max_bits` bits of each meet the budget.
    """
    search = _Search(
        NetworkParameters.of(model), np.asarray(frames, dtype=np.float64), score, budget, rounding, max_bits
    )
    return search.run()


class _Search:
    def __init__(
        self,
        model: NetworkParameters,
        frames: FloatArray,
        score: Score | None,
        budget: float,
        rounding: Rounding,
        max_bits: int,
    ) -> None:
        if not 4 <= max_bits <= MAX_ADDRESS_BITS:
            raise ValueError(f"max_bits={max_bits}: must lie between 4 and {MAX_ADDRESS_BITS}")
        if budget < 0:
            raise ValueError(f"budget={budget}: the loss allowed must be at least 0")
        # The search is for new formats: a quantised model's own would hide weights that a narrower W cannot hold.
        self.model = replace(model, quantization=None)
        self.frames = frames[:, None] if frames.ndim == 2 else frames
        self.reference: FloatRun = run_float(self.model, self.frames)
        self.score = score or _agreement(self.reference.output, bool(model.head))
        self.float_score = self.score(self.reference.output)
        self.budget, self.rounding, self.max_bits = budget, rounding, max_bits
        self.tried: dict[Quantization, float] = {}
        self.weight_integer_bits = _integer_bits(_weights(self.model), max_bits)

    def run(self) -> FormatChoice:
        widest = self._widest()
        chosen = widest
        for part in PARTS:
            chosen = _with(chosen, part, self._narrowest(part, widest))
        while not self._meets(chosen):
            chosen = max(self._wider(chosen, widest), key=self._evaluate, default=widest)
        while trimmed := [formats for formats in self._changed(chosen, -1) if self._meets(formats)]:
            chosen = max(trimmed, key=self._evaluate)
        signals = tuple(self._signals(chosen))
        return FormatChoice(chosen, self._evaluate(chosen), self.float_score, self.budget, len(self.tried), signals)

    def _widest(self) -> Quantization:
        """As many bits as the accumulators allow, up to `max_bits` each; the point of A where it scores best."""
        best = -np.inf
        for bits in range(self.max_bits, 3, -1):
            weight, gate = (self._formats(part, bits) for part in ("weight", "gate"))
            options = [
                Quantization(a, w, g, self.rounding) for a in self._activations(bits) for w in weight for g in gate
            ]
            widest = max(options, key=self._evaluate, default=None)
            if widest is not None:
                best = max(best, self._evaluate(widest))
                if self._meets(widest):
                    return widest
        raise UnsupportedModelError(
            f"the best formats of up to {self.max_bits} bits score {best:.4f}, the float model {self.float_score:.4f}: "
            f"allow a larger budget than {self.budget:g}"
        )

    def _activations(self, bits: int) -> list[QFormat]:
        """The positions of the point, down to where every x, h and c fits."""
        values = [v for name, v in self.reference.signals.items() if not name.startswith("pre-activations")]
        most = _integer_bits(np.concatenate(values), self.max_bits)
        return [QFormat(m, bits - m) for m in range(1, min(most, bits) + 1)]

    def _formats(self, part: Part, bits: int) -> list[QFormat]:
        if part == "activation":
            return self._activations(bits)
        integer_bits = self.weight_integer_bits if part == "weight" else GATE_INTEGER_BITS
        return [QFormat(integer_bits, bits - integer_bits)] if bits >= integer_bits else []

    def _narrowest(self, part: Part, widest: Quantization) -> QFormat:
        """The first width that meets the budget alone; the widest does."""
        limit: QFormat = getattr(widest, part)
        for bits in range(2, limit.bits):
            options = [_with(widest, part, fmt) for fmt in self._formats(part, bits)]
            best = max(options, key=self._evaluate, default=None)
            if best is not None and self._meets(best):
                fmt: QFormat = getattr(best, part)
                return fmt
        return limit

    def _wider(self, chosen: Quantization, widest: Quantization) -> list[Quantization]:
        return [
            formats
            for formats in self._changed(chosen, 1)
            if all(getattr(formats, part).bits <= getattr(widest, part).bits for part in PARTS)
        ]

    def _changed(self, chosen: Quantization, change: int) -> Iterable[Quantization]:
        """One part at a time with `change` more bits, its point where it scores best."""
        for part in PARTS:
            formats = self._formats(part, getattr(chosen, part).bits + change)
            if formats:
                yield max((_with(chosen, part, fmt) for fmt in formats), key=self._evaluate)

    def _meets(self, formats: Quantization) -> bool:
        return self._evaluate(formats) >= self.float_score - self.budget

    def _evaluate(self, formats: Quantization) -> float:
        if formats not in self.tried:
            try:
                network = IntegerNetwork.convert(self.model, formats)
            except ValueError:  # a threshold that would round to 0, or an accumulator too wide: no candidate
                self.tried[formats] = -np.inf
            else:
                self.tried[formats] = self.score(network.to_float(network.run(self.frames).output))
        return self.tried[formats]

    def _signals(self, chosen: Quantization) -> Iterable[SignalError]:
        signals = {**self.reference.signals, "weights and biases": _weights(self.model)}
        for name, values in signals.items():
            fmt = chosen.weight if name == "weights and biases" else chosen.activation
            error = fmt.quantize(values, "nearest" if fmt is chosen.weight else self.rounding) - values
            outside = (values < fmt.min - fmt.step) | (values > fmt.max + fmt.step)
            yield SignalError(
                name,
                fmt,
                float(values.min()),
                float(values.max()),
                float(np.sqrt(np.mean(error**2))),
                float(np.mean(outside)),
            )


def _with(formats: Quantization, part: Part, fmt: QFormat) -> Quantization:
    changed: Quantization = replace(formats, **{part: fmt})  # type: ignore[arg-type] # `part` names a QFormat field
    return changed


def _weights(model: NetworkParameters) -> FloatArray:
    """All recurrent weights, and the biases as they enter M, flat."""
    parts: list[NDArray[np.float64]] = []
    for layer in model.layers:
        parts += [layer.weight_ih.ravel(), layer.weight_hh.ravel()]
        parts.append(entering_biases(model.cell, layer.bias_ih, layer.bias_hh))
    return np.concatenate(parts)


def _integer_bits(values: FloatArray, max_bits: int) -> int:
    """The fewest integer bits that hold every value, whatever the step."""
    for bits in range(1, max_bits + 1):
        if -(2.0 ** (bits - 1)) <= values.min() and values.max() < 2.0 ** (bits - 1):
            return bits
    raise UnsupportedModelError(f"values reach {np.abs(values).max():g}: {max_bits} bits do not hold them")


def _agreement(reference: FloatArray, classes: bool) -> Score:
    if classes:
        decided = reference.argmax(axis=-1)
        return lambda output: float(np.mean(output.argmax(axis=-1) == decided))
    size = float(np.sqrt(np.mean(reference**2))) or 1.0
    return lambda output: 1.0 - float(np.sqrt(np.mean((output - reference) ** 2))) / size
