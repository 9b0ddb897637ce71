"""The waveform of docs/delta_core.md: `python docs/waveform.py` writes images/delta_core_step.svg.

A small network's core is exported, simulated by Verilator with a trace (.vcd), and one step of it drawn.
"""

import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from deltarnn.fixed.network import IntegerNetwork
from deltarnn.fixed.parameters import DenseWeights, NetworkParameters, RecurrentWeights
from deltarnn.fixed.qformat import Quantization
from deltarnn.hardware.export_rtl import export_rtl
from deltarnn.hardware.simulation import DRAIN, PAUSE, RESET, beats, run_commands

PICTURE = Path(__file__).resolve().parent / "images" / "delta_core_step.svg"
BENCH = "TOP.delta_core_bench"
ROWS = {
    "s_axis_tvalid": f"{BENCH}.s_axis_tvalid",
    "s_axis_tready": f"{BENCH}.s_axis_tready",
    "s_axis_tlast": f"{BENCH}.s_axis_tlast",
    "busy": f"{BENCH}.busy",
    "encoder: word read": f"{BENCH}.core.encoder_read",
    "encoder: event pushed": f"{BENCH}.core.push",
    "lanes multiply": f"{BENCH}.core.multiplying",
    "layer done": f"{BENCH}.core.layer_done",
    "results written": f"{BENCH}.core.result_write",
    "scores written": f"{BENCH}.core.score_write",
    "m_axis_tvalid": f"{BENCH}.m_axis_tvalid",
    "m_axis_tlast": f"{BENCH}.m_axis_tlast",
}
"""What is drawn, from the top down: a signal counts as high where any of its bits is."""

FRAMES, STEP, LEAD, TAIL = 4, 3, 10, 8
NAMES, CLOCK, ROW, HIGH = 160, 8, 24, 14
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1f2933}.small{font-size:11px;fill:#52606d}"
    "path{fill:none;stroke:#0b6e99;stroke-width:1.5}.grid{stroke:#e4e7eb;stroke-width:1}"
)


def example() -> tuple[IntegerNetwork, np.ndarray]:
    """A DeltaGRU of 8 inputs and 8 units with a dense layer of 3, and frames (T, 8) of a random walk."""
    rng, q = np.random.default_rng(3), Quantization()

    def draw(*shape: int) -> np.ndarray:
        return q.weight.quantize(rng.uniform(-0.9, 0.9, shape))

    layer = RecurrentWeights(draw(24, 8), draw(24, 8), draw(24) / 2, draw(24) / 2, 0.25, 0.125)
    head = (DenseWeights(draw(3, 8), draw(3)),)
    network = IntegerNetwork.convert(NetworkParameters("GRU", (layer,), head, quantization=q))
    return network, rng.normal(size=(FRAMES, 8)).cumsum(axis=0) * 0.3


def read_vcd(lines: Iterable[str], clock: str, names: Iterable[str]) -> dict[str, list[bool]]:
    """Of each named signal whether it is not 0, at every rising edge of `clock`, after what the edge set off."""
    wanted, codes, scope = {clock, *names}, {}, []
    values: dict[str, bool] = {}
    sampled: dict[str, list[bool]] = {name: [] for name in names}
    before = False

    def sample() -> None:
        if values.get(clock) and not before:
            for name, found in sampled.items():
                found.append(values.get(name, False))

    for line in lines:
        line, words = line.strip(), line.split()
        if line.startswith("$scope"):
            scope.append(words[2])
        elif line.startswith("$upscope"):
            scope.pop()
        elif line.startswith("$var"):
            name = ".".join([*scope, words[4]])
            if name in wanted:
                codes.setdefault(words[3], []).append(name)
        elif line.startswith("#"):
            sample()
            before = values.get(clock, False)
        elif change := re.fullmatch(r"(?:b([01xz]+) |([01xz]))(\S+)", line):
            for name in codes.get(change[3], []):
                values[name] = "1" in (change[1] or change[2])
    sample()
    return sampled


def step_span(busy: list[bool], step: int) -> tuple[int, int]:
    """First clock of a step, and the first after it."""
    starts = [clock for clock in range(1, len(busy)) if busy[clock] and not busy[clock - 1]]
    end = next(clock for clock in range(starts[step], len(busy)) if not busy[clock])
    return starts[step], end


def draw(waves: Mapping[str, list[bool]], first: int, last: int) -> str:
    """The clocks first … last − 1 of some signals as SVG."""
    width, height = NAMES + CLOCK * (last - first) + 12, ROW * (len(waves) + 1) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        f"<style>{STYLE}</style>",
    ]
    for clock in range(first, last + 1, 10):
        x = NAMES + CLOCK * (clock - first)
        parts.append(f'<path class="grid" d="M{x} 18V{height - 4}"/>')
        parts.append(f'<text class="small" x="{x}" y="13">{clock - first - LEAD}</text>')
    for index, (name, wave) in enumerate(waves.items()):
        base = ROW * (index + 2) - 4
        parts.append(f'<text x="4" y="{base - 2}">{name}</text>')
        path = f"M{NAMES} {base - HIGH * wave[first]}"
        for clock in range(first, last):
            path += f"V{base - HIGH * wave[clock]}h{CLOCK}"
        parts.append(f'<path d="{path}"/>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    """Export, simulate, draw."""
    network, frames = example()
    with tempfile.TemporaryDirectory() as folder:
        design = export_rtl(network, folder, frames, lanes=4)
        trace = Path(folder, "trace.vcd")
        x = design.stimulus()
        # The last frame comes when the core is at rest.
        commands = [(RESET, 2, 0), *beats(x[:STEP]), (DRAIN, 0, 0), *beats(x[STEP:]), (DRAIN, 0, 0), (PAUSE, TAIL, 0)]
        run_commands(design, commands, trace=trace)
        with trace.open(encoding="utf-8") as lines:
            waves = read_vcd(lines, f"{BENCH}.clock", ROWS.values())
    first, end = step_span(waves[ROWS["busy"]], STEP)
    picture = draw({row: waves[name] for row, name in ROWS.items()}, first - LEAD, end + TAIL)
    PICTURE.write_text(picture, encoding="utf-8")
    print(PICTURE)


if __name__ == "__main__":
    main()
