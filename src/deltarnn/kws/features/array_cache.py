"""A cache of arrays in files: computed once, and read by every later run with the same settings."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltarnn.kws.config.resolve import digest
from deltarnn.stored import Arrays, DamagedFileError, load_stored, save_stored

_KEY = "deltarnn.version"


def half(features: NDArray[np.floating]) -> NDArray[np.float16]:
    """Features as versions are kept. ValueError where one is beyond float16."""
    largest, limit = float(np.abs(features).max(initial=0)), float(np.finfo(np.float16).max)
    if largest > limit:
        raise ValueError(
            f"features up to {largest:g}: changed clips and recordings hold at most {limit:g}: --norm_feat 1"
        )
    return features.astype(np.float16)


class ArrayCache:
    """Arrays that are computed once and kept in a folder, in files named by their settings."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self._folder, self._settings = folder, settings

    def __call__(self, name: str, make: Callable[[], NDArray[Any]], **further: Any) -> NDArray[Any]:
        """The features of that name: read, or, where they are missing or damaged, made and written."""
        found = self.read(name, **further)
        if found is None or "features" not in found:
            found = {"features": make()}
            self.write(name, found, **further)
        return found["features"]

    def read(self, name: str, **further: Any) -> Arrays | None:
        """The arrays of that name, or None where they are missing or damaged."""
        try:
            return load_stored(self._path(name, further), _KEY)[0]
        except (FileNotFoundError, DamagedFileError):
            return None

    def write(self, name: str, arrays: Arrays, **further: Any) -> None:
        """Keep arrays under that name."""
        save_stored(self._path(name, further), _KEY, arrays, {**self._settings, **further})

    def _path(self, name: str, further: Mapping[str, Any]) -> Path:
        return self._folder / f"{digest({**self._settings, **further})}-{name}.safetensors"
