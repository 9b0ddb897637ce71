"""`deltarnn export --format c` of a keyword model: the whole spotter, or its network alone."""

import argparse
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltarnn.fixed.network import IntegerNetwork
from deltarnn.fixed.parameters import NetworkParameters, UnsupportedModelError
from deltarnn.fixed.qformat import Quantization
from deltarnn.hardware.export_c import export_c
from deltarnn.hardware.files import ExportResult
from deltarnn.hardware.layouts import LAYOUTS, Layout
from deltarnn.kws.features.pipeline import FeaturePipeline
from deltarnn.kws.spotter.calibration import stream_rule
from deltarnn.kws.spotter.device import integer_spotter
from deltarnn.kws.spotter.rule import StreamRule
from deltarnn.kws.spotter.spotter import UNCALIBRATED_THRESHOLD


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of --format c."""
    parser.add_argument("--name", default="delta_network", help="c: name of the library (default: delta_network)")
    parser.add_argument("--layout", choices=LAYOUTS, help="c: how the files lie (default: plain)")
    parser.add_argument(
        "--network_only", action="store_true", default=None,
        help="c: the network alone, for features that something else computes; without front end and rule",
    )  # fmt: skip


def export_library(
    arguments: argparse.Namespace,
    model: NetworkParameters,
    stimulus: NDArray[np.float64],
    quantization: Quantization | None,
    header: dict[str, Any],
) -> ExportResult:
    """Write the C library of a model in its own formats, in those given, or in those of the streaming spotter."""
    formats = quantization or model.formats
    about = header["labels"], header["features"]
    if arguments.network_only:
        if arguments.layout is not None:
            raise ValueError("--layout does nothing with --network_only: the network alone is laid out plain")
        return export_c(model, stimulus, arguments.out, formats, arguments.name, *about)
    rule, notes = stream_rule(header), list[str]()
    if rule is None:
        rule = StreamRule(threshold=UNCALIBRATED_THRESHOLD)
        notes.append(f"threshold {rule.threshold:g}: the model stores none; `deltarnn evaluate --stream` chooses one")
    network = IntegerNetwork.convert(model, formats)
    try:
        spotter = integer_spotter(network, header, FeaturePipeline.from_dict(header["features"]), rule)
    except UnsupportedModelError as error:
        raise UnsupportedModelError(f"{error}; or export the network alone with --network_only") from None
    layout: Layout = arguments.layout or "plain"
    result = export_c(model, stimulus, arguments.out, formats, arguments.name, *about, spotter, layout)
    return replace(result, notes=(*result.notes, *notes))
