"""Streaming inference without torch, on a CPU, in time proportional to the events."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deltarnn.engine.activity import Activity
from deltarnn.engine.compilation import CompiledNetwork, Precision, compiled
from deltarnn.engine.description import Description
from deltarnn.engine.model_file import load_model, save_model
from deltarnn.fixed.qformat import Quantization

FloatArray = NDArray[np.float32]


class Engine(CompiledNetwork):
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
    run: run(frames (T, I), out=None) -> (T, H), what T calls of `step` give, to the last bit. `out` may be `frames`
        itself, where I is H; overlapping it in any other way is an error.
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
        super().__init__(description, precision, quantization, model)
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
        *,
        example: Any = None,
    ) -> "Engine":
        """Compile a DeltaGRU or DeltaLSTM, a model with one as `.rnn` and a dense head as `.head`, or any module with
        delta layers whose every output frame depends on present and past ones (`ModuleEngine`).

        What is compiled is run on a random sequence, in float32 with thresholds 0, and must give what the model gives.

        Parameters
        ----------
        precision: "float32"; "bfloat16", which stores the weights so and computes in float32; or "int8".
        quantization: formats of int8; the default is the layer's own, else Q8.8 activations, Q1.7 weights, Q2.6 gates.
            Thresholds are rounded to the activation grid, which a warning reports.
        calibration: frames (T, I) of typical input, or a list of such sequences, from which int8 takes formats tensor
            by tensor (`engine.formats`) in place of `quantization`.
        example: a tensor that a module takes, of one stream and at least two frames, where its layout is not (T, 1, I),
            (1, T, I) or (1, I, T). A frame is then all its values at one time, in their order.

        Raises
        ------
        ValueError
            If the model is bidirectional, not a delta network, or does not fit the formats; if it computes anything
            that has no form frame by frame, naming its line; if a threshold > 0 would round to 0; if the model has
            fixed-point formats that precision="float32" would ignore.
        ImportError
            If the native core was not built.
        """
        from deltarnn.engine.module_engine import ModuleEngine, is_tree

        model = getattr(model, "_orig_mod", model)  # what torch.compile wraps
        try:
            description = Description.of(
                model, lambda read, frames: cls.from_description(read, "float32", None).run(frames)
            )
        except ValueError:  # of modules of these names that are no such stack, too
            if not is_tree(model):
                raise
            return ModuleEngine.of_module(model, precision, quantization, calibration, example)
        return cls.from_description(description, precision, quantization, calibration)

    @classmethod
    def load(cls, path: str | os.PathLike[str], precision: Precision | None = None) -> "Engine":
        """Open a file of `save`, or any model file (docs/model_file.md).

        precision: by default "int8" where the file has formats, "float32" where not. Files of bfloat16 engines hold
            the weights as they were given: ask for "bfloat16" again.
        """
        from deltarnn.engine.module_engine import ModuleEngine
        from deltarnn.engine.module_file import is_module_file, load_module

        if is_module_file(path):
            return ModuleEngine.of(load_module(path), precision)
        description = Description(*load_model(path))
        return cls.from_description(description, precision or ("int8" if description.fixed_point else "float32"), None)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a model file: parameters as they were given, thresholds and formats as they are used."""
        save_model(path, self.description.tensors, self.description.header)

    def stream(self) -> "Engine":
        """An independent state, from its start, over the same weights."""
        return Engine(self._description, self._precision, self._quantization, self._model)

    @property
    def native_stream(self) -> Any:
        """The state as native programs take it (engine.program)."""
        return self._stream

    @property
    def activity(self) -> Activity:
        """What fired since the start or the last `reset`: a snapshot of exact counts."""
        return self.activity_of(self._stream)

    def activity_of(self, stream: Any) -> Activity:
        """What fired in `stream`, one of the native core's over `compiled`."""
        counts = [stream.activity(index) for index in range(self._description.architecture["num_layers"])]
        return Activity.of(self._description.architecture, self._description.reset_after, counts)

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
        return cls(*compiled(description, precision, quantization, calibration))
