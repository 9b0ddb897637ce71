"""Targets of the RTL export: the device on a board whose pins are constrained, and what it has room for."""

from collections.abc import Iterable
from dataclasses import dataclass

from deltarnn.fixed.network import IntegerNetwork
from deltarnn.fixed.parameters import UnsupportedModelError
from deltarnn.hardware.core_layout import QUEUE_DEPTH, CoreLayout
from deltarnn.hardware.core_package import accumulator_bits, address_bits, entry_bits, stored_table

Shape = tuple[int, int]
"""Words, and bits of a word."""


@dataclass(frozen=True)
class RtlTarget:
    """A device on a board.

    Attributes
    ----------
    name: of `--target`. device, board: as their makers name them.
    clock_hz: of the board's oscillator. closing_hz: the clock that place and route is asked for.
    lanes: multiplier lanes that suit it.
    constraints: file of rtl/targets with its pins. bitstream: what synthesis makes, in the folder of the design.
    multipliers, blocks, wide_blocks: how many of each it has; wide_blocks are single-port memories for the weights.
    shapes, wide_shape: words and bits that one block may have.
    """

    name: str
    device: str
    board: str
    clock_hz: float
    closing_hz: float
    lanes: int
    constraints: str
    bitstream: str
    multipliers: int
    blocks: int
    shapes: tuple[Shape, ...]
    wide_blocks: int = 0
    wide_shape: Shape = (0, 0)


BOARD_TOP = "serial_board"
FOLDER = "synthesis"
"""Folder of what the tools of synthesis write, in that of the design."""

BOARDS = {
    target.name: target
    for target in (
        RtlTarget(
            "ice40", "iCE40UP5K-SG48", "iCEBreaker", 12e6, 12e6, 4, "ice40_up5k.pcf",
            f"{FOLDER}/{BOARD_TOP}.bin", 8, 30, ((256, 16), (512, 8), (1024, 4), (2048, 2)), 4, (16384, 16),
        ),
        RtlTarget(
            "ecp5", "LFE5U-25F-6BG381C", "ULX3S", 25e6, 50e6, 8, "ecp5_25f.lpf",
            f"{FOLDER}/{BOARD_TOP}.bit", 28, 56, ((512, 36), (1024, 18), (2048, 9), (4096, 4), (8192, 2), (16384, 1)),
        ),
    )
}  # fmt: skip
"""Every target but "generic", which is no device."""

GENERIC_LANES = 8


def board_sources() -> tuple[str, ...]:
    """The modules of rtl/targets around the core on a board, the top last."""
    return "serial_receiver.sv", "serial_sender.sv", f"{BOARD_TOP}.sv"


def default_lanes(target: str) -> int:
    """Multiplier lanes that suit a target."""
    return BOARDS[target].lanes if target in BOARDS else GENERIC_LANES


def check_room(network: IntegerNetwork, layout: CoreLayout, target: str) -> None:
    """Raise UnsupportedModelError, with limit and value, if the target's device cannot hold the core.

    Counted are multipliers, the weight memory and (iCE40, which has no other) the blocks of the small memories. Logic
    is left to place and route.
    """
    if target not in BOARDS:
        return
    device = BOARDS[target]
    weights = layout.weight_words, layout.lanes * entry_bits(network, layout)
    multipliers = layout.lanes + layout.pipes
    if multipliers > device.multipliers:
        raise UnsupportedModelError(
            f"lanes={layout.lanes}, activation_pipes={layout.pipes}: they take {multipliers} multipliers, the "
            f"{device.device} has {device.multipliers}"
        )
    if device.wide_blocks:
        _check_blocks(device, "the weights", _blocks(weights, [device.wide_shape]), device.wide_blocks, "single-port ")
        blocks = sum(_blocks(shape, device.shapes) for shape in small_memories(network, layout))
        _check_blocks(device, f"the memories beside the weights, lanes={layout.lanes},", blocks, device.blocks)
    else:
        _check_blocks(device, "the weights", _blocks(weights, device.shapes), device.blocks)


def small_memories(network: IntegerNetwork, layout: CoreLayout) -> Iterable[Shape]:
    """Words and bits of every memory but the weights', one of two ports to read counted twice."""
    q, accumulator = network.quantization, accumulator_bits(network)
    word = layout.width * q.activation.bits
    yield from [(layout.accumulator_words, accumulator)] * (2 * layout.lanes)
    yield from ((layout.signal_words, word), (layout.held_words, word))
    yield layout.accumulator_words * layout.lanes, accumulator
    yield layout.state_words, layout.pipes * q.activation.bits
    yield 2 * layout.unit_words(len(layout.layers) - 1), layout.pipes * accumulator
    # An event: whether it ends a layer, the part, the column's weights, the delta.
    event = 2 + address_bits(len(layout.parts)) + address_bits(layout.weight_words) + q.activation.bits
    yield QUEUE_DEPTH, event
    for table in network.layers[0].tables:
        yield from [(len(stored_table(table)[1]), q.gate.bits)] * layout.pipes


def _blocks(memory: Shape, shapes: Iterable[Shape]) -> int:
    """The fewest blocks, all of one shape, that make up a memory."""
    return min(-(-memory[0] // words) * -(-memory[1] // bits) for words, bits in shapes)


def _check_blocks(device: RtlTarget, what: str, blocks: int, limit: int, kind: str = "") -> None:
    if blocks > limit:
        raise UnsupportedModelError(f"{what} take {blocks} {kind}memory blocks, the {device.device} has {limit}")
