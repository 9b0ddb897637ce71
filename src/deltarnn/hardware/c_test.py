"""The test program beside an exported C library: frames in, every output compared."""

import numpy as np
from numpy.typing import NDArray

from deltarnn.fixed.network import IntegerNetwork
from deltarnn.hardware.c_data import integer_type
from deltarnn.hardware.c_source import array_text


def test_text(network: IntegerNetwork, name: str, x: NDArray[np.int64], expected: NDArray[np.int64]) -> str:
    """A program that runs the vectors x (T, I) and compares with expected (T, O); it exits with 1 at a difference."""
    upper, act = name.upper(), integer_type(network.quantization.activation.bits)
    return f"""/* Test of {name}.c, generated: {len(x)} frames, every output compared. */
#include "{name}.h"

#include <stdio.h>

#define FRAMES {len(x)}

{array_text("stimulus", act, x)}

{array_text("expected", "int32_t", expected)}

int main(void)
{{
    static {name}_state state;
    int32_t output[{upper}_OUTPUTS];
    int t, i;
    {name}_reset(&state);
    for (t = 0; t < FRAMES; ++t) {{
        {name}_step(&state, stimulus + t * {upper}_INPUTS, output);
        for (i = 0; i < {upper}_OUTPUTS; ++i) {{
            if (output[i] != expected[t * {upper}_OUTPUTS + i]) {{
                printf("frame %d, output %d: %ld, expected %ld\\n", t, i, (long)output[i],
                       (long)expected[t * {upper}_OUTPUTS + i]);
                return 1;
            }}
        }}
    }}
    printf("%d frames equal; state %lu bytes\\n", FRAMES, (unsigned long)sizeof state);
    return 0;
}}
"""
