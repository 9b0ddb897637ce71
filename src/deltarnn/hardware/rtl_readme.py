"""The README of an exported design."""

from collections.abc import Sequence

from deltarnn.hardware.export_rtl import EXPECTED, STIMULUS, RtlDesign
from deltarnn.hardware.rtl_target import BOARD_TOP, BOARDS, RtlTarget, board_sources

FLASH = {"ice40": "openFPGALoader -b icebreaker", "ecp5": "openFPGALoader -b ulx3s"}
SUFFIX = {"ice40": "bin", "ecp5": "bit"}


def readme(design: RtlDesign, frame_period_s: float, labels: Sequence[str]) -> str:
    """README.md: what the network is, how to simulate, synthesise and wire it."""
    parts = [_network(design, frame_period_s, labels), _files(design), _simulation(design), _interface(design)]
    if design.target in BOARDS:
        parts += [_synthesis(design, BOARDS[design.target]), _serial(design, BOARDS[design.target])]
    return "\n\n".join(parts) + "\n"


def _network(design: RtlDesign, frame_period_s: float, labels: Sequence[str]) -> str:
    hidden, head = (" + ".join(map(str, sizes)) for sizes in (design.hidden_sizes, design.head_sizes))
    dense = f", dense {head}" if head else ""
    classes = f" Classes, from 0: {', '.join(labels)}." if labels else ""
    return (
        f"# DeltaCore: Delta{design.cell}, {design.input_size} inputs, {hidden} units{dense}\n\n"
        f"{design.lanes} multiplier lanes, target {design.target}. A frame every {frame_period_s * 1e3:g} ms; values "
        f"are {design.activation}, scores have {design.score_fraction_bits} fraction bits.{classes}"
    )


def _files(design: RtlDesign) -> str:
    rows = {
        design.sources[0]: "sizes, addresses and formats of this network: the one generated module",
        f"{design.top}.sv": "the top module; the other `.sv` files of design.json are its parts",
        ", ".join(design.images): "contents of the memories, for `$readmemh`: tools must run in this folder",
        f"{STIMULUS}, {EXPECTED}": "frames of real features, one value a line; their scores by `deltarnn.fixed`",
        f"{design.top}_bench.sv, .cpp": "the test bench, for Verilator",
    }
    if design.target in BOARDS:
        rows[", ".join((*board_sources(), BOARDS[design.target].constraints))] = "the core behind a serial port, pins"
    return "\n".join(["| file | |", "|---|---|", *(f"| {name} | {what} |" for name, what in rows.items())])


def _simulation(design: RtlDesign) -> str:
    return (
        "## Simulate\n\n    pip install 'deltarnn[rtl]'\n    deltarnn rtl simulate .\n\n"
        f"runs {STIMULUS} and compares every score with {EXPECTED}; it needs a C++ compiler. `--trace FILE.vcd` keeps "
        "the signals, `--stalls 0.3` holds up both streams at random."
    )


def _interface(design: RtlDesign) -> str:
    size, outputs, weights = design.input_size, design.output_size, design.weight_words * design.lanes
    thresholds = ", ".join(f"{x}, {h}" for x, h in design.thresholds)
    rows = [
        ("clock, reset", "in", "one clock; reset is synchronous and high. The core then clears its memories, and "
         "`s_axis_tready` rises when it is done"),
        ("s_axis_*", "in", f"a frame: {size} values of {design.activation}, one a beat, TLAST on the last. Another "
         "number is dropped, with a pulse of `frame_error`"),
        ("m_axis_*", "out", f"{outputs} scores, 32 bits each, TLAST on the last; its TUSER is the class"),
        ("threshold_*", "in", f"register 2·l: θx of layer l, 2·l + 1: θh; {design.activation}, not negative. Taken "
         f"between steps. Now {thresholds}"),
        ("w_axis_*", "in", f"all {weights} weights, {design.weight_bits} bits each, in the order of weights.hex, "
         "the lowest bits of a line first; TLAST on the last. Taken between steps"),
        ("busy", "out", "a step is under way"),
    ]  # fmt: skip
    table = "\n".join(
        ["| port | | |", "|---|---|---|", *(f"| `{name}` | {way} | {what} |" for name, way, what in rows)]
    )
    start = (
        "\n\nThe iCE40's single-port memories start undefined: send the weights once after configuration."
        if design.target == "ice40"
        else ""
    )
    return f"## Wire\n\n{table}\n\nStreams are AXI4-Stream: a beat passes where TVALID and TREADY are high.{start}"


def _synthesis(design: RtlDesign, board: RtlTarget) -> str:
    bitstream = f"synthesis/{BOARD_TOP}.{SUFFIX[board.name]}"
    return (
        f"## Synthesise\n\n    deltarnn rtl synthesise .\n    {FLASH[board.name]} {bitstream}\n\n"
        f"maps {BOARD_TOP} to the {board.device} of the {board.board}, whose pins {board.constraints} names, and "
        f"prints what it takes and which clock closes; {board.closing_hz / 1e6:g} MHz are asked for, the board's "
        f"oscillator gives {board.clock_hz / 1e6:g} MHz. For another board change the pins, "
        "and CLOCKS_PER_BIT in synthesis/yosys.ys."
    )


def _serial(design: RtlDesign, board: RtlTarget) -> str:
    value, weight = (-(-bits // 8) for bits in (design.input_bits, design.weight_bits))
    load = f"port.write(bytes([3]) + packed(design.weights(), {weight}))\n" if design.target == "ice40" else ""
    scores, classes = 4 * design.output_size, -(-max(1, (design.output_size - 1).bit_length()) // 8)
    return (
        "## Talk to the board\n\n"
        f"The serial port runs at 1 Mbaud, 8 data bits, no parity; {BOARD_TOP}.sv lists what it takes. "
        "With pyserial:\n\n```python\nimport serial\nfrom deltarnn.hardware.export_rtl import RtlDesign\n\n\n"
        "def packed(values, size):\n"
        '    return b"".join(int(value).to_bytes(size, "little", signed=True) for value in values.ravel())\n\n\n'
        'design, port = RtlDesign.read("."), serial.Serial("/dev/ttyUSB1", 1_000_000)\n'
        f"{load}for frame in design.stimulus():\n"
        f"    port.write(bytes([1]) + packed(frame, {value}))\n"
        f"    answer = port.read({scores + classes})\n"
        f'    print(int.from_bytes(answer[{scores}:], "little"))\n```'
    )
