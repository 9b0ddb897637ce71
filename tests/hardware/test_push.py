"""The exported spotter in C against its twin in Python, sample for sample; misuse; several instances; sanitizers."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from tests.kws.spotter.conftest import FORMATS, noise, save_random_model

from deltarnn.engine import load_model
from deltarnn.engine.model_file import read_quantization
from deltarnn.fixed.parameters import NetworkParameters
from deltarnn.fixed.spotter import IntegerStream
from deltarnn.hardware import cortex_m
from deltarnn.hardware.compilers import find_compiler
from deltarnn.hardware.export_c import C_FLAGS, export_c
from deltarnn.hardware.measured_push import measure_push
from deltarnn.kws.spotter import DeviceSpotter

pytestmark = pytest.mark.skipif(not find_compiler(), reason="no C compiler")

LISTEN = """
#include "net.h"
#include <stdio.h>
#include <stdlib.h>

/* Samples from standard input, in pieces of argv[1], … in turn; per frame the sums, per detection what it is. */
int main(int count, char **arguments)
{
    static net_state state, other;
    static int16_t samples[1000000];
    int32_t total = (int32_t)fread(samples, 2, 1000000, stdin), at = 0, turn = 0, k;
    uint64_t frames = 0;
    net_reset(&state);
    net_reset(&other);
    while (at < total) {
        int32_t piece = atoi(arguments[1 + turn++ % (count - 1)]);
        piece = piece < total - at ? piece : total - at;
        while (piece > 0) {
            const net_detection found = net_push(&state, samples + at, piece);
            at += found.taken;
            piece -= found.taken;
            if (state.frames != frames && state.frames == frames + 1) {
                for (k = 0; k < NET_KEYWORDS; ++k) {
                    printf("%ld ", (long)(state.sums[k] - NET_SCORE_OFFSET));
                }
                printf("\\n");
            }
            frames = state.frames;
            if (found.word >= 0) {
                printf("! %ld %ld %ld\\n", (long)found.word, (long)found.score, (long)found.time);
            }
            if (turn % 3 == 0) {
                net_push(&other, samples + (at / 2), piece / 2); /* a stream beside it changes nothing */
            }
        }
    }
    return 0;
}
"""

MISUSE = """
#include "net.h"
#include <string.h>

int main(void)
{
    static net_state state, before;
    static int16_t samples[4000];
    uint32_t seed = 1;
    long n;
    net_reset(&state);
    net_push(&state, samples, 700);
    memcpy(&before, &state, sizeof state);
    if (net_push(&state, samples, 0).taken != 0 || net_push(&state, samples, -5).taken != 0
        || net_push(&state, 0, 9).taken != 9 || net_push(0, samples, 9).taken != 9 || net_push(0, 0, -1).word != -1
        || memcmp(&before, &state, sizeof state) != 0) {
        return 1;
    }
    for (n = 0; n < SAMPLES;) { /* noise of all levels in pieces of 1 to 4000 */
        int32_t i, count = 1 + (int32_t)((seed >> 8) % (n % 5 ? 4000u : 7u));
        const int16_t *next = samples;
        for (i = 0; i < count; ++i) {
            seed = seed * 1664525u + 1013904223u;
            samples[i] = (int16_t)((int32_t)(seed >> 16) - 32768);
            if (n / 50000 % 3 != 0) {
                samples[i] = (int16_t)(n / 50000 % 3 == 1 ? samples[i] / 512 : samples[i] > 0 ? 32767 : -32768);
            }
        }
        n += count;
        while (count > 0) {
            const net_detection found = net_push(&state, next, count);
            next += found.taken;
            count -= found.taken;
        }
    }
    return state.frames < (uint64_t)(SAMPLES / NET_HOP - 3);
}
"""

CASES = {
    "default": {},
    "default, frames that overlap, fixed point": {"frame_size": 0.032, "quantization": FORMATS},
    "gaps between frames": {"frame_stride": 0.02, "frame_size": 0.016, "nfft": 512, "f_spacing": "log"},
    "long FFT of a fold": {"frame_size": 0.05, "nfft": 1024, "cell": "LSTM"},
    "mel": {"feat_type": "logmel", "n_filt": 32, "pool_bands": 2, "frame_size": 0.03, "frame_stride": 0.01},
    "levels": {"log_feat": False, "norm_feat": False, "nfft": 2048},
    "band-passes": {"feat_type": "iir", "freq_high": 6500.0, "quantization": FORMATS},
    "band-passes without a microphone": {
        "feat_type": "iir", "freq_high": 6500.0, "sim_mic": False, "logf": "lut", "frame_size": 0.01, "ch_orders": 3,
    },
}  # fmt: skip


def exported(folder: Path, **options) -> DeviceSpotter:
    """A random model's spotter, and the library `net` of it in the folder."""
    save_random_model(folder / "m.safetensors", **options)
    spotter = DeviceSpotter.load(folder / "m.safetensors", threshold=0.5)
    tensors, header = load_model(folder / "m.safetensors")
    parameters = NetworkParameters.from_model_file(tensors, header, read_quantization(header))
    export_c(parameters, np.zeros((5, 16)), folder, name="net", spotter=spotter.integers)
    return spotter


