"""The C library on Cortex-M: every kernel equal to the integer cells; what is counted is what was run."""

import shutil
import subprocess
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltarnn import QFormat, Quantization
from deltarnn.fixed.network import IntegerNetwork
from deltarnn.fixed.parameters import DenseWeights, NetworkParameters, RecurrentWeights
from deltarnn.hardware import cortex_m
from deltarnn.hardware.c_data import compressed, memory_type
from deltarnn.hardware.c_weights import Compressed, best_elements, columns
from deltarnn.hardware.export_c import C_FLAGS, export_c
from deltarnn.hardware.files import ExportError
from deltarnn.hardware.microcontroller import measure_c
from deltarnn.prune import column_balanced_dropout

needs_embedded = pytest.mark.skipif(not cortex_m.available(), reason=cortex_m.MISSING)
WIDE = Quantization(QFormat(8, 8), QFormat(3, 5), QFormat(2, 6))


def network(cell="GRU", inputs=8, hidden=8, layers=1, head=(5,), thx=0.125, thh=0.0625, formats=WIDE, scale=0.5):
    """Random parameters, the same at each call."""
    rng = np.random.default_rng(inputs * hidden)
    gates = 3 if cell == "GRU" else 4
    sizes = [inputs, *[hidden] * layers]

    def some(*shape):
        return rng.uniform(-scale, scale, size=shape)

    recurrent = tuple(
        RecurrentWeights(
            some(gates * hidden, size),
            some(gates * hidden, hidden),
            some(gates * hidden),
            some(gates * hidden),
            thx,
            thh,
        )
        for size in sizes[:-1]
    )
    widths = [hidden, *head]
    dense = tuple(
        DenseWeights(some(o, i), some(o), "relu" if k < len(head) - 1 else None)
        for k, (i, o) in enumerate(pairwise(widths))
    )
    return NetworkParameters(cell, recurrent, dense, quantization=formats)


def frames(inputs, steps=40, jump=0.0):
    """Slow walks; with `jump`, leaps from end to end of the format and back, whose Δ 16 bits do not hold."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(steps, inputs)).cumsum(axis=0) * 0.1
    x[::7, ::2] += jump
    x[1::7, ::2] -= jump
    x[2::7, ::2] += jump
    return x


def pruned(model, gamma=0.7, elements=8):
    """`model` with column-balanced weights (CBTD)."""

    def prune(weight):
        return column_balanced_dropout(weight, gamma, elements)

    layers = [
        replace(layer, weight_ih=prune(layer.weight_ih), weight_hh=prune(layer.weight_hh)) for layer in model.layers
    ]
    return replace(model, layers=tuple(layers))


NARROW = Quantization(QFormat(1, 7), QFormat(1, 3), QFormat(2, 4))
CASES = {
    "events": network(inputs=16),
    "odd sizes": network(inputs=3, hidden=5, layers=2, head=(3, 7)),
    "LSTM": network("LSTM", 7, 6, 2),
    "dense": network(inputs=6, hidden=7, thx=0.0, thh=0.0, head=(6, 5)),
    "dense LSTM": network("LSTM", 5, 8, 2, thx=0.0, thh=0.0),
    "one threshold 0": network(thx=0.0),
    "bytes": network("LSTM", 7, 5, formats=Quantization()),
    "dense bytes": network(thx=0.0, thh=0.0, formats=Quantization()),
    "16-bit weights": network(formats=Quantization(QFormat(6, 4), QFormat(3, 9), QFormat(2, 8), "floor")),
    "pruned": pruned(network(inputs=16, hidden=16)),
    "pruned LSTM bytes": pruned(network("LSTM", 7, 16, 2, formats=Quantization())),
    "one matrix pruned": (lambda model, sparse: replace(model, layers=(replace(model.layers[0], weight_ih=sparse),)))(
        network(inputs=16, hidden=16), pruned(network(inputs=16, hidden=16)).layers[0].weight_ih
    ),
    "pruned, odd": pruned(network(inputs=3, hidden=9, layers=2)),
    "finer biases": network(formats=Quantization(QFormat(8, 8), QFormat(11, 5), QFormat(2, 6)), scale=90.0),
    "16-bit memories": network(inputs=3, hidden=4, head=(), formats=NARROW, scale=0.3),
}
MODELS = [pytest.param(model, id=name) for name, model in CASES.items()]
LEAP = 1000.0


def test_narrow_memories_are_chosen_where_they_are_proven():
    assert memory_type(IntegerNetwork.convert(CASES["16-bit memories"])) == "int16_t"
    assert memory_type(IntegerNetwork.convert(CASES["events"])) == "int32_t"


@pytest.mark.parametrize("model", MODELS)
def test_every_kernel_is_bit_exact_here_and_clean_as_c_and_cpp(model, tmp_path):
    """Portable code, by this machine's compiler."""
    export_c(model, frames(model.layers[0].weight_ih.shape[1], jump=LEAP), tmp_path, name="net")
    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler")
    command = ["g++", "-std=c++11", *C_FLAGS[1:], "-x", "c++", "-c", "net.c", "-o", "net.o"]
    subprocess.run(command, cwd=tmp_path, check=True)


@needs_embedded
@pytest.mark.parametrize("model", MODELS)
def test_every_kernel_is_bit_exact_on_cortex_m4(model, tmp_path):
    measured(model, tmp_path, "cortex-m4")


