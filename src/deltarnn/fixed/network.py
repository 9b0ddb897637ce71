"""A whole quantised model in integers: delta layers and dense head, as the C export and the accelerators run it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deltarnn.fixed.arithmetic import IntArray, requantize
from deltarnn.fixed.cells import IntegerLayer, IntegerRun, IntegerState, entering_biases, round_threshold
from deltarnn.fixed.parameters import DenseWeights, NetworkParameters, UnsupportedModelError
from deltarnn.fixed.qformat import QFormat, Quantization

ACCUMULATOR_BITS = 32


@dataclass(frozen=True)
class IntegerDense:
    """A dense layer in integers: acc = weight·a + bias with n_A + n_W fraction bits, then ReLU and rounding to A.

    The last layer of a head has neither (`activation` None): its accumulators are the class scores.

    Attributes
    ----------
    weight: (O, I) in `weight_format`: as many bits as W, with the fewest integer bits that hold every weight.
    bias: (O,) with n_A + n_W fraction bits.
    """

    weight: IntArray
    bias: IntArray
    weight_format: QFormat
    quantization: Quantization
    activation: str | None

    @classmethod
    def quantize(cls, dense: DenseWeights, quantization: Quantization) -> "IntegerDense":
        """Round a dense layer's parameters; to fewer bits than W where the accumulators would not hold more."""
        for bits in range(quantization.weight.bits, 1, -1):
            weight_format = fitting_format(dense.weight, bits)
            fraction = quantization.activation.fraction_bits + weight_format.fraction_bits
            bias = np.rint(dense.bias * 2.0**fraction).astype(np.int64)
            weight = weight_format.to_int(dense.weight)
            layer = cls(weight, bias, weight_format, quantization, dense.activation)
            if layer.memory_bound < 1 << (ACCUMULATOR_BITS - 1):
                return layer
        raise UnsupportedModelError(
            f"a dense layer of {dense.weight.shape[1]} inputs overflows {ACCUMULATOR_BITS}-bit accumulators even with "
            f"2-bit weights: use activations narrower than {quantization.activation}"
        )

    @property
    def fraction_bits(self) -> int:
        """Fraction bits of the accumulators: n_A + n_W."""
        return self.quantization.activation.fraction_bits + self.weight_format.fraction_bits

    @property
    def memory_bound(self) -> int:
        """The largest |accumulator| any input can cause."""
        return int((np.abs(self.weight).sum(axis=1) * -self.quantization.activation.int_min + np.abs(self.bias)).max())

    def __call__(self, a: IntArray) -> IntArray:
        """a (…, I) in A -> (…, O): in A after a ReLU, else the accumulators."""
        acc = (a.astype(np.float64) @ self.weight.T.astype(np.float64)).astype(np.int64) + self.bias
        if self.activation is None:
            return acc
        q = self.quantization
        return requantize(np.maximum(acc, 0), self.fraction_bits, q.activation, q.rounding)


class NetworkRun(NamedTuple):
    """output: (T, B, ·), class scores with `score_fraction_bits`, or hidden states in A for a bare layer. layers: one
    IntegerRun per delta layer. saturated_inputs: fraction of input values outside A's range."""

    output: IntArray
    layers: tuple[IntegerRun, ...]
    saturated_inputs: float


