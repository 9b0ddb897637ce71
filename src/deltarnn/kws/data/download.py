"""The official archives of Speech Commands v0.02: fetched, resumed, checked, and unpacked safely."""

import http.client
import shutil
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from deltarnn.files import sha256_of
from deltarnn.kws.data.corpus import TEST_FOLDER, TRAIN_FOLDER

_BLOCK = 1 << 20
_ATTEMPTS = 4
_TIMEOUT = 60.0


@dataclass(frozen=True)
class Archive:
    """One archive: its file name, length in bytes, SHA-256, and the folder that it fills."""

    name: str
    size: int
    sha256: str
    folder: str


OFFICIAL = (
    Archive(
        "speech_commands_v0.02.tar.gz",
        2_428_923_189,
        "af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
        TRAIN_FOLDER,
    ),
    Archive(
        "speech_commands_test_set_v0.02.tar.gz",
        112_563_277,
        "cc2a00c1147c2254e9be3fa0f779d8c17421dc349b86366567a8edfa9acd51df",
        TEST_FOLDER,
    ),
)

_FILTER: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
"""Of `TarFile.extract`, from CPython 3.11.4 on: no links, owners and modes of others' choice."""


def download(folder: Path, url: str, archives: Sequence[Archive] = OFFICIAL) -> None:
    """Fetch `archives` from the folder `url` and unpack them under `folder`; what is there already is left alone.

    A download or an unpacking that was cut off goes on when called again. ValueError on a wrong checksum or an archive
    that would write outside its folder, OSError where the server cannot be reached.
    """
    for archive in archives:
        if (folder / archive.folder).is_dir():
            print(f"{folder / archive.folder} is there already")
            continue
        path = fetch(archive, folder, url)
        unpack(path, folder / archive.folder)
        path.unlink()


def fetch(archive: Archive, folder: Path, url: str) -> Path:
    """The archive's file under `folder`, complete and checked; a partial one is continued where it ends."""
    path = folder / archive.name
    if path.is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    address = f"{url.rstrip('/')}/{archive.name}"
    for attempt in range(_ATTEMPTS):
        try:
            _continue(part, address, archive)
            break
        except (OSError, http.client.HTTPException) as error:
            fatal = isinstance(error, urllib.error.HTTPError) and error.code not in (408, 429, 500, 502, 503, 504)
            if fatal or attempt == _ATTEMPTS - 1:
                raise OSError(
                    f"{address}: {error}; what has arrived is kept in {part}, the same command goes on from there"
                ) from None
            time.sleep(2.0**attempt)
    found = sha256_of(part)
    if found != archive.sha256:
        part.unlink()
        raise ValueError(
            f"{address}: SHA-256 is {found}, not {archive.sha256}; the file was removed, download it again"
        )
    part.replace(path)
    return path


def unpack(path: Path, folder: Path) -> None:
    """Unpack a tar archive as `folder`, which appears only when it is complete.

    ValueError if the archive is damaged, or has members that are not plain files and folders inside it.
    """
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        with tarfile.open(path) as tar:
            for member in tqdm(tar, desc=f"unpacking {path.name}", unit="file", disable=None):
                if not (member.isfile() or member.isdir()):
                    raise ValueError(f"{path}: {member.name!r} is neither a file nor a folder; nothing was unpacked")
                if not (part / member.name).resolve().is_relative_to(part.resolve()):
                    raise ValueError(f"{path}: {member.name!r} lies outside the archive's folder; nothing was unpacked")
                tar.extract(member, part, **_FILTER)
    except (tarfile.TarError, EOFError) as error:
        shutil.rmtree(part, ignore_errors=True)
        raise ValueError(f"{path}: cannot be unpacked ({error}); remove it and download it again") from None
    except ValueError:
        shutil.rmtree(part, ignore_errors=True)
        raise
    part.replace(folder)


def _continue(part: Path, address: str, archive: Archive) -> None:
    """Append to `part` what of the archive is still missing."""
    have = part.stat().st_size if part.is_file() else 0
    if have > archive.size:
        part.unlink()
        have = 0
    if have == archive.size:
        return
    request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
        resumed = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        have = have if resumed else 0  # a server without ranges sends the whole file again
        with (
            part.open("ab" if resumed else "wb") as file,
            tqdm(total=archive.size, initial=have, desc=archive.name, unit="B", unit_scale=True, disable=None) as bar,
        ):
            while block := response.read(_BLOCK):
                file.write(block)
                bar.update(len(block))
    if part.stat().st_size < archive.size:
        raise OSError(f"the connection ended after {part.stat().st_size} of {archive.size} bytes")
