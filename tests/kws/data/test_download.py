"""Downloads from a server on this machine: resumed, checked, unpacked, and refused where they are wrong."""

import hashlib
import io
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from deltarnn.kws.data import download as module
from deltarnn.kws.data.download import Archive, download, fetch, unpack


def tar_bytes(members: dict[str, bytes], link: str | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        if link:
            info = tarfile.TarInfo("link")
            info.type, info.linkname = tarfile.SYMTYPE, link
            tar.addfile(info)
    return buffer.getvalue()


CONTENT = tar_bytes({"./yes/a_nohash_0.wav": bytes(range(256)) * 40, "validation_list.txt": b"yes/a_nohash_0.wav\n"})
ARCHIVE = Archive("words.tar.gz", len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), "words")


class Server:
    """Serves `content` at /words.tar.gz. cuts: bytes after which the next answers end. ranges: whether it has Range."""

    def __init__(self) -> None:
        self.content, self.cuts, self.ranges, self.requests = CONTENT, [], True, []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests.append(self.headers.get("Range"))
                if self.path != "/words.tar.gz":
                    self.send_error(404)
                    return
                start = 0
                if outer.ranges and self.headers.get("Range"):
                    start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
                    self.send_response(206)
                    self.send_header("Content-Range", f"bytes {start}-{len(outer.content) - 1}/{len(outer.content)}")
                else:
                    self.send_response(200)
                body = outer.content[start:]
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: outer.cuts.pop(0)] if outer.cuts else body)

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    running = Server()
    yield running
    running.stop()


def test_download_unpacks_and_is_done_once(server, tmp_path, capsys):
    download(tmp_path, server.url, [ARCHIVE])
    assert (tmp_path / "words/yes/a_nohash_0.wav").read_bytes() == bytes(range(256)) * 40
    assert sorted(p.name for p in tmp_path.iterdir()) == ["words"]  # neither archive nor partial files remain
    download(tmp_path, server.url, [ARCHIVE])
    assert len(server.requests) == 1
    assert "is there already" in capsys.readouterr().out


def test_broken_connection_resumes_where_it_ended(server, tmp_path):
    server.cuts = [100, 50]
    path = fetch(ARCHIVE, tmp_path, server.url)
    assert path.read_bytes() == CONTENT
    assert server.requests == [None, "bytes=100-", "bytes=150-"]


def test_partial_file_of_an_earlier_run_is_continued(server, tmp_path):
    (tmp_path / "words.tar.gz.part").write_bytes(CONTENT[:77])
    assert fetch(ARCHIVE, tmp_path, server.url).read_bytes() == CONTENT
    assert server.requests == ["bytes=77-"]


def test_server_without_ranges_starts_over(server, tmp_path):
    server.ranges = False
    (tmp_path / "words.tar.gz.part").write_bytes(b"x" * 77)
    assert fetch(ARCHIVE, tmp_path, server.url).read_bytes() == CONTENT


def test_wrong_checksum_is_refused_and_removed(server, tmp_path):
    server.content = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    with pytest.raises(ValueError, match=r"SHA-256 is .* download it again"):
        fetch(ARCHIVE, tmp_path, server.url)
    assert list(tmp_path.iterdir()) == []
    server.content = CONTENT
    assert fetch(ARCHIVE, tmp_path, server.url).read_bytes() == CONTENT


def test_failing_server_keeps_what_arrived(server, tmp_path):
    server.cuts = [10] * 9
    with pytest.raises(OSError, match="the same command goes on from there"):
        fetch(ARCHIVE, tmp_path, server.url)
    assert (tmp_path / "words.tar.gz.part").stat().st_size == 40
    with pytest.raises(OSError, match="404"):
        fetch(Archive("other.tar.gz", 5, "", "other"), tmp_path, server.url)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tar_bytes({"../escape.txt": b"x"}), "outside"),
        (tar_bytes({"/tmp/deltarnn-escape.txt": b"x"}), "outside"),
        (tar_bytes({"inside.txt": b"x"}, link="/etc/passwd"), "neither a file nor a folder"),
        (CONTENT[:60], "cannot be unpacked"),
        (b"no archive", "cannot be unpacked"),
    ],
    ids=["outside", "absolute", "link", "truncated", "no archive"],  # not the bytes: they hold the time of day
)
def test_hostile_and_damaged_archives_leave_nothing(content, message, tmp_path):
    (tmp_path / "inside").mkdir()
    path = tmp_path / "inside" / "bad.tar.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        unpack(path, tmp_path / "inside" / "words")
    assert [p.name for p in tmp_path.rglob("*")] == ["inside", "bad.tar.gz"]


def test_official_archives_fill_the_corpus_folders():
    assert {a.folder: a.size for a in module.OFFICIAL} == {
        "speech_commands_v0.02": 2_428_923_189,
        "speech_commands_test_set_v0.02": 112_563_277,
    }
