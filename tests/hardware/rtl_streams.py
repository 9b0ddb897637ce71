"""The streams of DeltaCore as a device on them sees them: cocotb runs this in the simulator (test_rtl_streams.py)."""

import json
import os
import random
from pathlib import Path

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ReadOnly, RisingEdge

CASE = json.loads(Path(os.environ["DELTARNN_RTL_CASE"]).read_text()) if "DELTARNN_RTL_CASE" in os.environ else {}


async def restart(core):
    """Clock, quiet inputs, and a reset of two clocks."""
    cocotb.start_soon(Clock(core.clock, 10, unit="ns").start())
    for name in ("s_axis_tvalid", "s_axis_tlast", "s_axis_tdata", "m_axis_tready", "threshold_valid", "threshold_index",
                 "threshold_value", "w_axis_tvalid", "w_axis_tlast", "w_axis_tdata"):  # fmt: skip
        getattr(core, name).value = 0
    core.reset.value = 1
    for _ in range(2):
        await RisingEdge(core.clock)
    core.reset.value = 0


async def send(core, frames, idle):
    """Frames on the input stream, a beat offered in 1 - idle of the clocks and held until it is taken."""
    bits = len(core.s_axis_tdata)
    for frame in frames:
        for index, value in enumerate(frame):
            while random.random() < idle:
                await RisingEdge(core.clock)
            core.s_axis_tdata.value = value & (2**bits - 1)
            core.s_axis_tlast.value = index == len(frame) - 1
            core.s_axis_tvalid.value = 1
            while True:
                await ReadOnly()
                taken = core.s_axis_tready.value == 1
                await RisingEdge(core.clock)
                if taken:
                    break
            core.s_axis_tvalid.value = 0


async def receive(core, count, idle):
    """Scores of `count` frames and their classes. A beat offered and not taken must stay as it is."""
    frames, classes, scores, held = [], [], [], None
    while len(frames) < count:
        core.m_axis_tready.value = random.random() >= idle
        await ReadOnly()
        if core.m_axis_tvalid.value == 1:
            beat = tuple(int(getattr(core, f"m_axis_{name}").value) for name in ("tdata", "tuser", "tlast"))
            assert held in (None, beat), f"a beat changed from {held} to {beat} before it was taken"
            held = beat
            if core.m_axis_tready.value == 1:
                scores.append(core.m_axis_tdata.value.to_signed())
                held = None
                if beat[2]:
                    frames.append(scores)
                    classes.append(beat[1])
                    scores = []
        else:
            assert held is None, "TVALID fell before the beat was taken"
        await RisingEdge(core.clock)
    core.m_axis_tready.value = 0
    return frames, classes


async def expect(core, idle_in, idle_out):
    frames, expected = CASE["frames"], CASE["expected"]
    sending = cocotb.start_soon(send(core, frames, idle_in))
    scores, classes = await receive(core, len(frames), idle_out)
    await sending
    assert scores == expected
    assert classes == [max(range(len(row)), key=row.__getitem__) for row in expected]


@cocotb.test()
async def streams_at_full_rate(core):
    await restart(core)
    await expect(core, 0.0, 0.0)


@cocotb.test()
async def streams_that_are_held_up(core):
    random.seed(1)
    await restart(core)
    await expect(core, 0.7, 0.7)


@cocotb.test()
async def nothing_is_taken_while_the_output_waits(core):
    """Two frames in the score buffer and two in the frame buffer: then no more."""
    await restart(core)
    sending = cocotb.start_soon(send(core, CASE["frames"][:8], 0.0))
    for _ in range(3000):
        await RisingEdge(core.clock)
    assert core.m_axis_tvalid.value == 1
    assert core.s_axis_tready.value == 0
    scores, _ = await receive(core, 8, 0.0)
    await sending
    assert scores == CASE["expected"][:8]


@cocotb.test()
async def a_reset_at_any_clock(core):
    random.seed(2)
    for wait in (1, 40, 133):
        await restart(core)
        sending = cocotb.start_soon(send(core, CASE["frames"][::-1], 0.0))
        for _ in range(wait):
            await RisingEdge(core.clock)
        sending.cancel()
    await restart(core)
    await expect(core, 0.0, 0.3)
