"""Fine-tuning a delta network towards the dense network's own outputs, on unlabelled data."""

import hashlib
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from deltarnn.adapt.checkpoint import Checkpoint, cpu_generator
from deltarnn.adapt.network import TorchNetwork, call, check_conversion, copied, floats_in
from deltarnn.adapt.parts import Excerpt
from deltarnn.files import check_file
from deltarnn.nn.conversion import convert

WARM_UP = 0.5
"""Fraction of the steps over which thresholds rise from 0 to their values."""
CLIP = 1.0
"""Largest norm of the gradient: a threshold's jumps now and then give a steep one."""

Thresholds = float | Mapping[str, Any]

PARTS_LEARN = "teacher and freeze=False are for torch modules: of an imported network only its parts learn"


def distill(
    model: Any,
    sequences: Sequence[Any],
    *,
    teacher: nn.Module | None = None,
    epochs: int = 20,
    lr: float = 3e-4,
    thresholds: Thresholds | None = None,
    freeze: bool = True,
    seed: int = 0,
    checkpoint: str | Path | None = None,
) -> Any:
    """Train a delta network to give the dense network's outputs at its thresholds; no labels are needed.

    >>> tuned = deltarnn.tune(model, sequences, budget=0.02)                     # doctest: +SKIP
    >>> student = deltarnn.distill(tuned.model, sequences, epochs=20)            # doctest: +SKIP

    The loss is the output error as of `tune`: Σ (y − y of the teacher)² / Σ (y of the teacher − its mean)², the mean
    over outputs. Adam; the learning rate falls to 0 along a cosine; thresholds rise from 0 to their values over
    the first half of the steps. Each sequence is a step, in an order drawn from `seed` and the epoch.

    Parameters
    ----------
    model: as of `tune`. Of a torch module a trained copy in eval mode is returned. A network of `deltarnn.onnx.load`
        takes over the trained weights; each recurrent part learns its own dense output on the inputs that it gets in
        the dense network, since what is around it cannot be differentiated.
    sequences: as `calibration` of `tune`: some minutes of the signal rather than hours.
    teacher: None for the model itself at thresholds 0, in floating point.
    thresholds: None for the model's own; a number for all, or by module name as `convert` takes them.
    freeze: train the delta layers alone; False trains all parameters.
    checkpoint: file from which an interrupted call with the same arguments goes on after its last whole epoch;
        written after each (atomically, with a checksum), and removed at the end.

    Raises
    ------
    TypeError, ValueError
        If the model or an argument cannot be used (`check_conversion`), all thresholds are 0, or the checkpoint is
        damaged or of other ones; WriteError, before the first step, if it cannot be written.

    Warns
    -----
    UserWarning
        If training did not lower the error: then the weights are left as they were.
    """
    if epochs < 1 or not (math.isfinite(lr) and lr > 0):
        raise ValueError(f"epochs={epochs}, lr={lr}: must be at least 1, and a number above 0")
    if not isinstance(model, nn.Module):
        if teacher is not None or not freeze:
            raise ValueError(PARTS_LEARN)
        excerpt = Excerpt.of(model, list(sequences), thresholds)
        excerpt.take_over(
            distill(excerpt.module, excerpt.sequences, epochs=epochs, lr=lr, seed=seed, checkpoint=checkpoint)
        )
        return model
    student = _student(model, items := list(sequences), thresholds)
    if not any(value for pairs in student.thresholds.values() for pair in pairs for value in pair):
        raise ValueError("all thresholds are 0: there is nothing to adapt to; give thresholds, or the model of tune()")
    lesson = Lesson.of(student.module, teacher, items)
    training = Training(student, lesson, epochs, lr, freeze, seed, None if checkpoint is None else Path(checkpoint))
    return training.run()


def _student(model: nn.Module, items: list[Any], thresholds: Thresholds | None) -> TorchNetwork:
    """The copy to train, with the thresholds."""
    student = TorchNetwork.adapted_copy(model)
    for item in items[:1]:
        check_conversion(model, student.module, item)
    if isinstance(thresholds, Mapping):
        convert(student.module, thresholds=thresholds)
    elif thresholds is not None:
        own = student.thresholds
        student.set_thresholds({name: [(thresholds, thresholds)] * len(pairs) for name, pairs in own.items()})
    return student


@dataclass(frozen=True)
class Lesson:
    """Sequences, what the teacher gives for each, and the scale of errors of each output."""

    sequences: list[Any]
    targets: list[list[Tensor]]
    energies: list[float]

    @classmethod
    def of(cls, student: nn.Module, teacher: nn.Module | None, sequences: list[Any]) -> "Lesson":
        """Run the teacher, by default the student at thresholds 0, over all sequences."""
        if not sequences:
            raise ValueError("sequences is empty: give a list of inputs like those that the model will meet")
        dense = TorchNetwork(copied(student if teacher is None else teacher).eval())
        if teacher is None:
            for layer in dense.layers.values():
                layer.quantization = None
            dense.set_thresholds({name: [(0.0, 0.0)] * len(pairs) for name, pairs in dense.thresholds.items()})
        with torch.no_grad():
            targets = [list(floats_in(call(dense.module, item))) for item in sequences]
        energies = []
        for outputs in zip(*targets, strict=True):
            values = torch.cat([output.double().flatten() for output in outputs])
            energies.append(float((values - values.mean()).square().sum()))
        if not any(energies):
            raise ValueError("the teacher's outputs do not vary over these sequences: there is nothing to learn")
        return cls(sequences, targets, energies)

    def error(self, index: int, outputs: Sequence[Tensor]) -> Tensor:
        """Output error of one sequence; the mean over sequences is that of all."""
        scale = len(self.sequences)
        terms = [
            (output - target).square().sum() * (scale / energy)
            for output, target, energy in zip(outputs, self.targets[index], self.energies, strict=True)
            if energy > 0
        ]
        return torch.stack(terms).mean()


