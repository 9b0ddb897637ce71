"""What the package says of itself: one version, and a core for every Python that it names."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import yaml

import deltarnn

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_version_stands_in_one_place():
    assert version("deltarnn") == deltarnn.__version__
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == deltarnn.__version__


def test_every_extra_is_pinned():
    pinned = {
        re.split(r"==", line)[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    }
    for extra, requirements in PROJECT["project"]["optional-dependencies"].items():
        for requirement in requirements:
            name = re.match(r"[\w-]+", requirement)
            assert name is not None
            if name.group() != "deltarnn":
                assert name.group().lower() in pinned, f"{extra}: {requirement} is not pinned"


def test_wheels_are_built_for_every_named_python():
    named = {c.rsplit(" ", 1)[-1] for c in PROJECT["project"]["classifiers"] if re.search(r":: 3\.\d+$", c)}
    assert named == {"3.11", "3.12", "3.13", "3.14"}
    assert PROJECT["tool"]["scikit-build"]["wheel"]["py-api"] == "cp312"
    assert PROJECT["tool"]["cibuildwheel"]["build"].split() == ["cp311-*", "cp312-*"]
