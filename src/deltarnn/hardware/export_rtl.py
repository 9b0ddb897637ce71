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
from deltarnn.fixed.network import IntegerNetwork
from deltarnn.fixed.parameters import UnsupportedModelError
from deltarnn.fixed.qformat import QFormat
from deltarnn.hardware.core_layout import CoreLayout, default_shape
from deltarnn.hardware.core_package import accumulator_bits, core_layout, package_text, stored_table
from deltarnn.hardware.files import ExportError, from_hex, to_hex, write_text
from deltarnn.hardware.rtl_target import check_room

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
IMAGES = ("weights.hex", "biases.hex", "sigmoid.hex", "tanh.hex")
STIMULUS, EXPECTED = "stimulus.hex", "expected.hex"
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
    weight_words, weight_bits: weights.hex has a word of lanes · weight_bits a line.
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
    cell: str
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
    activation: str
    score_fraction_bits: int
    thresholds: tuple[tuple[int, int], ...]
    sizes: dict[str, int]

    @property
    def layout(self) -> CoreLayout:
        """Where everything lies."""
        return CoreLayout(
            self.cell,  # type: ignore[arg-type]
            self.input_size,
            self.hidden_sizes,
            self.head_sizes,
            self.lanes,
            self.encoder_width,
            self.activation_pipes,
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
        return _read_image(text, self.lanes, self.weight_bits)

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
) -> RtlDesign:
    """Write the design of `network` to `folder`.

    stimulus: (T, I) real features. Written: the fixed modules (*.sv), core_config.sv (the one generated package),
    images (weights.hex, biases.hex, sigmoid.hex, tanh.hex), the bench (delta_core_bench.sv and .cpp) with stimulus.hex
    and expected.hex (scores of `deltarnn.fixed`), and design.json. Not the README, constraints or board tops.

    encoder_width, activation_pipes: None chooses them for the target.

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
    _check_formats(network)
    width, pipes = default_shape(lanes, target)
    layout = core_layout(network, lanes, encoder_width or width, activation_pipes or pipes)
    check_room(network, layout, target)
    models = MODELS.get(target, ())
    q, images = network.quantization, memory_images(network, layout)
    x = q.activation.to_int(stimulus, q.rounding)
    expected = network.run(stimulus).output[:, 0]
    texts = {
        PACKAGE: package_text(network, layout),
        **{f"{name}.sv": _module_text(name, target) for name in MODULES},
        **{name: (sources() / name).read_text(encoding="utf-8") for name in (*BENCH, *models)},
        **{name: _image_text(values, bits) for name, (values, bits) in images.items()},
        STIMULUS: _lines(to_hex(x, q.activation.bits)),
        EXPECTED: _lines(to_hex(expected, SCORE_BITS)),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    design = RtlDesign(
        folder=folder,
        target=target,
        top=TOP,
        sources=(PACKAGE, *(f"{name}.sv" for name in MODULES)),
        models=models,
        images=IMAGES,
        cell=layout.cell,
        input_size=layout.input_size,
        hidden_sizes=layout.hidden_sizes,
        head_sizes=layout.head_sizes,
        lanes=lanes,
        encoder_width=layout.width,
        activation_pipes=layout.pipes,
        output_size=network.output_size,
        input_bits=q.activation.bits,
        output_bits=SCORE_BITS,
        weight_words=layout.weight_words,
        weight_bits=q.weight.bits,
        activation=str(q.activation),
        score_fraction_bits=network.score_fraction_bits,
        thresholds=tuple((layer.thx, layer.thh) for layer in network.layers),
        sizes=memory_sizes(network, layout),
    )
    record = {field.name: getattr(design, field.name) for field in dataclasses.fields(design) if field.name != "folder"}
    write_text(folder / DESIGN_FILE, json.dumps(record, indent=2) + "\n")
    _verify(design, images, x, expected)
    return design


def memory_images(network: IntegerNetwork, layout: CoreLayout) -> dict[str, tuple[IntArray, int]]:
    """The contents of the memories: integers (words, values per word), first lane first, and bits of a value."""
    q, lanes = network.quantization, layout.lanes
    matrices = {(i, True): layer.weight_hh for i, layer in enumerate(network.layers)}
    matrices |= {(i, False): layer.weight_ih for i, layer in enumerate(network.layers)}
    matrices |= {(len(network.layers) + i, False): dense.weight for i, dense in enumerate(network.head)}
    columns = []
    for part in layout.parts:
        matrix = matrices[part.layer, part.hidden]
        padded = np.pad(matrix, ((0, -len(matrix) % lanes), (0, 0)))
        columns.append(padded.T.reshape(-1, lanes))
    starts = []
    biases = [layer.memory for layer in network.layers] + [dense.bias for dense in network.head]
    for start, core in zip(biases, layout.layers, strict=True):
        memory = np.zeros((core.accumulator_words, lanes), dtype=np.int64)
        memory.ravel()[: core.rows] = start[: core.rows]
        if core.kind == "GRU":
            row = core.apart_row + core.apart_offset * lanes
            memory.ravel()[row : row + core.units] = start[core.rows :]
        starts.append(memory)
    sigmoid, tanh = (stored_table(table)[1] for table in network.layers[0].tables)
    return {
        "weights.hex": (np.concatenate(columns), q.weight.bits),
        "biases.hex": (np.concatenate(starts).reshape(-1, 1), accumulator_bits(network)),
        "sigmoid.hex": (sigmoid[:, None], q.gate.bits),
        "tanh.hex": (tanh[:, None], q.gate.bits),
    }


def memory_sizes(network: IntegerNetwork, layout: CoreLayout) -> dict[str, int]:
    """Bits of every memory."""
    q, acc = network.quantization, accumulator_bits(network)
    word = layout.width * q.activation.bits
    entries = sum(len(stored_table(table)[1]) for table in network.layers[0].tables)
    return {
        "weight bits": layout.weight_words * layout.lanes * q.weight.bits,
        "signal bits": layout.signal_words * word,
        "held bits": layout.held_words * word,
        "accumulator bits": 2 * layout.accumulator_words * layout.lanes * acc,
        "bias bits": layout.accumulator_words * layout.lanes * acc,
        "state bits": layout.state_words * layout.pipes * q.activation.bits,
        "table bits": layout.pipes * entries * q.gate.bits,
        "accumulator width": acc,
    }


def sources() -> Path:
    """Where the fixed modules are: in the package, or in the repository in an editable install."""
    installed = Path(__file__).parents[1] / "rtl"
    return installed if installed.exists() else Path(__file__).parents[3] / "rtl"


def _check_formats(network: IntegerNetwork) -> None:
    q = network.quantization
    for name in ("activation", "weight", "gate"):
        form = getattr(q, name)
        if not 2 <= form.bits <= MAX_BITS:
            raise UnsupportedModelError(f"{name} format {form}: DeltaCore takes 2 to {MAX_BITS} bits")


def _module_text(name: str, target: str) -> str:
    file = "weight_memory_ice40" if (name, target) == ("weight_memory", "ice40") else name
    return (sources() / f"{file}.sv").read_text(encoding="utf-8")


def _lines(words: Iterable[str]) -> str:
    return "\n".join(words) + "\n"


def _image_text(values: IntArray, bits: int) -> str:
    """One word a line: the values of a row, the first in the lowest bits."""
    mask, digits = (1 << bits) - 1, -(-bits * values.shape[1] // 4)
    words = (sum((int(v) & mask) << (bits * i) for i, v in enumerate(row)) for row in values)
    return _lines(f"{word:0{digits}x}" for word in words)


def _read_image(text: str, lanes: int, bits: int) -> IntArray:
    """Read back `_image_text`."""
    mask, sign = (1 << bits) - 1, 1 << (bits - 1)
    words = [int(line, 16) for line in text.split()]
    values = [[((word >> (bits * i) & mask) ^ sign) - sign for i in range(lanes)] for word in words]
    return np.array(values, dtype=np.int64)


def _verify(design: RtlDesign, images: dict[str, tuple[IntArray, int]], x: IntArray, expected: IntArray) -> None:
    read = RtlDesign.read(design.folder)
    same = read == design and np.array_equal(read.stimulus(), x) and np.array_equal(read.expected(), expected)
    for name, (values, bits) in images.items():
        text = (design.folder / name).read_text(encoding="utf-8")
        same = same and np.array_equal(_read_image(text, values.shape[1], bits), values)
    if not same:
        raise ExportError(f"{design.folder}: what was read back differs from what was written")


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
