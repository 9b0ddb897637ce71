"""`deltarnn estimate` and `deltarnn export`: a keyword model on accelerators, and as files for them or for C."""

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from deltarnn.engine.model_file import load_model, read_quantization
from deltarnn.files import check_writable
from deltarnn.fixed.choice import choose_formats
from deltarnn.fixed.network import IntegerNetwork
from deltarnn.fixed.parameters import NetworkParameters, UnsupportedModelError
from deltarnn.fixed.qformat import Quantization
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
from deltarnn.hardware.export_edgedrnn import export_edgedrnn
from deltarnn.hardware.export_hex import export_hex
from deltarnn.hardware.export_rtl import TARGETS, export_rtl
from deltarnn.hardware.export_spartus import export_spartus
from deltarnn.hardware.files import ExportResult
from deltarnn.hardware.rtl_board import write_board
from deltarnn.hardware.rtl_target import default_lanes
from deltarnn.hardware.stimulus import choose_stimulus
from deltarnn.kws.commands import library, web
from deltarnn.kws.commands.choice import add_model, chosen_model
from deltarnn.kws.commands.designs import CORE_SHAPE, add_designs, design, edgedrnn, refuse_idle, spartus
from deltarnn.kws.config.arguments import add_number
from deltarnn.kws.data.audio import read_audio
from deltarnn.kws.features.pipeline import FeaturePipeline
from deltarnn.kws.features.store import load_features
from deltarnn.kws.network.decision import DecisionRule
from deltarnn.kws.network.header import check_header, require

Frames = NDArray[np.float64]
MAX_SWEPT = 1e12
STIMULATED = ("edgedrnn", "spartus", "hex", "c", "rtl")
"""Formats that come with a stimulus of frames, and what their test benches expect of it."""


