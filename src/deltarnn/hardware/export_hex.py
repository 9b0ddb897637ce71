"""Every tensor of a quantised model as hexadecimal text, column-major: for test benches and memory initialisation."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deltarnn.fixed.network import IntegerNetwork
from deltarnn.fixed.parameters import NetworkParameters
from deltarnn.fixed.qformat import QFormat, Quantization
from deltarnn.hardware.files import ExportError, ExportResult, from_hex, to_hex, write_text


def write_tensor_hex(path: str | Path, tensor: NDArray[np.int64], bits: int) -> None:
    """Write integers column-major, one two's complement word of `bits` bits per line."""
    write_text(path, "\n".join(to_hex(tensor.T, bits)) + "\n")


def read_tensor_hex(path: str | Path, shape: tuple[int, ...], bits: int) -> NDArray[np.int64]:
    """Read back `write_tensor_hex`."""
    path = Path(path)
    return from_hex(path.read_text(encoding="utf-8").split(), bits).reshape(shape[::-1]).T


def export_hex(
    model: NetworkParameters,
    stimulus: NDArray[np.float64],
    folder: str | Path,
    quantization: Quantization | None = None,
) -> ExportResult:
    """Write TENSOR.hex for every weight and bias, stimulus.hex and expected.hex, and tensors.json; read back, compare.

    Weights are in W, memories M's start and a head's biases with n_A + n_W fraction bits in 32 bits. stimulus (T, I) in
    A; expected (T, ·): class scores in 32 bits, or hidden states of a bare layer. tensors.json has the shape, format
    and width of each.
    """
    folder = Path(folder)
    network = IntegerNetwork.convert(model, quantization)
    q = network.quantization
    run = network.run(stimulus)
    tensors: dict[str, tuple[NDArray[np.int64], QFormat]] = {}
    for index, layer in enumerate(network.layers):
        memory = QFormat(32 - layer.memory_fraction_bits, layer.memory_fraction_bits)
        tensors[f"weight_ih_l{index}"] = (layer.weight_ih, q.weight)
        tensors[f"weight_hh_l{index}"] = (layer.weight_hh, q.weight)
        tensors[f"memory_l{index}"] = (layer.memory, memory)
    for index, dense in enumerate(network.head):
        tensors[f"head{index}_weight"] = (dense.weight, dense.weight_format)
        tensors[f"head{index}_bias"] = (dense.bias, QFormat(32 - dense.fraction_bits, dense.fraction_bits))
    tensors["stimulus"] = (q.activation.to_int(stimulus, q.rounding), q.activation)
    fraction = network.score_fraction_bits
    tensors["expected"] = (run.output[:, 0], QFormat(32 - fraction, fraction))

    record = {}
    for name, (tensor, word) in tensors.items():
        write_tensor_hex(folder / f"{name}.hex", tensor, word.bits)
        record[name] = {"shape": list(tensor.shape), "format": str(word), "bits": word.bits}
    write_text(folder / "tensors.json", json.dumps(record, indent=2) + "\n")

    for name, entry in json.loads((folder / "tensors.json").read_text(encoding="utf-8")).items():
        read = read_tensor_hex(folder / f"{name}.hex", tuple(entry["shape"]), entry["bits"])
        if not np.array_equal(read, tensors[name][0]):
            raise ExportError(f"{folder}: {name} read back differs from what was written")
    bits = sum(tensor.size * word.bits for name, (tensor, word) in tensors.items() if "_l" in name or "head" in name)
    files = (*(f"{name}.hex" for name in tensors), "tensors.json")
    return ExportResult(
        folder, files, {"parameter bytes": -(-bits // 8), "stimulus frames": len(stimulus)}, network.notes
    )
