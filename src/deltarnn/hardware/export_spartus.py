"""Files for Spartus: CBCSC weight memories of its MAC arrays, biases, stimulus and expected output."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltarnn.fixed.cells import IntegerLayer
from deltarnn.fixed.network import IntegerNetwork
from deltarnn.fixed.parameters import NetworkParameters, UnsupportedModelError
from deltarnn.fixed.qformat import Quantization
from deltarnn.hardware.files import ExportError, ExportResult, from_hex, to_hex, write_text
from deltarnn.hardware.spartus import Spartus
from deltarnn.prune.cbcsc import CBCSC


def export_spartus(
    model: NetworkParameters,
    stimulus: NDArray[np.float64],
    folder: str | Path,
    accelerator: Spartus | None = None,
    weight_sparsity: float | None = None,
) -> ExportResult:
    """Write the CBCSC words of each layer and array, biases, stimulus and expected output; read back and compare.

    layerL_arrayN.hex: the columns j ≡ N (mod num_arrays) of [W_ih | W_hh] in order; per column BLEN lines, each the
    words of all processing elements, PE 0 in the lowest bits. Word: unsigned(VAL) << bits(LIDX) | LIDX (MATH §7).
    layerL_bias.hex: b_ih + b_hh in the format W. stimulus.hex (T, I) and expected.hex (T, H), in the format A, one
    value per line. spartus.json: sizes, formats, thresholds, timing.

    Parameters
    ----------
    weight_sparsity: γ that the weights must have; None stores them with the BLEN that they need.

    Raises
    ------
    UnsupportedModelError
        If Spartus cannot hold the model, or its weights are less sparse than `weight_sparsity`.
    """
    folder = Path(folder)
    spartus = accelerator or Spartus()
    spartus.check(model)
    network = IntegerNetwork.convert(model, spartus.number_formats(model))
    q = network.quantization
    files, layers = [], []
    for index, (layer, needed) in enumerate(zip(network.layers, spartus.stored_length(model), strict=True)):
        stored = _stored(layer, index, needed, weight_sparsity, spartus.num_pe)
        files += _write_layer(folder, index, layer, stored, spartus.num_arrays, q)
        layers.append((layer, stored))
    x = q.activation.to_int(stimulus, q.rounding)
    y = network.run(stimulus).layers[-1].y[:, 0]
    for name, values in (("stimulus", x), ("expected", y)):
        files.append(f"{name}.hex")
        write_text(folder / files[-1], "\n".join(to_hex(values, q.activation.bits)) + "\n")
    files.append("spartus.json")
    write_text(folder / files[-1], json.dumps(_record(layers, q, spartus, len(x)), indent=2) + "\n")
    _verify(folder, network)
    stored_bytes = sum(-(-stored.values.size * _word_bits(stored, q) // 8) for _, stored in layers)
    counts = {"weight memory bytes": stored_bytes, "stimulus frames": len(x)}
    return ExportResult(folder, tuple(files), counts, network.notes)


def _stored(layer: IntegerLayer, index: int, needed: int, weight_sparsity: float | None, num_pe: int) -> CBCSC:
    """[W_ih | W_hh] with BLEN as `weight_sparsity` asks, or as the weights need where it is None."""
    rows = 4 * layer.hidden_size // num_pe
    blen = needed if weight_sparsity is None else rows - int(rows * weight_sparsity)
    if needed > blen:
        raise UnsupportedModelError(
            f"layer {index} keeps {needed} of {rows} weights per column and processing element: sparsity "
            f"{weight_sparsity:g} allows {blen}; train with --cbtd 1 --gamma_rnn {weight_sparsity:g} "
            f"--num_array_pe {num_pe}, or lower --w_sp_ext"
        )
    return CBCSC.encode(_matrix(layer), (rows - blen + 1e-9) / rows, num_pe)


def _write_layer(
    folder: Path, index: int, layer: IntegerLayer, stored: CBCSC, num_arrays: int, q: Quantization
) -> list[str]:
    """The memories of a layer's arrays, and its biases; the files' names."""
    words, digits = stored.packed_words(q.weight.bits), -(-_word_bits(stored, q) // 4)
    names = [f"layer{index}_array{array}.hex" for array in range(num_arrays)]
    for array, name in enumerate(names):
        columns = words[array::num_arrays].reshape(-1, stored.num_pe)
        write_text(folder / name, "\n".join("".join(reversed(to_hex(line, 4 * digits))) for line in columns) + "\n")
    bias = layer.memory >> q.activation.fraction_bits
    write_text(folder / f"layer{index}_bias.hex", "\n".join(to_hex(bias, q.weight.bits)) + "\n")
    return [*names, f"layer{index}_bias.hex"]


def _record(layers: list[tuple[IntegerLayer, CBCSC]], q: Quantization, spartus: Spartus, frames: int) -> dict[str, Any]:
    formats = {name: str(getattr(q, name)) for name in ("activation", "weight", "gate")}
    timing = ("num_arrays", "num_pe", "clock_hz", "act_latency", "act_interval")
    return {
        "formats": {**formats, "rounding": q.rounding},
        "layers": [
            {
                "inputs": layer.input_size,
                "units": layer.hidden_size,
                "blen": stored.blen,
                "index_bits": stored.index_bits,
                "threshold_x": layer.thx,
                "threshold_h": layer.thh,
            }
            for layer, stored in layers
        ],
        "stimulus_frames": frames,
        **{name: getattr(spartus, name) for name in timing},
    }


def _word_bits(stored: CBCSC, q: Quantization) -> int:
    return q.weight.bits + stored.index_bits


def read_layer(folder: str | Path, index: int, weight_bits: int) -> NDArray[np.int64]:
    """[W_ih | W_hh] (4H, I + H) in stored integers, from the files of `export_spartus`."""
    folder = Path(folder)
    record = json.loads((folder / "spartus.json").read_text(encoding="utf-8"))
    layer, num_pe, arrays = record["layers"][index], record["num_pe"], record["num_arrays"]
    digits = -(-(weight_bits + layer["index_bits"]) // 4)
    words = np.zeros((layer["inputs"] + layer["units"], layer["blen"], num_pe), dtype=np.uint64)
    for array in range(arrays):
        lines = (folder / f"layer{index}_array{array}.hex").read_text(encoding="utf-8").split()
        values = [
            [int(line[len(line) - digits * (pe + 1) : len(line) - digits * pe], 16) for pe in range(num_pe)]
            for line in lines
        ]
        words[array::arrays] = np.array(values, dtype=np.uint64).reshape(-1, layer["blen"], num_pe)
    shape = (4 * layer["units"], len(words))
    return np.asarray(CBCSC.from_packed_words(words, shape, weight_bits).decode(), dtype=np.int64)


def _matrix(layer: IntegerLayer) -> NDArray[np.int64]:
    return np.concatenate([layer.weight_ih, layer.weight_hh], axis=1)


def _verify(folder: Path, network: IntegerNetwork) -> None:
    q = network.quantization
    for index, layer in enumerate(network.layers):
        bias = from_hex((folder / f"layer{index}_bias.hex").read_text(encoding="utf-8").split(), q.weight.bits)
        if not np.array_equal(read_layer(folder, index, q.weight.bits), _matrix(layer)) or not np.array_equal(
            bias << q.activation.fraction_bits, layer.memory
        ):
            raise ExportError(f"{folder}: layer {index} read back differs from what was written")
    x = from_hex((folder / "stimulus.hex").read_text(encoding="utf-8").split(), q.activation.bits).reshape(
        -1, network.input_size
    )
    y = network.run(q.activation.to_float(x)).layers[-1].y
    if not np.array_equal(
        y.ravel(), from_hex((folder / "expected.hex").read_text(encoding="utf-8").split(), q.activation.bits)
    ):
        raise ExportError(f"{folder}: stimulus and expected output read back do not belong together")