@dataclass(frozen=True)
class Clips:
    """Normalised frames (T, I) of every clip, and labels (N,) if they are known."""

    frames: list[Frames]
    labels: NDArray[np.int64] | None = None

    def spread(self, count: int) -> "Clips":
        """At most `count` clips, evenly spread: files are sorted by class."""
        chosen = np.unique(np.linspace(0, len(self.frames) - 1, min(count, len(self.frames))).round().astype(int))
        return Clips([self.frames[i] for i in chosen], None if self.labels is None else self.labels[chosen])

    @property
    def batch(self) -> Frames:
        """(T, N, I), or one long sequence (T, 1, I) where lengths differ."""
        if len({len(clip) for clip in self.frames}) == 1:
            return np.stack(self.frames, axis=1)
        return np.concatenate(self.frames)[:, None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command that `parser.get_default("command")` names."""
    add_model(parser)
    source = parser.add_mutually_exclusive_group(required=parser.get_default("command") != "export")
    source.add_argument("--features", type=Path, help="feature file of --step feature, such as feat/…/test.safetensors")
    source.add_argument("--audio", type=Path, nargs="+", help="audio files, each one sequence")
    add_number(parser, "clips", int, 1, 1e9, "clips of --features to measure on", default=200)
    add_number(parser, "thx", float, 0, 1e6, "input threshold of all layers, instead of the model's")
    add_number(parser, "thh", float, 0, 1e6, "hidden-state threshold of all layers, instead of the model's")
    add_designs(parser)
    if parser.get_default("command") == "export":
        _add_export_arguments(parser)
    else:
        _add_estimate_arguments(parser)


def _add_export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--format", choices=(*STIMULATED, "web"), required=True,
        help="memory images (edgedrnn, spartus, hex), C99, SystemVerilog, or a web page that listens",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    add_number(parser, "stim_head", int, 0, 1e9, "first frame of the stimulus (default: 1000)")
    add_number(parser, "stim_len", int, 1, 1e6, "frames of the stimulus (default: 1000)")
    add_number(parser, "w_sp_ext", float, 0, 1, "weight sparsity that Spartus's memories are laid out for")
    library.add_arguments(parser)
    parser.add_argument("--target", choices=TARGETS, help="rtl: the device to write for (default: generic)")
    add_number(
        parser, "choose_formats", float, 0, 1,
        "hex, c, rtl: choose the narrowest formats that lose at most this much accuracy on the clips, such as 0.01",
    )  # fmt: skip


def _add_estimate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--target", choices=("edgedrnn", "deltarnn", "spartus", "core"), required=True,
        help="the accelerator; core: DeltaCore, which `deltarnn export --format rtl` writes",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help="folder for the report (JSON) and the plot; without it only the table")
    add_number(parser, "power", float, 0, 1e6, "stated power, W (default: the accelerator's)")
    add_number(parser, "scan_width", int, 1, 1e6, "elements that DeltaRNN's encoder looks at per clock (7)")
    parser.add_argument("--design-space", action="store_true", help="sweep designs; needs --features, for accuracy")
    for flag, what in (
        ("sweep_pe", "processing elements (core: lanes) to try (default: 1/2, 1 and 2 times the accelerator's)"),
        ("sweep_clock", "clocks to try, Hz (default: 1/2 and 1 times the accelerator's)"),
        ("sweep_threshold", "thresholds thx = thh to try (default: 0,0.05,0.1,0.2,0.4)"),
        ("sweep_gamma", "Spartus: sparsities to prune to, without retraining (default: 0,0.25,0.5,0.75)"),
    ):
        parser.add_argument(f"--{flag}", type=_numbers, metavar="A,B,…", help=what)


def run(arguments: argparse.Namespace) -> int:
    """Run `deltarnn estimate` or `deltarnn export`; 0 when done. Errors name the flag or value and what is allowed."""
    arguments.model = chosen_model(arguments)
    if arguments.out is not None:
        check_writable(arguments.out)
    tensors, header = load_model(arguments.model)
    model = NetworkParameters.from_model_file(tensors, header, read_quantization(header))
    model = _with_thresholds(model, arguments.thx, arguments.thh)
    return (_export if arguments.command == "export" else _estimate)(arguments, model, header)


def _export(arguments: argparse.Namespace, model: NetworkParameters, header: dict[str, Any]) -> int:
    stimulus_flags = dict.fromkeys(("features", "audio", "stim_head", "stim_len"), STIMULATED)
    own = {
        "w_sp_ext": ("spartus",),
        "choose_formats": ("hex", "c", "rtl"),
        "network_only": ("c",),
        "layout": ("c",),
        "cpu": ("c",),
        "target": ("rtl",),
    }
    refuse_idle(arguments, arguments.format, stimulus_flags | own)
    pipeline = _pipeline(arguments, header)
    if arguments.format == "web":
        return web.export_page(arguments, model, header)
    if arguments.features is None and arguments.audio is None:
        raise ValueError(f"--format {arguments.format} needs --features or --audio: frames for the stimulus")
    clips = _clips(arguments, pipeline)
    head, length = (1000 if given is None else given for given in (arguments.stim_head, arguments.stim_len))
    stimulus = choose_stimulus(np.concatenate(clips.frames), head, length)
    quantization = model.quantization
    if arguments.choose_formats is not None:
        some = clips.spread(arguments.clips)
        choice = choose_formats(model, some.batch, _accuracy(header, some.labels), arguments.choose_formats)
        print(choice)
        model, quantization = replace(model, quantization=None), choice.quantization
    if arguments.format == "edgedrnn":
        result = export_edgedrnn(model, stimulus, arguments.out, edgedrnn(arguments))
    elif arguments.format == "spartus":
        result = export_spartus(model, stimulus, arguments.out, spartus(arguments), arguments.w_sp_ext)
    elif arguments.format == "rtl":
        result = _export_rtl(arguments, model, quantization, stimulus, header)
    elif arguments.format == "hex":
        result = export_hex(model, stimulus, arguments.out, quantization)
    else:
        result = library.export_library(arguments, model, stimulus, quantization, header)
    print(result)
    return 0


def _export_rtl(
    arguments: argparse.Namespace,
    model: NetworkParameters,
    quantization: Quantization | None,
    stimulus: Frames,
    header: dict[str, Any],
) -> ExportResult:
    if quantization is None:
        raise UnsupportedModelError(
            f"{arguments.model} has no fixed-point formats: train it with --qa 1, or give --choose_formats 0.01"
        )
    target = arguments.target or "generic"
    shape = {name: getattr(arguments, name) for name in CORE_SHAPE}
    if shape["lanes"] is None:
        shape["lanes"] = default_lanes(target)
    compressed = bool(shape.pop("skip_zero_weights"))
    network = IntegerNetwork.convert(model, quantization)
    result = export_rtl(network, arguments.out, stimulus, target=target, compressed=compressed, **shape)
    around = write_board(result, header["features"]["frame_stride"], header["labels"])
    files = (*result.sources, *result.images, *around)
    return ExportResult(result.folder, files, {"lanes": result.lanes, **result.sizes}, network.notes)


def _estimate(arguments: argparse.Namespace, model: NetworkParameters, header: dict[str, Any]) -> int:
    refuse_idle(arguments, arguments.target, {"scan_width": ("deltarnn",), "sweep_gamma": ("spartus",)})
    sweeps = [
        name for name in ("sweep_pe", "sweep_clock", "sweep_threshold", "sweep_gamma") if getattr(arguments, name)
    ]
    if sweeps and not arguments.design_space:
        raise ValueError(f"--{sweeps[0]} does nothing without --design-space")
    accelerator = design(arguments, arguments.target)
    clips = _clips(arguments, _pipeline(arguments, header))
    if arguments.design_space:
        return _design_space(arguments, model, header, accelerator, clips)
    seconds = FeaturePipeline.from_dict(header["features"]).config.frame_seconds
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
    score = _accuracy(header, clips.labels)
    if score is None:
        raise ValueError("--design-space needs --features: accuracy takes clips with labels")
    if arguments.out is None:
        raise ValueError("--design-space needs --out, a folder for points and plot")
    field = {DeltaRNNFPGA: "num_mac", DeltaCore: "lanes"}.get(type(accelerator), "num_pe")
    usual = getattr(accelerator, field)
    sizes = arguments.sweep_pe or (usual // 2, usual, 2 * usual)
    gammas = arguments.sweep_gamma or ((0.0, 0.25, 0.5, 0.75) if arguments.target == "spartus" else (0.0,))
    designs = []
    for size in sizes:
        sized = replace(accelerator, **{field: int(size)})
        try:
            sized.check(model)
        except UnsupportedModelError as error:
            print(f"left out: {field}={int(size)}: {error}")
        else:
            designs.append(sized)
    if not designs:
        raise UnsupportedModelError(f"none of the sizes {[int(size) for size in sizes]} can hold the model")
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


def _with_thresholds(model: NetworkParameters, thx: float | None, thh: float | None) -> NetworkParameters:
    """The model with the thresholds asked for; a dense one, all thresholds 0, only if --thx and --thh say so."""
    layers = tuple(
        replace(layer, thx=layer.thx if thx is None else thx, thh=layer.thh if thh is None else thh)
        for layer in model.layers
    )
    if thx is None and thh is None and not any(layer.thx or layer.thh for layer in layers):
        raise UnsupportedModelError(
            "the model has no thresholds (all are 0): retrain it as a delta network, or give --thx and --thh (or 0)"
        )
    return replace(model, layers=layers)


def _pipeline(arguments: argparse.Namespace, header: dict[str, Any]) -> FeaturePipeline:
    """The front end of a keyword model. ValueError where the model is none."""
    if not isinstance(header.get("features"), dict) or "labels" not in header:
        raise ValueError(f"{arguments.model} is no keyword model: its header has no feature configuration and labels")
    check_header(arguments.model, header, len(header["labels"]) if isinstance(header["labels"], list) else 0)
    return FeaturePipeline.from_dict(header["features"])


def _clips(arguments: argparse.Namespace, pipeline: FeaturePipeline) -> Clips:
    """The clips that --features or --audio name, as the model takes them."""
    if arguments.features is not None:
        stored = load_features(arguments.features)
        if stored.pipeline.to_dict() != pipeline.to_dict():
            raise ValueError(f"{arguments.features}: made with another feature configuration than {arguments.model}'s")
        return Clips(list(stored.normalised.astype(np.float64)), stored.labels)
    audio = (read_audio(path, pipeline.config.sample_rate) for path in arguments.audio)
    return Clips([pipeline.normalise(pipeline(samples[None]))[0].astype(np.float64) for samples in audio])


def _accuracy(header: dict[str, Any], labels: NDArray[np.int64] | None) -> Callable[[Frames], float] | None:
    """Of scores (T, N, C): the fraction of clips that the model's decision rule gets right; None without labels."""
    if labels is None:
        return None
    require(Path("the model"), header, "decision")
    rule = DecisionRule(**header["decision"])
    return lambda scores: float(np.mean(rule(torch.from_numpy(scores)).numpy() == labels))


def _numbers(text: str) -> tuple[float, ...]:
    numbers = tuple(float(item) for item in text.split(","))
    if not all(0 <= value <= MAX_SWEPT for value in numbers):
        raise ValueError
    return numbers
