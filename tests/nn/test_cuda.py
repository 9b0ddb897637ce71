"""The CUDA kernels: run on a CPU, every test of the native ones too; compiled for GPUs old and new; and, where there is
a GPU, on it (pytest -m cuda).
"""

import io
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from tests.native.test_native import COMPILER
from tests.nn.cuda_on_cpu import LARGE, cuda_kernels_on_cpu
from tests.nn.sequences import CELLS, Case, cases, check_against_eager, close

from deltarnn import record_activity
from deltarnn.nn import cuda_kernels, native
from deltarnn.nn.cuda_kernels import Shape, Variant
from deltarnn.nn.cuda_passes import _layer
from deltarnn.nn.cuda_plan import GPU
from deltarnn.nn.state import LayerOptions

try:  # tests of the native kernels, for these
    from tests.nn.test_golden import test_golden  # noqa: F401
    from tests.nn.test_native import (  # noqa: F401
        test_a_fresh_state_equals_one_written_out,
        test_a_fresh_state_has_rounded_biases_under_quantisation,
        test_a_record_is_kept_where_gradients_are_wanted,
        test_chunks_equal_the_whole,
        test_gradients_are_finite_differences,
        test_layouts_of_memory,
        test_nan_shows,
        test_operators_are_well_formed,
        test_the_operator_refuses_what_does_not_fit,
        test_whole_networks_equal_eager,
    )
except pytest.skip.Exception:
    pass  # the native extension is not built

GPUS = {  # fewer and smaller multiprocessors than any, so that small layers are laid out as large ones
    "block": LARGE,
    "crowd": GPU(1, 100 * 1024, 90),
    "cluster": GPU(8, 40 * 1024, 90),
    "grid": GPU(7, 13 * 1024, 80),
    "memory": GPU(2, 11 * 1024, 80),
}
ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.fixture(autouse=True)
def on_cpu(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.node.get_closest_marker("cuda") or "nvrtc" in request.node.name:  # real ones, or none
        yield
        return
    if COMPILER is None:
        pytest.skip("no C++ compiler")
    with cuda_kernels_on_cpu(LARGE):
        yield


@pytest.mark.parametrize("gpu", GPUS)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(case=cases(most_steps=8, most_samples=5))
def test_equals_eager(gpu: str, case: Case):
    with cuda_kernels_on_cpu(GPUS[gpu]):
        check_against_eager(case, native)


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("cell", CELLS)
def test_layouts(gpu: str, cell: str):
    """Sizes that get the layout which the fake GPU is for, with and without inputs in the kernel."""
    for inputs, hidden in ((70, 64), (16, 64)):
        options = LayerOptions(0.3, 0.05, False, None)
        with cuda_kernels_on_cpu(GPUS[gpu]):
            plan = _layer(GPUS[gpu], cell == "LSTM", False, 5, inputs, hidden).forward.plan
            kind = "memory" if not plan.resident else "crowd" if plan.samples > 1 and not plan.spread else plan.scope
            assert gpu in (kind, plan.scope)
            check_against_eager(Case(cell, 6, 5, inputs, hidden, options, torch.tensor([6, 1, 4, 6, 3]), 1, 3), native)


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("cell", CELLS)
def test_a_sample_does_not_depend_on_its_batch(gpu: str, cell: str):
    torch.manual_seed(0)
    layer, x = CELLS[cell][0](6, 40, thx=0.2, thh=0.03), (torch.randn(9, 7, 6) * 0.3).cumsum(0)
    with cuda_kernels_on_cpu(GPUS[gpu]), torch.no_grad():
        whole = layer(x)[0]
        for sample in (0, 4):
            assert torch.equal(layer(x[:, sample : sample + 1])[0], whole[:, sample : sample + 1])


@pytest.mark.parametrize("cell", CELLS)
def test_recording_changes_nothing(cell: str):
    """The way past the operators, of a call whose activity nobody records, gives the same; inputs' gradients too."""
    torch.manual_seed(0)
    layer = CELLS[cell][0](5, 20, num_layers=2, bidirectional=True, thx=0.2, thh=0.03)
    x = torch.randn(9, 4, 5).cumsum(0).requires_grad_()
    plain = layer(x)[0]
    with record_activity(layer):
        recorded = layer(x)[0]
    assert torch.equal(plain, recorded)
    wanted = [x, *layer.parameters()]
    weights = torch.randn(plain.shape)
    for a, b in zip(*(torch.autograd.grad((y * weights).sum(), wanted) for y in (plain, recorded)), strict=True):
        assert torch.equal(a, b)


def test_an_output_may_be_written_into():
    torch.manual_seed(0)
    layer, x = CELLS["GRU"][0](5, 20, thx=0.2, thh=0.03), torch.randn(9, 4, 5).cumsum(0)
    expected = torch.autograd.grad(layer(x)[0].sum() * 2, list(layer.parameters()))
    y = layer(x)[0]
    y.mul_(2)
    for a, b in zip(torch.autograd.grad(y.sum(), list(layer.parameters())), expected, strict=True):
        assert close(a, b.double())


@pytest.mark.parametrize("cell", CELLS)
def test_threshold_0_is_the_dense_layer(cell: str):
    layer = CELLS[cell][0](5, 20)
    x = torch.randn(9, 4, 5)
    dense = getattr(torch.nn, cell)(5, 20)
    dense.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x)[0], dense(x)[0])
    assert layer.backend_used == f"nn.{cell} (thresholds are 0)"
    with record_activity(layer) as activity:
        assert torch.allclose(layer(x)[0], dense(x)[0], atol=1e-6)
    assert activity.sparsity < 0.1


