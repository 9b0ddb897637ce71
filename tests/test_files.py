"""Files appear whole or not at all, with ordinary permissions; a full disk is one sentence; leftovers go."""

import ast
import errno
import os
import resource
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deltarnn.files import WriteError, check_file, check_writable, remove_leftovers, replacing, write_bytes, write_text
from deltarnn.stored import save_stored


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_string_names_a_file_as_a_path_does(tmp_path):
    write_text(str(tmp_path / "new" / "Δ.txt"), "θ = 0.1")
    assert (tmp_path / "new" / "Δ.txt").read_bytes() == "θ = 0.1".encode()


def test_permissions_are_those_of_any_new_file(tmp_path):
    (tmp_path / "ordinary").touch()
    expected = stat.S_IMODE((tmp_path / "ordinary").stat().st_mode)
    write_text(tmp_path / "text", "")
    save_stored(tmp_path / "arrays.safetensors", "key", {"a": np.zeros(3)}, {})
    for name in ("text", "arrays.safetensors"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == expected


def test_a_file_that_is_written_again_keeps_its_permissions_and_its_links(tmp_path):
    real, link = tmp_path / "real.txt", tmp_path / "link.txt"
    write_text(real, "old")
    real.chmod(0o600)
    link.symlink_to(real.name)
    write_text(link, "new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert stat.S_IMODE(real.stat().st_mode) == 0o600


def test_what_an_exception_interrupts_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def interrupted() -> None:
        with replacing(path) as part:
            part.write_text("new")
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_put_in_place_leaves_the_old_one(tmp_path, monkeypatch):
    write_bytes(tmp_path / "a", b"old")
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_bytes(tmp_path / "a", b"new")
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_a_full_disk_is_found_out_before_anything_is_written(tmp_path, monkeypatch):
    def full(handle: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    sentence = r"big\.npy: cannot be written: no space left: 123456 bytes are needed"
    with pytest.raises(WriteError, match=sentence), replacing(tmp_path / "big.npy", 123456):
        pytest.fail("reached")
    assert not list(tmp_path.iterdir())


WRITERS = {
    "text": "from deltarnn.files import write_text; write_text(path, 'x' * 10**6)",
    "wav": "from deltarnn.kws.data.audio import write_wav; write_wav(pathlib.Path(path), np.ones(10**6, np.int16))",
    "stored": "from deltarnn.stored import save_stored; save_stored(path, 'k', {'a': np.ones(10**6)}, {})",
    "array": "from deltarnn.files import replacing\nwith replacing(path) as p: np.save(p.open('wb'), np.ones(10**6))",
}


@pytest.mark.parametrize("writer", WRITERS)
def test_whatever_cannot_be_written_is_named_and_nothing_remains(tmp_path, writer):
    """A limit on the size of files stands for the full disk."""
    path = tmp_path / "out.bin"
    code = f"import pathlib, numpy as np\npath = {str(path)!r}\ntry:\n    exec({WRITERS[writer]!r})\n"
    code += "except OSError as e: print(e)"
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # noqa: E731
    done = subprocess.run(
        [sys.executable, "-c", code],
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith(f"{path}: cannot be written: no space left: "), done.stdout + done.stderr
    assert done.stdout.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_in_which_nothing_can_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="file/out: no file can be written there: Not a directory"):
        check_writable(tmp_path / "file" / "out")
    with pytest.raises(WriteError, match=r"file/out/a\.txt: cannot be written: Not a directory"):
        write_text(tmp_path / "file" / "out" / "a.txt", "")
    check_writable(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_place_at_which_no_file_can_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "new" / "file"):
        check_file(path)
    with pytest.raises(WriteError, match="file: no file can be written there: Not a directory"):
        check_file(tmp_path / "file" / "out")
    with pytest.raises(WriteError, match="cannot be written: a folder is in its place"):
        check_file(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_leftovers_of_dead_processes_go_and_of_living_ones_stay(tmp_path):
    folder = tmp_path / "deep" / "er"
    folder.mkdir(parents=True)
    dead, living = folder / f".train.{dead_process()}.part.npy", folder / f".train.{os.getpid()}.part.npy"
    old, own = folder / f".test.{os.getpid()}.part", folder / ".notes.part.txt"
    for path in (dead, living, old, own):
        path.touch()
    os.utime(old, (0, 0))
    remove_leftovers(tmp_path)
    assert sorted(folder.iterdir()) == sorted([living, own])


def test_half_written_files_of_other_machines_stay_for_a_day(tmp_path, monkeypatch):
    """They share the folder, and the numbers of their processes mean nothing here."""
    with monkeypatch.context() as there:
        there.setattr("deltarnn.files._HOST", "0a1b2c3d")
        there.setattr(os, "getpid", dead_process)
        with replacing(tmp_path / "train.npy") as part:
            remove_leftovers(tmp_path)
            assert not part.exists()
            part.touch()
            there.undo()
            remove_leftovers(tmp_path)
            assert part.exists()
            os.utime(part, (0, 0))
            remove_leftovers(tmp_path)
            assert not part.exists()
            part.touch()


def test_leftovers_in_a_folder_that_can_only_be_read_stay(tmp_path, monkeypatch):
    path = tmp_path / f".train.{dead_process()}.part.npy"
    path.touch()

    def read_only(self: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    monkeypatch.setattr(Path, "unlink", read_only)
    remove_leftovers(tmp_path)
    assert path.exists()


def test_every_text_file_is_opened_with_its_encoding():
    """The locale decides otherwise."""
    source = Path(__file__).parents[1] / "src"
    lacking = []
    for path in source.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, (ast.Attribute, ast.Name)):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            owner = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
            texts = [text.value for a in node.args for text in ast.walk(a) if isinstance(text, ast.Constant)]
            binary = any(isinstance(text, str) and "b" in text for text in texts)
            known = any(keyword.arg == "encoding" for keyword in node.keywords)
            if name in ("read_text", "open") and owner not in ("os", "tarfile") and not binary and not known:
                lacking.append(f"{path.relative_to(source)}:{node.lineno}")
            if name == "write_text" and owner and not known:
                lacking.append(f"{path.relative_to(source)}:{node.lineno}")
    assert not lacking
