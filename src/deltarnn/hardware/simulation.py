"""Simulation of an exported design with Verilator: what the core computes, and in how many clocks."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deltarnn.hardware.export_rtl import RtlDesign


class MissingToolError(RuntimeError):
    """A tool is not installed; the message has the command that brings it."""


@dataclass(frozen=True)
class Simulation:
    """What a simulation saw, per step.

    Attributes
    ----------
    scores: (T, O) stored integers, as IntegerNetwork.run gives them. classes: (T,) the core's argmax.
    hidden: per recurrent layer (T, H), stored integers. fired_x, fired_h: per recurrent layer (T, I), (T, H).
    cycles: (T,) clocks of each step, from its start to its result.
    product_cycles, busy_cycles: (T,) of them: from the first product to the last; those with the lanes at work.
    """

    scores: NDArray[np.int64]
    classes: NDArray[np.int64]
    hidden: tuple[NDArray[np.int64], ...]
    fired_x: tuple[NDArray[np.bool_], ...]
    fired_h: tuple[NDArray[np.bool_], ...]
    cycles: NDArray[np.int64]
    product_cycles: NDArray[np.int64]
    busy_cycles: NDArray[np.int64]


def simulate(
    design: RtlDesign | str | Path,
    features: ArrayLike,
    thresholds: ArrayLike | None = None,
    stalls: float = 0.0,
    seed: int = 0,
    trace: str | Path | None = None,
) -> Simulation:
    """Build the design with Verilator (once per folder) and run features (T, I), stored integers in A, from reset.

    thresholds: (layers, 2) stored integers written to the registers before the first frame; None keeps the model's.
    stalls: probability of a clock without a valid beat in, and of one without ready out. trace: a .vcd file to write.

    Raises
    ------
    MissingToolError
        If Verilator or a C++ compiler is not there.
    """
    raise NotImplementedError


def compare(design: RtlDesign | str | Path, simulation: Simulation) -> None:
    """Raise ExportError unless the stimulus' scores in `simulation` equal expected.hex to the bit."""
    raise NotImplementedError
