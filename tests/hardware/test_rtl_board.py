"""The board's top module: the core behind a serial port, played against in simulation."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from tests.hardware.rtl_designs import needs_simulator, random_frames, random_network

from deltarnn import QFormat, Quantization
from deltarnn.hardware.export_rtl import RtlDesign, export_rtl
from deltarnn.hardware.rtl_board import RtlUse, write_board
from deltarnn.hardware.rtl_target import BOARD_TOP, board_sources
from deltarnn.hardware.verilator import build_program, run_verilator

RESET, FRAME, THRESHOLD, WEIGHTS = range(4)
WIDE = Quantization(QFormat(3, 7), QFormat(1, 10), QFormat(2, 8))
NETWORKS = {
    "single bytes": (("GRU", 5, (6,), (3,)), False),
    "pairs of bytes": (("LSTM", 5, (6,), (3,), WIDE, (2, 3), 0, 0.5), True),
}


@pytest.fixture(scope="module", params=NETWORKS)
def board(request, tmp_path_factory):
    """A network, its design with a board around it, and the program that plays a computer."""
    needs_simulator()
    options, compressed = NETWORKS[request.param]
    network = random_network(*options)
    folder = tmp_path_factory.mktemp("board")
    design = export_rtl(network, folder, random_frames(network, 12), lanes=2, target="ice40", compressed=compressed)
    write_board(design, 0.016384, ("a", "b", "c"))
    sources = [folder / name for name in (*design.models, *design.sources, *board_sources())]
    build_program(sources, BOARD_TOP, Path(__file__).with_name("serial_bench.cpp"), folder / "bench", False, 0)
    return network, design


def packed(values, bits: int) -> bytes:
    return b"".join(int(value).to_bytes(-(-bits // 8), "little", signed=True) for value in np.ravel(values))


def frame(design: RtlDesign, values) -> tuple[int, bytes]:
    """What is sent for a frame, and the length of its answer."""
    return 4 * design.output_size + 1, bytes([FRAME]) + packed(values, design.input_bits)


def play(design: RtlDesign, *sent: tuple[int, bytes]) -> list[list[int]]:
    """Send the weights, then each of `sent`; the bytes of every answer."""
    weights = 0, bytes([WEIGHTS]) + packed(design.weights(), design.weight_bits)
    lines = [f"{length} {data.hex(' ')}\n" for length, data in (weights, *sent)]
    (design.folder / "commands").write_text("".join(lines))
    subprocess.run(["./bench", "commands", "answers", "12"], cwd=design.folder, check=True)
    return [[int(byte) for byte in line.split()] for line in (design.folder / "answers").read_text().splitlines()[1:]]


def scores(answers: list[list[int]]) -> np.ndarray:
    return np.array([np.frombuffer(bytes(answer[:-1]), "<i4") for answer in answers])


def test_frames_by_the_serial_port(board):
    _, design = board
    answers = play(design, *(frame(design, values) for values in design.stimulus()))
    np.testing.assert_array_equal(scores(answers), design.expected())
    assert [answer[-1] for answer in answers] == design.expected().argmax(axis=1).tolist()


def test_thresholds_and_reset_by_the_serial_port(board):
    network, design = board
    frames = design.stimulus()
    large = packed([[(1 << design.input_bits - 1) - 1]], design.input_bits)
    quiet = [(0, bytes([THRESHOLD | register << 2]) + large) for register in (0, 1)]
    answers = play(
        design, *quiet, frame(design, frames[0]), (0, bytes([RESET])), *(frame(design, values) for values in frames)
    )
    silent = network.run(np.zeros((1, 5))).output[0]
    np.testing.assert_array_equal(scores(answers[2:3]), silent)  # nothing moves by so much
    np.testing.assert_array_equal(scores(answers[4:]), design.expected())  # the model's thresholds are back


def test_the_top_module_is_lint_clean(board):
    _, design = board
    sources = (*design.models, *design.sources, *board_sources())
    run_verilator(["--lint-only", "-Wall", "--top-module", BOARD_TOP, *sources], design.folder)


def test_what_a_design_is_for_is_kept(board):
    _, design = board
    assert RtlUse.read(design.folder) == RtlUse(0.016384, ("a", "b", "c"))
    assert RtlUse.read(design.folder.parent) is None
