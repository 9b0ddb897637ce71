"""Where a training run keeps its files, and how it is told from other runs.

    log/DATASET/NAME/   config.json, checkpoint.safetensors, history.csv, best.csv
    save/DATASET/NAME/  model.safetensors, metrics.json, config.json
    save/DATASET/latest leads to the folder of the run that finished last

NAME is made from the settings that change the result, so the same command finds its own files again and goes on.
"""

import csv
import io
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltarnn.files import WriteError, check_file, read_json, write_text
from deltarnn.kws.config.resolve import Config, digest, options, resolve
from deltarnn.kws.paths import work_folder

MODEL, METRICS, CONFIG = "model.safetensors", "metrics.json", "config.json"
LATEST = "latest"

_NO_EFFECT = frozenset(
    {
        *("step", "run_through", "work_dir", "workers", "model_path", "path_net_pretrain", "eval_test", "score_test"),
        *("debug", "use_cuda", "gpu_device", "threads", "save_every_epoch", "batch_size_eval", "data_dir", "download"),
        *("download_url", "cfg_feat"),
    }
)
"""Options that do not change what is learnt."""


@dataclass(frozen=True)
class Run:
    """The files of one training run."""

    step: str
    identity: str
    log: Path
    save: Path
    model_path: Path

    @classmethod
    def of(cls, config: Config, step: str, sources: dict[str, str]) -> "Run":
        """The run of a configuration; `sources` are digests of the data and files that it learns from."""
        other = "retrain" if step == "pretrain" else "pretrain"
        idle = {name for name, (_, _, rule, _) in options().items() if rule.steps and step not in rule.steps}
        idle |= _NO_EFFECT | {f"epochs_{other}", f"model_{other}"}
        idle |= set(vars(config.export)) - {"num_array", "num_array_pe"}
        if step == "pretrain" and set(config.training.teacher.split(",")) <= {"start", "all"}:
            idle |= {"teacher", "teacher_weight", "temperature"}  # there is no network to start from
        settings = {name: value for name, value in config.flat().items() if name not in idle}
        identity = digest({"step": step, "settings": settings, "sources": sources})
        model = config.model
        name = f"{step}-{model.rnn_type.lower()}{model.rnn_size}x{model.rnn_layers}-{identity}"
        log, save = config.folder("log") / name, config.folder("save") / name
        path = Path(config.run.model_path) if config.run.model_path else save / MODEL
        return cls(step, identity, log, save, path)

    @property
    def checkpoint(self) -> Path:
        """The file from which an interrupted run goes on."""
        return self.log / "checkpoint.safetensors"

    @property
    def metrics(self) -> Path:
        """metrics.json beside the model."""
        return self.model_path.with_name(METRICS)

    def check_places(self, every_epoch: bool) -> None:
        """WriteError where the run could not write what it will have to, with the remedy: to ask before long work.

        Of a run that has begun only the results count, for it may be finished: the trainer looks at the checkpoint's
        place before it trains on. every_epoch: whether the model of every epoch is kept.
        """
        results = (self.model_path, self.metrics, self.model_path.with_name(CONFIG))
        _check(results, "name another file with --model_path")
        if not self.checkpoint.is_file():
            epochs = (self.of_epoch(1),) if every_epoch else ()
            _check(
                (self.checkpoint, self.log / CONFIG, *epochs),
                "make room there, or name a copy of the work folder with --work_dir",
            )

    def of_epoch(self, number: int) -> Path:
        """The model of an epoch, from 1 (--save_every_epoch)."""
        return self.save / "epochs" / f"epoch-{number:03d}.safetensors"

    def write_history(self, rows: list[dict[str, Any]], best: int) -> None:
        """history.csv with all epochs, best.csv with the best one."""
        write_text(self.log / "history.csv", _csv(rows))
        if best >= 0:
            write_text(self.log / "best.csv", _csv([rows[best]]))


def mark_latest(run: Run) -> None:
    """Let save/DATASET/latest lead to this run: a finished one is found without looking for its name."""
    if run.model_path.parent != run.save:  # --model_path: the user knows where it is
        return
    link = run.save.with_name(LATEST)
    if link.is_dir() and not link.is_symlink():
        print(f"warning: {link} is a folder of its own, and not changed", file=sys.stderr)
        return
    part = link.with_name(f".{LATEST}.{os.getpid()}")
    try:
        part.unlink(missing_ok=True)
        part.symlink_to(run.save.name)
        part.replace(link)
    except OSError as error:
        print(f"warning: {link} cannot be made ({error.strerror}); the run is {run.save}", file=sys.stderr)


def newest_model(work_dir: Path) -> Path:
    """The model of the run that finished last under `work_dir`/save. ValueError if there is none."""
    found = [link.resolve() for link in (work_dir / "save").glob(f"*/{LATEST}/{MODEL}") if link.is_file()]
    if not found:
        raise ValueError(
            f"no finished run under {work_dir / 'save'}: train one (deltarnn pretrain), name a model file as the "
            "first argument, or the folder that holds save/ with --work_dir"
        )
    path = max(found, key=_finished_at)
    return work_dir / path.relative_to(work_dir.resolve()) if path.is_relative_to(work_dir.resolve()) else path


def recorded_config(model: Path, options: Any, **changes: Any) -> Config:
    """The configuration that a model was trained with, its work folder where it lies now. ValueError if it is none."""
    if not isinstance(options, dict):
        raise ValueError(f"{model}: does not say with which options it was trained: not a model of pretrain or retrain")
    root = work_folder(model, "save")
    return resolve({**options, **({} if root is None else {"work_dir": str(root)}), **changes})


def log_folder(model: Path, recorded: str) -> Path:
    """The log folder of the run that made a model: `recorded`, or where it lies since the work folder was moved."""
    root = work_folder(model, "save")
    moved = None if root is None else root / "log" / model.resolve().parents[1].name / model.resolve().parent.name
    return moved if moved is not None and moved.is_dir() else Path(recorded)


def pretrained_models(config: Config) -> list[Path]:
    """The models of all finished pretrain runs with the same network, features and classes, the newest first.

    ValueError if there is none.
    """
    network = ("rnn_type", "rnn_size", "rnn_layers", "fc_extra_size", "use_hardsigmoid")
    wanted = {name: config.flat()[name] for name in (*network, "keywords", *vars(config.features))}
    found = []
    for path in _finished(config.folder("save")):
        record = read_json(path.with_name(CONFIG))
        if not record or not path.parent.name.startswith("pretrain-"):
            continue
        options_then = Config().flat() | record  # one that the record lacks is newer than the run
        if all(options_then[name] == value for name, value in wanted.items()):
            found.append(path)
    if not found:
        described = " ".join(f"--{name} {wanted[name]}" for name in (*network, "cfg_feat"))
        raise ValueError(
            f"no finished pretrain run under {config.folder('save')} has this network and its features ({described}): "
            f"type {config.command('pretrain')} first, or name a model file with --path_net_pretrain"
        )
    return sorted(found, key=_finished_at, reverse=True)


def _check(paths: Iterable[Path], remedy: str) -> None:
    for path in paths:
        try:
            check_file(path)
        except WriteError as error:
            raise WriteError(f"{error}; {remedy}") from None


def _finished_at(model: Path) -> float:
    """When a run ended. Its model may be newer: `evaluate --stream` writes a threshold into it."""
    record = model.with_name(CONFIG)
    return (record if record.is_file() else model).stat().st_mtime


def _finished(folder: Path) -> Iterator[Path]:
    return (path for path in folder.glob(f"*/{MODEL}") if path.with_name(METRICS).is_file())


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[-1]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
