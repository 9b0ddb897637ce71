"""What the command does before any step: idle threads of training must not spin for long."""

import os

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
