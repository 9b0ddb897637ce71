"""C and C++ compilers of this machine."""

import os
import shlex
import shutil
from pathlib import Path

_USUAL = {"CC": ("cc", "gcc", "clang"), "CXX": ("c++", "g++", "clang++")}


class MissingToolError(RuntimeError):
    """A tool is not installed; the message has the command that brings it."""


def find_compiler(variable: str = "CC") -> list[str]:
    """The command of $CC or $CXX, with its arguments (`ccache gcc`); else the first usual one on the path; else empty.

    Raises
    ------
    MissingToolError
        Where the variable names what is not there.
    """
    named = shlex.split(os.environ.get(variable, ""))
    for program, *arguments in [named] if named else [[name] for name in _USUAL[variable]]:
        if path := shutil.which(program):
            return [str(Path(path).absolute()), *arguments]  # it will run in other folders
    if named:
        raise MissingToolError(
            f"{variable}={shlex.join(named)}: there is no {named[0]}; correct {variable}, or unset it"
        )
    return []
