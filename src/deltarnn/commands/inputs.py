"""What the commands are given: models and data, in files or made by the user's own Python functions."""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any
from zipfile import BadZipFile

import numpy as np

WHERE_MODEL = "an ONNX file, or file.py:function (or package.module:function) that returns a torch module"
WHERE_DATA = (
    ".npz files (one item each: input name → array), .npy files (of models with one input), folders of them, or "
    "file.py:function that returns a list of items"
)


def load_model(text: str) -> Any:
    """A torch module, or a network imported from an ONNX file."""
    if text.endswith(".onnx"):
        from deltarnn.onnx import load

        return load(text)
    from torch import nn

    model = function_of("--model", text)()
    if not isinstance(model, nn.Module):
        raise ValueError(f"--model {text} returned a {type(model).__name__}: must return a torch module")
    return model


def load_items(flag: str, texts: Sequence[str], model: Any) -> list[Any]:
    """Items as `deltarnn.tune` takes them, from files, folders and functions."""
    items: list[Any] = []
    for text in texts:
        path = Path(text)
        if path.is_dir():
            files = sorted(p for p in path.iterdir() if p.suffix in (".npy", ".npz"))
            if not files:
                raise ValueError(f"{flag} {text}: no .npy or .npz file in this folder")
            items += [_item(file, model) for file in files]
        elif path.suffix in (".npy", ".npz"):
            items.append(_item(path, model))
        else:
            items += list(function_of(flag, text)())
    return items


def function_of(flag: str, text: str) -> Callable[..., Any]:
    """The function that file.py:function or package.module:function names."""
    home, _, name = text.rpartition(":")
    if not home or not name.isidentifier():
        takes = WHERE_MODEL if flag == "--model" else "file.py:function" if flag == "--loss" else WHERE_DATA
        raise ValueError(f"{flag} {text}: must be {takes}")
    if home.endswith(".py"):
        path = Path(home).resolve()
        if not path.is_file():
            raise FileNotFoundError(f"{flag} {text}: there is no file {home}")
        module = sys.modules.get(str(path)) or _run(path)
    else:
        sys.path.append(str(Path.cwd()))
        try:
            module = importlib.import_module(home)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(f"{flag} {text}: there is no module {error.name}") from None
    function = getattr(module, name, None)
    if not callable(function):
        raise ValueError(f"{flag} {text}: {home} has no function {name}")
    found: Callable[..., Any] = function
    return found


def _run(path: Path) -> ModuleType:
    """The module of a user's file, which may import what lies beside it. It goes by its path: its stem may be the name
    of another module."""
    spec = importlib.util.spec_from_file_location(str(path), path)
    assert spec is not None
    assert spec.loader is not None
    sys.path.append(str(path.parent))
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def delta_name(model: str) -> str:
    """Under which name an ONNX file is saved with thresholds or trained weights."""
    return f"{Path(model).name.removesuffix('.onnx').removesuffix('.delta')}.delta.onnx"


def _item(path: Path, model: Any) -> Any:
    names = getattr(model, "input_names", None)
    try:
        with path.open("rb") as file:
            content = np.load(file)
            arrays = {name: content[name] for name in content.files} if path.suffix == ".npz" else content
    except (ValueError, EOFError, BadZipFile):
        raise ValueError(f"{path}: no file of numpy.save or numpy.savez, or damaged") from None
    for name, array in arrays.items() if isinstance(arrays, dict) else [("the array", arrays)]:
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise ValueError(f"{path}: {name} holds values that are no finite numbers")
    if isinstance(arrays, dict) and not arrays:
        raise ValueError(f"{path}: holds no array")
    if names is not None:
        if isinstance(arrays, dict):
            return arrays
        if len(names) > 1:
            raise ValueError(f"{path}: the model has the inputs {', '.join(names)}: give an .npz file with all of them")
        return {names[0]: arrays}
    import torch

    if isinstance(arrays, dict):
        return {name: torch.from_numpy(array) for name, array in arrays.items()}
    return torch.from_numpy(arrays)
