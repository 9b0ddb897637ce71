"""Export to synthesisable SystemVerilog: DeltaCore around one model, with its memory images and a test bench."""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltarnn.fixed.arithmetic import IntArray
from deltarnn.fixed.cells import Cell
from deltarnn.fixed.network import IntegerNetwork
from deltarnn.fixed.parameters import UnsupportedModelError
from deltarnn.fixed.qformat import QFormat
from deltarnn.hardware.core_images import IMAGES, image_text, memory_images, memory_sizes, read_image
from deltarnn.hardware.core_layout import CoreLayout, default_shape
from deltarnn.hardware.core_package import core_layout, entry_bits, package_text
from deltarnn.hardware.files import ExportError, from_hex, to_hex, write_text
from deltarnn.hardware.rtl_target import BOARDS, check_room

TARGETS = ("generic", "ice40", "ecp5")
DESIGN_FILE = "design.json"
TOP = "delta_core"
PACKAGE = "core_config.sv"
MODULES = (
    "requantize", "word_memory", "event_queue", "activation_table", "product_lane", "gru_pipe", "lstm_pipe",
    "frame_input", "delta_encoder", "product_lanes", "activation", "score_output", "threshold_registers",
    "initializer", "weight_loader", "weight_memory", "delta_core",
)  # fmt: skip
"""The fixed modules, in compile order after the package."""
BENCH = ("delta_core_bench.sv", "delta_core_bench.cpp")
MODELS = {"ice40": ("SB_SPRAM256KA.sv",)}
STIMULUS, EXPECTED = "stimulus.hex", "expected.hex"
SIMULATED, SYNTHESISED = "simulation.json", "synthesis.json"
"""Figures that simulation and synthesis leave in the folder of a design."""
LEFT_BY_SYNTHESIS = (SYNTHESISED, *(board.bitstream for board in BOARDS.values()))
MAX_BITS = 16
"""Of activations, weights and gates."""
SCORE_BITS = 32
"""Of a beat of the output stream."""


@dataclass(frozen=True)
class RtlDesign:
    """A folder that `export_rtl` wrote; `RtlDesign.read(folder)` reads it back from its design.json.

    Attributes
    ----------
    folder: where it lies.
    target: "generic", "ice40" or "ecp5": which weight memory was copied.
    top: name of the top module, "delta_core".
    sources: SystemVerilog files in compile order, relative to `folder`, for synthesis and simulation alike.
    models: what stands for a vendor's primitives in simulation.
    images: `$readmemh` files, relative to `folder`; tools must run with `folder` as their working directory.
    cell, hidden_sizes, head_sizes: units of the recurrent layers and of the dense ones.
    lanes, encoder_width, activation_pipes: P, values that the encoder looks at per clock, units that the activation
        takes at once.
    input_size, output_size, input_bits, output_bits: of the streams, one value a beat.
    weight_words, weight_bits: weights.hex has a word of lanes · weight_bits a line. stored: where zero weights are left
        out, those that a lane stores of a column, part by part; an entry then has the row in its lowest bits.
    activation, score_fraction_bits: "Q3.5", the format of frames, hidden states and thresholds; and of the scores.
    thresholds: per recurrent layer (thx, thh), stored integers.
    sizes: bits of every memory by name.
    """

    folder: Path
    target: str
    top: str
    sources: tuple[str, ...]
    models: tuple[str, ...]
    images: tuple[str, ...]
    cell: Cell
    input_size: int
    hidden_sizes: tuple[int, ...]
    head_sizes: tuple[int, ...]
    lanes: int
    encoder_width: int
    activation_pipes: int
    output_size: int
    input_bits: int
    output_bits: int
    weight_words: int
    weight_bits: int
    stored: tuple[int, ...]
    activation: str
    score_fraction_bits: int
    thresholds: tuple[tuple[int, int], ...]
    sizes: dict[str, int]

    @property
    def layout(self) -> CoreLayout:
        """Where everything lies."""
        return CoreLayout(
            self.cell,
            self.input_size,
            self.hidden_sizes,
            self.head_sizes,
            self.lanes,
            self.encoder_width,
            self.activation_pipes,
            self.stored,
        )

    @property
    def activation_format(self) -> QFormat:
        """The format of `activation`."""
        return QFormat(*map(int, self.activation.removeprefix("Q").split(".")))

    def stimulus(self) -> IntArray:
        """The frames (T, I) that the design was exported with, stored integers."""
        return self._frames(STIMULUS, self.input_bits, self.input_size)

    def expected(self) -> IntArray:
        """Their scores (T, O) by `deltarnn.fixed`, stored integers."""
        return self._frames(EXPECTED, self.output_bits, self.output_size)

    def weights(self) -> IntArray:
        """(words, lanes) the weight memory."""
        text = (self.folder / "weights.hex").read_text(encoding="utf-8")
        return read_image(text, self.lanes, self.weight_bits)

    def _frames(self, name: str, bits: int, size: int) -> IntArray:
        lines = (self.folder / name).read_text(encoding="utf-8").split()
        return from_hex(lines, bits).reshape(-1, size)

    @classmethod
    def read(cls, folder: str | Path) -> "RtlDesign":
        """Read design.json of a folder. ExportError names what is missing."""
        path = Path(folder, DESIGN_FILE)
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ExportError(f"{path} cannot be read: give a folder that `--format rtl` wrote ({error})") from None
        names = {field.name for field in dataclasses.fields(cls)} - {"folder"}
        if not isinstance(record, dict) or set(record) != names:
            raise ExportError(f"{path} is not of this version's `--format rtl`: export again")
        design = cls(Path(folder), **{name: _frozen(value) for name, value in record.items()})
        missing = [name for name in (*design.sources, *design.images) if not Path(folder, name).exists()]
        if missing:
            raise ExportError(f"{folder} lacks {', '.join(missing)}: export again")
        return design


