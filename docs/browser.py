"""Chromium without a window, driven over a pipe: opens a page, runs code in it, takes its picture.

    python docs/browser.py PAGE.html RECORDING.wav docs/images/web_page.png

draws the gallery's picture of the page that `deltarnn export --format web` wrote.
"""

import argparse
import base64
import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str | None:
    """Path of a Chromium or Chrome: $CHROMIUM, or the first on the path."""
    found = (shutil.which(name) for name in (os.environ.get("CHROMIUM"), *NAMES) if name)
    return next(filter(None, found), None)


class Browser:
    """A Chromium with one page; a context manager, which ends it.

    width, height, ratio: of the window, in CSS pixels, and how many of the screen are one of them. microphone: a WAV
    file that is played once as the microphone's sound. allow: whether there is a microphone, and it is allowed.
    """

    def __init__(
        self,
        *,
        width: int = 1120,
        height: int = 900,
        ratio: float = 1,
        dark: bool = False,
        mobile: bool = False,
        microphone: Path | None = None,
        allow: bool = True,
    ) -> None:
        program = find_chromium()
        if program is None:
            raise FileNotFoundError("no Chromium was found: install one, or name it in the variable CHROMIUM")
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        flags = ["--headless=new", "--remote-debugging-pipe", "--no-first-run", "--hide-scrollbars", "--disable-gpu",
                 "--autoplay-policy=no-user-gesture-required", "--disable-dev-shm-usage",
                 f"--user-data-dir={self._folder.name}"]  # fmt: skip
        if allow:
            flags += ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
        if microphone is not None:
            flags += [f"--use-file-for-fake-audio-capture={microphone}%noloop"]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            flags += ["--no-sandbox"]
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (to_read, to_write)]

        def connect() -> None:
            """Chromium reads commands from descriptor 3 and answers on 4."""
            os.dup2(ends[0], 3)
            os.dup2(ends[1], 4)

        self._process = subprocess.Popen(
            [program, *flags], close_fds=False, preexec_fn=connect, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for end in (to_read, to_write, *ends):
            os.close(end)
        self._count, self._received, self._session = 0, b"", None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.send("Page.enable")
        self.send("Runtime.enable")
        self.send("DOM.enable")
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=ratio, mobile=mobile
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError, ConnectionError):
            self._session = None
            self.send("Browser.close")
        os.close(self._write)
        os.close(self._read)
        self._process.wait(20)
        self._folder.cleanup()

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the DevTools protocol, and its result. RuntimeError where it is refused."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return dict(answer["result"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._received:
            piece = os.read(self._read, 1 << 16)
            if not piece:
                raise ConnectionError("Chromium ended")
            self._received += piece
        message, self._received = self._received.split(b"\0", 1)
        return dict(json.loads(message))

    def open(self, page: Path) -> None:
        """Load a file and wait until it is there."""
        self.send("Page.navigate", url=page.resolve().as_uri())
        self.wait("document.readyState === 'complete' && location.protocol === 'file:'")

    def run(self, code: str) -> Any:
        """The value of an expression in the page, awaited if it is a promise. RuntimeError with what it throws."""
        answer = self.send("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True, userGesture=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description", details["text"]))
        return answer["result"].get("value")

    def wait(self, condition: str, seconds: float = 30) -> None:
        """Until an expression is true. TimeoutError after so many seconds."""
        deadline = time.monotonic() + seconds
        while not self.run(condition):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{condition}: not after {seconds} s")
            time.sleep(0.05)

    def choose(self, selector: str, file: Path) -> None:
        """Give a file to an input element, as if it had been chosen."""
        node = self.send("DOM.getDocument")["root"]["nodeId"]
        chosen = self.send("DOM.querySelector", nodeId=node, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=chosen, files=[str(file.resolve())])

    def picture(self, path: Path) -> None:
        """The whole page as a PNG file."""
        self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


def main() -> None:
    """Draw the gallery's picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("recording", type=Path)
    parser.add_argument("picture", type=Path)
    given = parser.parse_args()
    with Browser() as browser:
        browser.open(given.page)
        browser.choose("#file", given.recording)
        browser.wait("document.getElementById('status').textContent.includes('real time')", 120)
        browser.picture(given.picture)


if __name__ == "__main__":
    main()
