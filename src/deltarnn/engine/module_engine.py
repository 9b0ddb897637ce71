"""Streaming inference of whole modules: delta layers, and what is around and between them, as one native program."""

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deltarnn.engine.activity import Activity, LayerActivity
from deltarnn.engine.calibration import calibration_sequences
from deltarnn.engine.compilation import Precision
from deltarnn.engine.description import Description
from deltarnn.engine.engine import Engine
from deltarnn.engine.module_file import save_module
from deltarnn.engine.module_program import ModuleProgram, compile_module
from deltarnn.engine.program import ProgramParts
from deltarnn.engine.tracing import delta_layers
from deltarnn.fixed.qformat import Quantization
from deltarnn.fixed.verification import UnsupportedModelError


class ModuleEngine(Engine):
    """A module compiled for one-frame-at-a-time inference, and the state of one stream through it.

    What `Engine.compile` and `Engine.load` return of a module that is more than a delta layer and a head. `step`,
    `run`, `reset`, `stream`, `save` and copies are those of `Engine`; `activity`, `state`, `thx`, `thh`, `formats` and
    `accumulator_bits` have an entry for each delta layer and direction, in the module's order. Convolutions over the
    frames keep as many past frames as they need, zeros at the start.

    The delta layers have the engine's precision; all else is computed in float32.
    """

    def __init__(self, program: ModuleProgram, precision: Precision, engines: Sequence[Engine]) -> None:
        """Not for callers: use `Engine.compile` or `Engine.load`."""
        if precision == "int8" and any(places.keys() & {"h", "c"} for places in program.parts.recurrent):
            raise UnsupportedModelError(
                "a delta layer has an initial state other than zeros, which int8's formats do not hold: "
                "take float32 or bfloat16"
            )
        self._program, self._precision, self._engines = program, precision, tuple(engines)
        self._native, self._streams = program.start(engines)
        self.step, self.run, self.reset = self._native.step, self._native.run, self._native.reset
        self.enter = self.hidden = self._without_states

    @classmethod
    def of(cls, program: ModuleProgram, precision: Precision | None = None) -> "ModuleEngine":
        """Compile the layers of a program; precision as of `Engine.load`."""
        if precision is None:
            precision = "int8" if any(layer.fixed_point for layer in program.layers) else "float32"
        return cls(program, precision, [Engine.from_description(layer, precision) for layer in program.layers])

    @classmethod
    def of_module(
        cls,
        model: Any,
        precision: Precision,
        quantization: Quantization | None,
        calibration: ArrayLike | Sequence[ArrayLike] | None,
        example: Any,
    ) -> "ModuleEngine":
        """Compile a module; arguments and errors as of `Engine.compile`."""
        program, recording = compile_module(model, example)
        entering: list[Any] = [None] * len(program.layers)
        if calibration is not None:
            entering = _entering(program, recording, calibration)
        engines = [
            Engine.from_description(layer, precision, quantization, sequences)
            for layer, sequences in zip(program.layers, entering, strict=True)
        ]
        return cls(program, precision, engines)

    def save(self, path: Any) -> None:
        """Write a file for `Engine.load`: the program, and the delta layers as model files hold them."""
        save_module(path, self._whole())

    def stream(self) -> "ModuleEngine":
        """An independent state, from its start, over the same weights."""
        return ModuleEngine(self._program, self._precision, self._engines)

    @property
    def quantization(self) -> Quantization | None:
        """Formats that all delta layers share; None in float32 and where they have formats of their own."""
        first, *others = [engine.quantization for engine in self._engines]
        return first if all(other == first for other in others) else None

    @property
    def formats(self) -> Any:
        """Formats in use, one entry per delta layer and direction; None in float32."""
        every = [engine.formats for engine in self._engines]
        return None if None in every else tuple(entry for formats in every for entry in formats or ())

    @property
    def accumulator_bits(self) -> tuple[int, ...]:
        """As of `Engine`."""
        return tuple(bits for engine in self._engines for bits in engine.accumulator_bits)

    @property
    def instruction_set(self) -> str:
        """As of `Engine`."""
        return self._engines[0].instruction_set

    @property
    def input_size(self) -> int:
        """Values per frame."""
        return self._program.parts.inputs[0][1]

    @property
    def output_size(self) -> int:
        """Values per step."""
        return self._program.parts.outputs[0][1]

    @property
    def thx(self) -> tuple[float, ...]:
        """Input thresholds in use."""
        return tuple(threshold for engine in self._engines for threshold in engine.thx)

    @property
    def thh(self) -> tuple[float, ...]:
        """Hidden-state thresholds in use."""
        return tuple(threshold for engine in self._engines for threshold in engine.thh)

    @property
    def activity(self) -> Activity:
        """What fired since the start or the last `reset`: of each layer, over all its streams."""
        by_layer: list[list[LayerActivity]] = [[] for _ in self._engines]
        for layer, stream in zip(self._program.streams, self._streams, strict=True):
            by_layer[layer] += stream.activity.per_layer
        return Activity(tuple(LayerActivity.total(streams) for streams in by_layer))

    @property
    def state(self) -> tuple[dict[str, NDArray[np.float64]], ...]:
        """A copy of the delta state of each stream, in the order in which they run."""
        return tuple(layer for stream in self._streams for layer in stream.state)

    @property
    def header(self) -> dict[str, Any]:
        """The headers of the delta layers."""
        return {"layers": [engine.header for engine in self._engines]}

    @property
    def description(self) -> Description:
        """TypeError: a module is no stack of layers."""
        self._without_states()

    @property
    def compiled(self) -> Any:
        """TypeError: a module's layers are run by its program."""
        self._without_states()

    def activity_of(self, stream: Any) -> Activity:
        """TypeError: a module has more than one stream."""
        self._without_states()

    def __repr__(self) -> str:
        layers = ", ".join(repr(engine).removeprefix("Engine(").split(",")[0] for engine in self._engines)
        return (
            f"ModuleEngine({self.input_size}→{self.output_size} by {layers}; {self._precision}, {self.instruction_set})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles and copies start a stream of their own."""
        if self._native.steps:
            raise TypeError(
                "this engine is in the middle of a stream, which a copy could not continue: copy or pickle "
                "engine.stream(), or reset() it first"
            )
        return ModuleEngine.of, (self._whole(), self._precision)

    def _whole(self) -> ModuleProgram:
        """The program, its layers with thresholds and formats as they are used."""
        layers = tuple(engine.description for engine in self._engines)
        return ModuleProgram(self._program.parts, layers, self._program.streams)

    def _without_states(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(
            "a module's engine keeps several states by itself: it has step, run, reset, stream and activity, and no "
            "weights or states that stand alone"
        )


def is_tree(model: Any) -> bool:
    """Whether a torch module holds delta layers and is none."""
    return not hasattr(model, "weight_ih_l0") and hasattr(model, "modules") and bool(delta_layers(model))


def _entering(program: ModuleProgram, recording: ProgramParts, calibration: Any) -> list[list[NDArray[np.float32]]]:
    """Sequences (T, I) that enter each layer while a module, in float32, runs over calibration data."""
    widths = [layer.architecture["input_size"] for layer in program.layers]
    plain = [layer.with_formats(None) for layer in program.layers]
    plain = [Description(layer.tensors, {**layer.header, "quantization": None}) for layer in plain]
    state, _ = ModuleProgram(recording, tuple(plain), program.streams).start(
        [Engine.from_description(layer, "float32") for layer in plain]
    )
    found: list[list[NDArray[np.float32]]] = [[] for _ in widths]
    for sequence in calibration_sequences(calibration, recording.inputs[0][1]):
        state.reset()
        frames: list[list[NDArray[np.float32]]] = [[] for _ in recording.outputs]
        for frame in sequence:
            outputs = [np.empty(size, np.float32) for _, size in recording.outputs]
            state.call([np.ascontiguousarray(frame)], outputs)
            for kept, output in zip(frames, outputs, strict=True):
                kept.append(output)
        for layer, kept in zip(program.streams, frames, strict=True):
            steps = np.stack(kept).reshape(len(sequence), -1, widths[layer])
            found[layer] += [steps[:, 0]] if steps.shape[1] == 1 else list(steps)
    return found