def test_refuses_second_derivatives():
    layer, x = CELLS["GRU"][0](3, 4, thx=0.1, thh=0.1), torch.randn(2, 1, 3, requires_grad=True)
    with pytest.raises(RuntimeError, match="second derivatives"):
        torch.autograd.grad(layer(x)[0].sum(), x, create_graph=True)


LAYERS = ((False, 64, 16, 64), (False, 64, 40, 128), (True, 32, 40, 256), (False, 64, 768, 768))
ARCHITECTURES = {75: (40, 64), 80: (108, 163), 89: (128, 99), 90: (132, 227), 100: (148, 227)}


@pytest.mark.parametrize("capability", ARCHITECTURES)
def test_nvrtc_compiles_without_spills(capability: int):
    """For a multiprocessor's real limits; what ptxas reports of registers in local memory is bounded."""
    pytest.importorskip("cuda.core")
    pytest.importorskip("cuda.bindings.nvrtc")
    multiprocessors, kilobytes = ARCHITECTURES[capability]
    gpu = GPU(multiprocessors, kilobytes * 1024, capability)
    lstm, batch, inputs, hidden = LAYERS[capability % 4]
    layer = _layer(gpu, lstm, False, batch, inputs, hidden)
    for source, variant in (("forward", layer.forward.variant), ("backward", layer.backward.variant)):
        log = io.StringIO()
        code = cuda_kernels.compile_kernel(source, variant, f"sm_{capability}", logs=log)
        spilled = [int(size) for size in re.findall(r"(\d+) bytes spill stores", log.getvalue())]
        assert len(spilled) == 1
        assert spilled[0] <= 256
        assert code[:4] == b"\x7fELF"
    for team in (layer.forward, layer.backward):
        assert team.shape.shared_bytes <= gpu.shared_bytes


def test_nvrtc_compiles_what_is_no_recurrence():
    pytest.importorskip("cuda.core")
    for source, lstm in (("inputs", False), ("weights", True)):
        log = io.StringIO()
        cuda_kernels.compile_kernel(source, Variant(lstm), "sm_80", logs=log)
        assert set(re.findall(r"(\d+) bytes spill stores", log.getvalue())) == {"0"}


def test_nvrtc_code_is_kept_on_disk(tmp_path, monkeypatch):
    nvrtc = pytest.importorskip("cuda.bindings.nvrtc")
    compiled = []
    monkeypatch.setattr(nvrtc, "nvrtcVersion", lambda: (0, 13, 0))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cuda_kernels, "compile_kernel", lambda *what: compiled.append(what) or b"code")

    def of_a_new_process(architecture: str) -> bytes:
        return cuda_kernels._machine_code.__wrapped__("forward", Variant(), architecture)

    assert of_a_new_process("sm_80") == of_a_new_process("sm_80") == b"code"
    assert len(compiled) == 1
    assert [path.suffix for path in (tmp_path / "cache" / "deltarnn").iterdir()] == [".cubin"]
    of_a_new_process("sm_90")
    assert len(compiled) == 2
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert of_a_new_process("sm_80") == b"code"  # nowhere to keep it


