"""Arrays that are made once, and read by every later run that wants the same."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from deltarnn.kws.config.resolve import digest
from deltarnn.stored import DamagedFileError, load_stored, save_stored

_KEY = "deltarnn.version"


class Kept:
    """Arrays that are made once, in a folder, named by what they are made of."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self._folder, self._settings = folder, settings

    def __call__(self, name: str, make: Callable[[], NDArray[Any]], **further: Any) -> NDArray[Any]:
        """The array of that name: read, or, where it is missing or damaged, made and written."""
        settings = {**self._settings, **further}
        path = self._folder / f"{digest(settings)}-{name}.safetensors"
        try:
            return load_stored(path, _KEY)[0]["features"]
        except (FileNotFoundError, DamagedFileError, KeyError):
            made = make()
            save_stored(path, _KEY, {"features": made}, settings)
            return made
