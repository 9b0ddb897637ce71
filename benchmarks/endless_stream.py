"""A day of audio through a spotter at full speed: processor time per frame, and memory, which must stand still.

python benchmarks/endless_stream.py MODEL.safetensors [--hours 24] [--piece 1600] [--precision int8]
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np

from deltarnn.kws.spotter import Spotter


def resident_kilobytes() -> int:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def ten_minutes(rate: int) -> np.ndarray:
    """int16: seconds of silence, hiss and tones that glide, at levels from the last bit to full scale."""
    rng = np.random.default_rng(0)
    pieces = []
    for second in range(600):
        level = 10 ** rng.uniform(0, 4.4)
        glide = np.sin(2 * np.pi * np.cumsum(np.linspace(*rng.uniform(100, 4000, 2), rate)) / rate)
        pieces.append((0.0, level, 0.0)[second % 3] * rng.normal(size=rate) + (0.0, 0.0, level)[second % 3] * glide)
    return np.clip(np.concatenate(pieces), -32768, 32767).astype(np.int16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--piece", type=int, default=1600, help="samples that arrive together (default: 1600, 0.1 s)")
    parser.add_argument("--threshold", type=float, help="instead of the model's own")
    parser.add_argument("--precision", choices=("float32", "int8"))
    arguments = parser.parse_args()
    spotter = Spotter.load(arguments.model, arguments.threshold, arguments.precision)
    audio = ten_minutes(spotter.sample_rate)
    pieces = [audio[i : i + arguments.piece] for i in range(0, len(audio), arguments.piece)]
    rounds = max(1, round(arguments.hours * 6))
    found, seconds, memory = 0, [], []
    for _ in range(rounds):
        began = time.thread_time()
        for piece in pieces:
            found += len(spotter.accept_waveform(piece))
        seconds.append(time.thread_time() - began)
        memory.append(resident_kilobytes())
    frames = len(audio) / spotter.sample_rate / spotter.frame_stride
    per_frame = np.array(seconds) / frames
    median, quartile = np.percentile(per_frame, (50, 25))
    print(f"{spotter.engine}, pieces of {arguments.piece} samples, {rounds / 6:g} hours, {found} detections")
    print(
        f"processor time per frame: median {median * 1e6:.2f} µs, lower quartile {quartile * 1e6:.2f} µs; real-time "
        f"factor {median / spotter.frame_stride:.6f}"
    )
    print(f"zero deltas {spotter.activity.sparsity:.1%}, work skipped {spotter.activity.effective_sparsity:.1%}")
    print(f"resident memory: {memory[0]} KiB after 10 minutes, {memory[-1]} KiB at the end, largest {max(memory)} KiB")


if __name__ == "__main__":
    main()
