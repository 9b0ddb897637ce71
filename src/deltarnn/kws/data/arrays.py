"""Features that were made elsewhere, as arrays in .npz files: what people share who do not share recordings.

FOLDER/features.json                              the front end that made them: keys of a feature configuration
FOLDER/{train,validation,test,noise}.npz          x (clips, frames, bands); word (clips,); name (clips,)
FOLDER/speech_commands_test_set_v0.02/WORD/*.wav  test clips as recordings, instead of test.npz or beside it
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Levels = NDArray[Any]


@dataclass(frozen=True)
class ArrayClips:
    """Clips as arrays: levels (N, T, F) of any real type; the word and the name of each."""

    levels: Levels
    words: list[str]
    names: list[str]

    def __len__(self) -> int:
        return len(self.words)


def read_arrays(path: Path) -> ArrayClips:
    """The clips of a .npz file. ValueError names what is wrong with it."""
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("no archive of arrays")
            missing = {"x", "word", "name"} - set(file.files)
            if missing:
                raise ValueError(f"holds no array {min(missing)!r}; x (clips, frames, bands), word and name are needed")
            levels, words, names = file["x"], file["word"], file["name"]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: {error}") from None
    if levels.ndim != 3 or levels.dtype.kind not in "uif" or 0 in levels.shape[1:]:
        raise ValueError(f"{path}: x is {levels.dtype} {levels.shape}; needs numbers (clips, frames, bands)")
    for what, texts in (("word", words), ("name", names)):
        if texts.shape != levels.shape[:1] or texts.dtype.kind != "U":
            raise ValueError(f"{path}: {what} is {texts.dtype} {texts.shape}; needs {len(levels)} texts, one per clip")
    if levels.dtype.kind == "f" and not np.isfinite(levels).all():
        raise ValueError(f"{path}: x holds values that are no finite numbers")
    columns: tuple[list[str], list[str]] = words.tolist(), names.tolist()
    wrong = next((text for column in columns for text in column if not _is_plain(text)), None)
    if wrong is not None:
        raise ValueError(f"{path}: {wrong!r} is no word or name: one plain part of a path is needed")
    if len(set(zip(*columns, strict=True))) != len(levels):
        raise ValueError(f"{path}: two clips have the same word and name; each needs its own")
    return ArrayClips(levels, *columns)


def _is_plain(text: str) -> bool:
    return text.isprintable() and text.strip() not in ("", "..") and Path(text).name == text == text.strip()
