"""The CUDA kernels run on a CPU (native/tests/cuda_on_cpu.hpp), in the place of those for CPU tensors."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import pytest
import torch
from tests.native.test_native import NATIVE, build_folder, compile_all

from deltarnn.nn import cuda, cuda_passes, operands
from deltarnn.nn.cuda_kernels import Shape, Variant
from deltarnn.nn.cuda_plan import GPU

LARGE = GPU(multiprocessors=6, shared_bytes=227 * 1024, capability=90)
"""Every layer of the tests fits into one block."""


SIZES = ("INPUTS", "HIDDEN", "UNITS", "PARTS", "SAMPLES", "HARD", "INPUT_PARTS")


def flags(variant: Variant, constant: bool) -> list[str]:
    """constant: compiled for the layer's sizes, as for a GPU; else for any."""
    defines = [f"-D{name}={value}" for name, value in variant.macros if constant or not name.endswith(SIZES)]
    return ["-DDELTARNN_ON_CPU", "-Wno-unknown-pragmas", f"-I{NATIVE / 'cuda'}", f"-I{NATIVE / 'tests'}", *defines]


@cache
def library(variant: Variant) -> ctypes.CDLL:
    """All kernels for one variant, sizes given at launch."""
    folder = build_folder("cuda-on-cpu")
    path = folder / f"{'-'.join(map(str, variant))}.so"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        source = str(NATIVE / "tests" / "cuda_on_cpu.cpp")
        compile_all({part: ["-O1", "-fPIC", "-shared", *flags(variant, constant=False), source]})
        part.replace(path)
    return ctypes.CDLL(str(path))


class CPU:
    """In the place of `cuda.Device`."""

    def __init__(self, gpu: GPU) -> None:
        self.limits = gpu
        self.zeros = torch.zeros(1 + gpu.multiprocessors, dtype=torch.int32)

    kind = "cpu"

    def unavailable(self, device: int | None) -> str | None:
        return None

    def gpu(self, device: int | None) -> GPU:
        return self.limits

    def counters(self, device: torch.device) -> torch.Tensor:
        return self.zeros

    def launch(
        self, device: int | None, source: str, name: str, variant: Variant, shape: Shape, arguments: tuple[int, ...]
    ) -> None:
        of_team = source in ("forward", "backward")
        assert shape.shared_bytes <= (self.limits.shared_bytes if of_team else 48 * 1024)
        assert shape.block <= variant.threads
        assert not shape.cooperative or shape.grid <= self.limits.multiprocessors
        function = getattr(library(Variant(*variant[:5])), f"run_deltarnn_{name}")
        together = shape.grid if shape.cooperative else shape.cluster
        function(shape.grid, shape.block, shape.shared_bytes, together, (ctypes.c_int64 * len(arguments))(*arguments))
        assert not self.zeros.any()


@contextmanager
def cuda_kernels_on_cpu(gpu: GPU) -> Iterator[None]:
    """Within it, CPU tensors are computed by the CUDA kernels, laid out for `gpu`."""

    def tape_shape(lstm: bool, x: torch.Tensor, hidden: int) -> tuple[int, ...]:
        return *x.shape[:2], (6 if lstm else 5) * hidden + x.shape[2]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda_passes, "device", CPU(gpu))
        patch.setattr(operands, "tape_shape", tape_shape)
        with torch.library._scoped_library("deltarnn", "IMPL") as library:
            library.impl("sequence", cuda._sequence, "CPU", allow_override=True)
            library.impl("sequence_backward", cuda._sequence_backward, "CPU", allow_override=True)
            yield