@needs_embedded
@pytest.mark.parametrize("cpu", ["cortex-m0plus", "cortex-m7"])
@pytest.mark.parametrize("name", ["odd sizes", "dense LSTM"])
def test_other_cores_are_bit_exact(cpu, name, tmp_path):
    measured(CASES[name], tmp_path, cpu)


def measured(model, folder, cpu="cortex-m4", jump=LEAP):
    x = frames(model.layers[0].weight_ih.shape[1], jump=jump)
    result = export_c(model, x, folder, name="net")
    integers = IntegerNetwork.convert(model)
    found = measure_c(folder, "net", cpu, integers, integers.quantization.activation.to_int(x))
    assert found.state == result.figures["RAM bytes, state"]
    assert len(found.instructions) == len(x)
    assert found.flash > result.figures["flash bytes, constants"]
    return found


@needs_embedded
def test_fewer_events_are_fewer_instructions(tmp_path):
    wild, calm = (measured(CASES["events"], tmp_path / str(jump), jump=jump) for jump in (LEAP, 0.0))
    assert calm.mean < wild.mean
    assert wild.by_function.total() == wild.instructions.sum()
    assert 0 < wild.stack < 1000
    text = calm.table(50.0)
    assert f"{calm.mean:.0f} instructions per frame in the mean of 40, {calm.worst} at most" in text
    assert f"{calm.mean * 50 / 1e6:.3f} million instructions at 50.0 frames/s" in text


@needs_embedded
def test_a_wrong_weight_is_seen(tmp_path):
    export_c(CASES["events"], frames(16), tmp_path, name="net")
    source = tmp_path / "net.c"
    source.write_text(source.read_text().replace("SIGMOID_FIRST (-", "SIGMOID_FIRST (1-"))
    integers = IntegerNetwork.convert(CASES["events"])
    with pytest.raises(ExportError, match=r"cortex-m4: the C program differs from the integer cells: frame \d+"):
        measure_c(tmp_path, "net", "cortex-m4", integers, integers.quantization.activation.to_int(frames(16)))


@needs_embedded
def test_blocks_are_counted_as_instructions_are(tmp_path):
    """Against Unicorn's own hook of every instruction."""
    import unicorn

    source = tmp_path / "loop.c"
    source.write_text("int loop(int n) { volatile int s = 0; while (n-- > 0) { s += n; } return s; }\n")
    flags = [flag for flag in cortex_m.FLAGS if flag != "-Wextra"]
    program = cortex_m.cross_compile([source], "cortex-m4", ["loop"], flags)
    processor = cortex_m.Processor(program, "cortex-m4")
    seen = []
    processor._unicorn.hook_add(unicorn.UC_HOOK_CODE, lambda *_: seen.append(1))
    call = processor.call("loop", 10)
    assert call.result == 45
    assert call.instructions == len(seen) > 30
    assert set(call.by_function) == {"loop"}


def test_what_is_missing_and_misspelt_is_said(monkeypatch):
    if cortex_m.available():
        with pytest.raises(ValueError, match=r"cpu='cortex-a9': must be one of cortex-m0plus, cortex-m4, cortex-m7"):
            cortex_m.cross_compile([], "cortex-a9", ["x"])
    monkeypatch.setattr(cortex_m, "available", lambda: False)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'deltarnn\[embedded\]'"):
        cortex_m.cross_compile([], "cortex-m4", ["x"])


def test_pruned_weights_are_stored_in_their_pairs(tmp_path):
    plain, sparse = network(inputs=16, hidden=16), CASES["pruned"]
    stored = compressed(IntegerNetwork.convert(sparse))
    assert set(stored) == {"weight_ih_0", "weight_hh_0"}
    # Of 48 / 8 = 6 weights 6 - floor(6 * 0.7) = 2 are kept: 16 bytes of weights and 8 of places for 48, or less.
    assert len({each.elements for each in stored.values()}) == 1
    assert sum(each.size(1) for each in stored.values()) <= 2 * 16 * 24
    assert not compressed(IntegerNetwork.convert(plain))
    sizes = [
        export_c(model, frames(16), tmp_path, name="net").figures["flash bytes, constants"] for model in (plain, sparse)
    ]
    assert sizes[0] - sizes[1] >= 2 * 16 * (48 - 24)


@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 20), st.floats(0, 1), st.integers(0, 1000))
def test_compressed_matrices_hold_every_weight(rows, count, half, density, seed):
    rng = np.random.default_rng(seed)
    matrix = np.where(rng.random((rows, count)) < density, rng.integers(-128, 128, (rows, count)), 0)
    elements = min(2 * half, rows // 2 * 2)
    if elements == 0 or rows > 16 * elements:
        return
    stored = Compressed.of(matrix, elements)
    places = np.stack([stored.indices & 15, stored.indices >> 4], axis=1).ravel()
    rebuilt = np.zeros_like(matrix)
    for pair, (value, place) in enumerate(zip(stored.values, places, strict=True)):
        column, of_column = divmod(pair, elements * stored.length)
        rebuilt[place * elements + of_column % elements, column] += value
    assert np.array_equal(rebuilt, matrix)
    best = best_elements([matrix], 1)
    if best:
        assert Compressed.of(matrix, best).size(1) < columns(matrix).size
