"""A whole exported spotter on a Cortex-M: samples through NAME_push, every score the twin's, instructions counted."""

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deltarnn.fixed.front_end import IntegerFrames
from deltarnn.fixed.spotter import IntegerSpotter, IntegerStream
from deltarnn.hardware.cortex_m import FLAGS, Processor, cross_compile
from deltarnn.hardware.files import ExportError, write_text
from deltarnn.hardware.microcontroller import Measured, measure_c
from deltarnn.hardware.push_test import SECONDS, test_noise

_KEPT = ("probe_reset", "probe_push", "probe_samples", "probe_sums", "probe_state")
_PROBE = """#include "{header}"
{name}_state probe_state;
int16_t probe_samples[{upper}_HOP];
int32_t probe_sums[{upper}_KEYWORDS + 1];

#if !defined(__ARM_FEATURE_CLZ) /* a compiler's helpers on cores without 64-bit products (M0+) */
uint64_t __aeabi_lmul(uint64_t a, uint64_t b);
uint64_t __aeabi_llsl(uint64_t value, int bits);

uint64_t __aeabi_lmul(uint64_t a, uint64_t b)
{{
    const uint32_t a_low = (uint32_t)a, b_low = (uint32_t)b;
    const uint32_t p = (a_low & 0xffff) * (b_low & 0xffff), q = (a_low >> 16) * (b_low & 0xffff);
    const uint32_t r = (a_low & 0xffff) * (b_low >> 16), s = (a_low >> 16) * (b_low >> 16);
    const uint32_t high = a_low * (uint32_t)(b >> 32) + (uint32_t)(a >> 32) * b_low + s;
    return ((uint64_t)high << 32) + p + ((uint64_t)q << 16) + ((uint64_t)r << 16);
}}

uint64_t __aeabi_llsl(uint64_t value, int bits)
{{
    for (; bits > 0; --bits) {{
        value += value;
    }}
    return value;
}}
#endif

void probe_reset(void)
{{
    {name}_reset(&probe_state);
}}

int32_t probe_push(int32_t from, int32_t count)
{{
    const {name}_detection found = {name}_push(&probe_state, probe_samples + from, count);
    int32_t k;
    for (k = 0; k < {upper}_KEYWORDS; ++k) {{
        probe_sums[k] = probe_state.sums[k] - {upper}_SCORE_OFFSET;
    }}
    probe_sums[{upper}_KEYWORDS] = (int32_t)probe_state.frames;
    return found.taken;
}}
"""


def measure_push(
    folder: Path,
    name: str,
    cpu: str,
    spotter: IntegerSpotter,
    samples: NDArray[np.int16],
    flags: Sequence[str] = FLAGS,
) -> Measured:
    """Run the library NAME.c in `folder`, an export of `spotter`, over samples (N,), a hop a call.

    `instructions` are those of the calls that completed a frame, its hop of samples taken included.

    Raises
    ------
    ModuleNotFoundError
        If the extra `embedded` is missing.
    ExportError
        If the code does not compile without warnings, or a score differs from the twin's by a bit.
    """
    with tempfile.TemporaryDirectory() as build:
        probe = Path(build, "probe.c")
        header = f"{(folder / name).resolve()}.h"
        write_text(probe, _PROBE.format(header=header, name=name, upper=name.upper()))
        program = cross_compile([folder / f"{name}.c", probe], cpu, _KEPT, flags)
    processor, hop = Processor(program, cpu), spotter.front_end.hop
    processor.call("probe_reset")
    sums, counted, functions = list[list[int]](), list[int](), Counter[str]()
    for start in range(0, len(samples), hop):
        piece, taken = samples[start : start + hop], 0
        processor.write("probe_samples", piece.astype("<i2").tobytes())
        instructions = 0
        while taken < len(piece):
            call = processor.call("probe_push", taken, len(piece) - taken)
            taken += call.result
            instructions += call.instructions
            functions += call.by_function
        *of_frame, frames = np.frombuffer(processor.read("probe_sums"), "<i4").tolist()
        if frames > len(sums):
            sums.append(of_frame)
            counted.append(instructions)
    expected = IntegerStream(spotter).accept(samples).sums
    if not np.array_equal(sums, expected):
        raise ExportError(f"{cpu}: the C program's scores differ from those of the twin")
    state = program.symbols["probe_state"].size
    return Measured(cpu, program.flash, state, processor.stack, np.array(counted), functions)


def measure_front_end(folder: Path, name: str, cpu: str, spotter: IntegerSpotter) -> Measured:
    """What the library takes beside its network: `measure_push` over noise, which takes as long as speech.

    instructions: of each frame, without those that `measure_c` counts of NAME_step on it. All else is the whole
    spotter's. Errors are `measure_push`'s.
    """
    noise = test_noise(SECONDS * spotter.sample_rate)
    whole = measure_push(folder, name, cpu, spotter, noise)
    frames = IntegerFrames(spotter.front_end).accept(noise)
    network = measure_c(folder, name, cpu, spotter.network, frames)
    return replace(whole, instructions=whole.instructions - network.instructions)
