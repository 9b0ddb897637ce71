"""Compiles a torch module to a program for one frame: finds the time axis of its input, and checks the outputs."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltarnn.engine.description import Description
from deltarnn.engine.engine import Engine
from deltarnn.engine.frame_operations import OPERATIONS
from deltarnn.engine.frames import FrameLowering
from deltarnn.engine.model_file import FORMAT, ModelFileError, write_quantization
from deltarnn.engine.program import ProgramParts
from deltarnn.engine.tracing import Trace, delta_layers
from deltarnn.fixed.module_reader import LayerContents, read_layers
from deltarnn.fixed.verification import Probe, UnsupportedModelError, plain, random_frames, tolerance_of

LENGTHS = (12, 13, 17, 19, 23, 29, 31)
"""Of the random sequence: the first that is no size in the module."""

DIFFERS = "the engine does not compute what its forward does; give it in smaller parts, and compute the rest outside"


@dataclass(frozen=True)
class ModuleProgram:
    """A module for one frame at a time.

    layers: each delta layer and direction as a model of its own. streams: of each recurrent instruction, which of them
    it runs.
    """

    parts: ProgramParts
    layers: tuple[Description, ...]
    streams: tuple[int, ...]

    def start(self, engines: Sequence[Engine]) -> tuple[Any, list[Engine]]:
        """A native state, and the streams that it runs: one for each recurrent instruction, of its layer's engine.

        Raises
        ------
        ModelFileError
            If instructions and layers, which a file brought, do not fit each other.
        """
        streams = [engines[layer].stream() for layer in self.streams]
        try:
            return self.parts.native().state([stream.native_stream for stream in streams]), streams
        except ValueError as error:
            raise ModelFileError(f"the file's program does not fit its layers: {error}") from None


def compile_module(model: Any, example: Any) -> tuple[ModuleProgram, ProgramParts]:
    """The program of a module, and the same with what enters each recurrent instruction (T, I) as its outputs.

    Raises
    ------
    UnsupportedModelError
        If no layout of the input gives a program: of the one that got furthest, with the line of the module's code.
    """
    _refuse_modules(model)
    _refuse_arguments(model)
    layers = delta_layers(model)
    furthest, failure = -1, UnsupportedModelError(f"{type(model).__name__} has no layer that says how large a frame is")
    for shape, axis in _layouts(model, layers, example):
        attempt = _Attempt(model, layers, shape, axis)
        try:
            with plain(model, layers):
                attempt.run()
        except UnsupportedModelError as error:
            if attempt.reached > furthest:
                furthest, failure = attempt.reached, error
            continue
        own = [contents for layer in layers for contents in read_layers(layer)]
        return attempt.program(own), attempt.recording()
    raise failure


class _Attempt:
    """One layout of the input: its shape, and which axis is time.

    reached: 0 where the module does not run on it, 1 where it does, 2 where a delta layer runs along time.
    """

    def __init__(self, model: Any, layers: Sequence[Any], shape: tuple[int, ...], axis: int) -> None:
        self.model, self.layers, self.shape, self.axis = model, layers, shape, axis
        self.reached = 0
        steps = shape[axis]
        self.frames = random_frames(steps, int(np.prod(shape)) // steps)

    def run(self) -> None:
        """Trace, lower, and compare; the module must be plain."""
        self._eager(self.shape[self.axis])
        self.reached = 1
        weight = self.layers[0].weight_ih_l0
        trace = Trace.of(self.model, weight.detach().new_zeros(self.shape), self.axis)
        one = [1 if axis == self.axis else size for axis, size in enumerate(self.shape)]
        self.lowering = FrameLowering(trace, one, self.axis, OPERATIONS)
        try:
            self.output = self.lowering.run()
        finally:
            self.reached += any(stream.along_time for stream in self.lowering.streams)
        self.used = sorted({(stream.layer, stream.part) for stream in self.lowering.streams})
        self._check(tolerance_of(weight))

    def _check(self, tolerance: float) -> None:
        program = self.program([contents for layer in self.layers for contents in read_layers(layer)])
        state, _ = program.start([Engine.from_description(layer, "float32") for layer in program.layers])
        steps = len(self.frames)
        for length in (steps, steps // 2):
            rows = _rows(self._eager(length), self.output.axis)
            probe = Probe(type(self.model).__name__, self.frames[:length], (rows,), tolerance, DIFFERS)
            state.reset()
            probe.check(state.run(probe.frames))

    def _eager(self, length: int) -> Any:
        """What the module makes of the first frames."""
        rest = [size for axis, size in enumerate(self.shape) if axis != self.axis]
        frames = np.moveaxis(self.frames[:length].reshape(length, *rest), 0, self.axis)
        x = self.layers[0].weight_ih_l0.detach().new_tensor(np.ascontiguousarray(frames))
        try:
            output = self.model(x)
        except UnsupportedModelError:
            raise
        except Exception as error:  # whatever the module's own code raises
            raise UnsupportedModelError(
                f"{type(self.model).__name__} was run on a random sequence of shape {tuple(x.shape)}, to compare what "
                f"is compiled with it, and failed: {type(error).__name__}: {error}; give Engine.compile an example= of "
                "its input"
            ) from error
        while not hasattr(output, "detach"):
            output = next(iter(output.values() if isinstance(output, Mapping) else output))
        return output.detach().cpu().double().numpy()

    def program(self, contents: Sequence[LayerContents]) -> ModuleProgram:
        """The program over all layers' contents, in the order of the module."""
        numbers = [(layer, part) for layer, own in enumerate(self.layers) for part in range(len(own.layer_names))]
        by_number = dict(zip(numbers, contents, strict=True))
        streams = tuple(self.used.index((stream.layer, stream.part)) for stream in self.lowering.streams)
        parts = self.lowering.builder.finished([self.lowering.input.places], [self.output.places])
        return ModuleProgram(parts, tuple(_description(by_number[number]) for number in self.used), streams)

    def recording(self) -> ProgramParts:
        """The program with what enters each recurrent instruction as its outputs."""
        entering = [stream.entering for stream in self.lowering.streams]
        return self.lowering.builder.finished([self.lowering.input.places], entering)


