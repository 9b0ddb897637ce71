"""The CUDA kernels of native/cuda: compiled at first use by NVRTC through cuda-core, kept on disk, launched.

Needs `pip install deltarnn[cuda]` and no CUDA toolkit. Compiled code is kept in $XDG_CACHE_HOME/deltarnn (by default
~/.cache/deltarnn), by source, options, architecture and version of NVRTC.
"""

import os
from contextlib import suppress
from functools import cache, lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import torch

from deltarnn.files import write_bytes
from deltarnn.nn.cuda_plan import GPU, SCOPES, Scope

LEAST_CAPABILITY = 75


class Variant(NamedTuple):
    """What a source is compiled for.

    threads: of a block, and `blocks` of them on a multiprocessor at once. Sizes that are 0 are given at launch, and
    so is what is −1.
    """

    lstm: bool = False
    scope: Scope = "block"
    resident: bool = True
    inputs_resident: bool = False
    spread: bool = False
    threads: int = 256
    blocks: int = 1
    inputs: int = 0
    hidden: int = 0
    units: int = 0
    parts: int = 0
    samples: int = 0
    hard: int = -1
    input_parts: int = -1

    @property
    def macros(self) -> list[tuple[str, str]]:
        """As the sources read it."""
        values = {**self._asdict(), "scope": SCOPES.index(self.scope)}
        return [(f"DELTARNN_{name.upper()}", str(int(value))) for name, value in values.items()]


class Shape(NamedTuple):
    """Of a launch: blocks, threads per block, bytes of shared memory, blocks of a cluster, whether all run at once."""

    grid: int
    block: int
    shared_bytes: int = 0
    cluster: int = 1
    cooperative: bool = False


def sources() -> Path:
    """The folder of the kernels' sources: of the repository, or of the installed package."""
    installed = Path(__file__).parents[1] / "cuda"
    return installed if installed.exists() else Path(__file__).parents[3] / "native" / "cuda"


@cache
def gpu(device: int) -> GPU:
    """What plans need to know of the GPU of that number."""
    properties = torch.cuda.get_device_properties(device)
    return GPU(
        properties.multi_processor_count,
        properties.shared_memory_per_block_optin,  # type: ignore[attr-defined]
        10 * properties.major + properties.minor,
    )


@cache
def unavailable(device: int) -> str | None:
    """Why no kernel can run on this GPU; None if they can: one was compiled and loaded."""
    if gpu(device).capability < LEAST_CAPABILITY:
        return f"the GPU's compute capability is {gpu(device).capability / 10}, below {LEAST_CAPABILITY / 10}"
    try:
        _kernel(device, "weights", "take_gradients", Variant())
    except ImportError as error:
        return f"{error.name or error} is not installed: pip install deltarnn[cuda]"
    except Exception as error:  # of whatever kind NVRTC and the driver raise
        return f"NVRTC or the driver failed: {error}"
    return None


def compile_kernel(source: str, variant: Variant, architecture: str, *, logs: Any = None) -> bytes:
    """The machine code of one source for an architecture such as "sm_90"; needs no GPU. logs: for ptxas's report."""
    from cuda.core import Program, ProgramOptions

    options = ProgramOptions(
        arch=architecture,
        std="c++17",
        include_path=str(sources()),
        define_macro=variant.macros,
        ptxas_options=["-v"] if logs is not None else None,
    )
    program = Program((sources() / f"{source}.cu").read_text(encoding="utf-8"), "c++", options)
    code: bytes = program.compile("cubin", logs=logs).code
    return code


def _ensure_context(device: int) -> None:
    """A thread that has called nothing of CUDA yet, as autograd's may be, has no context to launch in: PyTorch's own,
    the device's primary one, becomes its."""
    current, device_of = _contexts()
    _, context = current()
    if context is None or not int(context):
        device_of(device).set_current()


@cache
def _contexts() -> tuple[Any, Any]:
    from cuda.bindings import driver
    from cuda.core import Device

    return driver.cuCtxGetCurrent, Device


def launch(device: int, source: str, name: str, variant: Variant, shape: Shape, arguments: tuple[int, ...]) -> None:
    """Run deltarnn_`name` of a source on PyTorch's current stream. arguments: addresses and numbers."""
    stream = torch._C._cuda_getCurrentRawStream(device)
    if torch._C._cuda_getDevice() == device:
        _ensure_context(device)
        _launcher()(_stream(stream), *_prepared(device, source, name, variant, shape), *arguments)
        return
    with torch.cuda.device(device):
        _ensure_context(device)
        _launcher()(_stream(stream), *_prepared(device, source, name, variant, shape), *arguments)


def counters(device: torch.device) -> torch.Tensor:
    """Zeros for the blocks of a launch to count in; the kernels leave them so. One buffer for each stream; a graph,
    which may be replayed on any, gets its own."""
    assert device.index is not None
    if torch.cuda.is_current_stream_capturing():
        return torch.zeros(1 + gpu(device.index).multiprocessors, dtype=torch.int32, device=device)
    return _counters(device, torch._C._cuda_getCurrentRawStream(device.index))


@lru_cache(maxsize=256)
def _counters(device: torch.device, stream: int) -> torch.Tensor:
    return torch.zeros(1 + gpu(device.index).multiprocessors, dtype=torch.int32, device=device)


@cache
def _launcher() -> Any:
    from cuda.core import launch

    return launch


@lru_cache(maxsize=256)
def _stream(handle: int) -> Any:
    from cuda.core import Stream

    return Stream.from_handle(handle)


@lru_cache(maxsize=1024)
def _prepared(device: int, source: str, name: str, variant: Variant, shape: Shape) -> tuple[Any, Any]:
    """(launch configuration, kernel)"""
    from cuda.bindings import driver
    from cuda.core import LaunchConfig

    kernel = _kernel(device, source, name, variant)
    attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    (error,) = driver.cuKernelSetAttribute(attribute, gpu(device).shared_bytes, kernel.handle, device)
    if error != driver.CUresult.CUDA_SUCCESS:
        raise RuntimeError(f"{name}: the driver refused {gpu(device).shared_bytes} bytes of shared memory: {error}")
    clusters = {"cluster": shape.cluster} if shape.cluster > 1 else {}
    config = LaunchConfig(
        grid=shape.grid // shape.cluster,
        block=shape.block,
        shmem_size=shape.shared_bytes,
        is_cooperative=shape.cooperative,
        **clusters,
    )
    return config, kernel


@lru_cache(maxsize=1024)
def _kernel(device: int, source: str, name: str, variant: Variant) -> Any:
    from cuda.core import ObjectCode

    code = _machine_code(source, variant, f"sm_{gpu(device).capability}")
    with torch.cuda.device(device):
        torch.cuda.init()  # type: ignore[no-untyped-call]
        return ObjectCode.from_cubin(code).get_kernel(f"deltarnn_{name}")


@lru_cache(maxsize=1024)
def _machine_code(source: str, variant: Variant, architecture: str) -> bytes:
    """Compiled, or as an earlier process has compiled it."""
    from cuda.bindings import nvrtc

    digest = sha256(repr((source, variant, architecture, nvrtc.nvrtcVersion())).encode())
    for path in sorted(sources().iterdir()):
        digest.update(path.read_bytes())
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "deltarnn"
    path = folder / f"{source}-{architecture}-{digest.hexdigest()[:32]}.cubin"
    if path.exists():
        return path.read_bytes()
    code = compile_kernel(source, variant, architecture)
    with suppress(OSError):  # a home that cannot be written to: compiled anew in the next process
        write_bytes(path, code)
    return code
