"""Export to synthesisable SystemVerilog: DeltaCore around one model, with its memory images and a test bench."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deltarnn.fixed.network import IntegerNetwork

TARGETS = ("generic", "ice40", "ecp5")


@dataclass(frozen=True)
class RtlDesign:
    """A folder that `export_rtl` wrote; `RtlDesign.read(folder)` reads it back from its design.json.

    Attributes
    ----------
    folder: where it lies.
    target: "generic", "ice40" or "ecp5": which memory wrapper was copied.
    top: name of the top module, "delta_core".
    sources: SystemVerilog files in compile order, relative to `folder`, for synthesis and simulation alike.
    images: `$readmemh` files, relative to `folder`; tools must run with `folder` as their working directory.
    lanes, encoder_width, activation_pipes: P, values the encoder looks at per clock, activation pipelines.
    input_size, output_size, input_bits, output_bits: of the streams, one value a beat.
    sizes: figures by name: bits of every memory, words and width of the weights.
    """

    folder: Path
    target: str
    top: str
    sources: tuple[str, ...]
    images: tuple[str, ...]
    lanes: int
    encoder_width: int
    activation_pipes: int
    input_size: int
    output_size: int
    input_bits: int
    output_bits: int
    sizes: dict[str, int]

    @classmethod
    def read(cls, folder: str | Path) -> "RtlDesign":
        """Read design.json of a folder. ExportError names what is missing."""
        raise NotImplementedError


def export_rtl(
    network: IntegerNetwork,
    folder: str | Path,
    stimulus: NDArray[np.float64],
    lanes: int = 8,
    target: str = "generic",
    encoder_width: int | None = None,
    activation_pipes: int | None = None,
) -> RtlDesign:
    """Write the design of `network` to `folder`.

    stimulus: (T, I) real features. Written: the fixed modules (*.sv), delta_core_config.sv (the one generated package),
    images (weights.hex, biases.hex, sigmoid.hex, tanh.hex), the test bench delta_core_tb.sv with stimulus.hex and
    expected.hex (scores of `deltarnn.fixed`), and design.json. Not the README, constraints or board tops.

    encoder_width, activation_pipes: None chooses them for the target.

    Raises
    ------
    UnsupportedModelError
        For formats, sizes or lanes beyond the core, with limit and value; memories beyond the target.
    ExportError
        If what was read back differs from what was written.
    """
    raise NotImplementedError
