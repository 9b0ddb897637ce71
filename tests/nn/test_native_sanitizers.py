"""The training kernels in a C++ program under the address, undefined-behaviour and thread sanitizers."""

import subprocess

import pytest
from tests.native.test_native import COMPILER, ISA_FLAGS, NATIVE, build_folder, compile_all, isa_flags

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")


@pytest.mark.parametrize(
    ("sanitizers", "isas"),
    [("address,undefined", list(ISA_FLAGS)[:2]), ("thread", ["portable"])],  # the sources are the same for the others
    ids=["memory", "threads"],
)
def test_training_under_sanitizers(sanitizers: str, isas: list[str]) -> None:
    folder = build_folder(f"training-{sanitizers.replace(',', '-')}")
    program = folder / "test_training"
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        # -O1: unoptimised vector code would take minutes to run.
        sanitize = ["-O1", f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all", "-pthread"]
        has = [f"-DDELTARNN_HAS_{name.upper()}" for name in isas]
        sources = [NATIVE / "tests" / "test_training.cpp"]
        sources += [NATIVE / "src" / f"{name}.cpp" for name in ("isa", "training", "training_threads")]
        jobs = {folder / f"{source.stem}.o": [*sanitize, *has, "-c", str(source)] for source in sources}
        for source in NATIVE.glob("src/training_*kernels.cpp"):
            for name in isas:
                jobs[folder / f"{source.stem}_{name}.o"] = [*sanitize, *isa_flags(name), "-c", str(source)]
        compile_all(jobs)
        part = folder / "part"
        compile_all({part: [*sanitize, *map(str, jobs)]})
        part.rename(program)
    result = subprocess.run([program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert " 0 differ" in result.stdout
