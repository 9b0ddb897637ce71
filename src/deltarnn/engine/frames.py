"""Lowers a traced module to a program for one frame, with the past frames that it has to keep."""

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deltarnn.engine.program import Places, ProgramBuilder
from deltarnn.engine.tracing import Trace, layer_operator, line_of
from deltarnn.fixed.verification import UnsupportedModelError

MOVES = (
    {"alias", "broadcast_to", "cat", "chunk", "clone", "concat", "contiguous", "detach", "expand", "expand_as"}
    | {"flatten", "flip", "lift_fresh_copy", "moveaxis", "movedim", "narrow", "permute", "repeat", "reshape", "select"}
    | {"slice", "split", "split_with_sizes", "squeeze", "stack", "t", "transpose", "unbind", "unflatten", "unsqueeze"}
    | {"view"}
)  # fmt: skip
"""Operations of torch that only move values."""

FRAMES = 2
"""Where sizes are computed, the length of time: two frames show whether an operation keeps them apart."""


KNOWN = (
    "Linear, Conv1d and Conv2d, LayerNorm, RMSNorm, GroupNorm and BatchNorm, pointwise functions, softmax, sums, "
    "products, concatenation, and what reorders the features of a frame"
)


class NotStreamableError(Exception):
    """An operation that has no form frame by frame: the reason, without its place."""


def refusal(name: str) -> str:
    """Why an operation of that name is not taken."""
    if "attention" in name:
        return f"{name} lets every frame meet every other one: a stream has no later ones"
    return f"the engine does not know {name}; beside delta layers it takes {KNOWN}"


@dataclass(frozen=True)
class Value:
    """A value at the present frame.

    places: with 1 in place of the length of time. axis: of time; None for what has none, such as a final state.
    lead: zeros in front of the first frame, which padding has put there and no convolution has used yet.
    """

    places: Places
    axis: int | None
    lead: int = 0

    def ready(self) -> Places:
        """The places, for an operation that computes with the frame itself."""
        if self.lead:
            raise NotStreamableError(
                f"{self.lead} padded frames in front, which only a convolution over the frames may use"
            )
        return self.places


@dataclass(frozen=True)
class Stream:
    """A recurrent instruction's stream: the layer of the trace, which of its layers and directions, what enters, and
    whether it goes on from frame to frame."""

    layer: int
    part: int
    entering: Places
    along_time: bool


Operations = Mapping[str, Callable[["FrameLowering", Any, dict[str, Any]], Any]]


