"""Exports: the documented layouts, what is read back, and the C library run against the integer cells."""

import json
import shlex
import shutil
import subprocess
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from deltarnn import DeltaGRU, DeltaLSTM, QFormat, Quantization
from deltarnn.fixed.network import IntegerNetwork
from deltarnn.fixed.parameters import RecurrentWeights
from deltarnn.hardware import EdgeDRNN, NetworkParameters, Spartus, UnsupportedModelError
from deltarnn.hardware.compilers import MissingToolError, find_compiler
from deltarnn.hardware.export_c import compile_and_run, export_c, read_constants
from deltarnn.hardware.export_edgedrnn import export_edgedrnn, read_weight_image, weight_image
from deltarnn.hardware.export_hex import export_hex, read_tensor_hex
from deltarnn.hardware.export_spartus import export_spartus, read_layer
from deltarnn.hardware.files import ExportError, from_hex, to_hex
from deltarnn.hardware.stimulus import choose_stimulus
from deltarnn.prune import column_balanced_dropout

needs_compiler = pytest.mark.skipif(not find_compiler(), reason="no C compiler")


class Classifier(nn.Module):
    def __init__(self, cell, layers=1, extra=0, **options):
        super().__init__()
        torch.manual_seed(1)
        self.rnn = cell(5, 16, layers, **{"thx": 0.125, "thh": 0.0625, "quantization": Quantization()} | options)
        sizes = [16, extra, 4] if extra else [16, 4]
        linears = [nn.Linear(i, o) for i, o in pairwise(sizes)]
        self.head = nn.Sequential(*[m for linear in linears for m in (nn.ReLU(), linear)][1:])