def _rows(output: NDArray[np.float64], axis: int | None) -> NDArray[np.float64]:
    """(T, O), or (1, O) of an output without time."""
    return output.reshape(1, -1) if axis is None else np.moveaxis(output, axis, 0).reshape(output.shape[axis], -1)


def _description(contents: LayerContents) -> Description:
    header = {
        "format": FORMAT,
        "architecture": contents.architecture,
        "quantization": write_quantization(contents.quantization),
        "thx": [contents.thx],
        "thh": [contents.thh],
    }
    return Description(contents.tensors, header)


def _refuse_modules(model: Any) -> None:
    for name, module in model.named_modules():
        if hasattr(module, "weight_ih_l0") and not hasattr(module, "thx"):
            raise UnsupportedModelError(
                f"{name} is a dense {type(module).__name__}: convert it first, deltarnn.convert(model, thx=…, thh=…)"
            )
        if "BatchNorm" in type(module).__name__ and module.training:
            raise UnsupportedModelError(
                f"{name or type(module).__name__} is a BatchNorm in training mode, which takes its statistics from the "
                "signal: call model.eval() first"
            )


def _refuse_arguments(model: Any) -> None:
    """States that go in and out as arguments: an engine has one input."""
    parameters = inspect.signature(model.forward).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if len(needed) > 1:
        code = model.forward.__code__
        raise UnsupportedModelError(
            f"{Path(code.co_filename).name}, line {code.co_firstlineno}: {type(model).__name__}.forward takes "
            f"{', '.join(needed)}: an engine has one input, and keeps states by itself; give the others a default"
        )


def _layouts(model: Any, layers: Sequence[Any], example: Any) -> Iterator[tuple[tuple[int, ...], int]]:
    """Shapes that the input may have, and which axis is time; the likeliest first."""
    if example is not None:
        shape = tuple(example.shape)
        axes = [axis for axis, size in enumerate(shape) if size > 1]
        if not axes:
            raise ValueError(f"example has shape {shape}: give at least two frames")
        yield from ((shape, axis) for axis in axes)
        return
    sizes: list[int] = []
    for module in model.modules():
        for name in ("input_size", "in_features", "in_channels"):
            size = getattr(module, name, None)
            if isinstance(size, int) and size not in sizes:
                sizes.append(size)
    steps = next(length for length in LENGTHS if length not in sizes)
    batch_first = any(layer.batch_first for layer in layers)
    for size in sizes:
        time_first, batched = ((steps, 1, size), 0), ((1, steps, size), 1)
        yield from (batched, time_first) if batch_first else (time_first, batched)
        yield (1, size, steps), 2
