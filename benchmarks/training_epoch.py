"""Time of an epoch of retrain with the native and the eager backend, where it goes, and what both reach.

python benchmarks/training_epoch.py WORK_DIR [--dataset gscdv2] [--epochs 2] [--seeds 1] [--threads 2]
    [flags of retrain …]

WORK_DIR holds the features and a pretrained model, as the steps feature and pretrain leave them. Processor times of the
training thread, so that other programs weigh little; with more than one thread of the wall clock instead.
"""

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from lightning_fabric import Fabric

from deltarnn.cli import main as command
from deltarnn.kws.network.model import KeywordModel
from deltarnn.kws.training import trainer as training
from deltarnn.nn import native
from deltarnn.nn.base import DeltaRNNBase


class Clock:
    """Seconds of processor time per part; of nested parts, each its own."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner = [0.0]

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            start = self.now()
            self._inner.append(0.0)
            try:
                return function(*arguments, **options)
            finally:
                whole, inner = self.now() - start, self._inner.pop()
                self.seconds[part] += whole - inner
                self._inner[-1] += whole

        return call


@contextmanager
def measured(clock: Clock, backend: str) -> Iterator[None]:
    """The training loop with a clock around its parts, on one backend."""
    parts: list[tuple[Any, str, str]] = [
        (training.Trainer, "_epoch", "the loop's own Python"),
        (training.Trainer, "_evaluated", "rounding and copying for validation"),
        (training, "loss_of", "loss"),
        (training, "record_activity", "recording activity"),
        (DeltaRNNBase, "forward", "delta layer, forward"),
        (KeywordModel, "forward", "head, forward"),
        (Fabric, "backward", "backward of layer and head"),
        (Fabric, "clip_gradients", "gradient clipping"),
        (torch.optim.AdamW, "step", "optimiser"),
        (torch.optim.Adam, "step", "optimiser"),
    ]
    with mock.patch.object(native, "unsupported", native.unsupported if backend == "native" else lambda *_: "as asked"):
        patches = [mock.patch.object(home, name, clock.timed(part, getattr(home, name))) for home, name, part in parts]
        for patch in patches:
            patch.start()
        started = training.Trainer.__init__

        def begin(trainer: training.Trainer, *arguments: Any, **options: Any) -> None:
            started(trainer, *arguments, **options)
            trainer.validate = clock.timed("validation", trainer.validate)
            trainer.clips = mock.Mock(wraps=trainer.clips, labels=trainer.clips.labels)
            trainer.clips.batch = clock.timed("batches", trainer.clips.batch)

        try:
            with mock.patch.object(training.Trainer, "__init__", begin):
                yield
        finally:
            for patch in patches:
                patch.stop()


def retrain(work_dir: Path, dataset: str, backend: str, threads: int, flags: list[str]) -> tuple[Clock, Any]:
    """One run in a folder of its own; its clock and its metrics.json."""
    clock = Clock(time.thread_time if threads == 1 else time.perf_counter)
    model = max((work_dir / "save" / dataset).glob("pretrain-*/*.safetensors"), key=lambda path: path.stat().st_mtime)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("data", "feat"):
            (Path(folder) / name).symlink_to((work_dir / name).resolve())
        options = ["--dataset", dataset, "--step", "retrain", "--work_dir", folder, "--path_net_pretrain", str(model)]
        with measured(clock, backend):
            status = command([*options, "--threads", str(threads), *flags])
        assert status == 0
        return clock, json.loads(next(Path(folder).glob("save/*/retrain-*/metrics.json")).read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work_dir", type=Path)
    parser.add_argument("--dataset", default="gscdv2")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    own, flags = parser.parse_known_args()
    clocks: dict[str, list[Clock]] = {"native": [], "eager": []}
    accuracy: dict[str, list[float]] = {"native": [], "eager": []}
    for seed in range(own.seeds):
        for backend in clocks:
            options = ["--epochs_retrain", str(own.epochs), "--seed", str(seed), *flags]
            clock, metrics = retrain(own.work_dir, own.dataset, backend, own.threads, options)
            clocks[backend].append(clock)
            accuracy[backend].append(metrics["validation"]["accuracy"])
    epochs = own.epochs * own.seeds
    totals = {backend: _sum(of_backend) for backend, of_backend in clocks.items()}
    print("\n| seconds per epoch | native | eager |\n|---|---|---|")
    for part in sorted(totals["native"], key=lambda part: -totals["native"][part]):
        print(f"| {part} | {totals['native'][part] / epochs:.3f} | {totals['eager'].get(part, 0.0) / epochs:.3f} |")
    print(f"| **all** | {sum(totals['native'].values()) / epochs:.3f} | {sum(totals['eager'].values()) / epochs:.3f} |")
    print(f"\neager / native: {sum(totals['eager'].values()) / sum(totals['native'].values()):.2f}")
    print("\n| seed | native | eager |\n|---|---|---|")
    for seed, (ours, theirs) in enumerate(zip(accuracy["native"], accuracy["eager"], strict=True)):
        print(f"| {seed} | {ours:.4f} | {theirs:.4f} |")


def _sum(clocks: list[Clock]) -> dict[str, float]:
    total: dict[str, float] = defaultdict(float)
    for clock in clocks:
        for part, seconds in clock.seconds.items():
            total[part] += seconds
    return total


if __name__ == "__main__":
    main()