def parameters(*arguments, amplitude=1.0, **options):
    model = Classifier(*arguments, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(amplitude)
    return NetworkParameters.of(model)


def stimulus(steps=80, seed=0):
    return np.random.default_rng(seed).normal(size=(steps, 5)).cumsum(axis=0) * 0.5


C_CASES = [
    parameters(DeltaGRU),
    parameters(DeltaLSTM),
    parameters(DeltaGRU, 2, 8),
    parameters(DeltaLSTM, 3, 8, hard_activations=True),
    parameters(DeltaGRU, quantization=Quantization(rounding="floor"), amplitude=4),
    parameters(DeltaLSTM, quantization=Quantization(QFormat(5, 9), QFormat(2, 8), QFormat(2, 9)), amplitude=6),
    parameters(DeltaGRU, 2, quantization=Quantization(QFormat(8, 8), QFormat(1, 7), QFormat(2, 4)), amplitude=3),
    parameters(DeltaGRU, quantization=Quantization(QFormat(2, 6), QFormat(1, 5), QFormat(2, 2), "floor"), amplitude=9),
    parameters(DeltaLSTM, 2, thx=0.0, thh=0.0, quantization=Quantization(QFormat(3, 9), QFormat(1, 7), QFormat(2, 3))),
    NetworkParameters.of(DeltaGRU(5, 16, 2, quantization=Quantization())),
]


@needs_compiler
@pytest.mark.parametrize("model", C_CASES)
def test_the_c_library_compiles_without_warnings_and_runs_bit_exact(model, tmp_path):
    """Every cell, head, format and rounding; weights large enough to saturate. The figures are the compiler's."""
    result = export_c(model, stimulus(), tmp_path)
    assert result.figures["flash bytes, code and constants"] > result.figures["flash bytes, constants"]
    assert result.figures["RAM bytes, static"] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(result.files)


CPP = """
#include "net.h"
int main() {
    static net_state state;
    const int8_t frame[NET_INPUTS] = {1, 2, 3, 4, 5};
    int32_t output[NET_OUTPUTS];
    net_reset(&state);
    net_step(&state, frame, output);
    return output[0] == EXPECTED ? 0 : 1;
}
"""


@needs_compiler
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_cpp_programs_link_the_c_library(tmp_path):
    export_c(C_CASES[0], stimulus(), str(tmp_path), name="net")
    frame = C_CASES[0].quantization.activation.to_float(np.arange(1, 6))
    expected = IntegerNetwork.convert(C_CASES[0]).run(frame[None]).output[0, 0, 0]
    (tmp_path / "main.cpp").write_text(CPP.replace("EXPECTED", str(expected)))
    subprocess.run([*find_compiler(), "-std=c99", "-c", "net.c"], cwd=tmp_path, check=True)
    command = ["g++", "-std=c++11", "-Wall", "-Wextra", "-Werror", "main.cpp", "net.o", "-o", "main"]
    subprocess.run(command, cwd=tmp_path, check=True)
    subprocess.run([tmp_path / "main"], check=True)


@needs_compiler
def test_the_header_describes_the_network_and_compiles_whatever_the_names(tmp_path):
    labels = ["_silence_", "yes", "*/ int x; /*", "nö\\"]
    export_c(C_CASES[2], stimulus(10), tmp_path, name="net", labels=labels, features={"n_filt": 5, "f_spacing": "mel"})
    text = (tmp_path / "net.h").read_text(encoding="utf-8")
    for line in (
        "Network     DeltaGRU, 5 inputs, 16 and 16 units, then 8 dense, then 4 dense",
        "Formats     activations Q3.5, weights Q1.7, gates Q2.6, rounding nearest",
        "Thresholds  layer 0: inputs 0.125, hidden state 0.0625; layer 1: inputs 0.125, hidden state 0.0625",
        "Outputs     0 _silence_, 1 yes, 2 * / int x; / *, 3 nö/",
        "Features    n_filt=5, f_spacing=mel",
        "        net_step(&state, frame, output);   // the largest score is the answer",
    ):
        assert f" * {line}\n" in text


@needs_compiler
def test_the_c_test_program_sees_one_wrong_weight(tmp_path):
    export_c(C_CASES[0], stimulus(), tmp_path)
    source = tmp_path / "delta_network.c"
    text = source.read_text()
    start = text.index("weight_hh_0[768] ALIGNED = {\n") + len("weight_hh_0[768] ALIGNED = {\n")
    value, rest = text[start:].split(",", 1)
    source.write_text(f"{text[:start]}{int(value) ^ 64},{rest}")
    with pytest.raises(ExportError, match=r"differs from the integer cells: frame \d+, output \d"):
        compile_and_run(tmp_path, "delta_network", find_compiler())


@needs_compiler
def test_the_state_size_is_what_the_compiler_makes_of_it(tmp_path):
    for model in C_CASES[3:6]:
        result = export_c(model, stimulus(10), tmp_path, name="net")
        command = [*find_compiler(), "-std=c99", "net.c", "net_test.c", "-o", "test"]
        subprocess.run(command, cwd=tmp_path, check=True)
        printed = subprocess.run([tmp_path / "test"], capture_output=True, text=True, check=True).stdout
        assert printed == f"10 frames equal; state {result.figures['RAM bytes, state']} bytes\n"


def test_int8_sources_hold_no_floating_point_and_no_allocation(tmp_path):
    export_c(C_CASES[2], stimulus(), tmp_path)
    text = "".join((tmp_path / f"delta_network{suffix}").read_text() for suffix in (".c", ".h"))
    code = "\n".join(line.split("/*")[0] for line in text.splitlines() if not line.lstrip().startswith(("/*", "*")))
    for word in ("float", "double", "malloc", "alloc(", ".0"):
        assert word not in code
    constants = read_constants(text)
    network = IntegerNetwork.convert(C_CASES[2])
    assert np.array_equal(constants["weight_hh_1"].reshape(16, 48).T, network.layers[1].weight_hh)


def test_models_that_32_bits_cannot_hold_are_refused(tmp_path):
    wide = Quantization(QFormat(3, 13), QFormat(1, 7), QFormat(2, 14))
    with pytest.raises(UnsupportedModelError, match=r"sums inside layer 0 can reach \d+: 32 bits hold 2147483647"):
        export_c(parameters(DeltaGRU, thx=0.0, thh=0.0, quantization=wide), stimulus(), tmp_path)
    # M fits, but not its distance from the first entry of a table.
    weights, biases = np.zeros((4, 3)), np.array([127.0, 0, 0, 0])
    weights[0] = -32767, -32767, -1
    layer = RecurrentWeights(weights, np.zeros((4, 1)), biases, np.zeros(4), 0.1, 0.1)
    coarse = Quantization(QFormat(8, 8), QFormat(16, 0), QFormat(2, 6))
    with pytest.raises(UnsupportedModelError, match=r"sums inside layer 0 can reach 2147516224"):
        export_c(NetworkParameters("LSTM", (layer,), ()), np.full((3, 3), -128.0), tmp_path, coarse)
    with pytest.raises(UnsupportedModelError, match=r"weight format Q1.17: the C library stores at most 16 bits"):
        export_c(C_CASES[0], stimulus(), tmp_path, Quantization(QFormat(3, 5), QFormat(1, 17)))
    with pytest.raises(ValueError, match=r"name='Big Net'"):
        export_c(C_CASES[0], stimulus(), tmp_path, name="Big Net")
    assert not list(tmp_path.iterdir())


def gru_for_edgedrnn(inputs=5, hidden=16):
    torch.manual_seed(0)
    module = DeltaGRU(inputs, hidden, 2, thx=0.125, thh=0.0625)
    with torch.no_grad():
        module.bias_hh_l0.zero_()
        module.bias_hh_l1.zero_()
    return NetworkParameters.of(module)


def test_the_edgedrnn_image_follows_its_layout():
    """Byte of layer l, column k, row r = base + 3H·k + r; bias, inputs padded to 8, hidden units."""
    layers = EdgeDRNN().integers(gru_for_edgedrnn()).layers
    image = np.frombuffer(weight_image(layers), np.int8)
    columns = (1 + 8 + 16, 1 + 16 + 16)
    assert len(image) == 48 * sum(columns)
    base = 0
    for (weight_ih, weight_hh, bias), inputs, width in zip(layers, (5, 16), columns, strict=True):
        for row in (0, 7, 21, 47):
            assert image[base + row] == bias[row]
            assert image[base + 48 * inputs + row] == weight_ih[row, inputs - 1]
            assert image[base + 48 * (width - 16) + row] == weight_hh[row, 0]
            assert image[base + 48 * (width - 1) + row] == weight_hh[row, 15]
        base += 48 * width
    assert not image[48 * 6 : 48 * 9].any()  # the padding of inputs 5 to 7


def test_edgedrnn_files_rebuild_the_network(tmp_path):
    model, x = gru_for_edgedrnn(), stimulus()
    result = export_edgedrnn(model, x, tmp_path)
    registers = json.loads((tmp_path / "registers.json").read_text())
    assert registers["threshold_x"] == {"value": 32, "bits": 10, "unit": "1/256"}
    assert registers["layers"][1]["base_address"] == 48 * 25
    assert result.figures["weight memory bytes"] == (tmp_path / "weights.bin").stat().st_size
    first = (tmp_path / "weights.hex").read_text().split()[0]
    bias = EdgeDRNN().integers(model).layers[0][2]
    assert bytes.fromhex(first)[::-1] == bias[:8].astype(np.int8).tobytes()  # row 0 in the lowest byte
    assert len((tmp_path / "expected.hex").read_text().split()) == 80 * 16
    assert from_hex((tmp_path / "stimulus.hex").read_text().split(), 16)[5] == QFormat(8, 8).to_int(x[1, 0])


def test_a_wrong_image_is_noticed():
    image = weight_image(EdgeDRNN().integers(gru_for_edgedrnn()).layers)
    with pytest.raises(ExportError, match=r"has 2785 bytes: its layers take 2784"):
        read_weight_image(image + b"\0", 5, [16, 16])
    with pytest.raises(ExportError, match="ends at byte 2783"):
        read_weight_image(image[:-1], 5, [16, 16])


def pruned_lstm(gamma=0.75):
    model = Classifier(DeltaLSTM, 2)
    with torch.no_grad():
        for name, weight in model.rnn.named_parameters():
            if name.startswith("weight"):
                weight.copy_(column_balanced_dropout(weight, gamma, 8))
    return NetworkParameters.of(model)


def test_spartus_files_hold_the_columns_of_each_array(tmp_path):
    model, spartus = pruned_lstm(), Spartus(num_pe=8, num_arrays=4)
    result = export_spartus(model, stimulus(), tmp_path, spartus, weight_sparsity=0.75)
    network = IntegerNetwork.convert(model)
    for index, layer in enumerate(network.layers):
        matrix = np.concatenate([layer.weight_ih, layer.weight_hh], axis=1)
        assert np.array_equal(read_layer(tmp_path, index, 8), matrix)
    assert json.loads((tmp_path / "spartus.json").read_text())["layers"][0]["blen"] == 2
    # Column 6 is array 2's second; BLEN is 2, so it has lines 2 and 3; LIDX takes 3 bits, a word 11: 3 digits.
    lines = (tmp_path / "layer0_array2.hex").read_text().split()[2:4]
    column = np.concatenate([network.layers[0].weight_ih, network.layers[0].weight_hh], axis=1)[:, 6]
    for pe in range(8):
        words = [int(line[24 - 3 * (pe + 1) : 24 - 3 * pe], 16) for line in lines]
        rebuilt = np.zeros(8, dtype=int)
        for word in words:
            rebuilt[word & 7] += np.int64(word >> 3).astype(np.int8)
        assert np.array_equal(rebuilt, column[pe::8])
    assert result.figures["weight memory bytes"] == (21 + 32) * 8 * 2 * 11 // 8


def test_spartus_export_refuses_weights_that_are_not_sparse_enough(tmp_path):
    spartus = Spartus(num_pe=8)
    with pytest.raises(UnsupportedModelError, match=r"keeps 8 of 8 weights.*sparsity 0.75 allows 2.*--cbtd 1"):
        export_spartus(parameters(DeltaLSTM), stimulus(), tmp_path, spartus, weight_sparsity=0.75)
    export_spartus(parameters(DeltaLSTM), stimulus(), tmp_path, spartus)
    with pytest.raises(UnsupportedModelError, match="hidden_size=16: Spartus needs a multiple of its 64"):
        export_spartus(parameters(DeltaLSTM), stimulus(), tmp_path)


@pytest.mark.parametrize("model", [C_CASES[2], C_CASES[5]])
def test_hex_files_are_column_major(model, tmp_path):
    x = stimulus(12)
    export_hex(model, x, tmp_path)
    network = IntegerNetwork.convert(model)
    bits = network.quantization.weight.bits
    lines = (tmp_path / "weight_hh_l0.hex").read_text().split()
    weight = network.layers[0].weight_hh
    assert from_hex(lines[:3], bits).tolist() == weight[:3, 0].tolist()  # down the first column
    assert from_hex(lines[-1:], bits)[0] == weight[-1, -1]
    expected = network.run(x).output[:, 0]
    assert np.array_equal(read_tensor_hex(tmp_path / "expected.hex", expected.shape, 32), expected)
    assert json.loads((tmp_path / "tensors.json").read_text())["weight_ih_l0"]["format"] == str(
        network.quantization.weight
    )


@given(st.lists(st.integers(-(2**11), 2**11 - 1), min_size=1))
def test_hex_words_are_two_s_complement(values):
    assert from_hex(to_hex(values, 12), 12).tolist() == values


def test_words_that_do_not_fit_are_refused():
    assert to_hex([-1, 255], 8) == ["ff", "ff"]
    with pytest.raises(ValueError, match="from 0 to 256 do not fit in words of 8 bits"):
        to_hex([0, 256], 8)


def test_the_stimulus_is_the_part_asked_for():
    x = stimulus(30)
    assert np.array_equal(choose_stimulus(x, 10, 5), x[10:15])
    with pytest.raises(ValueError, match=r"--stim_head 1000 --stim_len 1000 asks for frame 1999, but only 30 were"):
        choose_stimulus(x, 1000, 1000)
    with pytest.raises(ValueError, match="--stim_len 0"):
        choose_stimulus(x, 0, 0)


def test_a_stimulus_that_nobody_asked_for_is_what_there_is():
    x = stimulus(30)
    assert np.array_equal(choose_stimulus(x), x)
    assert np.array_equal(choose_stimulus(x, 10), x[10:])
    assert np.array_equal(choose_stimulus(x, None, 20), x[10:])
    with pytest.raises(ValueError, match="--stim_head 30 --stim_len 1 asks for frame 30, but only 30 were"):
        choose_stimulus(x, 30)
    long = np.arange(2500.0)[:, None]
    assert np.array_equal(choose_stimulus(long), long[1000:2000])
    assert np.array_equal(choose_stimulus(long[:1500]), long[500:1500])


@needs_compiler
def test_the_compiler_that_the_environment_names_is_taken_with_its_arguments(tmp_path, monkeypatch):
    wrapper, log = tmp_path / "wrapper", tmp_path / "log"
    wrapper.write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec "$@"\n')
    wrapper.chmod(0o755)
    command = [str(wrapper), *find_compiler(), "-Wshadow"]
    monkeypatch.chdir(tmp_path)
    for variable in ("CC", "CXX"):
        monkeypatch.setenv(variable, shlex.join(["./wrapper", *command[1:]]))
        assert find_compiler(variable) == command
    export_c(C_CASES[0], stimulus(), tmp_path / "out")
    assert all("-Wshadow -std=c99" in line for line in log.read_text().splitlines())
    monkeypatch.setenv("CC", "absent gcc")
    with pytest.raises(MissingToolError, match=r"^CC=absent gcc: there is no absent; correct CC, or unset it$"):
        export_c(C_CASES[0], stimulus(), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_missing_compiler_is_said(tmp_path, monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(shutil, "which", lambda *_: None)
    notes = export_c(C_CASES[0], stimulus(), tmp_path).notes
    assert notes == ("no C compiler found (CC, cc, gcc, clang): constants compared, program not run",)
