"""Which package may import which: the picture of docs/architecture.md against the imports of every module."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from docs import package_graph
from docs.package_graph import SOURCE, imported_modules

PACKAGES = {
    "lazy": set(),
    "native": set(),
    "files": set(),
    "stored": {"files"},
    "sparsity": set(),
    "fixed": {"sparsity"},
    "prune": {"fixed"},
    "engine": {"files", "stored", "fixed", "native", "sparsity"},
    "nn": {"files", "fixed", "native", "sparsity"},
    "adapt": {"files", "stored", "fixed", "nn", "sparsity"},
    "onnx": {"engine", "files", "native", "nn", "fixed", "sparsity"},
    "hardware": {"files", "fixed", "prune", "engine", "sparsity"},
    "commands": {"adapt", "files", "hardware", "onnx"},
    "bench": {"files", "engine", "nn", "fixed", "native", "onnx", "hardware", "kws"},
    "kws": {"onnx", "adapt", "hardware", "nn", "prune", "engine", "fixed", "native", "sparsity", "files", "stored"},
    "cli": {"files", "kws"},
    "__main__": {"cli"},
}
"""Package or module of `deltarnn`: those that it may import."""

WINGS = ("commands", "report", "training", "evaluation", "spotter", "features", "network", "data", "config")
"""Of `deltarnn.kws`, from the top down: each imports only those after it, and the ground."""
GROUND = {"draw", "paths", "workers"}


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_packages_import_downward(path):
    package = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if package == "__init__":
        return  # it imports each public name's home on first use
    assert package in PACKAGES, f"say in {Path(__file__).name} what {package} may import"
    for name in imported_modules(path):
        if name.startswith("deltarnn.lazy"):
            continue  # it serves them all
        target = [*name.split("."), "__init__"][1]
        allowed = PACKAGES[package] | {package}
        assert target not in PACKAGES or target in allowed, f"{package} imports {name}"


@pytest.mark.parametrize(
    "path", sorted((SOURCE / "kws").glob("*/*.py")), ids=lambda path: str(path.relative_to(SOURCE / "kws"))
)
def test_wings_import_downward(path):
    wing = path.parent.name
    assert wing in WINGS, f"say in {Path(__file__).name} where the wing {wing} stands"
    allowed = {*WINGS[WINGS.index(wing) :], *GROUND}
    for name in imported_modules(path):
        parts = name.split(".")
        if parts[1:2] == ["kws"]:
            assert parts[2] in allowed, f"{wing} imports {name}"


@pytest.mark.parametrize("name", sorted(GROUND))
def test_the_ground_imports_no_wing(name):
    assert not {m for m in imported_modules(SOURCE / "kws" / f"{name}.py") if m.startswith("deltarnn.kws")}


def modules_after(statement: str) -> set[str]:
    """Modules loaded in a fresh interpreter after the statement."""
    code = f"{statement}\nimport sys\nprint(*sorted(sys.modules), sep='\\n')"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


def test_a_public_name_of_kws_loads_only_what_it_needs():
    loaded = modules_after("from deltarnn.kws import LogFilterBank")
    assert "deltarnn.kws.features.frontend" in loaded
    assert not {"torch", "deltarnn.kws.network.model", "deltarnn.kws.config.resolve"} & loaded


def test_the_engine_loads_without_torch():
    assert "torch" not in modules_after("from deltarnn.engine import Engine")


def test_the_front_ends_old_home_warns():
    with pytest.warns(DeprecationWarning, match=r"from deltarnn\.kws"):
        import deltarnn.kws.frontend as old
    from deltarnn.kws import LogFilterBank

    assert old.LogFilterBank is LogFilterBank


def test_the_picture_shows_the_imports_as_they_are():
    assert package_graph.PICTURE.read_text(encoding="utf-8") == package_graph.draw(), (
        "run `python docs/package_graph.py`"
    )


def test_levels_and_arrows_of_a_small_graph():
    graph = {"roof": {"wall", "ground"}, "wall": {"ground"}, "ground": set()}
    assert package_graph.levels(graph) == {"ground": 0, "wall": 1, "roof": 2}
    assert package_graph.reduced(graph) == [("roof", "wall"), ("wall", "ground")]
    with pytest.raises(ValueError, match=r"import each other: a, b$"):
        package_graph.levels({"a": {"b"}, "b": {"a"}, "c": set()})


LONGEST = {"module": 350, "class": 200, "function": 60}
"""Lines; whoever needs more has more than one noun."""


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_nothing_grows_long(path):
    text = path.read_text(encoding="utf-8")
    lengths = [("module", path.stem, len(text.splitlines()))]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            kind = "class" if isinstance(node, ast.ClassDef) else "function"
            assert node.end_lineno is not None
            lengths.append((kind, node.name, node.end_lineno - node.lineno + 1))
    assert [(kind, name, lines) for kind, name, lines in lengths if lines > LONGEST[kind]] == []