@pytest.mark.parametrize("context", [None, 0, 16])
def test_a_thread_without_a_context_gets_one_before_it_launches(context: int | None, monkeypatch: pytest.MonkeyPatch):
    """As autograd's may be, whose first call of CUDA is a launch."""
    happened: list[str] = []

    def device_of(index: int) -> SimpleNamespace:
        return SimpleNamespace(set_current=lambda: happened.append(f"context of {index}"))

    monkeypatch.setattr(cuda_kernels, "_contexts", lambda: (lambda: (None, context), device_of))
    monkeypatch.setattr(cuda_kernels, "_launcher", lambda: lambda *_: happened.append("launch"))
    monkeypatch.setattr(cuda_kernels, "_stream", lambda handle: handle)
    monkeypatch.setattr(cuda_kernels, "_prepared", lambda *_: (None, None))
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda device: 7, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_getDevice", lambda: 0, raising=False)
    cuda_kernels.launch(0, "weights", "take_gradients", Variant(), Shape(1, 32), ())
    assert happened == [*([] if context else ["context of 0"]), "launch"]


@pytest.mark.cuda
@ON_GPU
def test_a_launch_may_be_a_threads_first_call_of_cuda():
    layer = CELLS["GRU"][0](8, 32, thx=0.1, thh=0.1, device="cuda")
    x = torch.randn(5, 3, 8, device="cuda")
    expected = layer(x)[0].detach()  # and memory for another one is there
    with ThreadPoolExecutor(1) as pool:
        assert torch.equal(pool.submit(lambda: layer(x)[0].detach()).result(), expected)


GPU_CASES = [
    Case(cell, 12, batch, inputs, hidden, LayerOptions(thx, thh, hard, None), lengths, 1, 5)
    for cell in CELLS
    for batch, inputs, hidden, thx, thh, hard, lengths in (
        (5, 16, 64, 0.3, 0.05, False, torch.tensor([12, 3, 1, 7, 12])),
        (450, 16, 64, 0.3, 0.05, False, None),
        (3, 70, 33, 0.3, 0.3, True, None),
        (7, 40, 128, 0.05, 0.05, False, None),
        (3, 40, 256, 0.3, 0.0, False, torch.tensor([4, 12, 9])),
        (70, 20, 768, 0.3, 0.3, False, None),
        (2, 9, 2200, 0.3, 0.3, False, None),
    )
]


@pytest.mark.cuda
@ON_GPU
@pytest.mark.parametrize("case", GPU_CASES, ids=lambda case: f"{case.cell}-{case.inputs}-{case.hidden}")
def test_equals_eager_on_a_gpu(case: Case):
    check_against_eager(case, native, "cuda", drawn=8)


@pytest.mark.cuda
@ON_GPU
@pytest.mark.parametrize(("inputs", "hidden"), [(16, 64), (40, 256), (100, 768)])
@pytest.mark.parametrize("cell", CELLS)
def test_captures_into_a_graph_and_repeats_itself(cell: str, inputs: int, hidden: int):
    torch.manual_seed(0)
    layer = CELLS[cell][0](inputs, hidden, thx=0.2, thh=0.03, device="cuda")
    x = (torch.randn(10, 6, inputs, device="cuda") * 0.3).cumsum(0)

    def step() -> list[torch.Tensor]:
        layer.zero_grad(set_to_none=True)
        y = layer(x)[0]
        y.square().sum().backward()
        return [y.detach(), *(parameter.grad for parameter in layer.parameters())]

    expected = step()
    assert layer.backend_used.startswith("cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for _ in range(3):
        graph.replay()
    for a, b in zip(captured, expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.cuda
@ON_GPU
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_takes_half_precision_inputs_under_autocast(dtype: torch.dtype):
    layer = CELLS["GRU"][0](8, 32, thx=0.1, thh=0.1, device="cuda")
    x = torch.randn(5, 3, 8, device="cuda").to(dtype)
    with torch.autocast("cuda", dtype):
        y = layer(x)[0]
    assert layer.backend_used.startswith("cuda")
    assert torch.equal(y.float(), layer(x.float())[0])
