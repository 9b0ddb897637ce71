"""`deltarnn estimate`: latency, throughput and energy of a keyword model on accelerators."""

import argparse
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from deltarnn.fixed.network import IntegerNetwork
from deltarnn.fixed.parameters import NetworkParameters, UnsupportedModelError
from deltarnn.hardware import DeltaCore, DeltaRNNFPGA
from deltarnn.hardware.accelerator import Accelerator
from deltarnn.hardware.design_space import (
    DesignGrid,
    DesignPoint,
    best_points,
    explore,
    plot_points,
    points_table,
    write_points,
)
from deltarnn.kws.commands.deployment import (
    Clips,
    accuracy_of,
    add_source_arguments,
    clips_of,
    pipeline_of,
    read_model,
)
from deltarnn.kws.commands.designs import design, refuse_idle
from deltarnn.kws.config.arguments import add_number

MAX_SWEPT = 1e12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `deltarnn estimate`."""
    add_source_arguments(parser, required=True)
    parser.add_argument(
        "--target", choices=("edgedrnn", "deltarnn", "spartus", "core"), required=True,
        help="the accelerator; core: DeltaCore, which `deltarnn export --format rtl` writes",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help="folder for the report (JSON) and the plot; without it only the table")
    add_number(parser, "power", float, 0, 1e6, "stated power, W (default: the accelerator's)")
    add_number(parser, "scan_width", int, 1, 1e6, "elements that DeltaRNN's encoder looks at per clock (7)")
    parser.add_argument("--design-space", action="store_true", help="sweep designs; needs --features, for accuracy")
    sizes = "processing elements (core: lanes) to try (default: 1/2, 1 and 2 times the accelerator's)"
    add_number(parser, "sweep_pe", tuple[int, ...], 1, MAX_SWEPT, sizes)
    for flag, what in (
        ("sweep_clock", "clocks to try, Hz (default: 1/2 and 1 times the accelerator's)"),
        ("sweep_threshold", "thresholds thx = thh to try (default: 0,0.05,0.1,0.2,0.4)"),
        ("sweep_gamma", "Spartus: sparsities to prune to, without retraining (default: 0,0.25,0.5,0.75)"),
    ):
        add_number(parser, flag, tuple[float, ...], 0, MAX_SWEPT, what)


def run(arguments: argparse.Namespace) -> int:
    """Print the report, write it to --out; 0 when done. Errors name the flag or value and what is allowed."""
    model, header = read_model(arguments)
    refuse_idle(arguments, arguments.target, {"scan_width": ("deltarnn",), "sweep_gamma": ("spartus",)})
    sweeps = [
        name for name in ("sweep_pe", "sweep_clock", "sweep_threshold", "sweep_gamma") if getattr(arguments, name)
    ]
    if sweeps and not arguments.design_space:
        raise ValueError(f"--{sweeps[0]} does nothing without --design-space")
    accelerator = design(arguments, arguments.target)
    pipeline = pipeline_of(arguments, header)
    clips = clips_of(arguments, pipeline)
    if arguments.design_space:
        return _design_space(arguments, model, header, accelerator, clips)
    seconds = pipeline.config.frame_seconds
    report = accelerator.estimate(model, clips.spread(arguments.clips).frames, seconds)
    print(report)
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        report.write_json(arguments.out / f"{arguments.target}.json")
        report.plot(arguments.out / f"{arguments.target}.png")
        print(f"wrote {arguments.out / arguments.target}.json and .png")
    return 0


def _design_space(
    arguments: argparse.Namespace,
    model: NetworkParameters,
    header: dict[str, Any],
    accelerator: Accelerator,
    clips: Clips,
) -> int:
    score = accuracy_of(header, clips.labels)
    if score is None:
        raise ValueError("--design-space needs --features: accuracy takes clips with labels")
    if arguments.out is None:
        raise ValueError("--design-space needs --out, a folder for points and plot")
    field = {DeltaRNNFPGA: "num_mac", DeltaCore: "lanes"}.get(type(accelerator), "num_pe")
    usual = getattr(accelerator, field)
    sizes = arguments.sweep_pe or sorted({max(1, usual // 2), usual, 2 * usual})
    gammas = arguments.sweep_gamma or ((0.0, 0.25, 0.5, 0.75) if arguments.target == "spartus" else (0.0,))
    designs = []
    for size in sizes:
        sized = replace(accelerator, **{field: size})
        try:
            sized.check(model)
        except UnsupportedModelError as error:
            print(f"left out: {field}={size}: {error}")
        else:
            designs.append(sized)
    if not designs:
        raise UnsupportedModelError(f"none of the sizes {list(sizes)} can hold the model")
    grid = DesignGrid(
        designs,
        arguments.sweep_clock or (accelerator.clock_hz / 2, accelerator.clock_hz),
        [(theta, theta) for theta in arguments.sweep_threshold or (0.0, 0.05, 0.1, 0.2, 0.4)],
        gammas,
    )
    batch = clips.batch

    def accuracy(changed: NetworkParameters) -> float:
        network = IntegerNetwork.convert(changed, accelerator.number_formats(changed))
        return score(network.to_float(network.run(batch).output))

    def bar(points: Iterable[DesignPoint], count: int) -> Iterable[DesignPoint]:
        return tqdm(points, total=count, unit="design", disable=None)

    points = explore(model, clips.spread(arguments.clips).frames, grid, accuracy, bar)
    print(f"accuracy on {len(clips.frames)} clips, without retraining; designs that no other beats in both:")
    print(points_table(best_points(points)))
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_points(points, arguments.out / f"{arguments.target}_design_space.json")
    plot_points(points, arguments.out / f"{arguments.target}_design_space.png", accelerator.name)
    print(f"wrote {len(points)} points to {arguments.out / arguments.target}_design_space.json, and a plot beside it")
    return 0
