"""`deltarnn sweep`: accuracy against sparsity over a grid of thresholds, retrained or post-training.

Every point is one file, so that an interrupted sweep goes on with the points that are missing:

    SAVE/sweep-DIGEST/points/x0.2-h0.1.json      sweep.csv · sweep.png · sweep.json
"""

import argparse
import csv
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from deltarnn.files import read_json, replacing, write_json, write_text
from deltarnn.kws.commands.choice import add_model, chosen_folder, chosen_model
from deltarnn.kws.commands.processes import on_cluster, on_this_machine, run_apart
from deltarnn.kws.config.arguments import add_number
from deltarnn.kws.config.resolve import digest

MAX_THRESHOLD = 1e6
DEFAULT_WORKERS = 2
MEASURED = ["validation", "test"]
"""Groups of clips."""

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
    add_number(parser, "workers", int, 0, 256, f"processes; 0: in this one (default: {DEFAULT_WORKERS})")
    parser.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="run the points on the Dask scheduler at this address, instead of --workers",
    )
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
    if arguments.cluster is not None and arguments.workers is not None:
        raise ValueError("--workers does nothing beside --cluster: that has workers of its own")
    arguments.workers = DEFAULT_WORKERS if arguments.workers is None else arguments.workers
    arguments.model = chosen_model(arguments)
    grid = [(thx, thh) for thx in _numbers("thx", arguments.thx) for thh in _numbers("thh", arguments.thh)]
    folder = chosen_folder(arguments, arguments.model) / f"sweep-{_digest(arguments)}"
    points = list(_measure_all(arguments, folder, [(0.0, 0.0), *(pair for pair in grid if pair != (0.0, 0.0))]))
    reference, rest = points[0], points[1:]
    front = pareto_front(points)
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
            f"best point that loses at most {arguments.budget:.1%} on validation: --thx {_shortest(best.thx)} "
            f"--thh {_shortest(best.thh)}, validation {best.accuracy:.2%} at {best.sparsity:.1%} sparsity; "
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
    for group, clips in load_groups(header, arguments.features, MEASURED).items():
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
        axes.scatter(
            [best.sparsity], [best.accuracy], s=110, facecolors="none", edgecolors="#d1495b", linewidths=2,
            label="sparsest within the budget",
        )  # fmt: skip
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
    from deltarnn.kws.training.runs import CONFIG, recorded_config

    recorded = read_json(arguments.model.with_name(CONFIG))
    if recorded is None:
        raise ValueError(f"{arguments.model.with_name(CONFIG)} is missing: it holds the options to retrain with")
    config = recorded_config(
        arguments.model, recorded, step="retrain", path_net_pretrain=str(arguments.model), thx=[thx], thh=[thh],
        epochs_retrain=arguments.epochs_retrain, model_path="", threads=1 if arguments.point else 0,
    )  # fmt: skip
    return train(config, "retrain", latest=False).model_path


def _measure_all(arguments: argparse.Namespace, folder: Path, grid: list[tuple[float, float]]) -> Iterator[Point]:
    """All points, those that are missing measured in processes of their own."""
    files = {pair: folder / "points" / "x{}-h{}.json".format(*map(_shortest, pair)) for pair in grid}
    missing = [pair for pair, file in files.items() if _kept(file) is None]
    tasks = [_Apart.of(arguments, pair, files[pair]) for pair in missing]
    if arguments.cluster is not None:
        done = on_cluster(_measure_apart, tasks, arguments.cluster)
    elif arguments.workers:
        done = on_this_machine(_measure_apart, tasks, arguments.workers)
    else:
        done = _measure_here(arguments, tasks)
    for _ in tqdm(done, total=len(missing), desc="points", unit="point", disable=None):
        pass
    for (thx, thh), file in files.items():
        values = _kept(file)
        assert values is not None
        yield Point(thx, thh, values)


class _Apart(NamedTuple):
    """A point to be measured in another process, whose current folder may be another."""

    thx: float
    thh: float
    file: Path
    arguments: list[str]

    @classmethod
    def of(cls, arguments: argparse.Namespace, pair: tuple[float, float], file: Path) -> "_Apart":
        features = ["--features", str(arguments.features.resolve())] if arguments.features else []
        point = ["--point", f"{pair[0]!r},{pair[1]!r}", "--point_file", str(file.resolve())]
        model = ["sweep", str(arguments.model.resolve()), "--epochs_retrain", str(arguments.epochs_retrain)]
        return cls(*pair, file.resolve(), [*model, *features, *point])


def _measure_here(arguments: argparse.Namespace, points: list[_Apart]) -> Iterator[None]:
    for point in points:
        _keep(point.file, measure(arguments, point.thx, point.thh))
        yield


def _measure_apart(point: _Apart) -> None:
    if _kept(point.file) is not None:  # from a worker that died after it
        return
    try:
        run_apart(point.arguments)
    except ValueError as error:
        raise ValueError(f"thx {point.thx:g}, thh {point.thh:g}: {error}") from None


def _keep(file: Path, values: dict[str, Any]) -> None:
    """Write a point's file, with a checksum: another run goes on from it."""
    write_json(file, {"values": values, "checksum": digest(values)})


def _kept(file: Path) -> dict[str, Any] | None:
    """The values of a point's file, or None where it is missing or damaged."""
    record = read_json(file)
    sound = isinstance(record, dict) and record.get("checksum") == digest(record.get("values"))
    return record["values"] if sound else None


def _digest(arguments: argparse.Namespace) -> str:
    """Stands for the model's content, the retraining, and the clips; a file that is no model stops here, and not in
    every process."""
    from deltarnn.kws.commands.evaluate import load_feature_sets
    from deltarnn.kws.network.model import load_keyword_model

    _, header = load_keyword_model(arguments.model)
    content = hashlib.sha256(arguments.model.read_bytes()).hexdigest()
    clips = {group: made.source for group, made in load_feature_sets(header, arguments.features, MEASURED).items()}
    return digest({"model": content, "epochs": arguments.epochs_retrain, "features": clips})


def _shortest(threshold: float) -> str:
    """All digits that tell a threshold from others, such as 0.1."""
    return repr(threshold).removesuffix(".0")


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
