"""Verifies that a compiled model computes all that its torch module does: nothing may be lost.

`refuse_other_tensors` finds parameters that were not read, `Probe` code that was not: it compares the module with what
was compiled on a random sequence. Only attributes and methods of the module are used: torch is not imported.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

AMPLITUDES = (1.0, 0.25, 4.0, 1.0, 16.0, 0.5)
"""Of the probe's frames: small and large, so that clipping and saturation show too. Few, since errors can grow."""

MACHINE_EPSILON = {"torch.bfloat16": 2.0**-7, "torch.float16": 2.0**-10}
"""Of the dtypes that are coarser than float32."""


class UnsupportedModelError(ValueError):
    """The model cannot be compiled or deployed as asked; the message names the limit and the remedy."""


def refuse_other_tensors(model: Any, rnn: Any, names: tuple[str, ...], head: Iterable[Any]) -> None:
    """Raise UnsupportedModelError if `model` holds parameters or buffers beside those of `rnn` and of the `head`.

    names: the parameters of `rnn` that were read. What a parametrisation, pruning or weight_norm makes one of them from
    (parametrizations.NAME.…, NAME_orig, NAME_g, …) counts as read.
    """
    read = {id(tensor) for module in head for _, tensor in _tensors(module)}
    read |= {id(tensor) for name, tensor in _tensors(rnn) if any(part.startswith(names) for part in name.split("."))}
    lost = [name for name, tensor in _tensors(model) if id(tensor) not in read]
    if lost:
        modules = dict(model.named_modules())
        described = [f"{name} (of a {type(modules[name.rpartition('.')[0]]).__name__})" for name in lost]
        more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
        raise UnsupportedModelError(
            f"{type(model).__name__} holds {', '.join(described[:3])}{more}, which would be dropped: give a module "
            "with a delta layer as .rnn, a dense head as .head and nothing else, and compute the rest outside"
        )


@dataclass(frozen=True)
class Probe:
    """What a module makes of a random sequence, in evaluation mode, with thresholds 0 and in real numbers.

    At thresholds 0, since near a threshold two ways of rounding may decide differently.

    name: the module's class. frames: (T, I). outputs: (T or 1, O) for either order of time and batch that the module
    ran with; one row where it returns the last step's scores alone. tolerance: relative to the largest output. reason:
    why what is compiled may differ.
    """

    name: str
    frames: NDArray[np.float32]
    outputs: tuple[NDArray[np.float64], ...]
    tolerance: float
    reason: str = (
        "its forward, or a hook, computes something beside .rnn and .head, which would be lost; give a module without "
        "it, and compute it outside"
    )

    @classmethod
    def of(cls, model: Any, rnn: Any, head: Iterable[Any]) -> "Probe":
        """Run `model`; where it has no forward, its `rnn` and the modules of its `head` one after the other.

        Pruned and weight-normed attributes are up to date afterwards: hooks make them in a run.

        Raises
        ------
        UnsupportedModelError
            If the model does not run on a sequence of frames.
        """
        frames = random_frames(len(AMPLITUDES), rnn.input_size)
        outputs: list[NDArray[np.float64]] = []
        failures: list[tuple[tuple[int, ...], Exception]] = []
        with plain(model, [rnn]):
            for time_first in (not rnn.batch_first, bool(rnn.batch_first)):
                shaped = frames[:, None] if time_first else frames[None]
                x = rnn.weight_ih_l0.detach().new_tensor(shaped)
                try:
                    outputs.append(_rows(_run(model, rnn, head, x)))
                except Exception as error:  # whatever the module's own code raises
                    failures.append((tuple(x.shape), error))
        if not outputs:
            shape, cause = failures[0]
            raise UnsupportedModelError(
                f"{type(model).__name__} was run on a random sequence of shape {shape}, to compare what is compiled "
                f"with it, and failed: {type(cause).__name__}: {cause}"
            ) from cause
        return cls(type(model).__name__, frames, tuple(outputs), tolerance_of(rnn.weight_ih_l0))

    def check(self, compiled: NDArray[Any]) -> None:
        """Raise UnsupportedModelError unless `compiled` (T, O), of the same frames, is the module's output."""
        difference = min(_difference(output, compiled) for output in self.outputs)
        if not difference <= self.tolerance:
            raise UnsupportedModelError(
                f"what is compiled differs from {self.name} on a random sequence, by {difference:.3g} of its largest "
                f"output: {self.reason}"
            )


def random_frames(steps: int, features: int) -> NDArray[np.float32]:
    """(T, I), of changing amplitude."""
    scale = np.resize(AMPLITUDES, (steps, 1))
    return np.asarray(np.random.default_rng(0).normal(size=(steps, features)) * scale, np.float32)


def tolerance_of(weight: Any) -> float:
    """How far two ways of computing may be apart, relative to the largest output, over weights of that type."""
    return float(MACHINE_EPSILON.get(str(weight.dtype), 2.0**-23) ** 0.5)


def _tensors(module: Any) -> Iterator[tuple[str, Any]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


@contextmanager
def plain(model: Any, layers: Iterable[Any]) -> Iterator[None]:
    """`model` in evaluation mode, its delta `layers` without thresholds, formats and recorders; then as before."""
    modes = [(module, module.training) for module in model.modules()]
    values: dict[str, Any] = {
        "quantization": None,
        "thx": 0.0,
        "thh": 0.0,
        "backend": "eager",
        "recorders": [],
        "backend_used": None,
    }
    before = [(layer, {name: getattr(layer, name) for name in values}) for layer in layers]
    try:
        for module, _ in modes:
            module.training = False
        for layer, _ in before:
            for name, value in values.items():
                setattr(layer, name, value)
        yield
    finally:
        for layer, own in before:
            for name, value in reversed(own.items()):  # thresholds before the formats that they are checked against
                setattr(layer, name, value)
        for module, training in modes:
            module.training = training


def _run(model: Any, rnn: Any, head: Iterable[Any], x: Any) -> Any:
    try:
        output = model(x)
    except NotImplementedError:
        output = rnn(x)[0]
        for module in head:
            output = module(output)
    return output[0] if isinstance(output, (tuple, list)) else output


def _rows(output: Any) -> NDArray[np.float64]:
    """(T or 1, O) of an output with one sample."""
    values: NDArray[np.float64] = output.detach().cpu().double().numpy()
    return values.reshape(-1, values.shape[-1])


def _difference(output: NDArray[np.float64], compiled: NDArray[Any]) -> float:
    """The largest difference over the largest magnitude; infinite for shapes that do not fit each other."""
    expected = compiled[-len(output) :]
    if len(output) not in (1, len(compiled)) or output.shape != expected.shape:
        return float("inf")
    return float(np.abs(output - expected).max() / max(np.abs(output).max(), np.finfo(np.float32).tiny))
