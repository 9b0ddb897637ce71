"""A spotter as a web page: one HTML file that listens to a microphone or a recording and shows what it computes."""

import base64
import html
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

import deltarnn
from deltarnn.files import write_text
from deltarnn.fixed.spotter import IntegerSpotter
from deltarnn.hardware.wasm import compile_spotter, event_columns

TITLE = "Keyword spotting, live"


def write_web_page(path: str | Path, spotter: IntegerSpotter, labels: Sequence[str]) -> Path:
    """Write the page of a spotter with the class names `labels`; errors as those of `compile_spotter`."""
    path, module = Path(path), compile_spotter(spotter)
    network = spotter.network
    first, words = network.layers[0], labels[spotter.rule.others :]
    units = " and ".join(str(layer.hidden_size) for layer in network.layers)
    step = network.quantization.activation.step
    lead = (
        f"A Delta{first.cell} of {units} units listens for {', '.join(words)}. It computes only where its "
        f"{network.input_size} inputs change by more than {first.thx * step:.2g} deviations and its own state by more "
        f"than {first.thh * step:.2g}."
    )
    footer = (
        f"Front end, network and decisions in integers, as on a microcontroller: {len(module) / 1024:.0f} KiB of "
        f"WebAssembly, made by DeltaRNN {deltarnn.__version__}."
    )
    parts = {
        "title": TITLE,
        "lead": html.escape(lead),
        "footer": html.escape(footer),
        "style": _text("page.css") + _text("web", "page.css"),
        "info": json.dumps(page_info(spotter, labels), separators=(",", ":")).replace("<", "\\u003c"),
        "module": base64.b64encode(module).decode(),
        **{name: _text("web", f"{name}.js") for name in ("spotter", "listener", "strip", "page")},
    }
    page = _text("web", "page.html")
    for name, text in parts.items():
        page = page.replace(f"{{{{{name}}}}}", text)
    write_text(path, page)
    return path


def page_info(spotter: IntegerSpotter, labels: Sequence[str]) -> Mapping[str, Any]:
    """What the scripts of the page know of the spotter."""
    network, rule, front = spotter.network, spotter.rule, spotter.front_end
    activation, unit = network.quantization.activation, rule.unit * rule.smoothing
    return {
        "keywords": list(labels[rule.others :]),
        "others": rule.others,
        "rate": spotter.sample_rate,
        "hop": front.hop,
        "length": front.length,
        "features": front.num_features,
        "activationBytes": 1 if activation.bits <= 8 else 2,
        "fraction": activation.fraction_bits,
        "scoreUnit": unit,
        "scoreOffset": rule.bound * rule.smoothing,
        "threshold": rule.threshold / unit,
        "limit": rule.bound / rule.unit,
        "columns": [
            {"layer": group.layer, "ofInput": group.of_input, "count": group.size, "rows": group.rows}
            for group in event_columns(network)
        ],
        "headMacs": int(sum(np.size(dense.weight) for dense in network.head)),
    }


def _text(*path: str) -> str:
    """A file beside this module."""
    return files("deltarnn.kws.report").joinpath(*path).read_text(encoding="utf-8")
