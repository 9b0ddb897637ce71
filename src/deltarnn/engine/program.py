"""Programs: whole networks of fixed sizes as native instructions over one array of floats, the arena.

A value is an array of its shape that holds, for each element, where in the arena that element is. To transpose, slice,
pad, concatenate or broadcast a value is to do so with its places: it costs nothing when the program runs. Where an
instruction needs elements side by side that are not, a gather brings them together.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltarnn.native import MISSING, native_core

Places = NDArray[np.int64]
FloatArray = NDArray[np.float32]

ZERO = 0
"""The place of a zero: what padding reads."""


@dataclass(frozen=True)
class RecurrentCall:
    """What a recurrent instruction runs: `key` names its stream to whoever runs the program."""

    key: Any
    places: dict[str, Any]


@dataclass(frozen=True)
class ProgramParts:
    """A finished program: what the native core takes. inputs, outputs: (place, elements), one contiguous array each."""

    arena: FloatArray
    instructions: list[dict[str, Any]]
    lists: list[NDArray[np.int32]]
    weights: list[tuple[FloatArray, FloatArray]]
    recurrent: list[dict[str, Any]]
    inputs: list[tuple[int, int]]
    outputs: list[tuple[int, int]]

    def native(self) -> Any:
        """The program in the native core.

        Raises
        ------
        ImportError
            If the core was not built.
        ValueError
            If an instruction does not fit the arena or its resources.
        """
        core = native_core()
        if core is None:
            raise ImportError(MISSING)
        parts = self.arena, self.instructions, self.lists, self.weights, self.recurrent, self.inputs, self.outputs
        return core.Program(*parts)


@dataclass
class ProgramBuilder:
    """A program in the making. All methods take and return places.

    multiplications: of the dense products so far.
    """

    instructions: list[dict[str, Any]] = field(default_factory=list)
    lists: list[NDArray[np.int32]] = field(default_factory=list)
    weights: list[tuple[FloatArray, FloatArray]] = field(default_factory=list)
    recurrent: list[RecurrentCall] = field(default_factory=list)
    multiplications: int = 0
    _arena: list[FloatArray] = field(default_factory=lambda: [np.zeros(1, np.float32)])
    _constant: list[NDArray[np.bool_]] = field(default_factory=lambda: [np.ones(1, bool)])
    _size: int = 1
    _gathered: dict[bytes, int] = field(default_factory=dict)
    _kept: list[tuple[Places, Places]] = field(default_factory=list)

    def room(self, *shape: int) -> Places:
        """Places for a value that an instruction, or the caller, will write."""
        return self._added(np.zeros(shape, np.float32), constant=False)

    def constant(self, values: Any) -> Places:
        """Places of a constant."""
        return self._added(np.asarray(values, np.float32), constant=True)

    def apply(self, function: str, a: Places, alpha: float = 0.0, beta: float = 0.0) -> Places:
        """An elementwise function; alpha and beta are its parameters."""
        start, order = self._dense(a)
        to = self.room(a.size)
        self._emit(function, to, a=start, n=a.size, alpha=alpha, beta=beta)
        return self._placed(to, order, a.shape)

    def combine(self, function: str, a: Places, b: Places) -> Places:
        """An elementwise function of two values, broadcast against each other."""
        a, b = np.broadcast_arrays(a, b)
        start, order = self._dense(a)
        other = b.reshape(-1) if order is None else b.reshape(-1)[order]
        to = self.room(a.size)
        self._emit(function, to, a=start, b=self.together(other), n=a.size)
        return self._placed(to, order, a.shape)

    def linear(self, a: Places, weight: FloatArray, bias: FloatArray | None = None) -> Places:
        """a (…, K) @ weight (K, N) + bias (N,)."""
        rows = a.reshape(-1, a.shape[-1])
        needed = (rows != ZERO).any(axis=0)
        rows, weight = rows[:, needed], weight[needed]  # what only padding would enter
        inner, n = weight.shape
        to = self.room(len(rows), n)
        if inner == 0:
            return np.broadcast_to(self.constant(np.zeros(n) if bias is None else bias), (*a.shape[:-1], n))
        self.weights.append((np.ascontiguousarray(weight, np.float32), np.zeros(n, np.float32)))
        if bias is not None:
            self.weights[-1] = self.weights[-1][0], np.ascontiguousarray(bias, np.float32)
        resource = len(self.weights) - 1
        self._emit("linear", to, a=self.together(rows), n=n, rows=len(rows), inner=inner, resource=resource)
        self.multiplications += len(rows) * inner * n
        return to.reshape(*a.shape[:-1], n)

    def reduce(self, function: str, a: Places, axes: Sequence[int], keep: bool) -> Places:
        """ "sum", "mean", "highest" or "lowest" over axes."""
        axes = [axis % a.ndim for axis in axes]
        rest = [axis for axis in range(a.ndim) if axis not in axes]
        rows = a.transpose(*rest, *axes).reshape(-1, int(np.prod([a.shape[axis] for axis in axes])))
        to = self.room(len(rows))
        self._emit(function, to, a=self.together(rows), rows=len(rows), inner=rows.shape[1])
        return to.reshape(
            [1 if axis in axes else size for axis, size in enumerate(a.shape) if keep or axis not in axes]
        )

    def step(
        self,
        key: Any,
        x: Places,
        hidden: int,
        h: Places | None,
        c: Places | None,
        held: bool,
        cells: int | None = None,
    ) -> tuple[Places, Places, Places]:
        """A stream over x (T, I) from h (H,) and c (cells,), None for zeros: (y (T, H), the final h, the final c).

        cells: of an LSTM with a projection, whose c is longer than its h.
        """
        y, next_h, next_c = self.room(len(x), hidden), self.room(hidden), self.room(cells or hidden)
        places = {"next_h": int(next_h[0]), "next_c": int(next_c[0]), "held": held}
        for name, state in (("h", h), ("c", c)):
            if state is not None:
                places[name] = self.together(state)
        self.recurrent.append(RecurrentCall(key, places))
        rows, inner = x.shape
        resource = len(self.recurrent) - 1
        self._emit("recurrent", y, a=self.together(x), n=hidden, rows=rows, inner=inner, resource=resource)
        return y, next_h, next_c

    def together(self, places: Places) -> int:
        """Where the elements stand side by side: a constant is stored anew in that order, anything else gathered."""
        flat = places.reshape(-1)
        first = int(flat[0])
        if np.array_equal(flat, np.arange(first, first + flat.size)):
            return first
        key = flat.tobytes()
        if key not in self._gathered:
            self._gathered[key] = self._gather(flat)
        return self._gathered[key]

    def _gather(self, flat: Places) -> int:
        if np.concatenate(self._constant)[flat].all():
            return int(self.constant(np.concatenate(self._arena)[flat])[0])
        to = self.room(flat.size)
        self.lists.append(flat.astype(np.int32))
        self._emit("gather", to, resource=len(self.lists) - 1)
        return int(to[0])

    def keep(self, past: Places, present: Places) -> None:
        """At the end of each run `past`, a room of the same size, takes the values that `present` has then. Those may
        be later ones of `past` itself, and no other kept ones."""
        self._kept.append((past, present))

    def finished(self, inputs: Sequence[Places], outputs: Sequence[Places]) -> ProgramParts:
        """The program; inputs and outputs are filled and read in this order, each as one contiguous array."""
        results = [(self.together(value), value.size) for value in outputs]
        kept = []
        for number, (past, _) in enumerate(self._kept, len(self.lists)):
            kept.append({"operation": "gather", "to": int(past.reshape(-1)[0]), "resource": number})
        return ProgramParts(
            np.concatenate(self._arena),
            self.instructions + kept,
            self.lists + [present.reshape(-1).astype(np.int32) for _, present in self._kept],
            self.weights,
            [call.places for call in self.recurrent],
            [(self.together(value), value.size) for value in inputs],
            results,
        )

    def build(self, inputs: Sequence[Places], outputs: Sequence[Places]) -> Any:
        """The native program, as `finished` says."""
        return self.finished(inputs, outputs).native()

    def _added(self, values: FloatArray, constant: bool) -> Places:
        places = np.arange(self._size, self._size + values.size).reshape(values.shape)
        self._arena.append(values.reshape(-1))
        self._constant.append(np.full(values.size, constant))
        self._size += values.size
        return places

    def _dense(self, a: Places) -> tuple[int, NDArray[np.int64] | None]:
        """Where all elements of `a` stand in the order of the arena, and that order: None for their own."""
        flat = a.reshape(-1)
        order = np.argsort(flat, kind="stable")
        return self.together(flat[order]), None if np.array_equal(order, np.arange(flat.size)) else order

    def _placed(self, to: Places, order: NDArray[np.int64] | None, shape: tuple[int, ...]) -> Places:
        if order is None:
            return to.reshape(shape)
        places = np.empty(to.size, np.int64)
        places[order] = to
        return places.reshape(shape)

    def _emit(self, operation: str, to: Places, **fields: Any) -> None:
        self.instructions.append({"operation": operation, "to": int(to.reshape(-1)[0]), **fields})
