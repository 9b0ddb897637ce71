"""What simulation and synthesis found out about an exported design, as one table."""

from dataclasses import asdict, dataclass
from pathlib import Path

from deltarnn.files import read_json, write_json
from deltarnn.hardware.export_rtl import SIMULATED, RtlDesign
from deltarnn.hardware.rtl_board import RtlUse
from deltarnn.hardware.rtl_target import BOARDS
from deltarnn.hardware.simulation import Simulation
from deltarnn.hardware.synthesis import Synthesis


@dataclass(frozen=True)
class FrameClocks:
    """Clocks per frame that a simulation counted. busy: part of the product phase in which the lanes multiply."""

    frames: int
    mean: float
    worst: int
    busy: float

    @classmethod
    def of(cls, simulation: Simulation) -> "FrameClocks":
        """Of all frames of a simulation."""
        products = int(simulation.product_cycles.sum())
        return cls(
            len(simulation.cycles),
            float(simulation.cycles.mean()),
            int(simulation.cycles.max()),
            float(simulation.busy_cycles.sum()) / products if products else 1.0,
        )

    def write(self, folder: str | Path) -> None:
        """Keep them in a design's folder."""
        write_json(Path(folder, SIMULATED), asdict(self))

    @classmethod
    def read(cls, folder: str | Path) -> "FrameClocks | None":
        """Those kept in a design's folder; None where it was not simulated."""
        record = read_json(Path(folder, SIMULATED))
        return None if record is None else cls(**record)


def report_text(design: RtlDesign) -> str:
    """All that is known of a design: clocks per frame, resources, the clock that closes, the share of real time."""
    folder, board = design.folder, BOARDS.get(design.target)
    clocks, synthesis, use = FrameClocks.read(folder), Synthesis.read(folder), RtlUse.read(folder)
    rows = []
    if clocks is None:
        rows.append(("clocks per frame", f"not known: deltarnn rtl simulate {folder}"))
    else:
        rows.append(("clocks per frame", f"mean {clocks.mean:.1f}, worst {clocks.worst} ({clocks.frames} frames)"))
        rows.append(("lanes at work", f"{clocks.busy:.1%} of the product phase"))
    if synthesis is not None:
        rows.append(("LUTs", f"{synthesis.luts}"))
        rows.append(("registers", f"{synthesis.registers}"))
        rows += [(name, f"{used} of {available}") for name, (used, available) in synthesis.resources.items()]
        asked = f"{synthesis.closing_hz / 1e6:g} MHz asked for"
        rows.append(("clock that closes", f"{synthesis.clock_hz / 1e6:.2f} MHz ({asked})"))
    elif board is not None:
        rows.append(("resources, clock", f"not known: deltarnn rtl synthesise {folder}"))
    if clocks is not None and use is not None:
        slowest = clocks.worst / use.frame_period_s
        rows.append(("real time needs", f"{slowest / 1e3:.1f} kHz, at a frame every {use.frame_period_s * 1e3:g} ms"))
        named = {} if board is None else {f"at the {board.board}'s": board.clock_hz}
        if synthesis is not None:
            named["at the clock that closes,"] = synthesis.clock_hz
        rows += [_share(name, clock, clocks, use.frame_period_s) for name, clock in named.items()]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


def _share(name: str, clock_hz: float, clocks: FrameClocks, period_s: float) -> tuple[str, str]:
    mean, worst = clocks.mean / clock_hz, clocks.worst / clock_hz
    return (
        f"{name} {clock_hz / 1e6:.4g} MHz",
        f"mean {mean * 1e6:.1f} µs, worst {worst * 1e6:.1f} µs a frame: {worst / period_s:.2%} of real time at worst",
    )