@dataclass(frozen=True)
class IntegerNetwork:
    """A quantised keyword model, or a bare stack of delta layers. `notes` says what conversion rounded."""

    layers: tuple[IntegerLayer, ...]
    head: tuple[IntegerDense, ...]
    quantization: Quantization
    notes: tuple[str, ...] = ()

    @classmethod
    def convert(cls, model: Any, quantization: Quantization | None = None) -> "IntegerNetwork":
        """Quantise a model (anything `NetworkParameters.of` reads) with its own formats, unless others are given.

        θ is rounded to the nearest value of A, which `notes` reports.

        Raises
        ------
        ValueError
            If a θ > 0 rounds to 0, a weight lies outside W, an accumulator could exceed 32 bits, or the head is not
            Linear layers with a ReLU after each but the last.
        """
        parameters = NetworkParameters.of(model)
        _check_head(parameters.head)
        q = quantization or parameters.quantization or Quantization()
        own = parameters.quantization is not None and parameters.quantization.weight == q.weight
        notes: list[str] = []
        layers = []
        for index, layer in enumerate(parameters.layers):
            if not own:  # a model trained with this W was clipped to it in training: that is its function
                for name in ("weight_ih", "weight_hh"):
                    check_range(f"{name}_l{index}", getattr(layer, name), q.weight)
                entering = entering_biases(parameters.cell, layer.bias_ih, layer.bias_hh)
                check_range(f"the bias (b_ih + b_hh) of layer {index}", entering, q.weight)
            thresholds = {}
            for name in ("thx", "thh"):
                given = getattr(layer, name)
                thresholds[name] = round_threshold(f"{name} of layer {index}", given, q)
                if thresholds[name] != given:
                    notes.append(
                        f"{name} of layer {index} rounded from {given:g} to {thresholds[name]:g} ({q.activation})"
                    )
            layers.append(
                IntegerLayer.quantize(
                    parameters.cell,
                    layer.weight_ih,
                    layer.weight_hh,
                    layer.bias_ih,
                    layer.bias_hh,
                    thresholds["thx"],
                    thresholds["thh"],
                    q,
                    parameters.hard_activations,
                )
            )
            if layers[-1].memory_bound >= 1 << (ACCUMULATOR_BITS - 1):
                raise UnsupportedModelError(
                    f"accumulators of layer {index} can reach {layers[-1].memory_bound}: {ACCUMULATOR_BITS} bits hold "
                    f"{(1 << (ACCUMULATOR_BITS - 1)) - 1}; use fewer fraction bits than {q.activation} and {q.weight}"
                )
        head = tuple(IntegerDense.quantize(dense, q) for dense in parameters.head)
        return cls(tuple(layers), head, q, tuple(notes))

    @property
    def input_size(self) -> int:
        """Features per frame, I."""
        return self.layers[0].input_size

    @property
    def output_size(self) -> int:
        """Class scores, or hidden units of the last layer."""
        return len(self.head[-1].bias) if self.head else self.layers[-1].hidden_size

    @property
    def score_fraction_bits(self) -> int:
        """Fraction bits of the output."""
        return self.head[-1].fraction_bits if self.head else self.quantization.activation.fraction_bits

    def run(self, frames: ArrayLike) -> NetworkRun:
        """Frames (T, I) or (T, B, I), real numbers, from reset. The run always has a batch dimension."""
        values = np.asarray(frames, dtype=np.float64)
        if values.ndim not in (2, 3) or values.shape[-1] != self.input_size:
            raise ValueError(
                f"frames have shape {values.shape}: must be (T, {self.input_size}) or (T, B, {self.input_size})"
            )
        values = values[:, None] if values.ndim == 2 else values
        a = self.quantization.activation
        signal = a.to_int(values, self.quantization.rounding)
        saturated = float(np.mean((values > a.max) | (values < a.min))) if values.size else 0.0
        output, runs = self.advance(signal)
        return NetworkRun(output, runs, saturated)

    def advance(
        self, signal: IntArray, states: Sequence[IntegerState] | None = None
    ) -> tuple[IntArray, tuple[IntegerRun, ...]]:
        """Frames (T, B, I) of stored integers in A, from the layers' `states` (default: reset): output and runs."""
        runs: list[IntegerRun] = []
        for index, layer in enumerate(self.layers):
            runs.append(layer.run(signal, None if states is None else states[index]))
            signal = runs[-1].y
        for dense in self.head:
            signal = dense(signal)
        return signal, tuple(runs)

    def to_float(self, output: IntArray) -> NDArray[np.float64]:
        """Real values of a run's output."""
        return output / 2.0**self.score_fraction_bits


def fitting_format(values: NDArray[np.float64], bits: int) -> QFormat:
    """The format of `bits` bits with the fewest integer bits that holds every value to within half a step."""
    for integer_bits in range(1, bits + 1):
        candidate = QFormat(integer_bits, bits - integer_bits)
        if (values >= candidate.min).all() and (values <= candidate.max + candidate.step / 2).all():
            return candidate
    raise UnsupportedModelError(f"values reach {np.abs(values).max():g}: no format of {bits} bits holds them")


def check_range(name: str, values: NDArray[np.float64], target: QFormat) -> None:
    """Raise UnsupportedModelError if rounding `values` to `target` would clip one by more than a step."""
    peak = float(values.flat[np.abs(values).argmax()]) if values.size else 0.0
    if not target.min - target.step <= peak <= target.max + target.step:
        raise UnsupportedModelError(
            f"{name} reaches {peak:.4g}: {target} holds {target.min:g} to {target.max:g}; train with weights rounded "
            f"to it (--qw 1 --wqi {target.integer_bits} --wqf {target.fraction_bits}), or use more integer bits"
        )


def _check_head(head: tuple[DenseWeights, ...]) -> None:
    """Refuse dense layers that `IntegerDense` has no place for: ReLU and rounding to A after each but the last."""
    expected = ["relu"] * (len(head) - 1) + [None] * bool(head)
    if [dense.activation for dense in head] != expected:
        given = ", ".join("Linear" + (", ReLU" if dense.activation else "") for dense in head)
        raise UnsupportedModelError(
            f"the head is {given}: in integers a ReLU must follow each Linear but the last; fold two Linears into one, "
            "and apply a last ReLU to the scores outside"
        )
