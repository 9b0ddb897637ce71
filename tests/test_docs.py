"""What README and docs tell people to type: every command takes the flags shown with it, every Python block runs."""

import argparse
import re
import shutil
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.kws.spotter.conftest import save_random_model

from deltarnn import DeltaGRU
from deltarnn.cli import COMMANDS, STEP_COMMANDS
from deltarnn.engine import Engine
from deltarnn.kws.config.command_line import add_arguments
from deltarnn.kws.config.resolve import options

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
def flags_of(name: str) -> dict[str, argparse.Action]:
    parser = argparse.ArgumentParser()
    if name in STEP_COMMANDS:
        add_arguments(parser)
    else:
        parser.set_defaults(command=name)
        import_module(COMMANDS[name][0]).add_arguments(parser)
    return parser._option_string_actions


def choices() -> dict[str, set[str]]:
    """By flag, the values that some command takes; of flags that in every command take some values only."""
    found = {f"--{name}": set(map(str, rule.choices)) for name, (_, _, rule, _) in options().items() if rule.choices}
    others = [pair for name in COMMANDS if name not in STEP_COMMANDS for pair in flags_of(name).items()]
    for flag, action in [("--preset", flags_of("retrain")["--preset"]), *others]:
        found[flag] = found.get(flag, set()) | set(map(str, action.choices or ()))
    free = {flag for flag, action in others if not action.choices}
    return {flag: values for flag, values in found.items() if flag not in free}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_takes_the_flags_shown_with_it(page):
    for name, rest in commands(page):
        assert name in COMMANDS, f"deltarnn {name}: no such command"
        unknown = set(re.findall(r"--[a-z]\w*(?:-\w+)*", rest)) - flags_of(name).keys()
        assert not unknown, f"deltarnn {name} {rest.strip()}: {', '.join(sorted(unknown))} is no flag of it"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_value_shown_with_a_flag_is_one_that_it_takes(page):
    """In running text too, such as a preset's name."""
    text, allowed = page.read_text(encoding="utf-8"), choices()
    shown = [(flag, value) for flag, value in re.findall(r"(--\w+)[ =]([a-z][\w-]*)", text) if flag in allowed]
    assert not [(flag, value) for flag, value in shown if value not in allowed[flag]]


def test_commands_are_found():
    found = {name for page in PAGES for name, _ in commands(page)}
    assert {"prepare", "retrain", "evaluate", "sweep", "export", "estimate", "bench"} <= found


@pytest.mark.parametrize("module", ["deltarnn", "deltarnn.nn", "deltarnn.onnx", "deltarnn.kws.spotter"])
def test_the_reference_has_every_public_name(module):
    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    names = {name for name in import_module(module).__all__ if name != "__version__"}
    assert {name for name in names if f".{name}\n" not in text} == set()


class Reader:
    """What a page takes the reader to have: a model of their own, its data, a training loop."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.dense = torch.nn.GRU(16, 64)
        self.model = torch.nn.Sequential(torch.nn.GRU(16, 64))
        self.delta_model = DeltaGRU(16, 64, thx=0.125, thh=0.125)
        with torch.no_grad():
            self.delta_model.bias_hh_l0.zero_()  # EdgeDRNN's one bias per gate row
        self.frames = 0.1 * torch.randn(50, 1, 16).cumsum(0)

    def of(self, page: str) -> dict[str, object]:
        """The names that the page uses without making them."""
        if page == "layers.md":
            chunks = self.frames.split(10)
            task = {"task_loss": torch.zeros(()), "beta": 1e-3, "x": self.frames, "stream": chunks}
            return {"dense": self.dense, "model": self.model, "frames": self.frames, **task}
        if page == "pruning.md":
            model = torch.nn.ModuleDict({"rnn": self.dense, "head": torch.nn.Linear(64, 16)})
            return {
                "weight": 0.1 * torch.randn(192, 64),
                "model": model,
                "train_one_epoch": lambda: None,
                "delta": torch.ones(64),
            }
        if page == "engine.md":
            frames = self.frames[:, 0].numpy()
            return {"layer_or_model": self.delta_model, "model": self.delta_model, "frame": frames[0], "frames": frames}
        if page == "model_file.md":
            Engine.compile(self.delta_model).save("model.safetensors")
        if page == "onnx.md":
            files = Path(pytest.importorskip("silero_vad").__file__).parent / "data"
            shutil.copy(files / "silero_vad.onnx", ".")
            chunk, state = np.zeros((1, 576), np.float32), np.zeros((2, 1, 128), np.float32)
            return {"chunk": chunk, "state": state, "feed": {"input": chunk, "state": state, "sr": np.array(16000)}}
        if page in ("spotter.md", "embedded.md"):
            save_random_model(Path("model.safetensors"))
            samples = np.zeros(4000, np.int16)
            return {"microphone": np.split(samples, 4), "samples": samples}
        if page == "hardware.md":
            return {"model": self.delta_model, "frames": self.frames[:, 0].numpy()}
        if page == "speed_up.md":
            return {"model": self.model[0], "recordings": [0.1 * torch.randn(50, 1, 16).cumsum(0) for _ in range(8)]}
        if page == "fixed_point.md":
            return {"model": self.delta_model, "frames": self.frames[:, 0].numpy(), "accuracy": None}
        return {}


def python_blocks(page: Path) -> list[str]:
    """The page's fenced Python, in order."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if python_blocks(page)], ids=lambda page: str(page.relative_to(ROOT))
)
def test_every_python_block_runs(page, tmp_path, monkeypatch):
    """One after another, as somebody pastes them who reads the page from its top."""
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__", **Reader().of(page.name)}
    for number, block in enumerate(python_blocks(page), 1):
        exec(compile(block, f"{page.name}, block {number}", "exec"), namespace)
