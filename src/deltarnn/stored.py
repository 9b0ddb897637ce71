"""safetensors files with a JSON record, and a checksum of both, so that no later run goes on from a damaged one."""

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from deltarnn.files import replacing

Arrays = dict[str, NDArray[Any]]

CHECKSUM = "checksum"
"""The record's field that holds the checksum of the rest."""


class DamagedFileError(ValueError):
    """A file that is not what was written; the message names it and says what is wrong."""


def save_stored(path: str | Path, key: str, arrays: Arrays, record: Mapping[str, Any]) -> None:
    """Write arrays by name, and JSON values as metadata entry `key`, atomically."""
    whole = {name: array if array.flags.c_contiguous else array.copy("C") for name, array in arrays.items()}
    # In the record, and not an entry of its own: the library writes several entries in a random order.
    text = json.dumps({**record, CHECKSUM: checksum_of(json.dumps(record), whole)})
    with replacing(path, sum(array.nbytes for array in whole.values())) as part:
        save_file(whole, part, metadata={key: text})


def load_stored(path: str | Path, key: str, unsigned: Collection[str] = ()) -> tuple[Arrays, dict[str, Any]]:
    """Read what `save_stored` wrote: (arrays, record).

    unsigned: the fields, and no others, of a record from before checksums, which is taken as it is.

    Raises
    ------
    FileNotFoundError
        Where there is no such file.
    DamagedFileError
        Where the file is another one, or not a bit as it was written.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if key not in metadata:
                raise DamagedFileError(f"{path}: holds no {key}: another kind of file, or damaged")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        record = json.loads(metadata[key])
    except DamagedFileError:
        raise
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError, RecursionError, MemoryError) as error:
        raise DamagedFileError(f"{path}: damaged ({error})") from None
    if not isinstance(record, dict):
        raise DamagedFileError(f"{path}: damaged (its {key} is no object)")
    if record.keys() == set(unsigned):
        return arrays, record
    if record.pop(CHECKSUM, None) != checksum_of(json.dumps(record), arrays):
        raise DamagedFileError(f"{path}: damaged (its checksum differs)")
    return arrays, record


def peek_stored(path: str | Path, key: str) -> dict[str, Any] | None:
    """The record alone, unverified, at once; None where there is none, or it cannot be read."""
    try:
        with safe_open(path, framework="numpy") as file:
            record = json.loads((file.metadata() or {})[key])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def checksum_of(text: str, arrays: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 of a text, and of the names, types, shapes and values of C-contiguous arrays."""
    digest = hashlib.sha256(text.encode(errors="surrogatepass"))
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
