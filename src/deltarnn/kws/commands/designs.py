"""Accelerators as the flags of `deltarnn estimate` and `deltarnn export` describe them."""

import argparse
from typing import Any

from deltarnn.hardware import DeltaCore, DeltaRNNFPGA, EdgeDRNN, Spartus
from deltarnn.hardware.accelerator import Accelerator
from deltarnn.hardware.core_layout import MAX_LANES, MAX_WIDTH
from deltarnn.kws.config.arguments import add_number

CORE_SHAPE = ("lanes", "encoder_width", "activation_pipes", "skip_zero_weights")
"""Parameters of DeltaCore, and flags of `deltarnn estimate --target core` and `deltarnn export --format rtl`."""


def add_designs(parser: argparse.ArgumentParser) -> None:
    """The flags that describe an accelerator."""
    add_number(parser, "num_array", int, 1, 1024, "MAC arrays (Spartus: 8)")
    add_number(parser, "num_array_pe", int, 1, 4096, "processing elements per array (Spartus: 64)")
    add_number(parser, "num_array_pe_ext", int, 1, 4096, "processing elements fed from external memory (EdgeDRNN: 8)")
    add_number(parser, "act_latency", int, 0, 1e5, "clocks of the activation pipeline (Spartus: 8)")
    add_number(parser, "act_interval", int, 1, 1e5, "clocks between two activations (Spartus: 4)")
    add_number(parser, "lanes", int, 1, MAX_LANES, "core, rtl: multiplier lanes, a power of two (8; ice40: 4)")
    add_number(parser, "encoder_width", int, 1, MAX_WIDTH, "core, rtl: values that the encoder looks at per clock")
    add_number(parser, "activation_pipes", int, 1, MAX_WIDTH, "core, rtl: units that the activation takes at once")
    parser.add_argument(
        "--skip_zero_weights", action="store_const", const=True,
        help="core, rtl: leave out the weights of an LSTM that --cbtd 1 pruned, balanced over --num_array_pe = lanes",
    )  # fmt: skip
    add_number(parser, "op_freq", float, -1e12, 1e12, "clock frequency, Hz (default: the accelerator's)")


def design(arguments: argparse.Namespace, target: str) -> Accelerator:
    """The accelerator of that name, as the flags describe it."""
    return {"edgedrnn": edgedrnn, "deltarnn": _deltarnn, "spartus": spartus, "core": _core}[target](arguments)


def edgedrnn(arguments: argparse.Namespace) -> EdgeDRNN:
    """EdgeDRNN, as the flags describe it."""
    return EdgeDRNN(**_given(arguments, num_pe="num_array_pe_ext", clock_hz="op_freq", power_w="power"))


def _deltarnn(arguments: argparse.Namespace) -> DeltaRNNFPGA:
    return DeltaRNNFPGA(**_given(arguments, clock_hz="op_freq", power_w="power", scan_width="scan_width"))


def spartus(arguments: argparse.Namespace) -> Spartus:
    """Spartus, as the flags describe it."""
    return Spartus(
        **_given(
            arguments, num_arrays="num_array", num_pe="num_array_pe", clock_hz="op_freq", power_w="power",
            act_latency="act_latency", act_interval="act_interval",
        )
    )  # fmt: skip


def _core(arguments: argparse.Namespace) -> DeltaCore:
    shape = {name: name for name in CORE_SHAPE}
    return DeltaCore(**_given(arguments, clock_hz="op_freq", power_w="power", **shape))


def _given(arguments: argparse.Namespace, **flags: str) -> dict[str, Any]:
    """Parameters of an accelerator from the flags that were given; one that is not positive is refused."""
    given = {}
    for parameter, flag in flags.items():
        value = getattr(arguments, flag, None)
        if value is not None:
            if value <= 0 and flag != "act_latency":
                raise ValueError(f"--{flag} {value}: must be above 0")
            given[parameter] = value
    return given


def refuse_idle(arguments: argparse.Namespace, target: str, acts_in: dict[str, tuple[str, ...]]) -> None:
    """ValueError for a flag that was given and does nothing for this target."""
    shared = {
        **dict.fromkeys(("num_array", "num_array_pe", "act_latency", "act_interval"), ("spartus",)),
        "num_array_pe_ext": ("edgedrnn",),
        "op_freq": ("edgedrnn", "deltarnn", "spartus", "core"),
        **dict.fromkeys(CORE_SHAPE, ("core", "rtl")),
    }
    for flag, targets in (shared | acts_in).items():
        if getattr(arguments, flag, None) is not None and target not in targets:
            raise ValueError(f"--{flag} does nothing for {target}: it acts for {' and '.join(targets)}")
