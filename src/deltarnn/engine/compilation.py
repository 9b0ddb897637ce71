"""Compiles a description to a model of the native core, and reports its formats, sizes and precision."""

import warnings
from collections.abc import Sequence
from typing import Any, Literal, get_args

from numpy.typing import ArrayLike

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
from deltarnn.engine.model_file import write_quantization
from deltarnn.fixed.formats import LayerFormats
from deltarnn.fixed.qformat import QFormat, Quantization
from deltarnn.native import MISSING, native_core

DEFAULT_QUANTIZATION = Quantization(QFormat(8, 8), QFormat(1, 7), QFormat(2, 6))

FINE = 0.01
"""Changes of thresholds, relative, that need no word where formats were not asked for one by one."""

Precision = Literal["float32", "bfloat16", "int8"]


class CompiledNetwork:
    """A network in the native core: weights and formats, without a state."""

    def __init__(self, description: Description, precision: Precision, quantization: Quantization | None, model: Any):
        self._description = description
        self._precision: Precision = precision
        self._quantization = quantization
        self._model = model

    @property
    def description(self) -> Description:
        """Parameters as they were given, thresholds and formats as they are used."""
        header = {**self._description.header, "quantization": write_quantization(self._quantization)}
        return Description(self._description.tensors, header)

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
        return None if self._precision != "int8" else formats_of(self._description, self._quantization)

    @property
    def accumulator_bits(self) -> tuple[int, ...]:
        """Of int8, per layer: 32, or 64 where its sums could exceed 32 bits, which is several times slower; the repr
        names formats that avoid it. Empty in the other precisions.
        """
        if self._precision != "int8":
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
    def layers(self) -> list[dict[str, Any]]:
        """The recurrent layers as the core takes them."""
        if self._precision != "int8":
            return float32_layers(self._description, self._precision == "bfloat16")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of clipped weights, which `compile` gave
            return int8_layers(self._description, formats_of(self._description, self._quantization))

    @property
    def compiled(self) -> Any:
        """The native core's model, for what runs over its weights in the core itself."""
        return self._model

    def _wide_layers(self) -> str:
        wide = ", ".join(str(index) for index, bits in enumerate(self.accumulator_bits) if bits == 64)
        if not wide:
            return ""
        q = self._quantization
        narrower = None if q is None else narrower_quantization(self._description, q, native_core())
        remedy = "" if narrower is None else f" (32 with {narrower.activation} activations and {narrower.gate} gates)"
        return f", 64-bit sums in layer {wide}{remedy}"


def compiled(
    description: Description,
    precision: Precision,
    quantization: Quantization | None,
    calibration: ArrayLike | Sequence[ArrayLike] | None,
) -> tuple[Description, Precision, Quantization | None, Any]:
    """Description and formats as they are used, and the core's model; arguments and errors as of `Engine.compile`."""
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
        return description.with_formats(None), precision, None, model
    check_integer_form(description)
    if calibration is not None:
        description = _calibrated(description, quantization, calibration)
    if description.formats is None:
        quantization = quantization or description.quantization or DEFAULT_QUANTIZATION
    formats = formats_of(description, quantization)
    description = rounded_thresholds(description, formats, 0.0 if description.formats is None else FINE)
    model = core.Model.int8(int8_layers(description, formats), head_layers(description))
    return description, precision, quantization, model


def formats_of(description: Description, quantization: Quantization | None) -> tuple[LayerFormats, ...]:
    """Formats layer by layer: the description's own, or `quantization` for all."""
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
