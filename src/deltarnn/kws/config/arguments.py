"""What all command lines share: a parser that suggests the nearest flag, and numbers within bounds."""

import argparse
import difflib
from collections.abc import Iterable
from functools import partial
from typing import Any, NoReturn

from deltarnn.kws.config.option import WHAT, Option, convert, metavar


class FlagError(Exception):
    """A flag's value that cannot be; the message names the flag and what it takes."""


LARGEST = 1e12
"""No flag takes a number beyond it, whatever bounds it has of its own."""


class Parser(argparse.ArgumentParser):
    """argparse's, without abbreviations; the error for an unknown flag suggests the nearest known one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)
        for kind in (int, float):  # what add_argument(type=int) or (type=float) stands for
            self.register("type", kind, partial(_sensible, kind))

    def error(self, message: str) -> NoReturn:
        """End with status 2, after the usage's first line and what is wrong."""
        _, unknown, rest = message.partition("unrecognized arguments: ")
        if unknown:
            flag = rest.split()[0].split("=")[0]
            message += nearest(flag, self._option_string_actions)
        self.exit(2, f"{self.prog}: error: {message}\n{self.prog} --help explains the flags\n")


def _sensible(kind: type, text: str) -> Any:
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not abs(value) <= LARGEST:  # written so that NaN fails
        raise argparse.ArgumentTypeError(f"{text}: must be {WHAT[kind]} of a sensible size")
    return value


def nearest(name: str, known: Iterable[str]) -> str:
    """ "; did you mean …?" with the known name nearest to one that was mistyped, or nothing where none is near."""
    found = difflib.get_close_matches(name, list(known), 1, 0.6)
    return f"; did you mean {found[0]}?" if found else ""


def add_number(
    parser: argparse._ActionsContainer, flag: str, kind: Any, minimum: float, maximum: float, help: str, **details: Any
) -> None:
    """Add a flag that takes an int, a float, or a tuple of them, within bounds; else FlagError. details: as of
    `add_argument`."""
    rule = Option(help, minimum=minimum, maximum=maximum)

    def read(text: str) -> Any:
        try:
            value = convert(flag, kind, rule, text)
        except ValueError as error:
            raise FlagError(str(error)) from None  # argparse would replace the message of a ValueError
        if isinstance(value, tuple) and len(value) <= text.count(","):
            raise FlagError(f"--{flag} {text!r}: needs a number before and after each comma")
        return value

    shown = f" (default: {details['default']})" if "default" in details else ""
    parser.add_argument(f"--{flag}", type=read, metavar=metavar(kind), help=f"{help}{shown}", **details)
