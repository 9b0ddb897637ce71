"""The command line of the four steps: a flag for every option, and the configuration that the flags stand for."""

import argparse
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from deltarnn.kws.config.arguments import Parser
from deltarnn.kws.config.option import STEPS, Step, metavar
from deltarnn.kws.config.presets import PRESETS
from deltarnn.kws.config.resolve import GROUPS, Config, options, resolve

EXAMPLES = """
Four steps lead from audio to a delta network, each a command:
  deltarnn prepare  --dataset gscdv2 --data_dir ~/speech --download
  deltarnn feature  --dataset gscdv2
  deltarnn pretrain --dataset gscdv2 --epochs_pretrain 20 --batch_size 32
  deltarnn retrain  --dataset gscdv2 --epochs_retrain 10 --thx 0.1 --thh 0.1 --batch_size 64
--run_through 1 goes on from the step given; --dataset synth needs no download at all.
`python main.py --step STEP …` is the same as `deltarnn STEP …`. A flag that does nothing in the step run is reported.
"""


def add_arguments(
    parser: argparse.ArgumentParser,
    *,
    steps: Sequence[Step] = (),
    hide: Sequence[str] = (),
) -> None:
    """Add the flags of all options, --preset and --config to a parser.

    The help shows those that act in one of `steps` (all, if none is named) and are not in `hide`.
    """
    parser.add_argument("--preset", choices=sorted(PRESETS), default="none", help="a recipe: values for several flags")
    parser.add_argument("--config", metavar="FILE", help="YAML or JSON file of flag names and values")
    for group, kind in GROUPS.items():
        own = {name: option for name, (owner, *option) in options().items() if owner == group}
        shows = {n for n, (_, rule, _) in own.items() if n not in hide and (not steps or set(steps) & set(rule.steps))}
        heading = group, (kind.__doc__ or "").split("\n")[0]
        section = parser.add_argument_group(*heading) if shows else parser  # no heading over nothing
        for name, (type_, rule, default) in own.items():
            values = "|".join(map(str, rule.choices)) if rule.choices else metavar(type_)
            shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
            shown = int(shown) if type_ is bool else shown if shown != "" else "none"
            needs = f"; with {rule.needs[0]}" if rule.needs else ""
            optional: dict[str, Any] = {"nargs": "?", "const": "1"} if type_ is bool else {}
            text = f"{rule.help} (default: {shown}{needs})".replace("%", "%%")
            text = text if name in shows else argparse.SUPPRESS
            flags = [f"--{flag}" for flag in (rule.flag, name) if flag]
            section.add_argument(*flags, dest=name, default=argparse.SUPPRESS, metavar=values, help=text, **optional)


def parse_arguments(argv: Sequence[str], command: str = "python main.py --step STEP", what: str = "") -> Config:
    """The configuration of a command line such as ["--step", "prepare", "--dataset", "synth"].

    command: how the user calls it, for messages. what: what it does, for the help.
    """
    parser = Parser(
        prog=command, usage=f"{command} --dataset NAME [flags]",
        description=what or "Keyword spotting with delta networks.", epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add_arguments(parser, steps=_steps_named(argv), hide=() if command.startswith("python") else ("step",))
    given = vars(parser.parse_args(list(argv)))
    return resolve(
        {name: value for name, value in given.items() if name in options()}, given["preset"], given["config"]
    )


def _steps_named(argv: Sequence[str]) -> tuple[Step, ...]:
    """The steps of a command line that is not parsed yet, for its help; none where it names none."""
    given = " ".join(argv).replace("=", " ").split()
    named = [step for flag, step in pairwise(given) if flag == "--step" and step in STEPS]
    first = STEPS.index(named[-1]) if named else 0
    return () if not named else STEPS[first:] if "--run_through" in given else STEPS[first : first + 1]
