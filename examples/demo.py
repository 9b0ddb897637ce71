"""All four steps on speech synthesised on this machine, a sweep of thresholds, hours of stream; tables, reports, and a
page that listens.

    python examples/demo.py [--work_dir build/demo]

Interrupt it whenever you like: the same command goes on where it stopped.
"""

import argparse
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from deltarnn.cli import main as deltarnn
from deltarnn.files import read_json

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Prepare, feature, pretrain, retrain, sweep, evaluate; again for a stream; export; then say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work_dir", type=Path, default=ROOT / "build" / "demo", help="(default: build/demo)")
    work_dir = parser.parse_args().work_dir
    started = time.perf_counter()
    flags = ["--dataset", "synth", "--preset", "demo", "--work_dir", str(work_dir)]
    for step in ("prepare", "feature", "pretrain", "retrain"):
        run(step, *flags)
    models = {step: newest(work_dir, step) for step in ("pretrain", "retrain")}
    run("sweep", str(models["retrain"]), "--thx", "0,0.2,0.3,0.4,0.5", "--thh", "0.1,0.2,0.3", "--workers", "0")
    run("evaluate", str(models["retrain"]))
    run("retrain", *flags[:2], "--preset", "demo_stream", *flags[4:])
    listener = newest(work_dir, "retrain")
    run("evaluate", str(listener), "--stream")
    pages = {
        "report": models["retrain"].with_name("report.html"),
        "stream, to look along and listen to": listener.with_name("stream.html"),
    }
    if find_spec("ziglang"):  # the compiler that such a page needs; extra `embedded`, which `dev` includes
        run("export", str(listener), "--format", "web", "--name", "listen", "--out", str(listener.parent))
        pages["page that listens to your microphone"] = listener.with_name("listen.html")
    minutes = (time.perf_counter() - started) / 60
    stream = read_json(listener.with_name("stream.json"))["at_threshold"]
    print(table({step: read_json(path.with_name("metrics.json")) for step, path in models.items()}))
    print(
        f"\nOn hours of words, sentences, noise and silence, the network for streams misses {stream['miss_rate']:.0%} "
        f"of the keywords at {stream['false_alarms_per_hour']:.1f} false alarms an hour."
    )
    print(f"\n{minutes:.1f} minutes. " + "\n".join(f"The {name}: {path}" for name, path in pages.items()))


def run(*arguments: str) -> None:
    """One command, shown as one would type it."""
    print(f"\n$ deltarnn {' '.join(arguments)}", flush=True)
    status = deltarnn(arguments)
    if status:
        sys.exit(status)


def newest(work_dir: Path, step: str) -> Path:
    """The model file of the newest run of a step."""
    runs = (work_dir / "save" / "synth").glob(f"{step}-*/model.safetensors")
    return max(runs, key=lambda path: path.stat().st_mtime)


def table(metrics: dict[str, dict[str, Any]]) -> str:
    """Dense and delta network side by side, on test voices that were never heard in training."""
    dense, delta = metrics["pretrain"], metrics["retrain"]
    rows = [
        ("accuracy, unseen voices", f"{dense['test_accuracy']:.1%}", f"{delta['test_accuracy']:.1%}"),
        ("temporal sparsity", "–", f"{delta['sparsity']:.1%}"),
        ("parameters", f"{dense['parameters']:,}", f"{delta['parameters']:,}"),
        ("size at 8 bits", *(f"{m['model_bytes_int8'] / 1024:.1f} KiB" for m in (dense, delta))),
        (
            "operations per second of audio",
            f"{delta['operations_per_second_dense']:,.0f}",
            f"{delta['operations_per_second']:,.0f}",
        ),
    ]
    lines = [f"\n{'':32}{'dense':>14}{'delta':>14}"]
    return "\n".join([*lines, *(f"{name:32}{left:>14}{right:>14}" for name, left, right in rows)])


if __name__ == "__main__":
    main()
