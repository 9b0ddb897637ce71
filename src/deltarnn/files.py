"""Files that are either the old one or the whole new one, whenever a run is killed or the disk is full."""

import errno
import hashlib
import json
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
"""This machine: processes of others, which may share the folder, have the same numbers."""
_PART = re.compile(r"\..+\.(?P<process>\d+)(-(?P<host>[0-9a-f]{8}))?\.part(\.\w+)?")
"""Without a host in earlier versions."""
_DAY = 86400.0
_SAYS_FULL = re.compile(rf"\(os error ({errno.ENOSPC}|{errno.EFBIG})\)|\d+ requested and \d+ written")
"""As the libraries safetensors and numpy say it."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class WriteError(OSError):
    """A file that could not be written; the message names it, says why, and how much room was needed."""


@contextmanager
def replacing(path: str | Path, size: int = 0) -> Iterator[Path]:
    """A temporary path to write to; it takes the place of `path` when the block ends without an exception.

    The folder of `path` is made if need be. The temporary name keeps the suffix, and differs from process to process
    and from machine to machine.
    The file keeps the permissions that it has; a new one gets ordinary ones, whatever those of the temporary one. Of a
    link, the file that it leads to is written.

    size: bytes that will be written, if known; they are reserved, so that a disk without room is found out at once, and
    a memory-mapped file never breaks.

    Raises
    ------
    WriteError
        Where the file cannot be written; nothing of it remains.
    """
    path = Path(path)
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
    part = path.with_name(f".{path.stem}.{os.getpid()}-{_HOST}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            mode = (path.stat() if path.exists() else os.fstat(file.fileno())).st_mode
        if size:
            reserve(part, size)
        yield part
        part.chmod(mode | (part.stat().st_mode & 0o111))  # programs may be run
        part.replace(path)
    except Exception as error:
        needed = max(size, part.stat().st_size if part.is_file() else 0)
        reason = _reason(error, path, part, needed)
        if reason is None:
            raise
        raise WriteError(f"{path}: cannot be written: {reason}") from None
    finally:
        with suppress(OSError):
            part.unlink()


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file atomically."""
    with replacing(path, len(data)) as part, part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, value: Any) -> None:
    """Write a JSON file atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: str | Path) -> Any:
    """The content of a JSON file, or None where there is none, or it is no JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def reserve(path: Path, size: int) -> None:
    """Make room for `size` bytes in the file `path`: a memory-mapped file on a full disk kills its process."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, size)


def sentence(error: Exception) -> str:
    """What an error says; of the system's, and of names that are no text, the file and the reason."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, UnicodeEncodeError):  # bytes of a file name, in what may be a list of them
        word = next(word for word in re.finditer(r'[^\s",]+', error.object) if word.end() > error.start)
        return f"{word[0]}: its name is not UTF-8; rename it"
    return str(error)


def check_writable(folder: str | Path) -> None:
    """WriteError unless files can be made in `folder`, or in that where it would be made: to ask before long work."""
    try:
        place = next(place for place in (Path(folder), *Path(folder).absolute().parents) if place.exists())
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        raise WriteError(f"{folder}: no file can be written there: {error.strerror}") from None


def check_file(path: str | Path) -> None:
    """WriteError unless a file can be written at `path`: to ask before long work."""
    if Path(path).is_dir():
        raise WriteError(f"{path}: cannot be written: a folder is in its place")
    check_writable(Path(path).parent)


def remove_leftovers(folder: str | Path) -> None:
    """Remove what killed processes left half-written anywhere under `folder`, where that can be removed.

    A process of another machine cannot be asked whether it lives: what it left is removed after a day.
    """
    for part in Path(folder).rglob(".*.part*"):
        found = _PART.fullmatch(part.name)
        with suppress(OSError):  # a folder that can only be read, or another process was faster
            if found and part.is_file() and (_dead(found) or time.time() - part.stat().st_mtime > _DAY):
                part.unlink()


def _dead(found: re.Match[str]) -> bool:
    """Whether a half-written file's process is one of this machine, and ended."""
    return found["host"] in (None, _HOST) and not _lives(int(found["process"]))


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # it belongs to somebody else
    return True


def _reason(error: Exception, path: Path, part: Path, needed: int) -> str | None:
    """Why a file could not be written; None where the error is another one."""
    full = isinstance(error, OSError) and error.errno in _FULL and error.filename in (None, str(part))
    if full or _SAYS_FULL.search(str(error)):
        free = shutil.disk_usage(part.parent).free
        return f"no space left: {needed} bytes are needed at least, {free} are free"
    ours = {str(place) for place in (part, path, *path.parents)}
    if isinstance(error, OSError) and error.filename in ours:
        return error.strerror
    return None
