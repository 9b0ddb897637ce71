"""Files for EdgeDRNN: the weight memory image in its column layout, registers, stimulus and expected output.

Weight memory, byte by byte: layers one after another; of each layer the columns

    [ bias | inputs 0..I−1, padded with zero columns to a multiple of 8 | hidden units 0..H−1 ]

each 3H bytes: int8 (Q1.7) of the rows r, u, c. Processing element p owns rows ≡ p (mod 8), so a beat of 8 bytes, row r
in byte r mod 8 from the low end, holds one weight for each.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltarnn.fixed.arithmetic import IntArray
from deltarnn.fixed.edgedrnn import ACTIVATION, edgedrnn_forward
from deltarnn.fixed.parameters import NetworkParameters
from deltarnn.hardware.edgedrnn import EdgeDRNN
from deltarnn.hardware.files import ExportError, ExportResult, from_hex, to_hex, write_bytes, write_text

BEAT = 8
"""Bytes that the memory delivers per clock, one per processing element."""

Layers = Sequence[tuple[IntArray, IntArray, IntArray]]


def weight_image(layers: Layers) -> bytes:
    """The weight memory of `layers`, (weight_ih (3H, I), weight_hh (3H, H), bias (3H,)) int8 each."""
    columns = []
    for weight_ih, weight_hh, bias in layers:
        padding = np.zeros((len(weight_ih), -weight_ih.shape[1] % BEAT), dtype=np.int64)
        columns.append(np.concatenate([bias[:, None], weight_ih, padding, weight_hh], axis=1).T.ravel())
    return np.concatenate(columns).astype(np.int8).tobytes()


def read_weight_image(
    image: bytes, input_size: int, hidden_sizes: Sequence[int]
) -> list[tuple[IntArray, IntArray, IntArray]]:
    """The layers of a weight memory. ExportError if its size is not that of the sizes given."""
    layers, offset, inputs = [], 0, input_size
    for hidden in hidden_sizes:
        padded = inputs + -inputs % BEAT
        count = 3 * hidden * (1 + padded + hidden)
        if offset + count > len(image):
            raise ExportError(f"the image ends at byte {len(image)}: its layers need at least {offset + count}")
        matrix = np.frombuffer(image, np.int8, count, offset).reshape(-1, 3 * hidden).T.astype(np.int64)
        layers.append((matrix[:, 1 : 1 + inputs], matrix[:, 1 + padded :], matrix[:, 0]))
        offset, inputs = offset + count, hidden
    if offset != len(image):
        raise ExportError(f"the image has {len(image)} bytes: its layers take {offset}")
    return layers


def export_edgedrnn(
    model: NetworkParameters, stimulus: NDArray[np.float64], folder: str | Path, accelerator: EdgeDRNN | None = None
) -> ExportResult:
    """Write weights.bin, weights.hex, stimulus.hex, expected.hex and registers.json, read them back and compare.

    weights.hex: one 64-bit beat per line, in address order. stimulus.hex: Q8.8, 16 bits, one value per line, frame
    after frame of `stimulus` (T, I). expected.hex: likewise the hidden states (T, H) of the last layer, from reset.

    Raises
    ------
    UnsupportedModelError
        If EdgeDRNN cannot hold the model.
    ExportError
        If what was read back differs from what was written.
    """
    folder = Path(folder)
    integers = (accelerator or EdgeDRNN()).integers(model)
    x = ACTIVATION.to_int(stimulus)
    expected = edgedrnn_forward(x, integers.layers, integers.thx, integers.thh)
    image = weight_image(integers.layers)
    write_bytes(folder / "weights.bin", image)
    for name, lines in (
        ("weights", to_hex(np.frombuffer(image, "<u8"), 64)),
        ("stimulus", to_hex(x, ACTIVATION.bits)),
        ("expected", to_hex(expected, ACTIVATION.bits)),
    ):
        write_text(folder / f"{name}.hex", "\n".join(lines) + "\n")
    write_text(
        folder / "registers.json", json.dumps(_registers(model, integers.thx, integers.thh, len(x)), indent=2) + "\n"
    )
    _verify(folder, integers.layers)
    return ExportResult(
        folder,
        ("weights.bin", "weights.hex", "stimulus.hex", "expected.hex", "registers.json"),
        {"weight memory bytes": len(image), "stimulus frames": len(x)},
        integers.notes,
    )


def _registers(model: NetworkParameters, thx: int, thh: int, frames: int) -> dict[str, Any]:
    layers, base, inputs = [], 0, model.input_size
    for hidden in model.hidden_sizes:
        columns = 1 + inputs + -inputs % BEAT + hidden
        layers.append(
            {"inputs": inputs, "units": hidden, "columns": columns, "base_address": base, "column_bytes": 3 * hidden}
        )
        base, inputs = base + 3 * hidden * columns, hidden
    return {
        "num_layers": len(layers),
        "threshold_x": {"value": thx, "bits": 10, "unit": "1/256"},
        "threshold_h": {"value": thh, "bits": 10, "unit": "1/256"},
        "layers": layers,
        "stimulus_frames": frames,
    }


def _verify(folder: Path, layers: Layers) -> None:
    """Rebuild the layers from weights.hex and registers.json alone, run the stimulus, and compare."""
    registers = json.loads((folder / "registers.json").read_text(encoding="utf-8"))
    beats = (folder / "weights.hex").read_text(encoding="utf-8").split()
    image = np.array([int(beat, 16) for beat in beats], dtype="<u8").tobytes()
    sizes = [layer["units"] for layer in registers["layers"]]
    read = read_weight_image(image, registers["layers"][0]["inputs"], sizes)
    same = all(
        np.array_equal(a, b)
        for mine, theirs in zip(layers, read, strict=True)
        for a, b in zip(mine, theirs, strict=True)
    )
    x = from_hex((folder / "stimulus.hex").read_text(encoding="utf-8").split(), 16).reshape(
        registers["stimulus_frames"], -1
    )
    y = edgedrnn_forward(x, read, registers["threshold_x"]["value"], registers["threshold_h"]["value"])
    expected = from_hex((folder / "expected.hex").read_text(encoding="utf-8").split(), 16)
    if not same or not np.array_equal(y.ravel(), expected) or (folder / "weights.bin").read_bytes() != image:
        raise ExportError(f"{folder}: what was read back differs from what was written")
