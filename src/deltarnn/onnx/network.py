"""Networks imported from ONNX: their recurrent parts as delta layers, all else as it was."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

from deltarnn.engine.activity import Counted, LayerActivity
from deltarnn.engine.engine import Engine
from deltarnn.onnx.graph import Array
from deltarnn.onnx.programs import Programs
from deltarnn.onnx.recurrent import RecurrentPart
from deltarnn.onnx.saving import save_network
from deltarnn.onnx.states import RecordedSequence, States

StateMode = Literal["explicit", "held"]
Pair = tuple[float, float]
Threshold = float | Pair | Sequence[Pair]


@dataclass(frozen=True)
class NetworkActivity(Counted):
    """Exact counts of the recurrent parts that ran, by name, since the start or the last `reset`."""

    per_part: dict[str, LayerActivity]

    @property
    def layers(self) -> tuple[LayerActivity, ...]:
        if not self.per_part:
            raise RuntimeError("no call since the start or the last reset: there is nothing to report")
        return tuple(self.per_part.values())


class Network:
    """A network from an ONNX file that runs its recurrent parts as delta layers.

    >>> net = load("model.onnx", thresholds=0.1)  # doctest: +SKIP
    >>> outputs = net.run(None, {"input": frames})  # doctest: +SKIP

    With thresholds 0 it computes what the file computes. `stream()` gives independent states over the
    same weights. One network is for one thread at a time.
    """

    def __init__(self, model: Any, parts: dict[str, RecurrentPart], programs: Programs, states: StateMode) -> None:
        """Not for callers: use `deltarnn.onnx.load`."""
        self.model = model
        self.parts = parts
        self.programs = programs
        self._mode = states
        self._states = States(parts, states == "held")
        self._layers: dict[str, Any] = {}

    def run(self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any]) -> list[Array]:
        """Compute outputs, as onnxruntime.InferenceSession.run does.

        Parameters
        ----------
        output_names: names of outputs; None for all, in the file's order.
        input_feed: an array for every input, in the file's types.

        A recurrent part goes on from its delta state where the initial state that the graph gives it is the one that it
        returned last: a network with states as inputs and outputs streams as it did. Any other initial state, or none,
        begins a sequence. With states="held" parts go on from call to call until `reset`, whatever the graph gives.

        Raises
        ------
        ValueError
            If an input or an output name does not fit the network.
        """
        graph = self.programs.graph
        names = list(output_names or graph.outputs)
        for name in names:
            if name not in graph.outputs:
                raise ValueError(f"no output is called {name!r}: the network has {', '.join(graph.outputs)}")
        program, feed = self.programs.of(input_feed, native=self._states.recorded is None)
        values = program.run(feed, self._states)
        return [values[name] for name in names]

    def reset(self) -> None:
        """Forget all states: the next call begins anew; the counts of `activity` restart."""
        self._states.reset()

    def stream(self) -> "Network":
        """Independent states over the same weights and thresholds."""
        return Network(self.model, self.parts, self.programs, self._mode)

    @property
    def input_names(self) -> list[str]:
        """Names of the inputs, in the file's order."""
        return list(self.programs.graph.inputs)

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs, in the file's order."""
        return list(self.programs.graph.outputs)

    @property
    def recurrent(self) -> list[str]:
        """Names of the recurrent parts: one per set of weights and direction."""
        return list(self.parts)

    @property
    def thresholds(self) -> dict[str, list[Pair]]:
        """[(θx, θh)] of each recurrent part: a list, as of modules with several layers."""
        return {name: [(part.thx, part.thh)] for name, part in self.parts.items()}

    def set_thresholds(self, thresholds: Threshold | Mapping[str, Threshold]) -> None:
        """Set thresholds; states begin anew.

        thresholds: of all parts, or of some by name: a number, a pair (θx, θh), or a list with one pair.
        """
        given = thresholds if isinstance(thresholds, Mapping) else dict.fromkeys(self.parts, thresholds)
        pairs = {name: _pair(name, value) for name, value in given.items()}
        for name in pairs:
            self._check_name(name)
        for name, (thx, thh) in pairs.items():
            part = self.parts[name]
            part.thx, part.thh = thx, thh
            part.compile()
            if name in self._layers:
                self._layers[name].thx, self._layers[name].thh = thx, thh

    def _check_name(self, name: str) -> None:
        if name not in self.parts:
            raise ValueError(f"no recurrent part is called {name!r}: there are {', '.join(self.parts)}")

    def engine(self, name: str) -> Engine:
        """A new stream of one recurrent part; ValueError if there is none of that name."""
        self._check_name(name)
        return self.parts[name].stream()

    @property
    def layers(self) -> dict[str, Any]:
        """The recurrent parts as DeltaGRU and DeltaLSTM modules, to be trained; `compile` takes over what changed."""
        for name, part in self.parts.items():
            if name not in self._layers:
                self._layers[name] = part.layer()
        return self._layers

    def compile(self) -> None:
        """Take over weights and thresholds of `layers`; states begin anew."""
        for name, layer in self._layers.items():
            self.parts[name].take(layer)
            self.parts[name].compile()

    @contextmanager
    def record_inputs(self) -> Iterator[dict[str, list[RecordedSequence]]]:
        """Keep what enters each recurrent part while the block runs: by name, sequences and their initial states."""
        self._states.record()
        assert self._states.recorded is not None
        try:
            yield self._states.recorded
        finally:
            self._states.recorded = None

    def quantize(self, calibration: Sequence[Any], dense: bool = False) -> None:
        """Compute the recurrent parts in int8 from now on, each tensor in a format of its own; states begin anew.

        Parameters
        ----------
        calibration: feeds, each of a sequence of its own, or functions of the network that run it over one in many
            calls; like those that it will meet.

        Raises
        ------
        ValueError
            If there are none, if a recurrent part did not run, or if one has no form in integers; naming it.
        """
        for part in self.parts.values():
            part.precision, part.quantization = "float32", None
            part.compile()
        self.programs.set_int8(False)
        with self.record_inputs() as recorded:
            for item in calibration:
                self.reset()
                if callable(item):
                    item(self)
                else:
                    self.run(None, item)
        self.reset()
        idle = [name for name, sequences in recorded.items() if not sequences]
        if idle:
            raise ValueError(f"{idle[0]!r} did not run over the calibration data: give feeds of all of the network")
        for name, part in self.parts.items():
            part.calibrate([sequence.x[:, 0] for sequence in recorded[name]])
        self.programs.set_int8(dense)

    @property
    def activity(self) -> NetworkActivity:
        """What fired since the start or the last `reset`."""
        return NetworkActivity(self._states.activity())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file with thresholds and trained weights beside the graph; ONNX Runtime ignores these."""
        save_network(path, self.model, self.parts, self.programs.int8)

    def save_onnx(self, path: str | os.PathLike[str], example: Mapping[str, Any] | None = None) -> str:
        """Write the network, with its thresholds and precision, for ONNX Runtime and the library `operator_library()`.

        A session of ONNX Runtime that has registered the library runs the file in any language, and keeps the delta
        states of one stream, as `run` does.

        Parameters
        ----------
        example: inputs of a call. The file then takes these sizes, and these values of whole numbers with one element,
            and no others; a small network becomes one operator, as it does without where the graph leaves no size open.
            In any other case only the recurrent parts become operators, for all sizes that the graph takes.

        Returns
        -------
        What became an operator, for people: "the whole network", or how many recurrent ones.

        Raises
        ------
        ValueError
            If the example does not fit the network, or a condition in it needs one.
        """
        from deltarnn.onnx.export import export_network

        return export_network(self, path, example)

    @property
    def states_held(self) -> bool:
        """Whether recurrent parts go on from call to call whatever the graph gives (states="held")."""
        return self._mode == "held"

    def __repr__(self) -> str:
        sizes = {name: part.weights for name, part in self.parts.items()}
        return f"Network({', '.join(f'{n}: {w.cell} {w.input_size}→{w.hidden_size}' for n, w in sizes.items())})"


def _pair(name: str, value: Any) -> Pair:
    pairs = list(value) if isinstance(value, (list, tuple)) else [(value, value)]
    if len(pairs) == 2 and all(isinstance(number, Real) for number in pairs):
        pairs = [tuple(pairs)]
    if len(pairs) != 1 or len(pairs[0]) != 2:
        raise ValueError(f"thresholds of {name!r}: {value!r} is no number, pair (θx, θh), or list with one pair")
    thx, thh = (float(number) for number in pairs[0])
    for threshold in (thx, thh):
        if not math.isfinite(threshold) or threshold < 0:
            raise ValueError(f"thresholds of {name!r}: {threshold} must be finite and at least 0 (0 fires always)")
    return thx, thh
