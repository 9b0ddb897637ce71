"""The native core by itself: a C++ test program under sanitizers, and what kernel sources may leave to the linker.

Without a compiler these skip. AArch64 is a check of its own, native/check_aarch64.sh, run by the last test if asked to.
"""

import os
import platform
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest

from deltarnn.hardware.compilers import find_compiler

ROOT = Path(__file__).parents[2]
NATIVE = ROOT / "native"
COMPILER = find_compiler("CXX")
FLAGS = ["-std=c++20", "-Wall", "-Wextra", "-Werror", "-Wno-psabi", "-ffp-contract=off", f"-I{NATIVE / 'include'}"]
AVX512 = [f"-m{part}" for part in ("avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni")]
ISA_FLAGS = {"portable": []} | (
    {"avx2": ["-mavx2", "-mfma"], "avx512": AVX512} if platform.machine() == "x86_64" else {"neon": []}
)
# -O1: unoptimised vector code would take minutes to run.
SANITIZE = ["-O1", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-pthread"]
SANITIZED = ("isa", "engine", "engine_dispatch", "float_layer", "int8_layer", "program", "package")

pytestmark = pytest.mark.skipif(not COMPILER, reason="no C++ compiler")


def isa_flags(name: str) -> list[str]:
    return [f"-DDELTARNN_ISA={name}", f"-DDELTARNN_ISA_{name.upper()}", *ISA_FLAGS[name]]


def compile_all(jobs: dict[Path, list[str]]) -> None:
    """Run the compiler once per output file, as many at a time as there are processors."""

    def run(job: tuple[Path, list[str]]) -> subprocess.CompletedProcess[str]:
        command = [*COMPILER, *FLAGS, *job[1], "-o", str(job[0])]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for result in pool.map(run, jobs.items()):
            assert result.returncode == 0, result.stderr


def build_folder(name: str) -> Path:
    """A folder under build/ that belongs to the present state of the sources."""
    digest = sha256(Path(__file__).read_bytes())
    for path in sorted([*NATIVE.rglob("*.?pp"), *NATIVE.rglob("*.cu*")]):
        digest.update(path.read_bytes())
    return ROOT / "build" / f"{name}-{digest.hexdigest()[:16]}"


def sanitized_core() -> Path:
    """A folder with the object files of engine and programs, with sanitizers, for all instruction sets."""
    folder = build_folder("sanitized")
    if folder.exists():
        return folder
    part = folder.with_name(f"{folder.name}.{os.getpid()}")
    part.mkdir(parents=True)
    has = [f"-DDELTARNN_HAS_{isa.upper()}" for isa in ISA_FLAGS]
    jobs = {part / f"{unit}.o": [*SANITIZE, *has, "-c", str(NATIVE / "src" / f"{unit}.cpp")] for unit in SANITIZED}
    for source in [*NATIVE.glob("src/engine_*_kernels.cpp"), NATIVE / "src" / "program_kernels.cpp"]:
        for isa in ISA_FLAGS:
            jobs[part / f"{source.stem}_{isa}.o"] = [*SANITIZE, *isa_flags(isa), "-c", str(source)]
    compile_all(jobs)
    try:
        part.rename(folder)
    except OSError:  # another process was quicker
        shutil.rmtree(part)
    return folder


def sanitized_program(name: str, *sources: Path) -> Path:
    """A test program over the core, with sanitizers."""
    core = sanitized_core()
    program = core / name
    if not program.exists():
        part = core / f"{name}.{os.getpid()}"
        compile_all({part: [*SANITIZE, *map(str, [NATIVE / "tests" / f"{name}.cpp", *sources, *core.glob("*.o")])]})
        part.rename(program)
    return program


@pytest.mark.parametrize("name", ["test_core", "test_program"])
def test_core_under_address_and_undefined_behaviour_sanitizers(name: str) -> None:
    result = subprocess.run([sanitized_program(name)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 differ" in result.stdout


def test_kernels_share_no_inline_function_with_the_rest(tmp_path: Path) -> None:
    """An inline function outside the namespace of the instruction set could be linked in its AVX-512 form for everyone.

    Without optimisation every inline function is emitted, so that none hides.
    """
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("no nm")
    widest = list(ISA_FLAGS)[-1]
    jobs = {
        tmp_path / f"{source.stem}.o": ["-O0", *isa_flags(widest), "-c", str(source)]
        for source in NATIVE.glob("src/*_kernels.cpp")
    }
    compile_all(jobs)
    defined = 0
    for path in jobs:
        listing = subprocess.run([nm, "-C", "--defined-only", path], capture_output=True, text=True, check=True).stdout
        for line in listing.splitlines():
            _, kind, symbol = line.split(maxsplit=2)
            if kind.islower() and kind not in "uvw":
                continue  # local to its object file
            defined += 1
            assert f"deltarnn::{widest}::" in symbol or symbol == "DW.ref.__gxx_personality_v0", (
                f"{path.name}: {symbol}"
            )
    assert defined >= len(jobs)


@pytest.mark.skipif(
    "DELTARNN_CHECK_AARCH64" not in os.environ, reason="a check of its own: set DELTARNN_CHECK_AARCH64=1"
)
def test_aarch64_under_emulation() -> None:
    tools = ("aarch64-linux-gnu-g++", "qemu-aarch64-static", "cmake", "ninja")
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)} (Debian: g++-aarch64-linux-gnu qemu-user-static cmake ninja-build)")
    command = [NATIVE / "check_aarch64.sh", ROOT / "build" / "aarch64"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "neon: checked" in result.stdout
    assert "0 differ" in result.stdout
