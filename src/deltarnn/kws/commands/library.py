"""`deltarnn export --format c` of a keyword model: the whole spotter, or its network alone."""

import argparse
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltarnn.fixed.network import IntegerNetwork
from deltarnn.fixed.parameters import NetworkParameters, UnsupportedModelError
from deltarnn.fixed.qformat import Quantization
from deltarnn.fixed.spotter import IntegerSpotter
from deltarnn.hardware.cortex_m import CPUS, MISSING, available
from deltarnn.hardware.export_c import export_c
from deltarnn.hardware.files import ExportResult
from deltarnn.hardware.layouts import LAYOUTS, Layout
from deltarnn.hardware.measured_push import measure_front_end
from deltarnn.hardware.microcontroller import measure_c
from deltarnn.kws.features.pipeline import FeaturePipeline
from deltarnn.kws.spotter.calibration import stream_rule
from deltarnn.kws.spotter.device import integer_spotter
from deltarnn.kws.spotter.rule import StreamRule
from deltarnn.kws.spotter.spotter import UNCALIBRATED_THRESHOLD


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of --format c and web."""
    parser.add_argument("--name", default="delta_network", help="c, web: name of the files (default: delta_network)")
    parser.add_argument("--layout", choices=LAYOUTS, help="c: layout of the files (default: plain)")
    parser.add_argument(
        "--network_only", action="store_true", default=None,
        help="c: the network alone, without front end and decision rule",
    )  # fmt: skip
    parser.add_argument(
        "--cpu", choices=CPUS, help="c: measure flash, RAM and instructions on this core; needs the extra 'embedded'"
    )


def export_library(
    arguments: argparse.Namespace,
    model: NetworkParameters,
    stimulus: NDArray[np.float64],
    quantization: Quantization | None,
    header: dict[str, Any],
) -> ExportResult:
    """Write the C library of a model in its own formats, in those given, or in those of the streaming spotter.

    With --cpu the result's notes end with what the library takes on that core.
    """
    if arguments.cpu is not None and not available():
        raise ModuleNotFoundError(MISSING)
    if arguments.network_only and arguments.layout is not None:
        raise ValueError("--layout does nothing with --network_only: the network alone is laid out plain")
    formats, notes = quantization or model.formats, list[str]()
    network = IntegerNetwork.convert(model, formats)
    spotter = None if arguments.network_only else _spotter(network, header, notes)
    about = header["labels"], header["features"], spotter
    layout: Layout = arguments.layout or "plain"
    result = export_c(model, stimulus, arguments.out, formats, arguments.name, *about, layout)
    if arguments.cpu is not None:
        with TemporaryDirectory() as folder:  # as the plain layout lies, whichever was asked for
            export_c(model, stimulus, folder, formats, arguments.name, *about)
            x = network.quantization.activation.to_int(stimulus, network.quantization.rounding)
            measured = measure_c(Path(folder), arguments.name, arguments.cpu, network, x)
            around = None
            if spotter is not None:
                around = measure_front_end(Path(folder), arguments.name, arguments.cpu, spotter)
        notes.append(measured.table(1 / header["features"]["frame_stride"], around))
    return replace(result, notes=(*result.notes, *notes))


def _spotter(network: IntegerNetwork, header: dict[str, Any], notes: list[str]) -> IntegerSpotter:
    try:
        return spotter_of(network, header, notes)
    except UnsupportedModelError as error:
        raise UnsupportedModelError(f"{error}; or export the network alone with --network_only") from None


def spotter_of(network: IntegerNetwork, header: dict[str, Any], notes: list[str]) -> IntegerSpotter:
    """The whole spotter around a network, with the model's rule; `notes` takes what is to be said."""
    rule, pipeline = stream_rule(header), FeaturePipeline.from_dict(header["features"])
    if rule is None:
        rule = StreamRule.at(pipeline.framing.hop / pipeline.config.sample_rate, UNCALIBRATED_THRESHOLD)
        notes.append(f"threshold {rule.threshold:g}: the model stores none; `deltarnn evaluate --stream` chooses one")
    return integer_spotter(network, header, pipeline, rule)
