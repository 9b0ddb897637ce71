"""What README and docs tell people to type: every command exists and takes every flag that is shown with it."""

import argparse
import re
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from deltarnn.cli import COMMANDS, STEP_COMMANDS
from deltarnn.kws.config.resolve import add_arguments

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks" / "README.md"]
COMMAND = re.compile(r"(?:deltarnn (?P<name>[a-z]+)|python main\.py)\b(?P<rest>[^`\n]*)")


def commands(page: Path) -> list[tuple[str, str]]:
    """Command and the rest of its line, backslashes at line ends joined, in code blocks and in running text."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    found = []
    for match in COMMAND.finditer(text):
        step = re.search(r"--step (\w+)", match["rest"])
        name = match["name"] or (step[1] if step else "pretrain")
        quoted = text[max(0, match.start() - 1)] == "`" or match.group(0).count("--") > 0
        if match["name"] is None or name in COMMANDS or quoted:
            found.append((name, match["rest"].split("#")[0]))
    return found


@cache
def flags_of(name: str) -> frozenset[str]:
    parser = argparse.ArgumentParser()
    if name in STEP_COMMANDS:
        add_arguments(parser)
    else:
        parser.set_defaults(command=name)
        import_module(COMMANDS[name][0]).add_arguments(parser)
    return frozenset(parser._option_string_actions)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_takes_the_flags_shown_with_it(page):
    for name, rest in commands(page):
        assert name in COMMANDS, f"deltarnn {name}: no such command"
        unknown = set(re.findall(r"--[a-z]\w*(?:-\w+)*", rest)) - flags_of(name)
        assert not unknown, f"deltarnn {name} {rest.strip()}: {', '.join(sorted(unknown))} is no flag of it"


def test_commands_are_found():
    found = {name for page in PAGES for name, _ in commands(page)}
    assert {"prepare", "retrain", "evaluate", "sweep", "export", "estimate", "bench"} <= found
