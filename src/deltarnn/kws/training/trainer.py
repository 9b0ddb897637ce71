"""The training loop: epochs over clips, validation after each, the best model kept, a checkpoint to go on from."""

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric
from lightning_utilities.core.rank_zero import rank_zero_info
from torch import Tensor
from tqdm import tqdm

from deltarnn.adapt.checkpoint import Checkpoint, cpu_generator
from deltarnn.files import check_file
from deltarnn.kws.features.versions import Batch
from deltarnn.kws.network.averaging import AveragedModel
from deltarnn.kws.network.losses import LossOptions, loss_of
from deltarnn.kws.network.model import KeywordModel
from deltarnn.kws.training.carried import CarriedStates
from deltarnn.kws.training.finishing import Finisher
from deltarnn.kws.training.schedule import LearningRate, warmed_up
from deltarnn.nn.activity import record_activity

ORDER, CHANGES, DROPOUT = range(3)
"""Purposes of an epoch's random generators."""


class TrainingError(RuntimeError):
    """Training cannot go on, with the reason and the remedy."""


class TrainingSet(Protocol):
    """The training data, randomly augmented; on the training device."""

    @property
    def labels(self) -> Tensor:
        """All targets there are."""

    def steps(self, batch_size: int, processes: int) -> int:
        """Training steps of an epoch."""

    def batches(
        self, batch_size: int, order: torch.Generator, changes: torch.Generator, rank: int, processes: int
    ) -> Iterator[Batch]:
        """An epoch's batches, the share of process `rank`."""


@dataclass(frozen=True)
class Plan:
    """What the loop does. Lengths in epochs; `threshold_warmup` a share of them; see `deltarnn.kws.config.options`.

    early_stop: epochs without improvement after which training ends, counted from where thresholds and pruning are in
    full force; 0: never.
    keep_last: keep the last epoch, whatever its score: accuracy on clips says little about streams, and is highest
    while more deltas fire than in the end.
    """

    epochs: int
    batch_size: int
    optimizer: Callable[[Iterator[torch.nn.Parameter]], torch.optim.Optimizer]
    rate: Callable[[int], LearningRate]
    loss: LossOptions
    seed: int = 0
    class_weights: Tensor | None = None
    beta: float = 0.0
    gradient_limit: float = 200.0
    average: float = 0.0
    thx: tuple[float, ...] = (0.0,)
    thh: tuple[float, ...] = (0.0,)
    threshold_warmup: float = 0.0
    carry_state: float = 0.0
    stream_fresh: float = 0.0
    early_stop: int = 0
    keep_last: bool = False

    def warm(self, epoch: int) -> bool:
        """Whether thresholds are in full force in `epoch`: what is learnt below them is good by chance, and fires more
        often than asked for."""
        return epoch + 1 > self.threshold_warmup * self.epochs


@dataclass
class Progress:
    """Where a run stands after an epoch; rows as in history.csv."""

    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = -1
    best_state: dict[str, Tensor] = field(default_factory=dict)
    best_score: float = -math.inf
    resumed_from: int = 0

    @classmethod
    def of(cls, saved: Checkpoint) -> "Progress":
        """Where a checkpoint stands; before the first epoch that may be the best, it holds no best one."""
        best = saved.tensors.get("best", {})
        return cls(saved.history, saved.best_epoch, best, saved.schedule["best_score"], saved.epoch)


