"""The page of `deltarnn export --format web`: what it computes, in node and in Chromium, equals the device's twin."""

import base64
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from docs.browser import Browser, find_chromium
from tests.kws.spotter.conftest import FORMATS, LABELS, noise, save_random_model

from deltarnn.cli import main
from deltarnn.fixed.front_end import IntegerFrames
from deltarnn.fixed.spotter import IntegerStream
from deltarnn.hardware import wasm
from deltarnn.kws.data.audio import wav_bytes, write_wav
from deltarnn.kws.report.web_page import write_web_page
from deltarnn.kws.spotter import DeviceSpotter

needs_compiler = pytest.mark.skipif(find_spec("ziglang") is None, reason=wasm.MISSING)
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="no node, which runs the page's scripts")
needs_chromium = pytest.mark.skipif(find_chromium() is None, reason="no Chromium (its path: $CHROMIUM)")

RUN = """
const fs = require("fs"), [page, ...files] = process.argv.slice(1), html = fs.readFileSync(page, "utf8");
const part = (id) => html.match(new RegExp(`id="${id}">([^]*?)</script>`))[1];
const names = "Spotter, Resampler, readWav, toInt16";
const code = new Function(`${part("spotter-code")}; return { ${names} };`)();
const info = JSON.parse(part("info")), bytes = Buffer.from(part("module"), "base64");
const read = (file) => Uint8Array.from(fs.readFileSync(file)).buffer;
"""
LISTEN = """
const spotter = new code.Spotter(new WebAssembly.Instance(new WebAssembly.Module(bytes)), info);
for (const file of files) {
  const { samples } = code.readWav(read(file)), audio = code.toInt16(samples), numbers = [], detections = [];
  spotter.reset();
  for (let start = 0, turn = 0; start < audio.length;) {
    const size = [128, 1, 5000, 37][turn++ % 4];
    for (const frame of spotter.push(audio.subarray(start, start + size))) {
      const sums = frame.scores.map((score) => Math.round(score * info.scoreUnit));
      numbers.push(...frame.features, ...frame.events, ...sums);
      if (frame.detection) detections.push(frame.detection);
    }
    start += size;
  }
  const packed = Buffer.from(Int32Array.from(numbers).buffer).toString("base64");
  console.log(JSON.stringify({ detections, numbers: packed }));
}
"""
RESAMPLE = """
for (const [from, frequency] of JSON.parse(files[0])) {
  const tone = Float64Array.from({ length: from / 2 }, (_, n) => Math.sin((2 * Math.PI * frequency * n) / from));
  const resampler = new code.Resampler(from, 16000), out = [];
  for (let start = 0; start < tone.length;) {
    const size = [128, 1, 1000, 7][start % 4];
    out.push(...resampler.push(tone.subarray(start, start + size)));
    start += size;
  }
  console.log(JSON.stringify([...out, ...resampler.flush()]));
}
"""


def page_of(folder: Path, **options) -> tuple[Path, DeviceSpotter]:
    save_random_model(folder / "model.safetensors", **options)
    spotter = DeviceSpotter.load(folder / "model.safetensors", threshold=0.5)
    return write_web_page(folder / "page.html", spotter.integers, LABELS), spotter


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> tuple[Path, DeviceSpotter]:
    return page_of(tmp_path_factory.mktemp("page"))


