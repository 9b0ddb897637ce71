"""States of the recurrent sites of one network: delta states from call to call, one per batch row and direction."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from deltarnn.engine.activity import LayerActivity
from deltarnn.engine.engine import Engine
from deltarnn.onnx.graph import Array
from deltarnn.onnx.recurrent import RecurrentPart, Site

Values = dict[str, Array]


@dataclass
class RecordedSequence:
    """What entered a recurrent part from a state on, in the part's direction of time.

    h, c: (1, H) the state before the first step, None for zeros. x: (T, 1, I), of one call or of several that went on
    from each other.
    """

    h: Array | None
    c: Array | None
    chunks: list[Array] = field(default_factory=list, repr=False)

    @property
    def x(self) -> Array:
        """(T, 1, I)"""
        return np.concatenate(self.chunks)[:, None]


@dataclass
class _Rows:
    """One site and direction: a stream per batch row, of the engine that its part was compiled to."""

    compiled: Engine
    engines: list[Engine] = field(default_factory=list)
    recorded: dict[int, RecordedSequence] = field(default_factory=dict)


class States:
    """Runs sites on the engines of their parts.

    A delta state is more than the h and c that a graph passes from call to call. It is kept here: where the h and c
    that enter a site are those that it returned last, its delta state goes on; any other h and c begin a sequence. With
    held=True it goes on whatever enters, until `reset`.
    """

    def __init__(self, parts: dict[str, RecurrentPart], held: bool) -> None:
        self.parts = parts
        self.held = held
        self.rows: dict[tuple[str, str, int], _Rows] = {}
        self.recorded: dict[str, list[RecordedSequence]] | None = None
        self.bound: WeakKeyDictionary[Any, tuple[list[Engine], Any]] = WeakKeyDictionary()

    def reset(self) -> None:
        """Forget all states; counts restart."""
        self.rows.clear()

    def of(self, program: Any, keys: Sequence[tuple[str, str, int, int]]) -> Any:
        """A native program over the streams that its keys (part, stream, direction, batch row) name."""
        engines = [self.rows_of(part, stream, way, row + 1).engines[row] for part, stream, way, row in keys]
        known = self.bound.get(program)
        if known is None or any(before is not now for before, now in zip(known[0], engines, strict=True)):
            known = self.bound[program] = engines, program.bind(engines)
        return known[1]

    def record(self) -> None:
        """Begin to keep what enters each part, in `recorded`."""
        self.recorded = {name: [] for name in self.parts}
        for rows in self.rows.values():
            rows.recorded.clear()

    def activity(self) -> dict[str, LayerActivity]:
        """Counts of each part that ran, over all its sites and batch rows."""
        counts: dict[str, list[LayerActivity]] = {}
        for (part, _, _), rows in self.rows.items():
            layers = [engine.activity.per_layer[0] for engine in rows.engines]
            counts.setdefault(part, []).extend(layer for layer in layers if layer.steps)
        return {name: LayerActivity.total(layers) for name, layers in counts.items() if layers}

    def run(self, site: Site, values: Values) -> None:
        """Compute a site's outputs from `values` and add them."""
        x = values[site.x]
        lengths = values[site.lengths] if site.lengths else None
        states = [values[name] if name else None for name in (site.h, site.c)]
        site.check_shapes(x.shape, states, lengths)
        if site.is_cell:
            x = x[None]
        elif site.batch_first:
            x = x.swapaxes(0, 1)
        steps, batch, _ = x.shape
        directions = len(site.parts)
        hidden = site.weights[0].hidden_size
        states = [site.initial(state, batch) for state in states]
        y = np.empty((steps, directions, batch, hidden), np.float32)
        finals = np.empty((2, directions, batch, hidden), np.float32)
        for direction, name in enumerate(site.parts):
            rows = self.rows_of(name, site.stream, direction, batch)
            h, c = (None if state is None else state[direction] for state in states)
            for row, engine in enumerate(rows.engines[:batch]):
                count = steps if lengths is None else int(lengths[row])
                if not count:  # of no steps ONNX Runtime makes zeros, whatever the initial state
                    y[:, direction, row] = finals[:, direction, row] = 0
                    continue
                frames = x[:count, row]
                frames = frames[::-1] if site.reverse[direction] else frames
                entering = [None if state is None else np.ascontiguousarray(state[row]) for state in (h, c)]
                goes_on = engine.enter(*entering, self.held)
                if self.recorded is not None:
                    if not goes_on or row not in rows.recorded:
                        given = [None if state is None else state[None].copy() for state in entering]
                        rows.recorded[row] = RecordedSequence(given[0], given[1])
                        self.recorded[name].append(rows.recorded[row])
                    rows.recorded[row].chunks.append(frames.copy())
                out = engine.run(frames)
                y[:count, direction, row] = out[::-1] if site.reverse[direction] else out
                y[count:, direction, row] = 0
                engine.hidden(finals[0, direction, row], finals[1, direction, row])
        self.leave(site, values, y, finals)

    def rows_of(self, part: str, stream: str, direction: int, batch: int) -> _Rows:
        """The state of a site and direction, with at least `batch` streams; a new one if the part was compiled anew."""
        engine = self.parts[part].engine
        assert engine is not None
        rows = self.rows.get((part, stream, direction))
        if rows is None or rows.compiled is not engine:
            rows = self.rows[part, stream, direction] = _Rows(engine)
        while len(rows.engines) < batch:
            rows.engines.append(engine.stream())
        return rows

    def leave(self, site: Site, values: Values, y: Array, finals: Array) -> None:
        """Add what a site computed to `values`, in its layout: y (T, D, B, H), finals (2, D, B, H) its last h and c."""
        h, c = finals
        if site.is_cell:
            h, c = h[0], c[0]
        elif site.batch_first:
            y, h, c = y.transpose(2, 0, 1, 3), h.swapaxes(0, 1), c.swapaxes(0, 1)
        for name, value in ((site.y, y), (site.next_h, h), (site.next_c, c)):
            if name:
                values[name] = value
