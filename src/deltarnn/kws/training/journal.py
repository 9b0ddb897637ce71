"""What a training run writes after every epoch: a line, history and best-epoch log, TensorBoard if it is installed."""

import sys
from importlib.util import find_spec
from typing import Any

from tqdm import tqdm

from deltarnn.files import WriteError
from deltarnn.kws.network.model import KeywordModel
from deltarnn.kws.training.runs import Run
from deltarnn.kws.training.trainer import Progress


class Journal:
    """Keeps the record of one run; lives in the first process.

    header: the application's fields of model files. every_epoch: keep the model of every epoch.
    """

    def __init__(self, run: Run, epochs: int, header: dict[str, Any], every_epoch: bool) -> None:
        self.run, self.epochs, self.header, self.every_epoch = run, epochs, header, every_epoch
        self._tensorboard: Any = None

    def after_epoch(self, progress: Progress, model: KeywordModel) -> None:
        """Record the last row of the history."""
        row, number = progress.history[-1], len(progress.history)
        self.run.write_history(progress.history, progress.best_epoch)
        if self.every_epoch:
            model.save(self.run.of_epoch(number), **self.header)
        if find_spec("tensorboard") is not None:
            try:
                self._write_scalars(row)
            except OSError as error:  # a full disk, without the name of the file
                raise WriteError(f"{self.run.log / 'tensorboard'}: cannot be written: {error.strerror}") from None
        best = " *" if progress.best_epoch == number - 1 else ""
        tqdm.write(f"epoch {number}/{self.epochs}: {_line(row)}{best}")

    def tell_missing(self, progress: Progress) -> None:
        """Say which epochs' models are asked for and not there: those from before they were asked for."""
        numbers = range(1, len(progress.history) + 1)
        missing = [number for number in numbers if not self.run.of_epoch(number).is_file()] if self.every_epoch else []
        if missing:
            print(
                f"warning: --save_every_epoch 1: epochs {missing[0]} to {missing[-1]} ended before it was given, and "
                f"their models were not kept; delete {self.run.log} to train them again",
                file=sys.stderr,
            )

    def close(self) -> None:
        """Let go of TensorBoard's file and thread."""
        if self._tensorboard is not None:
            self._tensorboard.close()

    def _write_scalars(self, row: dict[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        if self._tensorboard is None:
            self._tensorboard = SummaryWriter(str(self.run.log / "tensorboard"))
        for name, value in row.items():
            if name not in ("epoch", "score"):
                self._tensorboard.add_scalar(name, value, row["epoch"])
        self._tensorboard.flush()


def _line(row: dict[str, Any]) -> str:
    parts = [f"loss {row['train_loss']:.4f}"]
    if "validation_accuracy" in row:
        parts.append(f"validation {row['validation_accuracy']:.2%} (loss {row['validation_loss']:.4f})")
    if "sparsity" in row:
        parts.append(f"sparsity {row['sparsity']:.1%}")
    return ", ".join([*parts, f"{row['seconds']:.1f} s"])
