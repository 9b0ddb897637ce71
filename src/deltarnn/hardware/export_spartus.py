"""Files for Spartus: CBCSC weight memories of its MAC arrays, biases, stimulus and expected output."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deltarnn.fixed.cells import IntegerLayer
from deltarnn.fixed.network import IntegerNetwork
from deltarnn.fixed.parameters import NetworkParameters, UnsupportedModelError
from deltarnn.hardware.files import ExportError, ExportResult, from_hex, to_hex, write_text
from deltarnn.hardware.spartus import Spartus
from deltarnn.prune.cbcsc import CBCSC


def export_spartus(
    model: NetworkParameters,
    stimulus: NDArray[np.float64],
    folder: Path,
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
    spartus = accelerator or Spartus()
    spartus.check(model)
    network = IntegerNetwork.convert(model, spartus.number_formats(model))
    q = network.quantization
    files, description = [], []
    stored_bytes = 0
    for index, (layer, needed) in enumerate(zip(network.layers, spartus.stored_length(model), strict=True)):
        rows = 4 * layer.hidden_size // spartus.num_pe
        blen = needed if weight_sparsity is None else rows - int(rows * weight_sparsity)
        if needed > blen:
            raise UnsupportedModelError(
                f"layer {index} keeps {needed} of {rows} weights per column and processing element: sparsity "
                f"{weight_sparsity:g} allows {blen}; train with --cbtd 1 --gamma_rnn {weight_sparsity:g} "
                f"--num_array_pe {spartus.num_pe}, or lower --w_sp_ext"
            )
        stored = CBCSC.encode(_matrix(layer), (rows - blen + 1e-9) / rows, spartus.num_pe)
        words = stored.packed_words(q.weight.bits)
        word_bits = q.weight.bits + stored.index_bits
        for array in range(spartus.num_arrays):
            lines = [
                "".join(reversed(to_hex(line, 4 * -(-word_bits // 4))))
                for line in words[array :: spartus.num_arrays].reshape(-1, spartus.num_pe)
            ]
            files.append(f"layer{index}_array{array}.hex")
            write_text(folder / files[-1], "\n".join(lines) + "\n")
        files.append(f"layer{index}_bias.hex")
        bias = layer.memory >> q.activation.fraction_bits
        write_text(folder / files[-1], "\n".join(to_hex(bias, q.weight.bits)) + "\n")
        stored_bytes += -(-words.size * word_bits // 8)
        description.append(
            {
                "inputs": layer.input_size,
                "units": layer.hidden_size,
                "blen": stored.blen,
                "index_bits": stored.index_bits,
                "threshold_x": layer.thx,
                "threshold_h": layer.thh,
            }
        )
    x = q.activation.to_int(stimulus, q.rounding)
    y = network.run(stimulus).layers[-1].y[:, 0]
    for name, values in (("stimulus", x), ("expected", y)):
        files.append(f"{name}.hex")
        write_text(folder / files[-1], "\n".join(to_hex(values, q.activation.bits)) + "\n")
    files.append("spartus.json")
    formats = {name: str(getattr(q, name)) for name in ("activation", "weight", "gate")}
    timing = {
        name: getattr(spartus, name) for name in ("num_arrays", "num_pe", "clock_hz", "act_latency", "act_interval")
    }
    record = {
        "formats": {**formats, "rounding": q.rounding},
        "layers": description,
        "stimulus_frames": len(x),
        **timing,
    }
    write_text(folder / files[-1], json.dumps(record, indent=2) + "\n")
    _verify(folder, network)
    return ExportResult(
        folder, tuple(files), {"weight memory bytes": stored_bytes, "stimulus frames": len(x)}, network.notes
    )


def read_layer(folder: Path, index: int, weight_bits: int) -> NDArray[np.int64]:
    """[W_ih | W_hh] (4H, I + H) in stored integers, from the files of `export_spartus`."""
    record = json.loads((folder / "spartus.json").read_text())
    layer, num_pe, arrays = record["layers"][index], record["num_pe"], record["num_arrays"]
    digits = -(-(weight_bits + layer["index_bits"]) // 4)
    words = np.zeros((layer["inputs"] + layer["units"], layer["blen"], num_pe), dtype=np.uint64)
    for array in range(arrays):
        lines = (folder / f"layer{index}_array{array}.hex").read_text().split()
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
        bias = from_hex((folder / f"layer{index}_bias.hex").read_text().split(), q.weight.bits)
        if not np.array_equal(read_layer(folder, index, q.weight.bits), _matrix(layer)) or not np.array_equal(
            bias << q.activation.fraction_bits, layer.memory
        ):
            raise ExportError(f"{folder}: layer {index} read back differs from what was written")
    x = from_hex((folder / "stimulus.hex").read_text().split(), q.activation.bits).reshape(-1, network.input_size)
    y = network.run(q.activation.to_float(x)).layers[-1].y
    if not np.array_equal(y.ravel(), from_hex((folder / "expected.hex").read_text().split(), q.activation.bits)):
        raise ExportError(f"{folder}: stimulus and expected output read back do not belong together")
