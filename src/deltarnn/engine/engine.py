"""Streaming inference without torch, on a CPU, in time proportional to the events."""

import os
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deltarnn.engine.activity import Activity, LayerActivity
from deltarnn.engine.calibration import automatic_formats, calibration_sequences
from deltarnn.engine.description import Description
from deltarnn.engine.lowering import (
    check_integer_form,
    float32_layers,
    head_layers,
    int8_layers,
    narrower_quantization,
    rounded_thresholds,
)
from deltarnn.engine.model_file import load_model, save_model, write_quantization
from deltarnn.fixed.formats import LayerFormats
from deltarnn.fixed.qformat import QFormat, Quantization
from deltarnn.native import MISSING, native_core

DEFAULT_QUANTIZATION = Quantization(QFormat(8, 8), QFormat(1, 7), QFormat(2, 6))

FINE = 0.01
"""Changes of thresholds, relative, that need no word where formats were not asked for one by one."""

Precision = Literal["float32", "bfloat16", "int8"]
FloatArray = NDArray[np.float32]


class Engine:
    """A delta network compiled for one-frame-at-a-time inference, and the state of one stream through it.

    >>> from deltarnn import DeltaGRU; from deltarnn.engine import Engine; import numpy as np
    >>> engine = Engine.compile(DeltaGRU(16, 64, thx=0.1, thh=0.1))
    >>> engine.step(np.zeros(16)).shape, engine.run(np.zeros((61, 16))).shape
    ((64,), (61, 64))
    >>> engine.activity.sparsity_x
    1.0

    "float32" computes as the layer does, with the memories M refreshed from the held state so that rounding never
    accumulates (MATH §4). "int8" is the fixed-point arithmetic of MATH §6, bit for bit: int8 weights, activations of up
    to 16 bits, exact accumulators. "bfloat16" is "float32" over weights rounded to bfloat16, in half the bytes. A dense
    head is computed in float32 in any case.

    One stream is for one thread at a time; `stream()` gives independent ones over the same weights.

    Attributes
    ----------
    step: step(frame (I,), out=None) -> (H,) float32, or the class scores of a whole model. A new array unless `out`, a
        contiguous float32 array, is given, which is then filled and returned. Anything but a contiguous float32 frame
        is converted first. In int8, a frame with NaN is an error.
    run: run(frames (T, I), out=None) -> (T, H), what T calls of `step` give, to the last bit.
    reset: reset() goes back to the state before the first step; counts restart.
    enter: enter(h=None, c=None, held=False) -> bool, for callers that carry the state themselves: if h (layers, H) and,
        for the LSTM, c (layers, H), contiguous float32 arrays, are the stream's present ones, it goes on (True); any
        others, or none (zeros), begin a sequence. With held it goes on whatever is given, once begun. Counts go on.
    hidden: hidden(h, c=None) writes the present h and c into such arrays.
    """

    step: Callable[..., FloatArray]
    run: Callable[..., FloatArray]
    reset: Callable[[], None]
    enter: Callable[..., bool]
    hidden: Callable[..., None]

    def __init__(self, description: Description, precision: Precision, quantization: Quantization | None, model: Any):
        """Not for callers: use `compile` or `load`."""
        self._description = description
        self._precision: Precision = precision
        self._quantization = quantization
        self._model = model
        self._stream = model.stream()
        # The native methods themselves: a wrapper would cost as much as a small network's step.
        self.step = self._stream.step
        self.run = self._stream.run
        self.reset = self._stream.reset
        self.enter = self._stream.enter
        self.hidden = self._stream.hidden

    @classmethod
    def compile(
        cls,
        model: Any,
        precision: Precision = "float32",
        quantization: Quantization | None = None,
        calibration: ArrayLike | Sequence[ArrayLike] | None = None,
    ) -> "Engine":
        """Compile a DeltaGRU or DeltaLSTM, or a model with one as `.rnn` and a dense head as `.head`.

        What is compiled is run on a random sequence, in float32 with thresholds 0, and must give what the model gives.

        Parameters
        ----------
        precision: "float32"; "bfloat16", which stores the weights so and computes in float32; or "int8".
        quantization: formats of int8; the default is the layer's own, else Q8.8 activations, Q1.7 weights, Q2.6 gates.
            Thresholds are rounded to the activation grid, which a warning reports.
        calibration: frames (T, I) of typical input, or a list of such sequences, from which int8 takes formats tensor
            by tensor (`engine.formats`) in place of `quantization`.

        Raises
        ------
        ValueError
            If the model is bidirectional, not a delta network, or does not fit the formats; if it computes anything
            beside `.rnn` and `.head`, which would be lost; if a threshold > 0 would round to 0; if the model has
            fixed-point formats that precision="float32" would ignore.
        ImportError
            If the native core was not built.
        """
        description = Description.of(
            model, lambda read, frames: cls.from_description(read, "float32", None).run(frames)
        )
        return cls.from_description(description, precision, quantization, calibration)

    @classmethod
    def load(cls, path: str | os.PathLike[str], precision: Precision | None = None) -> "Engine":
        """Open a file of `save`, or any model file (docs/model_file.md).

        precision: by default that of the saved engine; else "int8" where the file has formats, "float32" where not.
        """
        description = Description(*load_model(path))
        if precision is None:
            precision = "float32" if description.quantization is None and description.formats is None else "int8"
        return cls.from_description(description, precision, None)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a model file: parameters as they were given, thresholds and formats as they are used."""
        header = {**self._description.header, "quantization": write_quantization(self._quantization)}
        save_model(path, self._description.tensors, header)

    def stream(self) -> "Engine":
        """An independent state, from its start, over the same weights."""
        return Engine(self._description, self._precision, self._quantization, self._model)

    @property
    def native_stream(self) -> Any:
        """The state as native programs take it (engine.program)."""
        return self._stream

    @property
    def precision(self) -> Precision:
        """ "float32", "bfloat16" or "int8"."""
        return self._precision

    @property
    def quantization(self) -> Quantization | None:
        """Formats in use, None in float32 and where they are tensor by tensor (`formats`)."""
        return self._quantization

    @property
    def formats(self) -> tuple[LayerFormats, ...] | None:
        """Formats in use, layer by layer and tensor by tensor; None in float32."""
        return None if self._precision != "int8" else _formats_of(self._description, self._quantization)

    @property
    def accumulator_bits(self) -> tuple[int, ...]:
        """Of int8, per layer: 32, or 64 where its sums could exceed 32 bits, which is several times slower; the repr
        names formats that avoid it. Empty in float32.
        """
        if self._precision == "float32":
            return ()
        return tuple(
            64 if self._model.wide(index) else 32 for index in range(self._description.architecture["num_layers"])
        )

    @property
    def instruction_set(self) -> str:
        """ "avx512", "avx2", "neon" or "portable"; DELTARNN_ISA in the environment, read by `compile`, forces one."""
        name: str = self._model.isa
        return name

    @property
    def input_size(self) -> int:
        """Features per frame."""
        size: int = self._description.architecture["input_size"]
        return size

    @property
    def output_size(self) -> int:
        """Values per step: hidden units (or their projection), or class scores."""
        a = self._description.architecture
        size: int = a["head"][-1]["out"] if a["head"] else a["proj_size"] or a["hidden_size"]
        return size

    @property
    def thx(self) -> tuple[float, ...]:
        """Input thresholds in use, one per layer; in int8 on the activation grid."""
        return tuple(self._description.header["thx"])

    @property
    def thh(self) -> tuple[float, ...]:
        """Hidden-state thresholds in use, one per layer."""
        return tuple(self._description.header["thh"])

    @property
    def header(self) -> dict[str, Any]:
        """The model file's header, with the fields of its application (labels, features, …)."""
        return dict(self._description.header)

    @property
    def activity(self) -> Activity:
        """What fired since the start or the last `reset`: a snapshot of exact counts."""
        return self.activity_of(self._stream)

    @property
    def compiled(self) -> Any:
        """The native core's model, for what runs over its weights in the core itself."""
        return self._model

    def activity_of(self, stream: Any) -> Activity:
        """What fired in `stream`, one of the native core's over `compiled`."""
        a = self._description.architecture
        outputs = a["proj_size"] or a["hidden_size"]
        layers = []
        for index in range(a["num_layers"]):
            steps, fired_x, fired_h, fired_rh = stream.activity(index)
            numel_x, numel_h = steps * (a["input_size"] if index == 0 else outputs), steps * outputs
            gate_rows = (3 if a["cell"] == "GRU" else 4) * a["hidden_size"]
            reset_rows = 0 if self._description.reset_after else a["hidden_size"]
            numel_rh = steps * reset_rows
            zeros = numel_x - fired_x, numel_h - fired_h, numel_rh - fired_rh
            layers.append(LayerActivity(steps, *zeros[:2], numel_x, numel_h, gate_rows, zeros[2], numel_rh, reset_rows))
        return Activity(tuple(layers))

    @property
    def state(self) -> tuple[dict[str, NDArray[np.float64]], ...]:
        """A copy of the delta state, per layer, with the fields of the layer's own (`DeltaGRUState`, …)."""
        a = self._description.architecture
        fields = ["x_hat", "h", "h_hat", "m"]
        fields += ["c"] if a["cell"] == "LSTM" else [] if self._description.reset_after else ["rh_hat"]
        return tuple(
            {field: np.array(self._stream.read(index, field)) for field in fields} for index in range(a["num_layers"])
        )

    def __repr__(self) -> str:
        a = self._description.architecture
        formats = "" if self._quantization is None else f" {self._quantization.activation}/{self._quantization.weight}"
        formats = " of automatic formats" if self._description.formats is not None else formats
        return (
            f"Engine({a['cell']} {a['input_size']}→{a['hidden_size']}×{a['num_layers']}→{self.output_size}, "
            f"{self._precision}{formats}{self._wide_layers()}, {self.instruction_set})"
        )

    def _wide_layers(self) -> str:
        wide = ", ".join(str(index) for index, bits in enumerate(self.accumulator_bits) if bits == 64)
        if not wide:
            return ""
        q = self._quantization
        narrower = None if q is None else narrower_quantization(self._description, q, native_core())
        remedy = "" if narrower is None else f" (32 with {narrower.activation} activations and {narrower.gate} gates)"
        return f", 64-bit sums in layer {wide}{remedy}"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles and copies start a stream of their own."""
        start = self.stream().state
        held = all(np.array_equal(layer[name], start[i][name]) for i, layer in enumerate(self.state) for name in layer)
        if self._stream.activity(0)[0] or not held:
            raise TypeError(
                "this engine is in the middle of a stream, which a copy could not continue: copy or pickle "
                "engine.stream(), or reset() it first"
            )
        return Engine.from_description, (self._description, self._precision, self._quantization)

    @classmethod
    def from_description(
        cls,
        description: Description,
        precision: Precision,
        quantization: Quantization | None = None,
        calibration: ArrayLike | Sequence[ArrayLike] | None = None,
    ) -> "Engine":
        """Compile a model that is given as arrays; arguments and errors as of `compile`."""
        if precision not in get_args(Precision):
            raise ValueError(f"precision={precision!r}: must be one of {', '.join(map(repr, get_args(Precision)))}")
        description.check_streamable()
        core = native_core()
        if core is None:
            raise ImportError(f"{MISSING}. Until then use the layer itself, or its ONNX export.")
        if precision != "int8" and calibration is not None:
            raise ValueError(f"calibration was given, which precision={precision!r} would ignore: it is for 'int8'")
        if precision != "int8":
            if quantization is not None or description.quantization is not None:
                whose = "quantization was given" if quantization is not None else "the model has fixed-point formats"
                raise ValueError(
                    f"{whose}, which precision={precision!r} would ignore: use precision='int8', or quantization=None"
                )
            model = core.Model.float32(float32_layers(description, precision == "bfloat16"), head_layers(description))
            return cls(description, precision, None, model)
        check_integer_form(description)
        if calibration is not None:
            description = _calibrated(description, quantization, calibration)
        if description.formats is None:
            quantization = quantization or description.quantization or DEFAULT_QUANTIZATION
        formats = _formats_of(description, quantization)
        description = rounded_thresholds(description, formats, 0.0 if description.formats is None else FINE)
        model = core.Model.int8(int8_layers(description, formats), head_layers(description))
        return cls(description, precision, quantization, model)


def _formats_of(description: Description, quantization: Quantization | None) -> tuple[LayerFormats, ...]:
    if description.formats is not None:
        return description.formats
    assert quantization is not None
    return (LayerFormats.uniform(quantization),) * int(description.architecture["num_layers"])


def _calibrated(description: Description, quantization: Quantization | None, calibration: Any) -> Description:
    """The description with formats that suit the calibration data."""
    if quantization is not None or description.quantization is not None:
        whose = "quantization was given" if quantization is not None else "the model has fixed-point formats"
        raise ValueError(f"{whose}, which the formats from calibration= would replace: leave out one of them")
    sequences = calibration_sequences(calibration, description.architecture["input_size"])
    return description.with_formats(automatic_formats(description, sequences))
