"""What the command does before and after any step: threads that do not spin, outputs that take nothing more."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deltarnn import cli


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, cli.SPINS), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
    ids=["bounded", "asked for", "policy asked for"],
)
def test_spinning_is_bounded_unless_told_otherwise(monkeypatch, given, expected):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["listen", "nowhere.safetensors"]) == 1
    assert os.environ.get("GOMP_SPINCOUNT") == expected
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)


def test_a_line_is_in_a_pipe_or_file_when_it_is_printed(monkeypatch):
    """Whatever happens to the process then."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    code = "import os; from deltarnn import cli; cli._run = lambda _: print('epoch 1') or os._exit(0); cli.main([])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "epoch 1\n"


def test_an_output_whose_reader_left_is_no_error():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "deltarnn"], stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_output_that_is_full_is_named(unbuffered, monkeypatch):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([sys.executable, "-m", "deltarnn"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (1, b"error: standard output: No space left on device\n")


def test_outputs_that_are_closed_are_done_without(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert cli.main(["--version"]) == 0
    assert cli.main(["nothing"]) == 1


def test_a_warning_for_the_user_is_its_sentence():
    code = (
        "import warnings\nfrom types import SimpleNamespace\nfrom deltarnn import cli\n"
        "def run(_):\n    warnings.warn('odd')\n    warnings.warn('wrong', RuntimeWarning)\n    return 0\n"
        "cli.import_module = lambda name: SimpleNamespace(add_arguments=lambda parser: None, run=run)\n"
        "cli.main(['listen'])\nwarnings.warn('later')"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr.splitlines()
    assert told == ["warning: odd", "<string>:6: RuntimeWarning: wrong", "<string>:10: UserWarning: later"]


def test_ctrl_c_while_modules_are_imported_ends_in_one_line():
    """From the first that a command imports; before it there is little."""
    code = (
        "import sys\nfrom deltarnn import cli\nprint(*sys.modules)\n"
        "class Pressed:\n    def find_spec(*_):\n        raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Pressed)\nsys.exit(cli.main(['evaluate', 'model.safetensors']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
    assert {name for name in done.stdout.split() if name.startswith("deltarnn")} == {
        "deltarnn", "deltarnn.cli", "deltarnn.lazy",
    }  # fmt: skip
    assert "importlib.metadata" not in done.stdout.split()


def test_ctrl_c_of_which_an_import_makes_another_error_ends_in_one_line():
    code = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # which a job in a shell's background lacks
        "from deltarnn import cli\n"
        "def run(_):\n"
        "    try:\n        os.kill(os.getpid(), signal.SIGINT)\n        time.sleep(9)\n"
        "    except KeyboardInterrupt:\n        raise ImportError('could not import') from None\n"
        "cli._run = run\nstatus = cli.main(['evaluate'])\n"
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler\nsys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
