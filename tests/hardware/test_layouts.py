"""Arduino library, Zephyr module, the firmware of examples/: all of it builds, and QEMU hears what the twin does."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from tests.kws.spotter.conftest import LABELS, noise, save_random_model

from deltarnn.engine import load_model
from deltarnn.engine.model_file import read_quantization
from deltarnn.fixed.parameters import NetworkParameters
from deltarnn.hardware.c_spotter import quoted
from deltarnn.hardware.compilers import find_compiler
from deltarnn.hardware.export_c import export_c
from deltarnn.kws.data.audio import write_wav
from deltarnn.kws.spotter import DeviceSpotter

FIRMWARE = Path(__file__).parents[2] / "examples" / "firmware"
TOOLS = ("arm-none-eabi-gcc", "cmake", "qemu-system-arm")

PDM = """
struct Stream { void (*heard)(); int available() { return 512; } int read(int16_t *, int n) { return n; }
                void onReceive(void (*function)()) { heard = function; } void begin(int, int) {} } PDM;
struct Port { void begin(long) {} void println(const char *) {} } Serial;
inline void noInterrupts() {}
inline void interrupts() {}
"""
BUSY = """
int main() {
  setup();
  for (int i = 0; i < 3; ++i) PDM.heard();  // while loop() is late; there is room for two
  loop();
  return state.frames * NET_HOP + state.filled == 512 ? 0 : 1;
}
"""


def exported(folder: Path, layout) -> DeviceSpotter:
    save_random_model(folder / "m.safetensors")
    spotter = DeviceSpotter.load(folder / "m.safetensors", threshold=0.5)
    tensors, header = load_model(folder / "m.safetensors")
    parameters = NetworkParameters.from_model_file(tensors, header, read_quantization(header))
    export_c(parameters, np.zeros((5, 16)), folder / "out", name="net", labels=LABELS, spotter=spotter.integers,
             layout=layout)  # fmt: skip
    return spotter


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_an_arduino_library(tmp_path):
    exported(tmp_path, "arduino")
    out = tmp_path / "out"
    assert files_of(out) == {"library.properties", "src/net.c", "src/net.h", "examples/listen/listen.ino"}
    properties = dict(line.split("=", 1) for line in (out / "library.properties").read_text().splitlines())
    assert properties["name"] == "net"
    assert re.fullmatch(r"\d+\.\d+\.\d+", properties["version"])
    (tmp_path / "PDM.h").write_text("#include <stdint.h>\n" + PDM)  # in place of Arduino's own
    (tmp_path / "main.cpp").write_text(f'#include "{out}/examples/listen/listen.ino"\n{BUSY}')
    sketch = ["g++", "-std=c++11", "-Wall", "-Wextra", "-x", "c++", f"-I{out}/src", f"-I{tmp_path}"]
    subprocess.run([*sketch, "main.cpp", f"{out}/src/net.c", "-o", "busy"], cwd=tmp_path, check=True)
    subprocess.run([tmp_path / "busy"], check=True)


@pytest.mark.skipif(not find_compiler(), reason="no C compiler")
def test_a_zephyr_module(tmp_path):
    exported(tmp_path, "zephyr")
    out = tmp_path / "out"
    assert {"zephyr/module.yml", "zephyr/Kconfig", "include/net.h", "samples/self_test/prj.conf"} <= files_of(out)
    for text, folder in (
        ("zephyr/CMakeLists.txt", "zephyr"),
        ("samples/self_test/CMakeLists.txt", "samples/self_test"),
    ):
        named = re.findall(r"(?<=[( ])(?:\.\./)*(?:src|include)\b[/\w.]*", (out / text).read_text())
        assert named
        assert all((out / folder / path).exists() for path in named)
    assert "kconfig: zephyr/Kconfig" in (out / "zephyr/module.yml").read_text()
    assert (out / "zephyr/Kconfig").read_text().startswith("config NET\n")
    assert "CONFIG_NET=y" in (out / "samples/self_test/prj.conf").read_text()
    sources = ["src/net.c", "samples/self_test/src/main.c"]
    subprocess.run([*find_compiler(), "-std=c99", "-Iinclude", *sources, "-o", "self_test"], cwd=out, check=True)
    told = subprocess.run([out / "self_test"], capture_output=True, text=True, check=True).stdout
    assert re.search(r"\d+ frames, \d+ detections equal", told)


def test_labels_are_literals_whatever_they_are():
    assert quoted('a"b\\c??/é') == '"a\\042b\\134c\\077\\077\\057\\303\\251"'


@pytest.mark.skipif(any(shutil.which(tool) is None for tool in TOOLS), reason=f"needs {', '.join(TOOLS)}")
def test_the_firmware_hears_in_qemu_what_the_twin_hears(tmp_path):
    spotter, out = exported(tmp_path, "plain"), tmp_path / "out"
    audio = noise(3, 80_000)
    write_wav(tmp_path / "noise.wav", audio)
    tools = ["-DCMAKE_TOOLCHAIN_FILE=arm-none-eabi.cmake", "-G", "Unix Makefiles"]
    subprocess.run(
        ["cmake", "-S", FIRMWARE, "-B", tmp_path / "build", *tools, f"-DLIBRARY={out}", "-DNAME=net"],
        check=True, capture_output=True,
    )  # fmt: skip
    subprocess.run(["cmake", "--build", tmp_path / "build"], check=True, capture_output=True)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        given = "".join(f",arg={argument}" for argument in ("firmware", *arguments))
        return subprocess.run(
            ["qemu-system-arm", "-M", "mps2-an386", "-nographic", "-monitor", "none", "-serial", "none",
             "-semihosting-config", f"enable=on,target=native{given}", "-kernel", tmp_path / "build" / "firmware.elf"],
            capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    heard = run(str(tmp_path / "noise.wav"))
    expected = [
        f"{int(found.time * 16000 + 0.5) * 1000 // 16000} ms: {found.word}" for found in spotter.accept_waveform(audio)
    ]
    lines = (heard.stdout + heard.stderr).splitlines()
    assert heard.returncode == 0, lines
    assert [line.rsplit(" ", 1)[0] for line in lines] == [*expected, "end"]
    assert len(expected) > 1
    refused = run(str(tmp_path / "m.safetensors"))
    assert refused.returncode == 1
    assert "no WAV file of 16 bits" in refused.stdout + refused.stderr