def export_rtl(
    network: IntegerNetwork,
    folder: str | Path,
    stimulus: NDArray[np.float64],
    lanes: int = 8,
    target: str = "generic",
    encoder_width: int | None = None,
    activation_pipes: int | None = None,
    compressed: bool = False,
) -> RtlDesign:
    """Write the design of `network` to `folder`.

    stimulus: (T, I) real features. Written: the fixed modules (*.sv), core_config.sv (the one generated package),
    images (weights.hex, biases.hex, sigmoid.hex, tanh.hex), the bench (delta_core_bench.sv and .cpp) with stimulus.hex
    and expected.hex (scores of `deltarnn.fixed`), and design.json. Not the README, constraints or board tops.

    encoder_width, activation_pipes: None chooses them for the target. compressed: leave out zero weights, of an LSTM
    pruned column-balanced over as many processing elements as lanes.

    Raises
    ------
    UnsupportedModelError
        For formats, sizes or lanes beyond the core, with limit and value.
    ExportError
        If what was read back differs from what was written.
    """
    folder = Path(folder)
    if target not in TARGETS:
        raise ValueError(f"target={target!r}: must be one of {', '.join(TARGETS)}")
    width, pipes = default_shape(lanes, target)
    layout = core_layout(network, lanes, encoder_width or width, activation_pipes or pipes, compressed)
    _check_formats(network, layout)
    check_room(network, layout, target)
    models = MODELS.get(target, ())
    q, images = network.quantization, memory_images(network, layout)
    x = q.activation.to_int(stimulus, q.rounding)
    expected = network.run(stimulus).output[:, 0]
    texts = {
        PACKAGE: package_text(network, layout),
        **{f"{name}.sv": _module_text(name, target) for name in MODULES},
        **{name: (sources() / name).read_text(encoding="utf-8") for name in (*BENCH, *models)},
        **{name: image_text(values, bits) for name, (values, bits) in images.items()},
        STIMULUS: _lines(to_hex(x, q.activation.bits)),
        EXPECTED: _lines(to_hex(expected, SCORE_BITS)),
    }
    for name in (SIMULATED, *LEFT_BY_SYNTHESIS):  # of a design that was here before
        (folder / name).unlink(missing_ok=True)
    for name, text in texts.items():
        write_text(folder / name, text)
    design = _design(network, layout, folder, target)
    record = {field.name: getattr(design, field.name) for field in dataclasses.fields(design) if field.name != "folder"}
    write_text(folder / DESIGN_FILE, json.dumps(record, indent=2) + "\n")
    _verify(design, images, x, expected)
    return design


def _design(network: IntegerNetwork, layout: CoreLayout, folder: Path, target: str) -> RtlDesign:
    return RtlDesign(
        folder=folder,
        target=target,
        top=TOP,
        sources=(PACKAGE, *(f"{name}.sv" for name in MODULES)),
        models=MODELS.get(target, ()),
        images=IMAGES,
        cell=layout.cell,
        input_size=layout.input_size,
        hidden_sizes=layout.hidden_sizes,
        head_sizes=layout.head_sizes,
        lanes=layout.lanes,
        encoder_width=layout.width,
        activation_pipes=layout.pipes,
        output_size=network.output_size,
        input_bits=network.quantization.activation.bits,
        output_bits=SCORE_BITS,
        weight_words=layout.weight_words,
        weight_bits=entry_bits(network, layout),
        stored=layout.stored,
        activation=str(network.quantization.activation),
        score_fraction_bits=network.score_fraction_bits,
        thresholds=tuple((layer.thx, layer.thh) for layer in network.layers),
        sizes=memory_sizes(network, layout),
    )


def sources() -> Path:
    """Where the fixed modules are: in the package, or in the repository in an editable install."""
    installed = Path(__file__).parents[1] / "rtl"
    return installed if installed.exists() else Path(__file__).parents[3] / "rtl"


def _check_formats(network: IntegerNetwork, layout: CoreLayout) -> None:
    q = network.quantization
    for name in ("activation", "weight", "gate"):
        form = getattr(q, name)
        if not 2 <= form.bits <= MAX_BITS:
            raise UnsupportedModelError(f"{name} format {form}: DeltaCore takes 2 to {MAX_BITS} bits")
    if layout.stored and all(p.clocks == layout.layers[p.layer].groups for p in layout.parts):
        raise UnsupportedModelError(
            f"compressed: some column has no zero in one of the {layout.lanes} lanes; prune with num_pe={layout.lanes}"
        )
    if entry_bits(network, layout) > MAX_BITS:
        raise UnsupportedModelError(
            f"a weight of {q.weight} with its row takes {entry_bits(network, layout)} bits, DeltaCore's at most "
            f"{MAX_BITS}: use more lanes than {layout.lanes}, or do not compress"
        )


def _module_text(name: str, target: str) -> str:
    file = "weight_memory_ice40" if (name, target) == ("weight_memory", "ice40") else name
    return (sources() / f"{file}.sv").read_text(encoding="utf-8")


def _lines(words: Iterable[str]) -> str:
    return "\n".join(words) + "\n"


def _verify(design: RtlDesign, images: dict[str, tuple[IntArray, int]], x: IntArray, expected: IntArray) -> None:
    read = RtlDesign.read(design.folder)
    same = read == design and np.array_equal(read.stimulus(), x) and np.array_equal(read.expected(), expected)
    for name, (values, bits) in images.items():
        text = (design.folder / name).read_text(encoding="utf-8")
        same = same and np.array_equal(read_image(text, values.shape[1], bits), values)
    if not same:
        raise ExportError(f"{design.folder}: what was read back differs from what was written")


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