@dataclass
class Training:
    """One call of `distill` on a torch module.

    full: the thresholds of the end.
    """

    student: TorchNetwork
    lesson: Lesson
    epochs: int
    lr: float
    freeze: bool
    seed: int
    path: Path | None

    def __post_init__(self) -> None:
        self.full = self.student.thresholds
        layers = self.student.layers.values()
        trained = {id(p) for m in (layers if self.freeze else [self.student.module]) for p in m.parameters()}
        named = self.student.module.named_parameters()
        self.parameters = {name: p for name, p in named if id(p) in trained}
        self.optimizer = torch.optim.Adam(self.parameters.values(), lr=self.lr)
        self.identity = self._identity()

    def run(self) -> nn.Module:
        """Train, and return the module."""
        before = self._error()
        untrained = {name: p.detach().clone() for name, p in self.parameters.items()}
        with self._trainable():
            self._train(self._resume())
        self.student.set_thresholds(self.full)
        after = self._error()
        if not after < before:
            self._load(untrained)
            warnings.warn(
                f"distillation did not help (output error {before:.4g} before, {after:.4g} after): the weights are "
                "left as they were; try a smaller lr, more epochs or more sequences",
                stacklevel=3,
            )
        if self.path is not None:
            self.path.unlink(missing_ok=True)
        return self.student.module

    def _train(self, done: int) -> None:
        """The epochs after the first `done`."""
        count = len(self.lesson.sequences)
        with tqdm(total=self.epochs * count, initial=done * count, desc="distill", disable=None) as bar:
            for epoch in range(done, self.epochs):
                order = torch.randperm(count, generator=cpu_generator(self.seed, epoch)).tolist()
                for step, index in enumerate(order, epoch * count):
                    error = self._step(index, step / (self.epochs * count))
                    bar.update()
                    bar.set_postfix(error=f"{error:.3g}", refresh=False)
                if self.path is not None:
                    tensors = {name: p.detach() for name, p in self.parameters.items()}
                    state = Checkpoint(epoch + 1, {"trained": tensors}, self.optimizer.state_dict())
                    state.save(self.path, self.identity)

    def _step(self, index: int, progress: float) -> float:
        """One sequence, at the thresholds and learning rate of `progress`, 0 to 1."""
        share = min(1.0, progress / WARM_UP)
        self.student.set_thresholds(
            {name: [(share * thx, share * thh) for thx, thh in pairs] for name, pairs in self.full.items()}
        )
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * (1 + math.cos(math.pi * progress)) / 2
        self.optimizer.zero_grad()
        error = self.lesson.error(index, self._outputs(index))
        error.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.parameters.values(), CLIP)
        self.optimizer.step()
        return error.item()

    def _outputs(self, index: int) -> list[Tensor]:
        return list(floats_in(call(self.student.module, self.lesson.sequences[index])))

    def _error(self) -> float:
        """Output error over all sequences."""
        with torch.no_grad():
            errors = [self.lesson.error(i, self._outputs(i)).item() for i in range(len(self.lesson.sequences))]
        return sum(errors) / len(errors)

    @contextmanager
    def _trainable(self) -> Iterator[None]:
        """Gradients for what is trained alone; quantised layers in training mode, where weights alone are rounded."""
        module = self.student.module
        wanted = [(p, p.requires_grad) for p in module.parameters()]
        layers = self.student.layers.values()
        dropouts = [(layer, layer.dropout) for layer in layers if isinstance(layer, nn.RNNBase)]
        trained = {id(p) for p in self.parameters.values()}
        for parameter, _ in wanted:
            parameter.requires_grad_(id(parameter) in trained)
        for recurrent, _ in dropouts:
            recurrent.dropout = 0.0
        for layer in layers:
            layer.train(layer.quantization is not None)
        try:
            yield
        finally:
            for parameter, before in wanted:
                parameter.requires_grad_(before)
                parameter.grad = None
            for recurrent, dropout in dropouts:
                recurrent.dropout = dropout
            module.eval()

    def _resume(self) -> int:
        """Go back to the checkpoint, if there is one; how many epochs it has behind it."""
        if self.path is None:
            return 0
        check_file(self.path)
        if not self.path.exists():
            return 0
        state = Checkpoint.load(self.path, self.identity)
        self._load(state.tensors["trained"])
        self.optimizer.load_state_dict(state.optimizer)
        return state.epoch

    def _load(self, tensors: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(tensors[name])

    def _identity(self) -> str:
        """Of all that the result depends on: settings, the untrained weights, the teacher's outputs."""
        settings = (self.epochs, self.lr, self.freeze, self.seed, sorted(self.full.items()))
        content = hashlib.blake2b(repr(settings).encode(), digest_size=16)
        for tensor in (*self.student.module.state_dict().values(), *chain.from_iterable(self.lesson.targets)):
            content.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return content.hexdigest()
