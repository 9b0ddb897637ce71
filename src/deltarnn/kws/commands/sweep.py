"""`deltarnn sweep`: accuracy against sparsity over a grid of thresholds, retrained or post-training.

Every point is one file, so that an interrupted sweep goes on with the points that are missing:

    SAVE/sweep-DIGEST/points/x0.2-h0.1.json      sweep.csv · sweep.png · sweep.json
"""

import argparse
import csv
import hashlib
import io
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from deltarnn.engine.model_file import load_model
from deltarnn.files import read_json, replacing, write_json, write_text
from deltarnn.kws.commands.choice import add_model, chosen_folder, chosen_model
from deltarnn.kws.config.arguments import add_number
from deltarnn.kws.config.resolve import digest
from deltarnn.kws.places import work_folder

MAX_THRESHOLD = 1e6

FIELDS = (
    "thx", "thh", "validation_accuracy", "validation_sparsity", "test_accuracy", "test_sparsity", "sparsity_x",
    "sparsity_h", "effective_sparsity",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `deltarnn sweep`."""
    add_model(parser, out="the sweep's own folder")
    parser.add_argument("--thx", default="0,0.1,0.2,0.3,0.4,0.6", help="thresholds of inputs (default: %(default)s)")
    parser.add_argument("--thh", default="0.1,0.2,0.3,0.4", help="thresholds of hidden states (default: %(default)s)")
    add_number(parser, "epochs_retrain", int, 0, 100000, "epochs of retraining per point; 0: post-training", default=0)
    parser.add_argument("--features", type=Path, help="folder of feature files (default: the model's)")
    add_number(parser, "budget", float, 0, 1, "validation accuracy that may be lost", default=0.01)
    add_number(parser, "workers", int, 0, 256, "processes; 0: in this one", default=2)
    parser.add_argument("--point", help=argparse.SUPPRESS)
    parser.add_argument("--point_file", type=Path, help=argparse.SUPPRESS)


@dataclass(frozen=True)
class Point:
    """A pair of thresholds and what it gives."""

    thx: float
    thh: float
    values: dict[str, float]

    @property
    def accuracy(self) -> float:
        """On the validation set, by which points are chosen."""
        return self.values["validation_accuracy"]

    @property
    def sparsity(self) -> float:
        """On the validation set."""
        return self.values["validation_sparsity"]


def run(arguments: argparse.Namespace) -> int:
    """The whole sweep; or, in a process of its own, one point of it."""
    if arguments.point is not None:
        thx, thh = map(float, arguments.point.split(","))
        _keep(arguments.point_file, measure(arguments, thx, thh))
        return 0
    arguments.model = chosen_model(arguments)
    load_model(arguments.model)  # a file that is none stops here, and not in every process
    grid = [(thx, thh) for thx in _numbers("thx", arguments.thx) for thh in _numbers("thh", arguments.thh)]
    folder = chosen_folder(arguments, arguments.model) / f"sweep-{_digest(arguments)}"
    points = list(_measure_all(arguments, folder, [(0.0, 0.0), *(pair for pair in grid if pair != (0.0, 0.0))]))
    reference, rest = points[0], points[1:]
    front = pareto_front(rest)
    best = best_point(rest, reference.accuracy - arguments.budget)
    write_text(folder / "sweep.csv", _csv(points))
    plot(folder / "sweep.png", points, front, best)
    write_json(
        folder / "sweep.json",
        {
            "model": arguments.model.name,
            "retrained_epochs": arguments.epochs_retrain,
            "dense": reference.values,
            "points": [point.values for point in points],
            "front": [point.values for point in front],
            "best": None if best is None else best.values,
        },
    )
    print(f"dense: validation {reference.accuracy:.2%}, test {reference.values['test_accuracy']:.2%}")
    if best is None:
        print(f"no point loses at most {arguments.budget:.1%}: try lower thresholds, or --epochs_retrain above 0")
    else:
        print(
            f"best point that loses at most {arguments.budget:.1%} on validation: --thx {best.thx:g} "
            f"--thh {best.thh:g}, validation {best.accuracy:.2%} at {best.sparsity:.1%} sparsity; "
            f"test {best.values['test_accuracy']:.2%} at {best.values['test_sparsity']:.1%}"
        )
    print(folder / "sweep.csv")
    print(folder / "sweep.png")
    print(folder / "sweep.json")
    return 0


def pareto_front(points: list[Point]) -> list[Point]:
    """The points than which no other is both more accurate and sparser, by rising sparsity."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (-p.sparsity, -p.accuracy)):
        if not front or point.accuracy > front[-1].accuracy:
            front.append(point)
    return front[::-1]


def best_point(points: list[Point], floor: float) -> Point | None:
    """The sparsest point with at least `floor` accuracy."""
    allowed = [point for point in points if point.accuracy >= floor]
    return max(allowed, key=lambda point: (point.sparsity, point.accuracy), default=None)


def measure(arguments: argparse.Namespace, thx: float, thh: float) -> dict[str, Any]:
    """One point: the model at these thresholds, retrained first if that is asked for."""
    from deltarnn.kws.commands.evaluate import load_groups
    from deltarnn.kws.evaluation.scoring import evaluate
    from deltarnn.kws.network.decision import DecisionRule
    from deltarnn.kws.network.header import require
    from deltarnn.kws.network.losses import LossOptions
    from deltarnn.kws.network.model import load_keyword_model

    path = arguments.model
    if arguments.epochs_retrain and (thx or thh):
        path = _retrained(arguments, thx, thh)
    model, header = load_keyword_model(path)
    require(path, header, "decision")
    assert model.delta is not None
    model.to_delta((thx,), (thh,), model.delta.quantization)
    rule = DecisionRule(**header["decision"])
    values: dict[str, Any] = {"thx": thx, "thh": thh}
    for group, clips in load_groups(header, arguments.features, ["validation", "test"]).items():
        result = evaluate(model, clips, rule, LossOptions(target=rule.target))
        assert result.sparsity is not None
        values |= {f"{group}_accuracy": result.accuracy, f"{group}_sparsity": result.sparsity.sparsity}
        values |= {name: value for name, value in vars(result.sparsity).items() if name != "sparsity"}
    return values


def plot(path: Path, points: list[Point], front: list[Point], best: Point | None) -> None:
    """Accuracy against sparsity: every point, the Pareto front, the best point."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.scatter([p.sparsity for p in points], [p.accuracy for p in points], s=18, color="#9aa5b1", label="points")
    axes.plot([p.sparsity for p in front], [p.accuracy for p in front], "-o", color="#0b6e99", label="Pareto front")
    if best is not None:
        axes.scatter([best.sparsity], [best.accuracy], s=110, facecolors="none", edgecolors="#d1495b", linewidths=2)
        axes.annotate(
            f"θx {best.thx:g}, θh {best.thh:g}", (best.sparsity, best.accuracy), xytext=(-10, -4),
            textcoords="offset points", ha="right", va="top",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5},
        )  # fmt: skip
    axes.set(xlabel="temporal sparsity (validation)", ylabel="accuracy (validation)")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0))  # as many digits as tell the ticks apart
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    with replacing(path) as part:
        figure.savefig(part, dpi=150)


def _retrained(arguments: argparse.Namespace, thx: float, thh: float) -> Path:
    """The model file of a retrain run from the swept model, by the options that it was trained with."""
    from deltarnn.kws.commands.train import train
    from deltarnn.kws.config.resolve import resolve
    from deltarnn.kws.training.runs import CONFIG

    recorded = read_json(arguments.model.with_name(CONFIG))
    if recorded is None:
        raise ValueError(f"{arguments.model.with_name(CONFIG)} is missing: it holds the options to retrain with")
    changes = {
        "step": "retrain",
        "path_net_pretrain": str(arguments.model),
        "thx": [thx],
        "thh": [thh],
        "epochs_retrain": arguments.epochs_retrain,
        "model_path": "",
        "threads": 0 if arguments.workers <= 1 else 1,
    }
    root = work_folder(arguments.model, "save")
    if root is not None:
        changes["work_dir"] = str(root)
    return train(resolve({**recorded, **changes}), "retrain", latest=False).model_path


def _measure_all(arguments: argparse.Namespace, folder: Path, grid: list[tuple[float, float]]) -> Iterator[Point]:
    """All points, those that are missing measured in processes of their own."""
    files = {pair: folder / "points" / f"x{pair[0]:g}-h{pair[1]:g}.json" for pair in grid}
    missing = [pair for pair, file in files.items() if _kept(file) is None]
    command = [
        *(sys.executable, "-c", "import sys; from deltarnn.cli import main; sys.exit(main())"),
        *("sweep", str(arguments.model)),
        *("--epochs_retrain", str(arguments.epochs_retrain)),
        *(["--features", str(arguments.features)] if arguments.features else []),
    ]

    def measure_apart(pair: tuple[float, float]) -> None:
        if arguments.workers == 0:
            _keep(files[pair], measure(arguments, *pair))
            return
        extra = ["--point", f"{pair[0]!r},{pair[1]!r}", "--point_file", str(files[pair])]
        done = subprocess.run([*command, *extra], capture_output=True, text=True, check=False)
        if done.returncode:
            reason = done.stderr.strip().splitlines() or [f"its process ended with status {done.returncode}"]
            raise ValueError(f"thx {pair[0]:g}, thh {pair[1]:g}: {reason[-1]}")

    with ThreadPoolExecutor(max(1, arguments.workers)) as pool:
        done = pool.map(measure_apart, missing)
        for _ in tqdm(done, total=len(missing), desc="points", unit="point", disable=None):
            pass
    for (thx, thh), file in files.items():
        values = _kept(file)
        assert values is not None
        yield Point(thx, thh, values)


def _keep(file: Path, values: dict[str, Any]) -> None:
    """Write a point's file, with a checksum: another run goes on from it."""
    write_json(file, {"values": values, "checksum": digest(values)})


def _kept(file: Path) -> dict[str, Any] | None:
    """The values of a point's file, or None where it is missing or damaged."""
    record = read_json(file)
    sound = isinstance(record, dict) and record.get("checksum") == digest(record.get("values"))
    return record["values"] if sound else None


def _digest(arguments: argparse.Namespace) -> str:
    """Stands for the model's content and the retraining."""
    content = hashlib.sha256(arguments.model.read_bytes()).hexdigest()
    return digest({"model": content, "epochs": arguments.epochs_retrain, "features": str(arguments.features)})


def _numbers(flag: str, text: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--{flag} {text}: must be numbers separated by commas") from None
    if not all(0 <= number <= MAX_THRESHOLD for number in numbers):
        raise ValueError(f"--{flag} {text}: thresholds must be at least 0 and at most {MAX_THRESHOLD:g}")
    return numbers


def _csv(points: list[Point]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(point.values for point in points)
    return text.getvalue()
