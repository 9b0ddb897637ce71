"""An ONNX file in ONNX Runtime against its import, call by call, and where the time goes."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from deltarnn.bench.timing import Times, interleaved
from deltarnn.onnx import Network, load
from deltarnn.onnx.command import number_of, pairs, sizes_of

Feed = dict[str, NDArray[Any]]
CALLS = 200
"""Calls per repetition, and of a made-up signal; fewer where calls are long."""
SECONDS = 0.3
"""Approximate duration of a repetition: a call may take a sequence of minutes."""
ELEMENTS = 1 << 22
"""Most elements of a made-up signal."""
HALF = "tensor(float16)"
"""An input of the original that the import takes as float32."""


def run(arguments: Any) -> str:
    """Measure one thread of both over the same calls; the table.

    arguments: model; threshold, of all recurrent parts (None: the file's); data, an .npz file with an array (calls, …)
    for each input that is a signal (None: slowly changing ones are made up); shape, set and state, as NAME=VALUE: the
    sizes of a made-up signal, the value of a constant input, the output that a state is fed from.
    """
    import onnxruntime

    net = load(arguments.model, thresholds=arguments.threshold)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(arguments.model), options, providers=["CPUExecutionProvider"])
    calls = Calls(session, arguments)
    calls.shorten(session, SECONDS)
    worst = max(float(np.abs(a - b).max()) for a, b in zip(calls.run(net), calls.run(session), strict=True))
    activity = net.activity
    with net.record_inputs() as recorded:
        calls.run(net)
    parts = {name: (_part(net, name, recorded[name]), len(calls.feeds)) for name in activity.per_part}
    peers: dict[str, tuple[Callable[[], Any], int]] = {
        "original": (lambda: calls.run(session), len(calls.feeds)),
        "imported": (lambda: calls.run(net), len(calls.feeds)),
        **parts,
    }
    return _table(interleaved(peers, 5 if arguments.quick else 20, time.thread_time), activity, worst)


class Calls:
    """The inputs of successive calls of a network, its states handed on."""

    def __init__(self, session: Any, arguments: Any) -> None:
        inputs = {node.name: node for node in session.get_inputs()}
        self.outputs = [node.name for node in session.get_outputs()]
        self.halves = [name for name, node in inputs.items() if node.type == HALF]
        given = {} if arguments.data is None else _signals(arguments.data)
        shapes, fixed = pairs("shape", arguments.shape), pairs("set", arguments.set)
        self.states = pairs("state", arguments.state)
        for name in [*shapes, *fixed, *self.states, *given]:
            if name not in inputs:
                raise ValueError(f"no input is called {name!r}: the network takes {', '.join(inputs)}")
        for name in self.states.values():
            if name not in self.outputs:
                raise ValueError(f"no output is called {name!r}: the network has {', '.join(self.outputs)}")
        sizes = {name: _shape(node, shapes.get(name)) for name, node in inputs.items()}
        self.zeros: Feed = {name: np.zeros(sizes[name], np.float32) for name in self.states}
        self.fixed: Feed = {name: _number(inputs[name], sizes[name], value) for name, value in fixed.items()}
        signals = [name for name in inputs if name not in self.states and name not in fixed]
        counts = {len(given[name]) for name in signals if name in given}
        if not signals or len(counts) > 1:
            raise ValueError(
                f"the signals ({', '.join(signals)}) must have the same number of calls, at least one signal"
            )
        largest = max(int(np.prod(sizes[name])) for name in signals)
        count = min(CALLS, max(1, ELEMENTS // max(largest, 1)), *counts)
        made = {name: given[name] if name in given else _signal(count, sizes[name]) for name in signals}
        self.feeds: list[Feed] = [{name: value[n] for name, value in made.items()} for n in range(count)]

    def shorten(self, runner: Any, seconds: float) -> None:
        """Keep as many of the first calls as take about `seconds`."""
        whole = self.feeds
        self.feeds = whole[:1]
        self.run(runner)
        start = time.thread_time()
        self.run(runner)
        self.feeds = whole[: max(1, round(seconds / max(time.thread_time() - start, 1e-9)))]

    def run(self, runner: Any) -> list[NDArray[Any]]:
        """The first output of every call."""
        if isinstance(runner, Network):
            runner.reset()
        state, first = dict(self.zeros), []
        halves = [] if isinstance(runner, Network) else self.halves
        for feed in self.feeds:
            given = {**feed, **state, **self.fixed}
            given |= {name: given[name].astype(np.float16) for name in halves}
            outputs = dict(zip(self.outputs, runner.run(self.outputs, given), strict=True))
            state = {name: outputs[output] for name, output in self.states.items()}
            first.append(outputs[self.outputs[0]])
        return first


def _part(net: Network, name: str, sequences: list[Any]) -> Callable[[], None]:
    """One recurrent part alone, over what entered it, in as many calls."""
    engine = net.engine(name)

    def call() -> None:
        for sequence in sequences:
            engine.enter()
            for chunk in sequence.chunks:
                engine.run(chunk)

    return call


def _shape(node: Any, given: str | None) -> list[int]:
    if given is not None:
        return sizes_of(node.name, given)
    return [size if isinstance(size, int) and size > 0 else 1 for size in node.shape]


def _signals(path: Path) -> Feed:
    """The arrays (calls, …) of a file, by input. ValueError if they are none."""
    try:
        with np.load(path) as file:
            arrays = dict(file)
        if all(array.ndim and len(array) for array in arrays.values()):
            return arrays
    except (TypeError, ValueError, EOFError, BadZipFile):  # TypeError: a single array is no mapping
        pass
    raise ValueError(f"{path}: must be an .npz file with an array (calls, …) for each input that is a signal")


def _signal(calls: int, shape: list[int]) -> NDArray[np.float32]:
    """(calls, …): each value changes in about a tenth of the calls."""
    random = np.random.default_rng(0)
    changes = random.normal(0, 0.3, (calls, *shape)) * (random.random((calls, *shape)) < 0.1)
    return changes.cumsum(0).astype(np.float32)


def _number(node: Any, shape: list[int], text: str) -> NDArray[Any]:
    kinds: dict[str, type] = {
        "tensor(float)": np.float32,
        HALF: np.float32,
        "tensor(int64)": np.int64,
        "tensor(int32)": np.int32,
    }
    if node.type not in kinds:
        raise ValueError(f"--set {node.name}: it is a {node.type}; numbers can be set")
    return np.full(shape, number_of(node.name, text)).astype(kinds[node.type])


def _table(times: Mapping[str, Times], activity: Any, worst: float) -> str:
    original, imported = times["original"].quartile, times["imported"].quartile
    lines = [
        "| µs per call, one thread | lower quartile | deltas that were 0 |",
        "|---|---|---|",
        f"| ONNX Runtime, the file as it is | {original * 1e6:.4g} | |",
        f"| imported | {imported * 1e6:.4g} ({original / imported:.2f}×) | {activity.effective_sparsity:.1%} |",
    ]
    recurrent = 0.0
    for name, part in activity.per_part.items():
        recurrent += times[name].quartile
        lines.append(f"| of it {name} | {times[name].quartile * 1e6:.4g} | {part.effective_sparsity:.1%} |")
    lines.append(f"| of it all else | {max(imported - recurrent, 0) * 1e6:.4g} | |")
    return "\n".join([*lines, "", f"Largest difference of the first output: {worst:.2g}."])