def built(folder: Path, program: str, *flags: str, compiler: str | None = None) -> str:
    (folder / "main.c").write_text(program)
    command = [compiler] if compiler else find_compiler()
    command += ["-std=c99", "-O2", *flags, "main.c", "net.c", "-o", "main"]
    subprocess.run(command, cwd=folder, check=True)
    return str(folder / "main")


def heard(program: str, audio: np.ndarray, *pieces: int) -> tuple[list[list[int]], list[tuple[int, ...]]]:
    out = subprocess.run([program, *map(str, pieces)], input=audio.tobytes(), capture_output=True, check=True).stdout
    lines = out.decode().splitlines()
    sums = [[int(v) for v in line.split()] for line in lines if not line.startswith("!")]
    return sums, [tuple(map(int, line[2:].split())) for line in lines if line.startswith("!")]


@pytest.mark.parametrize("case", CASES)
def test_every_score_and_detection_is_the_twins(case, tmp_path):
    spotter = exported(tmp_path, **CASES[case]).integers
    audio = noise(7, 12_000 if "band" in case else 60_000)
    step = IntegerStream(spotter).accept(audio)
    sums, detections = heard(built(tmp_path, LISTEN), audio, 1, 100, 37, spotter.front_end.hop)
    assert sums == step.sums.tolist()
    front = spotter.front_end
    assert detections == [(p.keyword + 2, p.score, p.frame * front.hop + front.length) for p in step.peaks]
    assert detections or case != "default"


def test_no_detection_is_lost_in_a_long_piece(tmp_path):
    spotter, audio = exported(tmp_path).integers, noise(3, 160_000)
    program = built(tmp_path, LISTEN)
    _, detections = heard(program, audio, len(audio))
    assert len(detections) > 2
    assert detections == heard(program, audio, 262)[1]
    assert len(detections) == len(IntegerStream(spotter).accept(audio).peaks)


def sanitizer(folder: Path) -> list[str]:
    flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    (folder / "probe.c").write_text("int main(void) { return 0; }")
    command = [*find_compiler(), *flags, "probe.c", "-o", "probe"]
    if subprocess.run(command, cwd=folder, capture_output=True).returncode:
        pytest.skip("the compiler has no sanitizers")
    return flags


@pytest.mark.parametrize("options", [{}, {"feat_type": "iir", "freq_high": 6500.0}], ids=["log filter bank", "iir"])
def test_misuse_and_noise_of_all_levels_under_the_sanitizers(options, tmp_path):
    exported(tmp_path, **options)
    flags = sanitizer(tmp_path)
    subprocess.run([built(tmp_path, MISUSE, *flags, "-DSAMPLES=400000L")], check=True)


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_the_library_is_cpp_too(tmp_path):
    exported(tmp_path)
    flags = [flag for flag in C_FLAGS if flag != "-std=c99"]
    subprocess.run(["g++", "-std=c++11", "-x", "c++", *flags, "-c", "net.c", "-o", "net.o"], cwd=tmp_path, check=True)


def test_the_library_calls_nothing(tmp_path):
    """No allocation, no floating point, no C library: at most the network's helpers of the compiler."""
    if shutil.which("nm") is None:
        pytest.skip("no nm")
    exported(tmp_path)
    source = (tmp_path / "net.c").read_text() + (tmp_path / "net.h").read_text()
    assert not {"float", "double", "malloc"} & set(source.replace("(", " ").split())
    subprocess.run([*find_compiler(), "-std=c99", "-O2", "-c", "net.c"], cwd=tmp_path, check=True)
    undefined = subprocess.run(["nm", "-u", "net.o"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert not {line.split()[-1] for line in undefined.splitlines()} - {"_GLOBAL_OFFSET_TABLE_", "memcpy", "memset"}


@pytest.mark.skipif(not cortex_m.available(), reason=cortex_m.MISSING)
@pytest.mark.parametrize("cpu", ["cortex-m0plus", "cortex-m4"])
@pytest.mark.parametrize("case", ["default", "long FFT of a fold", "band-passes"])
def test_every_score_on_a_cortex_m_is_the_twins(case, cpu, tmp_path):
    """With the DSP extension and without; what the report says is what was run."""
    spotter, count = exported(tmp_path, **CASES[case]).integers, 1_500 if "band" in case else 5_000
    measured = measure_push(tmp_path, "net", cpu, spotter, noise(11, count))  # raises where a score differs
    assert len(measured.instructions) == (count - spotter.front_end.length - 1) // spotter.front_end.hop + 1
    assert measured.by_function.total() >= measured.instructions.sum()
    assert measured.state % 8 == 0
