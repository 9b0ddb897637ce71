"""What surrounds an exported core: a board's top module and pins, and a README that says how to use it all."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from deltarnn.files import read_json
from deltarnn.hardware.export_rtl import RtlDesign, sources
from deltarnn.hardware.files import write_text
from deltarnn.hardware.rtl_readme import readme
from deltarnn.hardware.rtl_target import BOARDS, board_sources

ABOUT = "about.json"


@dataclass(frozen=True)
class RtlUse:
    """What a design is for: seconds from frame to frame, and the names of its classes. Kept in about.json."""

    frame_period_s: float
    labels: tuple[str, ...] = ()

    @classmethod
    def read(cls, folder: str | Path) -> "RtlUse | None":
        """What `write_board` left in a design's folder, or None."""
        record = read_json(Path(folder, ABOUT))
        return None if record is None else cls(record["frame_period_s"], tuple(record["labels"]))


def write_board(design: RtlDesign, frame_period_s: float, labels: Sequence[str] = ()) -> tuple[str, ...]:
    """Write README.md, about.json and, for a board, its top module and pins; returns the files' names."""
    use = RtlUse(frame_period_s, tuple(labels))
    texts = {ABOUT: json.dumps(asdict(use), indent=2) + "\n", "README.md": readme(design, frame_period_s, labels)}
    if design.target in BOARDS:
        for name in (*board_sources(), BOARDS[design.target].constraints):
            texts[name] = (sources() / "targets" / name).read_text(encoding="utf-8")
    for name, text in texts.items():
        write_text(design.folder / name, text)
    return tuple(texts)
