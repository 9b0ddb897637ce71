"""Training beside busy processes: seconds for an epoch's batches, by threads and by how long idle threads spin.

python benchmarks/busy_neighbour.py [--neighbours 1] [--repetitions 5]

Every row is a process of its own, as OpenMP reads its settings when it is loaded; rows take turns.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

BATCHES = 107
"""Of `retrain` at its default size on 6795 clips, 64 of them each."""

SPIN = "GOMP_SPINCOUNT"


def train(threads: int) -> float:
    """Seconds for an epoch of GRU 16→64 on 61 frames, forward, backward and optimiser."""
    import torch

    from deltarnn import DeltaGRU

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    layer, head = DeltaGRU(16, 64, thx=0.1, thh=0.1), torch.nn.Linear(64, 12)
    optimizer = torch.optim.AdamW([*layer.parameters(), *head.parameters()], lr=1e-3)
    frames = torch.randn(61, 64, 16).cumsum(0) * 0.2
    labels = torch.randint(12, (64,))
    for batch in range(BATCHES + 10):
        if batch == 10:
            began = time.perf_counter()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(head(layer(frames)[0]).mean(0), labels).backward()
        optimizer.step()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--neighbours", type=int, default=1, help="busy processes beside (default: 1)")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--spins", default="200", help="bounds to try, separated by commas (default: 200)")
    parser.add_argument("--train", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        print(train(arguments.train))
        return
    unset = {name: value for name, value in os.environ.items() if name not in (SPIN, "OMP_NUM_THREADS")}
    cases = {"2 threads, as OpenMP comes": (2, unset), "1 thread": (1, unset)}
    for spins in arguments.spins.split(","):
        cases[f"2 threads, {spins} spins"] = (2, {**unset, SPIN: spins})
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(arguments.neighbours)]
    try:
        for _ in range(arguments.repetitions):
            for name, (threads, environment) in cases.items():
                command = [sys.executable, __file__, "--train", str(threads)]
                done = subprocess.run(command, env=environment, capture_output=True, check=True, text=True)
                seconds[name].append(float(done.stdout))
    finally:
        for process in busy:
            process.kill()
    print(f"{arguments.neighbours} busy processes beside, {os.cpu_count()} cores, {BATCHES} batches:")
    for name, values in seconds.items():
        print(f"  {name:<28} median {statistics.median(values):6.2f} s   {min(values):.2f} to {max(values):.2f} s")


if __name__ == "__main__":
    main()
