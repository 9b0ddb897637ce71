"""Silero VAD, from the ONNX file of its wheel to a delta network: tuned, distilled, compared, in a table and a picture.

    pip install --no-deps silero-vad
    python examples/speed_up_silero_vad.py [--wav FILE …] [--output vad]

--wav: 16 kHz recordings of speech, a quarter of an hour or more, of which a third is held out; else it is synthesised.
The loss is 1 − AUC against the decisions of the unchanged network: no labels are needed.
"""

import argparse
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import soundfile
import soxr
from numpy.typing import NDArray
from scipy.stats import rankdata

import deltarnn
from deltarnn.onnx import Network, load

Array = NDArray[np.float32]
Feed = dict[str, Array]
Loss = Callable[[Network, list[Feed]], float]
RATE, CHUNK, CONTEXT = 16000, 512, 64
SECONDS = 20
"""Of one item: a stream of its own, from zero states."""
BUDGET = 0.001
"""Of AUC."""
SENTENCES = (
    "The quick brown fox jumps over the lazy dog.",
    "She had your dark suit in greasy wash water all year.",
    "Turn the lights off in the kitchen, please.",
    "What time does the next train to the city leave?",
    "Yes.",
    "No, go left, then right, and stop.",
    "Please call Stella, and ask her to bring these things from the store.",
    "Seven, eight, nine, ten.",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wav", type=Path, nargs="+", help="recordings of speech, 16 kHz; default: synthetic speech")
    parser.add_argument("--output", type=Path, default=Path("vad"), help="folder of the results (default: vad)")
    parser.add_argument("--minutes", type=float, default=15, help="of synthetic speech (default: 15)")
    parser.add_argument("--epochs", type=int, default=10, help="of distillation (default: 10)")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = model_file()

    audio = [read(wav) for wav in arguments.wav] if arguments.wav else synthetic_streams(arguments.minutes)
    items = [feed(piece) for wave in audio for piece in pieces(wave)]
    held_out, train = items[::3], [item for number, item in enumerate(items) if number % 3]
    print(f"{len(train)} streams of up to {SECONDS} s to tune and train on, {len(held_out)} held out")

    net = load(path)
    loss = auc_lost(net, items)
    rows = [("as it came", *measure(net, path, held_out, loss))]
    tuned = deltarnn.tune(net, train, loss, BUDGET, held_out=held_out)
    print(f"\n{tuned}\n")
    rows.append(("tuned", *measure(net, path, held_out, loss)))
    start = time.perf_counter()
    deltarnn.distill(net, train, epochs=arguments.epochs)
    print(f"distilled in {time.perf_counter() - start:.0f} s\n")
    rows.append(("tuned, then distilled", *measure(net, path, held_out, loss)))

    print("On held-out streams:\n")
    print("| | weights not fetched | AUC lost (points) | one chunk | ONNX Runtime | faster |")
    print("|---|---|---|---|---|---|")
    for name, sparsity, lost, ours, theirs in rows:
        print(
            f"| {name} | {sparsity:.1%} | {100 * lost:.3f} | {1e6 * ours:.0f} µs | {1e6 * theirs:.0f} µs "
            f"| {theirs / ours:.2f}× |"
        )
    tuned.plot(arguments.output / "curve.png")
    net.save(arguments.output / "silero_vad.delta.onnx")
    print(f"\nwritten: {arguments.output}/curve.png, {arguments.output}/silero_vad.delta.onnx")


def model_file() -> Path:
    """The network of the wheel that takes a whole sequence a call."""
    found = find_spec("silero_vad")  # not imported: that would need torchaudio
    if found is None or not found.submodule_search_locations:
        raise SystemExit("silero-vad is not installed: pip install --no-deps silero-vad")
    return Path(found.submodule_search_locations[0]) / "data" / "silero_vad_16k_sequence.onnx"


def read(path: Path) -> Array:
    """A recording as float32 in −1…1."""
    audio, rate = soundfile.read(path, dtype="float32")
    if rate != RATE or audio.ndim > 1:
        raise SystemExit(f"{path}: {rate} Hz, shape {audio.shape}: needs one channel at {RATE} Hz")
    return audio


def synthetic_streams(minutes: float) -> list[Array]:
    """Sentences of several voices with pauses, in noise of another level in each stream."""
    from deltarnn.kws.data.espeak import Espeak

    espeak, random = Espeak(), np.random.default_rng(0)
    streams = []
    for number in range(round(60 * minutes / SECONDS)):
        stream, end = np.zeros(SECONDS * RATE, np.float32), 0
        while True:
            voice = f"en-us+{'fm'[number % 2]}{1 + number // 2 % 4}"
            said = espeak.say(str(random.choice(SENTENCES)), voice, random.integers(130, 200), random.integers(30, 70))
            speech = soxr.resample(said.astype(np.float32) / 32768, espeak.sample_rate, RATE)
            start = end + int(random.uniform(0.3, 3.0) * RATE)
            end = start + len(speech)
            if end > len(stream):
                break
            stream[start:end] = speech
        noise = np.convolve(random.normal(size=len(stream)), [1, 0.9, 0.7, 0.4], "same")
        level = np.sqrt(np.mean(stream**2) / np.mean(noise**2) / 10 ** random.uniform(0.5, 3))
        streams.append((stream + level * noise).astype(np.float32))
    return streams


def pieces(wave: Array) -> list[Array]:
    """Streams of SECONDS, the last one shorter unless it is below a second."""
    step = SECONDS * RATE
    return [wave[start : start + step] for start in range(0, len(wave), step) if len(wave) - start >= RATE]


def feed(wave: Array) -> Feed:
    """The network's inputs: (T, 576) chunks of 512 samples with 64 samples of context, and zero states."""
    count = len(wave) // CHUNK
    padded = np.concatenate([np.zeros(CONTEXT, np.float32), wave[: count * CHUNK]])
    starts = CHUNK * np.arange(count)[:, None] + np.arange(CONTEXT + CHUNK)
    zeros = np.zeros((1, 1, 128), np.float32)
    return {"input": padded[starts], "h": zeros, "c": zeros}


def probabilities(net: Network, items: list[Feed]) -> Array:
    """Of speech, in every chunk of all streams; zero states in a feed begin a new one."""
    return np.concatenate([net.run(["speech_probs"], item)[0] for item in items])


def auc_lost(dense: Network, items: list[Feed]) -> Loss:
    """A loss for `deltarnn.tune`: 1 − area under the ROC curve, labels being the dense network's decisions."""
    decisions = {id(item): probabilities(dense, [item]) > 0.5 for item in items}

    def auc_lost(net: Network, some: list[Feed]) -> float:
        speech = np.concatenate([decisions[id(item)] for item in some])
        ranks = rankdata(probabilities(net, some))
        positives, negatives = int(speech.sum()), int((~speech).sum())
        wins = ranks[speech].sum() - positives * (positives + 1) / 2
        return float(1 - wins / (positives * negatives))

    return auc_lost


def measure(net: Network, path: Path, items: list[Feed], loss: Loss) -> tuple[float, float, float, float]:
    """(weights not fetched, AUC lost, seconds per chunk of one chunk a call, and of ONNX Runtime so called)."""
    net.reset()
    lost = loss(net, items)
    sparsity = net.activity.effective_sparsity
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    peers = {"ours": net, "theirs": onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])}
    seconds = dict.fromkeys(peers, np.inf)
    for _ in range(5):
        for name, peer in peers.items():
            start = time.thread_time()  # of this one thread: other work on the machine does not count
            stream(peer, items[0])
            seconds[name] = min(seconds[name], (time.thread_time() - start) / len(items[0]["input"]))
    return sparsity, lost, seconds["ours"], seconds["theirs"]


def stream(net: Any, item: Feed) -> None:
    """One chunk a call, as an application does."""
    h, c = item["h"], item["c"]
    for chunk in item["input"]:
        _, h, c = net.run(["speech_probs", "hn", "cn"], {"input": chunk[None], "h": h, "c": c})


if __name__ == "__main__":
    main()