class FrameLowering:
    """The program of a trace for one frame.

    streams: of the recurrent instructions, in their order.
    """

    def __init__(self, trace: Trace, shape: Sequence[int], axis: int, operations: Operations) -> None:
        """shape: of the input, 1 in place of the length of time, its axis `axis`. operations: that do more than to move
        values, by name; or NotImplemented where they only do that."""
        self.trace = trace
        self.operations = operations
        self.builder = ProgramBuilder()
        self.input = Value(self.builder.room(*shape), axis)
        self.streams: list[Stream] = []
        self._known: dict[Any, Any] = {}

    def run(self) -> Value:
        """Lower all operations; the output.

        Raises
        ------
        UnsupportedModelError
            Naming the line of the module's code that has no form frame by frame.
        """
        for node in self.trace.nodes[:-1]:
            if node.op == "placeholder":
                self._known[node] = self.input if node.name == self.trace.input else self.trace.values.get(node.name)
                continue
            try:
                self._known[node] = self._lowered(node)
            except NotStreamableError as error:
                raise UnsupportedModelError(f"{line_of(node)}: {error}") from None
        return self._output(self.trace.nodes[-1].args[0])

    def _output(self, returned: Sequence[Any]) -> Value:
        first, *others = (self._look_up(node) for node in returned)
        if not isinstance(first, Value):
            raise UnsupportedModelError("the module returns something that does not depend on its input")
        for node, other in zip(returned[1:], others, strict=True):
            if isinstance(other, Value) and other.axis is not None:
                raise UnsupportedModelError(
                    f"{line_of(node)}: the module returns this sequence beside its first, and an engine gives one: "
                    "concatenate them along their features"
                )
        extra = 0 if first.axis is None else self.extra(returned[0].meta["val"].shape[first.axis])
        if extra or first.lead:
            raise UnsupportedModelError(
                f"the module returns {abs(extra)} frames {'more' if extra > 0 else 'less'} than it is given: pad a "
                "convolution over the frames by (kernel − 1) · dilation in front, and drop what padding adds behind"
            )
        if not any(stream.along_time for stream in self.streams):
            raise UnsupportedModelError("no delta layer runs along the frames")
        return first

    def _lowered(self, node: Any) -> Any:
        """What a node computes: a Value, several, or something that is the same at every frame."""
        arguments = [self._look_up(argument) for argument in node.args]
        options = {name: self._look_up(argument) for name, argument in node.kwargs.items()}
        if node.target is operator.getitem:
            return arguments[0][arguments[1]]
        name = operation_name(node)
        if name.startswith(("_assert", "sym_constrain")):
            return None
        if not any(isinstance(item, Value) for item in flat([*arguments, *options.values()])):
            if self.time_axes(node):
                raise NotStreamableError("makes values as long as the signal, which differ from frame to frame")
            return node.target(*arguments, **options)
        if name == "sym_size":
            value, axis = arguments
            return FRAMES if axis == value.axis else value.places.shape[axis]
        bound = bound_arguments(node, arguments, options)
        result = self._operation(name, node, bound)
        if str(node.target).split(".")[1].endswith("_"):  # in place: who reads the operand later sees the result
            self._known[node.args[0]] = result
        return result

    def _operation(self, name: str, node: Any, bound: dict[str, Any]) -> Any:
        if node.target is layer_operator():
            name = "delta_layer"
        if name not in MOVES and any(is_symbolic(argument) for argument in flat(node.args)):
            raise NotStreamableError("computes with the number of frames, which a stream does not have")
        result = self.operations[name](self, node, bound) if name in self.operations else NotImplemented
        if result is not NotImplemented:
            return result
        if name in MOVES:
            return self.moved(node, bound)
        raise NotStreamableError(refusal(name))

    def _look_up(self, argument: Any) -> Any:
        if isinstance(argument, (list, tuple)):
            return [self._look_up(item) for item in argument]
        return self._known[argument] if hasattr(argument, "meta") else argument

    def extra(self, length: Any) -> int:
        """A length of time, less the number of frames.

        Raises
        ------
        NotStreamableError
            If the difference depends on the number of frames.
        """
        difference = (length.node.expr if hasattr(length, "node") else length) - self.trace.frames
        if not difference.is_number:
            raise NotStreamableError("does not give one frame for each: the engine gives an output at every frame")
        return int(difference)

    def time_axes(self, node: Any) -> list[int]:
        """Axes of a node's first result whose length depends on the number of frames."""
        value = node.meta.get("val")
        value = value[0] if isinstance(value, (list, tuple)) and value else value
        shape = getattr(value, "shape", ())
        return [axis for axis, size in enumerate(shape) if hasattr(size, "node") and not size.node.expr.is_number]

    def axis_of(self, node: Any) -> int | None:
        """The axis of time of a node's result.

        Raises
        ------
        NotStreamableError
            If there are several, as where each frame meets each other one.
        """
        axes = self.time_axes(node)
        if len(axes) > 1:
            raise NotStreamableError(
                "lets every frame meet every other one, as attention does: a stream has no later ones"
            )
        return axes[0] if axes else None

    def constant(self, value: Any) -> Places:
        """Places of a tensor or number that is the same at every frame."""
        return self.builder.constant(array_of(value))

    def moved(self, node: Any, bound: dict[str, Any]) -> Any:
        """An operation that moves values, computed on their numbers, of two frames: it must do the same to both."""
        import torch

        axis = self.axis_of(node)
        flats: list[Places] = []
        size = 0
        leads: set[int] = set()

        def numbered(value: Any) -> Any:
            nonlocal size
            if not isinstance(value, (Value, torch.Tensor)):
                return value
            places = value.places if isinstance(value, Value) else self.constant(value)
            numbers = 2 * (np.arange(places.size).reshape(places.shape) + size)
            flats.append(places.reshape(-1))
            size += places.size
            if isinstance(value, Value) and value.axis is not None:
                leads.add(value.lead)
                numbers = np.concatenate([numbers, numbers + 1], axis=value.axis)
            return torch.from_numpy(numbers)

        numbers = {name: _mapped(numbered, value) for name, value in bound.items()}
        moved = call_bound(node, numbers)
        if len(leads) > 1:
            raise NotStreamableError("joins sequences of which one is padded in front: their frames do not match")
        lead = leads.pop() if leads else 0
        every = np.concatenate(flats)
        results = [
            Value(_of_one_frame(result.numpy(), axis, every), axis, lead)
            for result in (moved if isinstance(moved, (list, tuple)) else [moved])
        ]
        return results if isinstance(moved, (list, tuple)) else results[0]


def _of_one_frame(numbers: Any, axis: int | None, places: Places) -> Places:
    """The places of one frame, of numbers 2 · index + frame."""
    if axis is None:
        if (numbers % 2).any():
            raise NotStreamableError("picks single frames")
        return np.asarray(places[numbers // 2])
    apart = numbers.shape[axis] == FRAMES
    first, second = (numbers.take([frame], axis) for frame in (0, -1))
    if not apart or (first % 2).any() or not np.isin(second - first, (0, 1)).all() or (first // 2 != second // 2).any():
        raise NotStreamableError("moves values from frame to frame")
    return np.asarray(places[first // 2])


def operation_name(node: Any) -> str:
    """The operation's name, without its overload and the _ of one in place."""
    text = str(node.target)
    name = text.split(".")[1] if text.startswith("aten.") else text
    return name if name.startswith("_") else name.rstrip("_")


def bound_arguments(node: Any, arguments: Sequence[Any], options: dict[str, Any]) -> dict[str, Any]:
    """A call's arguments by name, defaults included."""
    schema = node.target._schema.arguments
    bound = {argument.name: argument.default_value for argument in schema if argument.has_default_value()}
    bound.update(zip((argument.name for argument in schema), arguments, strict=False))
    return {**bound, **options}


def call_bound(node: Any, bound: dict[str, Any]) -> Any:
    """Call the operation of a node."""
    schema = node.target._schema.arguments
    positional = [bound[argument.name] for argument in schema if not argument.kwarg_only]
    named = {argument.name: bound[argument.name] for argument in schema if argument.kwarg_only}
    return node.target(*positional, **named)


def flat(items: Any) -> Iterator[Any]:
    """The items of nested lists."""
    for item in items:
        if isinstance(item, (list, tuple)):
            yield from flat(item)
        else:
            yield item


def is_symbolic(argument: Any) -> bool:
    """Whether an argument is a size that depends on the number of frames."""
    return hasattr(argument, "meta") and hasattr(argument.meta.get("val"), "node")


def array_of(value: Any) -> Any:
    """A tensor or number as a float32 array."""
    return np.asarray(value.detach().cpu().float().numpy() if hasattr(value, "detach") else value, np.float32)


def _mapped(function: Any, value: Any) -> Any:
    return [function(item) for item in value] if isinstance(value, (list, tuple)) else function(value)