class Trainer:
    """Trains `model` on `material` by `plan`.

    Parameters
    ----------
    fabric: where it runs; already launched. Under several processes each takes its share of every batch.
    validate: of a model in evaluation mode at its full thresholds, the columns that go into the history; the best epoch
        has the highest "score" among them, and the plateau schedule watches "validation_loss".
    finisher: what is done to the parameters after each epoch, rounding and pruning.
    checkpoint: file to write after every epoch, and to go on from if it is there.
    identity: stands for everything that changes the result.
    after_epoch: called in the first process with the progress and the evaluated model, to write logs and models.
    """

    def __init__(
        self,
        fabric: Fabric,
        model: KeywordModel,
        material: TrainingSet,
        plan: Plan,
        validate: Callable[[KeywordModel], dict[str, float]],
        finisher: Finisher,
        checkpoint: Path,
        identity: str,
        after_epoch: Callable[[Progress, KeywordModel], None],
    ) -> None:
        self.fabric, self.plan, self.material = fabric, plan, material
        self.validate, self.finisher, self.after_epoch = validate, finisher, after_epoch
        self.model, self.path, self.identity = model, checkpoint, identity
        if plan.batch_size % fabric.world_size:
            raise ValueError(f"--batch_size {plan.batch_size}: must be a multiple of the {fabric.world_size} processes")
        optimizer = plan.optimizer(model.parameters())
        self.wrapped, self.optimizer = fabric.setup(model, optimizer)
        self.averaged = AveragedModel(model, plan.average)
        self.evaluated = copy.deepcopy(model).eval()
        self.steps_per_epoch = material.steps(plan.batch_size, fabric.world_size)
        self.rate = plan.rate(self.steps_per_epoch * plan.epochs)
        self.progress = Progress()
        self.class_weights = None if plan.class_weights is None else fabric.to_device(plan.class_weights)
        self.carried = CarriedStates(model, plan.carry_state, plan.stream_fresh)

    def fit(self) -> Progress:
        """Train to the plan's last epoch, from the checkpoint if there is one."""
        start = self._resume()
        epochs = self.plan.epochs
        bar = tqdm(
            total=epochs * self.steps_per_epoch, initial=start * self.steps_per_epoch, unit="step", leave=False,
            disable=None if self.fabric.is_global_zero else True,
        )  # fmt: skip
        with bar:
            for epoch in range(start, epochs):
                if self._stalled(epoch):
                    rank_zero_info(f"stopped after {epoch} epochs: none of the last {self.plan.early_stop} was better")
                    break
                if epoch == start and self.fabric.is_global_zero:
                    check_file(self.path)
                bar.set_description(f"epoch {epoch + 1}/{epochs}")
                row = self._epoch(epoch, bar)
                self._conclude(epoch, row)
                bar.set_postfix_str(f"best {self.progress.best_score:.4f}")
        return self.progress

    def best(self) -> KeywordModel:
        """The best epoch's model as it was evaluated."""
        model = self.evaluated
        if self.progress.best_state:
            model.load_state_dict(self.progress.best_state)
        return model.eval()

    def _stalled(self, epoch: int) -> bool:
        """Whether early stopping ends training before `epoch`: a resumed run stops where one left alone does."""
        if not self.plan.early_stop:
            return False
        first = max([0, *(past for past in range(epoch) if not self._complete(past))])
        return epoch - 1 - max(self.progress.best_epoch, first) >= self.plan.early_stop

    def _complete(self, epoch: int) -> bool:
        """Whether thresholds and pruning are in full force, so that `epoch` may be the best one."""
        return self.plan.warm(epoch) and self.finisher.complete(epoch)

    def _epoch(self, epoch: int, bar: "tqdm[Any]") -> dict[str, Any]:
        """One pass over the training clips and the validation after it."""
        plan, started = self.plan, time.perf_counter()
        world, rank = self.fabric.world_size, self.fabric.global_rank
        order = cpu_generator(plan.seed, epoch, ORDER)
        seed = cpu_generator(plan.seed, epoch, CHANGES, rank).initial_seed()
        changes = torch.Generator(self.fabric.device).manual_seed(seed)
        torch.manual_seed(cpu_generator(plan.seed, epoch, DROPOUT, rank).initial_seed())
        self.wrapped.train()
        self.carried.forget()
        steps = []
        for index, batch in enumerate(self.material.batches(plan.batch_size, order, changes, rank, world)):
            step = epoch * self.steps_per_epoch + index
            steps.append(self._step(step, batch, changes))
            bar.update()
        losses, activity = torch.stack(steps, 1).cpu()  # the one time that a GPU is waited for
        finite = losses.isfinite()
        if not finite.all():
            index = int(finite.int().argmin())
            raise TrainingError(
                f"the loss is {losses[index]:g} at step {index + 1} of epoch {epoch + 1}: lower --lr "
                f"(now {self.rate.at(epoch * self.steps_per_epoch + index):g}) or --grad_clip_val "
                f"(now {plan.gradient_limit:g})"
            )
        trained = time.perf_counter() - started
        evaluated = self._evaluated(epoch)
        row: dict[str, Any] = {
            "epoch": epoch + 1,
            "lr": self.rate.at(epoch * self.steps_per_epoch),
            "train_loss": float(losses.mean()),
        }
        if self.model.delta is not None:
            row["l1_delta_h"] = float(activity.mean())
        return {**row, **self.validate(evaluated), "seconds": round(trained, 3)}

    def _step(self, step: int, batch: Batch, generator: torch.Generator) -> Tensor:
        """One optimiser step; (2,): the loss, and the mean Σ|Δh| per frame and clip."""
        plan, delta = self.plan, self.model.delta
        features = batch.features
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate.at(step)
        carried = self.carried.states(batch, generator)
        if delta is None:
            (scores, left), moved = self.wrapped(features, carried), features.new_zeros(())
        else:
            warmup = round(plan.threshold_warmup * plan.epochs * self.steps_per_epoch)
            grid = delta.quantization.activation if delta.quantization is not None else None
            self.model.set_thresholds(*(warmed_up(th, step, warmup, grid) for th in (plan.thx, plan.thh)))
            with record_activity(self.model) as activity:
                scores, left = self.wrapped(features, carried)
            moved = activity.l1_delta_h / (features.shape[0] * features.shape[1])
        loss = loss_of(scores, batch.targets, plan.loss, self.class_weights, batch.taught)
        total = loss + plan.beta * moved if plan.beta else loss
        self.optimizer.zero_grad()
        self.fabric.backward(total)
        if plan.gradient_limit:
            self.fabric.clip_gradients(
                self.wrapped, self.optimizer, max_norm=plan.gradient_limit, error_if_nonfinite=False
            )
        self.optimizer.step()
        self.carried.left = left
        self.averaged.update(self.model, step + 1)
        return torch.stack([total, moved]).detach()

    def _evaluated(self, epoch: int) -> KeywordModel:
        """The model to evaluate after an epoch: averaged, rounded, pruned, at full thresholds."""
        evaluated = self.evaluated
        self.finisher.train(self.model, epoch)
        evaluated.load_state_dict(self.averaged.module.state_dict())
        if evaluated.delta is not None:
            evaluated.set_thresholds(self.plan.thx, self.plan.thh)
        self.finisher.evaluate(evaluated, epoch)
        return evaluated.eval()

    def _conclude(self, epoch: int, row: dict[str, Any]) -> None:
        """Schedule, best epoch, logs, checkpoint."""
        progress, evaluated = self.progress, self.evaluated
        if not all(parameter.isfinite().all() for parameter in evaluated.parameters()):
            raise TrainingError(
                f"a parameter is not finite after epoch {epoch + 1}: lower --lr (now {row['lr']:g}) or --grad_clip_val "
                f"(now {self.plan.gradient_limit:g})"
            )
        self.rate.after_epoch(row.get("validation_loss", row["train_loss"]))
        progress.history.append(row)
        score = row.get("score", -row["train_loss"])
        complete = self._complete(epoch) or not self._complete(self.plan.epochs - 1)
        if complete and (self.plan.keep_last or score > progress.best_score):
            progress.best_epoch, progress.best_score = epoch, score
            progress.best_state = {k: v.detach().clone().cpu() for k, v in evaluated.state_dict().items()}
        if self.fabric.is_global_zero:
            self.after_epoch(progress, evaluated)
            self._checkpoint(epoch + 1).save(self.path, self.identity)
        self.fabric.barrier()

    def _checkpoint(self, epoch: int) -> Checkpoint:
        return Checkpoint(
            epoch,
            {
                "model": self.model.state_dict(),
                "averaged": self.averaged.module.state_dict(),
                "best": self.progress.best_state,
            },
            self.optimizer.state_dict(),
            {**self.rate.state(), "best_score": self.progress.best_score},
            self.progress.history,
            self.progress.best_epoch,
        )

    def _resume(self) -> int:
        """The first epoch to run."""
        if not self.path.is_file():
            return 0
        saved = Checkpoint.load(self.path, self.identity)
        self.model.load_state_dict(saved.tensors["model"])
        self.averaged.module.load_state_dict(saved.tensors["averaged"])
        self.optimizer.load_state_dict(saved.optimizer)
        self.progress = Progress.of(saved)
        self.rate.restore(saved.schedule)
        rank_zero_info(f"going on after epoch {saved.epoch} of {self.plan.epochs}")
        return saved.epoch
