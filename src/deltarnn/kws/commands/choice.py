"""Which model a command works on, and where it writes: the newest by default, beside the model."""

import argparse
import sys
from pathlib import Path

from deltarnn.files import check_writable
from deltarnn.kws.training.runs import MODEL, newest_model


def add_model(parser: argparse.ArgumentParser, *, out: str = "") -> None:
    """The flags --model and --work_dir, and --out where `out` says what is written."""
    parser.add_argument(
        "--model", type=Path,
        help="model file or folder of a run; also the first argument, without --model (default: the newest in save/)",
    )  # fmt: skip
    parser.add_argument("--work_dir", type=Path, help="folder that holds save/ (default: this one)")
    if out:
        parser.add_argument("--out", type=Path, help=f"folder for {out} (default: the model's)")


def chosen_model(arguments: argparse.Namespace) -> Path:
    """The model file named, or else the newest, reported on standard error. ValueError if there is none."""
    if arguments.model is None:
        path = newest_model(arguments.work_dir or Path())
        print(f"model: {path} (the newest; name another as the first argument)", file=sys.stderr)
        return path
    if arguments.work_dir is not None:
        print(f"--work_dir does nothing beside a model that is named: {arguments.model}", file=sys.stderr)
    path = Path(arguments.model)
    if path.is_dir():
        path /= MODEL
        if not path.is_file():
            raise FileNotFoundError(f"{path.parent}: holds no {MODEL}; name a model file, or the folder of a run")
    return path


def take_model(arguments: argparse.Namespace, named: list[Path]) -> None:
    """Move the model from the front of the arguments `named` to `arguments.model`, where --model is left out."""
    if arguments.model is None and named and (named[0].suffix == ".safetensors" or named[0].is_dir()):
        arguments.model = named.pop(0)


def chosen_folder(arguments: argparse.Namespace, model: Path) -> Path:
    """The folder to write to: --out, or the model's. WriteError, before anything is computed, where it cannot be."""
    folder = model.parent if arguments.out is None else Path(arguments.out)
    try:
        check_writable(folder)
    except OSError as error:
        remedy = "" if arguments.out is not None else "; name another folder with --out"
        raise type(error)(f"{error}{remedy}") from None
    return folder
