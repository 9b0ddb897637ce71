"""`deltarnn export --format web`: the whole spotter in one HTML file."""

import argparse
from typing import Any

from deltarnn.fixed.network import IntegerNetwork
from deltarnn.fixed.parameters import NetworkParameters
from deltarnn.kws.commands.library import spotter_of
from deltarnn.kws.report.web_page import write_web_page


def export_page(arguments: argparse.Namespace, model: NetworkParameters, header: dict[str, Any]) -> int:
    """Write OUT/NAME.html of a keyword model, in its own formats or those of the streaming spotter; 0 when done."""
    notes = list[str]()
    spotter = spotter_of(IntegerNetwork.convert(model, model.formats), header, notes)
    page = write_web_page(arguments.out / f"{arguments.name}.html", spotter, header["labels"])
    print(f"wrote {page}, {page.stat().st_size / 1024:.0f} KiB: open it in a browser")
    for note in notes:
        print(f"note: {note}")
    return 0
