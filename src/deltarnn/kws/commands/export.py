"""`deltarnn export`: a keyword model as memory images, C99, SystemVerilog or a web page."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from deltarnn.fixed.choice import choose_formats
from deltarnn.fixed.network import IntegerNetwork
from deltarnn.fixed.parameters import NetworkParameters, UnsupportedModelError
from deltarnn.fixed.qformat import Quantization
from deltarnn.hardware.export_edgedrnn import export_edgedrnn
from deltarnn.hardware.export_hex import export_hex
from deltarnn.hardware.export_rtl import TARGETS, export_rtl
from deltarnn.hardware.export_spartus import export_spartus
from deltarnn.hardware.files import ExportResult
from deltarnn.hardware.rtl_board import write_board
from deltarnn.hardware.rtl_target import default_lanes
from deltarnn.hardware.stimulus import choose_stimulus
from deltarnn.kws.commands import library, web
from deltarnn.kws.commands.deployment import (
    Frames,
    accuracy_of,
    add_source_arguments,
    clips_of,
    pipeline_of,
    read_model,
)
from deltarnn.kws.commands.designs import CORE_SHAPE, edgedrnn, refuse_idle, spartus
from deltarnn.kws.config.arguments import add_number

STIMULATED = ("edgedrnn", "spartus", "hex", "c", "rtl")
"""Formats that come with a stimulus of frames, and what their test benches expect of it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `deltarnn export`."""
    add_source_arguments(parser, required=False)
    parser.add_argument(
        "--format", choices=(*STIMULATED, "web"), required=True,
        help="memory images (edgedrnn, spartus, hex), C99, SystemVerilog, or a web page that listens",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    add_number(
        parser, "stim_head", int, 0, 1e9, "first frame of the stimulus (default: 1000, or as late as there are frames)"
    )
    add_number(parser, "stim_len", int, 1, 1e6, "frames of the stimulus (default: 1000, or all that there are)")
    add_number(parser, "w_sp_ext", float, 0, 1, "weight sparsity that Spartus's memories are laid out for")
    library.add_arguments(parser)
    parser.add_argument("--target", choices=TARGETS, help="rtl: the device to write for (default: generic)")
    add_number(
        parser, "choose_formats", float, 0, 1,
        "hex, c, rtl: choose the narrowest formats that lose at most this much accuracy on the clips, such as 0.01",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Write the files; 0 when done. Errors name the flag or value and what is allowed."""
    model, header = read_model(arguments)
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
    pipeline = pipeline_of(arguments, header)
    if arguments.format == "web":
        return web.export_page(arguments, model, header)
    if arguments.features is None and arguments.audio is None:
        raise ValueError(f"--format {arguments.format} needs --features or --audio: frames for the stimulus")
    clips = clips_of(arguments, pipeline)
    stimulus = choose_stimulus(np.concatenate(clips.frames), arguments.stim_head, arguments.stim_len)
    quantization = model.quantization
    if arguments.choose_formats is not None:
        some = clips.spread(arguments.clips)
        choice = choose_formats(model, some.batch, accuracy_of(header, some.labels), arguments.choose_formats)
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
