"""An option of the keyword-spotting steps: a field of a dataclass that is also a flag of the command line.

A field says its default, what it means, which values it takes, in which steps it acts, and what it needs beside it to
act at all; `command_line` makes the flags, `resolve` the checks and the warnings from that alone.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

Step = Literal["prepare", "feature", "pretrain", "retrain"]
STEPS: tuple[Step, ...] = ("prepare", "feature", "pretrain", "retrain")
TRAIN: tuple[Step, ...] = ("pretrain", "retrain")

WHAT = {bool: "0, 1, false or true", int: "a whole number", float: "a number"}
_SHOWN = 60
"""Characters of a wrong value that a message repeats."""


@dataclass(frozen=True)
class Option:
    """What the command line knows of one field. `steps`: those in which it acts."""

    help: str
    choices: tuple[Any, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None
    steps: tuple[Step, ...] = STEPS
    flag: str = ""
    """Another name on the command line, for one that is no name in Python."""
    needs: tuple[str, Callable[[Any], bool]] | None = None
    """("--flag value", test of the whole configuration): without it, giving this flag does nothing."""


def option(default: Any, help: str, **details: Any) -> Any:
    """A dataclass field that is also a flag; `details` are those of `Option`."""
    return field(default=default, metadata={"option": Option(help, **details)})


def metavar(kind: Any) -> str:
    """What a flag of a type takes, for the help."""
    if get_origin(kind) is tuple:
        return f"{metavar(get_args(kind)[0])}[,…]"
    return {bool: "0|1", int: "N", float: "X", str: "TEXT"}[kind]


def convert(name: str, kind: Any, rule: Option, raw: Any) -> Any:
    """The typed value of a flag from text, a file's value or Python. ValueError names the flag and what it takes."""
    if get_origin(kind) is tuple:
        items = raw.split(",") if isinstance(raw, str) else raw if isinstance(raw, (list, tuple)) else [raw]
        return tuple(_scalar(name, get_args(kind)[0], rule, item) for item in items if item != "")
    return _scalar(name, kind, rule, raw)


def as_typed(value: Any) -> str:
    """An option's value as its flag takes it."""
    if isinstance(value, tuple):
        return ",".join(map(as_typed, value))
    return str(int(value) if isinstance(value, bool) else value)


def _scalar(name: str, kind: Any, rule: Option, raw: Any) -> Any:
    if not isinstance(raw, (str, int, float, Path)):
        raise ValueError(f"--{name}: must be {WHAT.get(kind, 'a text')}, not {_named(raw)}")
    try:
        text = str(raw).strip()
    except ValueError:  # a whole number of more digits than Python prints
        text = "…"
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    shown = shown if shown.isprintable() else repr(shown)
    value: Any = text
    if kind is bool:
        value = {"0": False, "false": False, "1": True, "true": True}.get(text.lower())
        if value is None:
            raise ValueError(f"--{name} {shown}: must be 0, 1, false or true")
    elif kind in (int, float):
        try:
            value = kind(text)
            if math.isinf(value) or (math.isnan(value) and rule.minimum is None):
                raise ValueError
        except ValueError:
            raise ValueError(f"--{name} {shown}: must be {WHAT[kind]}") from None
    elif any(ord(character) < ord(" ") for character in text):
        raise ValueError(f"--{name} {shown}: must be a text without control characters")
    if rule.choices is not None:
        if kind not in (int, float):  # names are taken in any letter case
            value = next((choice for choice in rule.choices if choice.lower() == text.lower()), text)
        if value not in rule.choices:
            raise ValueError(f"--{name} {shown}: must be one of {', '.join(map(str, rule.choices))}")
    # Written so that NaN fails both.
    if rule.minimum is not None and not value >= rule.minimum:
        raise ValueError(f"--{name} {shown}: must be at least {rule.minimum:g}")
    if rule.maximum is not None and not value <= rule.maximum:
        raise ValueError(f"--{name} {shown}: must be at most {rule.maximum:g}")
    return value


def _named(raw: Any) -> str:
    return {type(None): "nothing", dict: "a mapping", list: "a list", tuple: "a list"}.get(
        type(raw), type(raw).__name__
    )


def names_a_folder(word: str) -> bool:
    """Whether a word can be the name of a folder of recordings, which stays inside the folder above it."""
    return word not in ("", ".", "..") and not any(character in word for character in "/\\\0")