def in_node(code: str, *arguments: object) -> list:
    command = ["node", "-e", RUN + code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def twin(spotter: DeviceSpotter, audio: np.ndarray) -> tuple[np.ndarray, list[dict]]:
    """(frames, …): features, events, sums; and the detections."""
    integers, step = spotter.integers, IntegerStream(spotter.integers).accept(audio)
    events = [fired[:, 0] for run in step.runs for fired in (run.fired_x, run.fired_h)]
    numbers = np.concatenate([IntegerFrames(integers.front_end).accept(audio), *events, step.sums], axis=1)
    found = [
        {
            "word": spotter.keywords[peak.keyword],
            "time": (peak.frame * integers.front_end.hop + integers.front_end.length) / 16000,
            "score": peak.score / (integers.rule.unit * integers.rule.smoothing),
        }
        for peak in step.peaks
    ]
    return numbers, found


CASES = {
    "GRU": {},
    "LSTM in 16 bits": {"cell": "LSTM", "quantization": FORMATS},
    "frames that overlap": {"frame_size": 0.032},
}


@needs_compiler
@needs_node
@pytest.mark.parametrize("case", CASES)
def test_the_pages_scripts_compute_what_the_twin_computes(case, tmp_path):
    page, spotter = page_of(tmp_path, **CASES[case])
    clips = [noise(seed, 16_000 + seed) for seed in range(2)] + [noise(99, 80_000)]
    files = [tmp_path / f"{n}.wav" for n in range(len(clips))]
    for file, clip in zip(files, clips, strict=True):
        write_wav(file, clip)
    results = in_node(LISTEN, page, *files)
    for result, clip in zip(results, clips, strict=True):
        numbers, detections = twin(spotter, clip)
        assert np.array_equal(np.frombuffer(base64.b64decode(result["numbers"]), np.int32), numbers.ravel())
        assert result["detections"] == detections
    assert results[-1]["detections"]


@needs_compiler
@needs_node
def test_a_layer_without_thresholds_multiplies_every_column(tmp_path):
    _, spotter = page_of(tmp_path)
    network = spotter.integers.network
    dense = replace(network, layers=tuple(replace(layer, thx=0, thh=0) for layer in network.layers))
    spotter.integers = replace(spotter.integers, network=dense)
    write_wav(tmp_path / "a.wav", audio := noise(3, 16_000))
    (result,) = in_node(LISTEN, write_web_page(tmp_path / "page.html", spotter.integers, LABELS), tmp_path / "a.wav")
    numbers, _ = twin(spotter, audio)
    found = np.frombuffer(base64.b64decode(result["numbers"]), np.int32).reshape(numbers.shape)
    columns = slice(16, 16 + 16 + 24)
    assert found[:, columns].all()
    assert np.array_equal(np.delete(found, columns, axis=1), np.delete(numbers, columns, axis=1))


@needs_compiler
@needs_node
def test_tones_are_resampled_and_do_not_fold(page):
    rates = (8000, 11025, 22050, 44100, 48000, 96000)
    kept = [(rate, 0.41 * min(rate, 16000)) for rate in rates] + [(48000, 100.0)]
    removed = [(44100, 9000.0), (48000, 8600.0), (96000, 30000.0)]
    results = in_node(RESAMPLE, page[0], json.dumps(kept + removed))
    for (rate, frequency), signal in zip(kept, results, strict=False):
        assert len(signal) == pytest.approx(8000, abs=1), rate
        ideal = np.sin(2 * np.pi * frequency * np.arange(len(signal)) / 16000)
        assert np.abs(np.array(signal) - ideal)[300:-300].max() < 2e-3, rate
    for (rate, _), signal in zip(removed, results[len(kept) :], strict=True):
        assert np.abs(signal[300:-300]).max() < 1e-3, rate


@needs_compiler
@needs_node
def test_other_wav_files_are_read_or_left_to_the_browser(page, tmp_path):
    code = """
for (const file of files) {
  const sound = code.readWav(read(file));
  console.log(JSON.stringify(sound && [sound.rate, [...code.toInt16(sound.samples)]]));
}
"""
    stereo = bytearray(wav_bytes(np.array([10, 20, -7, -9], np.int16), 44100))
    stereo[22:24] = (2).to_bytes(2, "little")
    plain = wav_bytes(np.array([1, -32768, 32767], np.int16), 16000)
    listed = plain[:36] + b"LIST\x03\x00\x00\x00abc\x00" + plain[36:]  # an odd chunk is padded
    for name, content in {"s": stereo, "l": listed, "cut": plain[:-2], "none": b"ID3" * 30, "float": plain[:20] + b"\3"
                          + plain[21:], "short": b"RIFF"}.items():  # fmt: skip
        (tmp_path / name).write_bytes(content)
    found = in_node(code, page[0], *(tmp_path / name for name in ("s", "l", "cut", "none", "float", "short")))
    assert found == [[44100, [15, -8]], [16000, [1, -32768, 32767]], [16000, [1, -32768]], None, None, None]


STATUS = "document.getElementById('status').textContent"
KEEP_SAMPLES = """
document.getElementById("listener-code").textContent = `{
  const push = Spotter.prototype.push;
  let kept = [];
  Spotter.prototype.push = function (samples) {
    kept.push(...samples);
    return push.call(this, samples).map((frame) => { frame.heard = kept; kept = []; return frame; });
  };
}` + document.getElementById("listener-code").textContent;
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    sound = tmp_path_factory.mktemp("microphone") / "sound.wav"
    write_wav(sound, noise(5, 160_000))
    with Browser(width=390, height=844, ratio=2, mobile=True, microphone=sound) as browser:
        yield browser


@needs_compiler
@needs_chromium
@pytest.mark.parametrize("rate", [16000, 48000])
def test_the_microphone_is_heard_as_the_twin_hears_it(browser, page, rate):
    """Whatever samples the microphone brought, resampled where the audio context has another rate."""
    file, spotter = page
    browser.open(file)
    browser.run(KEEP_SAMPLES)
    if rate != 16000:
        fixed = f"class extends AudioContext {{ constructor() {{ super({{ sampleRate: {rate} }}); }} }}"
        browser.run(f"void (globalThis.AudioContext = {fixed})")
    browser.run("document.getElementById('listen').click()")
    browser.wait("log.detections.length >= 2 || log.length > 500")
    assert browser.run(STATUS).startswith("Listening to the microphone" + (", resampled" if rate != 16000 else "."))
    browser.run("document.getElementById('listen').click()")
    browser.wait(f"{STATUS}.startsWith('Stopped')")
    state = browser.run("({ detections: log.detections, heard: log.frames.flatMap((frame) => [...frame.heard]) })")
    assert state["detections"] == twin(spotter, np.array(state["heard"], np.int16))[1]
    assert state["detections"]


@needs_compiler
@needs_chromium
@pytest.mark.parametrize(
    "at_once",
    ["listen.click(); listen.click()", "drop(); listen.click()", "listen.click(); drop()", "drop(); drop()"],
)
@pytest.mark.parametrize("aloud", ["true", "false"])
def test_of_what_is_begun_at_once_only_the_last_goes_on(browser, page, at_once, aloud):
    """No second microphone or recording is heard along, which nothing could stop."""
    sound = base64.b64encode(wav_bytes(noise(1, 160_000), 16000)).decode()
    browser.open(page[0])
    browser.run(f"""void (() => {{
      globalThis.contexts = [];
      globalThis.AudioContext = class extends AudioContext {{
        constructor(...given) {{ super(...given); contexts.push(this); }}
      }};
      const listen = document.getElementById("listen"), dataTransfer = new DataTransfer();
      const bytes = Uint8Array.from(atob("{sound}"), (c) => c.charCodeAt(0));
      dataTransfer.items.add(new File([bytes], "some.wav"));
      const drop = () => document.body.dispatchEvent(new DragEvent("drop", {{ dataTransfer, bubbles: true }}));
      document.getElementById("aloud").checked = {aloud};
      {at_once};
    }})()""")
    browser.wait(f"/^(Listening|Playing|some.wav: .* heard in)/.test({STATUS})")
    browser.run("stop()")
    browser.wait("contexts.every((context) => context.state === 'closed')")


@needs_compiler
@needs_chromium
def test_recordings_dropped_chosen_and_played_are_heard_as_the_twin_hears_them(browser, page, tmp_path):
    file, spotter = page
    audio = noise(1, 48_000)
    sound = base64.b64encode(wav_bytes(audio, 16000)).decode()
    browser.open(file)
    browser.run(f"""(() => {{
      const bytes = Uint8Array.from(atob("{sound}"), (c) => c.charCodeAt(0)), dataTransfer = new DataTransfer();
      dataTransfer.items.add(new File([bytes], "some.wav"));
      document.body.dispatchEvent(new DragEvent("drop", {{ dataTransfer, bubbles: true, cancelable: true }}));
    }})()""")
    browser.wait(f"/^some.wav: .* heard in/.test({STATUS})")
    spotter.reset()
    spotter.accept_waveform(audio)
    words, sparsity = twin(spotter, audio)[1], spotter.activity.sparsity
    assert browser.run("log.detections") == words != []
    assert browser.run("1 - totals.fired / (totals.frames * columnCount)") == pytest.approx(sparsity)
    layer = spotter.integers.network.layers[0]
    fired = (1 - sparsity) * (layer.input_size + layer.hidden_size) * len(layer.weight_ih)
    head = spotter.integers.network.head[0].weight.size
    assert browser.run("totals.macs / totals.frames") == pytest.approx(fired + head)
    rows = browser.run("[...document.getElementById('detections').rows].map((row) => row.cells[1].textContent)")
    assert rows == [word["word"] for word in reversed(words)]
    assert browser.run("document.documentElement.scrollWidth") == 390
    write_wav(tmp_path / "played.wav", audio)
    browser.run("document.getElementById('aloud').checked = true")
    browser.choose("#file", tmp_path / "played.wav")
    browser.wait(f"/^played.wav: .* played/.test({STATUS})")
    assert browser.run("log.detections") == words
    (tmp_path / "text.wav").write_text("no sound")
    browser.choose("#file", tmp_path / "text.wav")
    browser.wait(f"{STATUS} === 'text.wav: the browser cannot decode it; a WAV file always works.'")


@needs_compiler
@needs_chromium
@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ("navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'NotAllowedError'); }",
         "The microphone is not allowed"),
        ("navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'NotFoundError'); }",
         "No microphone was found"),
        ("Object.defineProperty(AudioContext.prototype, 'audioWorklet', { value: undefined })",
         "This browser has no AudioWorklet here"),
        ("Object.defineProperty(navigator, 'mediaDevices', { value: undefined })",
         "This browser gives a page no microphone here"),
    ],
)  # fmt: skip
def test_what_is_missing_is_told_in_a_sentence(browser, page, missing, told):
    browser.open(page[0])
    browser.run(f"void ({missing})")
    browser.run("document.getElementById('listen').click()")
    browser.wait(f"{STATUS}.startsWith({json.dumps(told)})")
    assert browser.run("document.getElementById('status').className + running") == "wrongnull"


@needs_compiler
def test_the_command_writes_one_file_that_asks_for_nothing(tmp_path, capsys):
    save_random_model(tmp_path / "model.safetensors")
    arguments = ["export", "--model", str(tmp_path / "model.safetensors"), "--format", "web", "--out", str(tmp_path)]
    assert main([*arguments, "--name", "ear"]) == 0
    told = capsys.readouterr().out
    assert f"wrote {tmp_path / 'ear.html'}" in told
    assert "threshold 3: the model stores none" in told
    text = (tmp_path / "ear.html").read_text()
    assert not re.search(r"https?://|src=|@import|fetch\(|XMLHttp|\{\{", text)
    assert "listens for yes, no, stop" in text
    assert main([*arguments, "--stim_len", "9"]) == 1
    assert "--stim_len does nothing for web" in capsys.readouterr().err


def test_a_missing_compiler_and_a_front_end_no_device_has_are_named(tmp_path, capsys, monkeypatch):
    arguments = ["export", "--model", str(tmp_path / "model.safetensors"), "--format", "web", "--out", str(tmp_path)]
    save_random_model(tmp_path / "model.safetensors", mfcc=True, n_filt=40)
    assert main(arguments) == 1
    assert "--mfcc" in capsys.readouterr().err
    save_random_model(tmp_path / "model.safetensors")
    monkeypatch.setitem(sys.modules, "ziglang", None)
    monkeypatch.setattr(wasm, "find_spec", lambda name: None)
    assert main(arguments) == 1
    assert "pip install 'deltarnn[embedded]'" in capsys.readouterr().err
