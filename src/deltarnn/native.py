"""The native core, where the package was installed with one."""

import warnings
from functools import cache
from importlib import import_module
from types import ModuleType

MISSING = (
    "DeltaRNN was installed without its native core: pip found no C++20 compiler (GCC or Clang), or it failed. "
    "Install g++ and repeat `pip install --force-reinstall --no-deps` (with -v it shows the compiler's messages)"
)


@cache
def native_core() -> ModuleType | None:
    """The module `deltarnn._native`, or None.

    Warns
    -----
    RuntimeWarning
        Once in a process, where it is missing: what that costs, and the remedy.
    """
    try:
        return import_module("deltarnn._native")
    except ImportError as error:
        reason = "" if isinstance(error, ModuleNotFoundError) else f" ({error})"
        warnings.warn(
            f"{MISSING}{reason}. The layers run on the eager backend; deltarnn.engine does not run.",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
