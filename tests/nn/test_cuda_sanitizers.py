"""The CUDA kernels, in the thread model of native/tests/cuda_on_cpu.hpp, under the thread and the address sanitizer."""

import subprocess
from pathlib import Path

import pytest
from tests.native.test_native import COMPILER, NATIVE, build_folder, compile_all
from tests.nn.cuda_on_cpu import flags

from deltarnn.nn.cuda_kernels import Variant
from deltarnn.nn.cuda_plan import Scope

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")

PROGRAM = NATIVE / "tests" / "test_cuda.cpp"


LAYOUTS: tuple[tuple[Scope, bool], ...] = (("block", True), ("block", False), ("cluster", True), ("grid", False))
"""Of the blocks, and whether a sample's work is spread over warps."""


def run(
    folder: Path, scope: Scope, spread: bool, sanitizers: str, sources: Path = NATIVE / "cuda"
) -> subprocess.CompletedProcess:
    program = folder / f"{scope}-{spread}-{sanitizers.split(',')[0]}"
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        sanitize = ["-O1", "-g", f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all"]
        variant = Variant(scope=scope, inputs_resident=scope != "grid", spread=spread)
        part = program.with_suffix(".part")
        compile_all({part: [*sanitize, f"-I{sources}", *flags(variant, constant=False), str(PROGRAM)]})
        part.replace(program)
    return subprocess.run([program], capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("sanitizers", ["thread", "address,undefined"])
@pytest.mark.parametrize(("scope", "spread"), LAYOUTS)
def test_under_sanitizers(scope: Scope, spread: bool, sanitizers: str) -> None:
    result = run(build_folder("cuda-sanitized"), scope, spread, sanitizers)
    assert result.returncode == 0, result.stdout + result.stderr[:2000]
    assert "0 differ" in result.stdout


@pytest.mark.parametrize("spread", [True, False])
@pytest.mark.parametrize("header", ["forward", "backward"])
def test_a_missing_barrier_is_found(tmp_path: Path, header: str, spread: bool) -> None:
    """In a copy of the sources, what the others are to see is written after the barrier, not before."""
    sources = tmp_path / "sources"
    sources.mkdir()
    for path in (NATIVE / "cuda").iterdir():
        (sources / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    text = (sources / f"{header}.cuh").read_text(encoding="utf-8")
    barrier = "team_barrier<scope>(team, place);"
    publishes = "publish(t, sample, delta, mask, owner);" if header == "forward" else "list(passes);"
    start = text.index(publishes)
    moved = text[:start] + barrier + "\n" + publishes + text[start + len(publishes) :].replace(barrier, "", 1)
    (sources / f"{header}.cuh").write_text(moved, encoding="utf-8")
    result = run(tmp_path / "built", "block", spread, "thread", sources)
    assert result.returncode != 0
    assert "ThreadSanitizer" in result.stderr
