"""An option of the keyword-spotting steps: a field of a dataclass that is also a flag of the command line.

A field says its default, what it means, which values it takes, in which steps it acts, and what it needs beside it to
act at all; `deltarnn.kws.config.resolve` makes the command line, the checks and the warnings from that alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

Step = Literal["prepare", "feature", "pretrain", "retrain"]
STEPS: tuple[Step, ...] = ("prepare", "feature", "pretrain", "retrain")
TRAIN: tuple[Step, ...] = ("pretrain", "retrain")


@dataclass(frozen=True)
class Option:
    """What the command line knows of one field. `steps`: those in which it acts."""

    help: str
    choices: tuple[Any, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None
    steps: tuple[Step, ...] = STEPS
    needs: tuple[str, Callable[[Any], bool]] | None = None
    """("--flag value", test of the whole configuration): without it, giving this flag does nothing."""


def option(default: Any, help: str, **details: Any) -> Any:
    """A dataclass field that is also a flag; `details` are those of `Option`."""
    return field(default=default, metadata={"option": Option(help, **details)})
