"""Every number has its bounds, whatever gives it: the command line, a file, another command's flags."""

import argparse
import json
import math
import re
from importlib import import_module
from typing import get_args, get_origin

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deltarnn.cli import COMMANDS, STEP_COMMANDS, main
from deltarnn.kws.config import command_line as module
from deltarnn.kws.config.arguments import Parser
from deltarnn.kws.config.resolve import Config, resolve

KINDS = {
    name: get_args(kind)[0] if get_origin(kind) is tuple else kind for name, (_, kind, _, _) in module.options().items()
}
NUMBERS = sorted(
    name for name, kind in KINDS.items() if kind in (int, float) and module.options()[name][2].choices is None
)


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_has_finite_bounds_and_takes_no_nan(name):
    rule = module.options()[name][2]
    assert rule.minimum is not None
    assert rule.maximum is not None
    assert math.isfinite(rule.minimum)
    assert math.isfinite(rule.maximum)
    for wrong in ("nan", "inf", "-inf", "1e400", "9" * 5000, "-", "0x10", math.nan, 10**5000, None, [], {}):
        with pytest.raises(ValueError, match=rf"^--{name}( |:)") as caught:
            resolve({name: [wrong] if get_origin(module.options()[name][1]) is tuple else wrong})
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "line",
    [
        "--floor nan", "--aug_snr_high nan", "--rnn_size 100000000", "--threads 100000", "--nfft 100000000",
        "--smooth_window_size 100000",
    ],
)  # fmt: skip
def test_absurd_numbers_are_one_sentence(line, capsys):
    assert main(["--step", "pretrain", *line.split()]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {line}: must be ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - set(STEP_COMMANDS)))
def test_numbers_of_other_commands_are_bounded_too(command):
    parser = Parser(prog=command)
    parser.set_defaults(command=command)
    import_module(COMMANDS[command][0]).add_arguments(parser)
    for action in parser._actions:
        if action.type in (int, float):
            for wrong in ("nan", "inf", "1e400", "9" * 5000):
                with pytest.raises(argparse.ArgumentError, match="of a sensible size"):
                    parser._get_value(action, wrong)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--budget", "nan"], "--budget nan: must be at least 0"),
        (["--workers", "1e3"], "--workers 1e3: must be a whole number"),
        (["--workers", "1\n2"], "--workers '1\\n2': must be a whole number"),
        (["--workers", "100000"], "--workers 100000: must be at most 256"),
        (["--thx", "0.1,nan"], "--thx 0.1,nan: thresholds must be at least 0"),
        (["--thh", "1e39"], "--thh 1e39: thresholds must be"),
    ],
)
def test_sweep_refuses_by_name(flags, message, tmp_path, capsys):
    assert main(["sweep", str(tmp_path / "model.safetensors"), *flags]) == 1
    assert message in capsys.readouterr().err


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.dates(), st.binary(max_size=4)
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(SCALARS, inner)), max_leaves=6
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(KINDS)), value=VALUES)
def test_whatever_a_file_says_is_an_option_or_one_sentence(tmp_path, name, value):
    file = tmp_path / "options.yaml"
    file.write_text(yaml.dump({name: value}, allow_unicode=True), encoding="utf-8")
    try:
        config = resolve({}, "none", str(file))
    except ValueError as error:
        told = str(error)
    else:
        assert isinstance(config, Config)
        told = "fine"
    assert "\n" not in told
    assert len(told) < 600


@pytest.mark.parametrize(
    "text",
    [
        "[" * 5000,
        "a: &a [*a]\n",
        "lr: 2001-99-99",
        "? {a: 1}\n: 2",
        "lr: !!python/object:os.system x",
        "\0",
        "\xff",
        "3",
    ],
)
def test_files_that_are_no_options_are_one_sentence(tmp_path, text, capsys):
    file = tmp_path / "options.yaml"
    file.write_bytes(text.encode("latin-1"))
    assert main(["--step", "pretrain", "--config", str(file)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert str(file) in error
    assert error.count("\n") == 1


def test_an_absurd_configuration_on_record_is_refused(tmp_path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**Config().flat(), "batch_size": 10**12}))
    with pytest.raises(ValueError, match="--batch_size 1000000000000: must be at most 65536"):
        resolve({}, "none", str(file))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("retrian --thx 0.1", "'retrian' is no command; there are prepare,"),
        ("retrian --thx 0.1", "did you mean retrain?"),
        ("evaluat x", "did you mean evaluate?"),
        ("zzz", "'zzz' is no command"),
    ],
)
def test_an_unknown_command_suggests_the_nearest(line, message, capsys):
    assert main(line.split()) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("pretrain --epoch_pretrain 3", "unrecognized arguments: --epoch_pretrain 3; did you mean --epochs_pretrain?"),
        ("sweep m --bugdet=1", "unrecognized arguments: --bugdet=1; did you mean --budget?"),
        ("evaluate m --feature x", "unrecognized arguments: --feature x; did you mean --features?"),
        ("bench --zzzz", "unrecognized arguments: --zzzz\n"),
    ],
)
def test_an_unknown_flag_suggests_the_nearest(line, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(line.split())
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", STEP_COMMANDS)
def test_help_shows_the_flags_that_act_in_the_step(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    shown = capsys.readouterr().out
    for name, (_, _, rule, _) in module.options().items():
        acts = command in rule.steps and name != "step"
        assert bool(re.search(rf"^  --{rule.flag or name}\s", shown, re.MULTILINE)) == acts, name
    assert "--stim_head" not in shown


def test_version(capsys):
    import deltarnn

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"deltarnn {deltarnn.__version__}\n"


def test_out_of_memory_is_one_sentence(monkeypatch, capsys):
    def hungry(arguments: argparse.Namespace) -> None:
        raise MemoryError

    monkeypatch.setattr(module, "parse_arguments", hungry)
    assert main(["--step", "prepare"]) == 1
    assert capsys.readouterr().err.startswith("error: out of memory")
