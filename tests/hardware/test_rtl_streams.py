"""AXI4-Stream on both sides of DeltaCore, by cocotb."""

import json
import os
import sys
from pathlib import Path

import pytest
from tests.hardware.rtl_designs import needs_simulator, random_frames, random_network

from deltarnn.hardware.export_rtl import export_rtl
from deltarnn.hardware.verilator import find_verilator


def test_streams(tmp_path, monkeypatch):
    runner = pytest.importorskip("cocotb_tools.runner", reason="cocotb is not installed: pip install 'deltarnn[rtl]'")
    needs_simulator()
    network = random_network("GRU", 3, (5,), (4,))
    frames = random_frames(network, 20)
    design = export_rtl(network, tmp_path, frames, lanes=2)
    case = tmp_path / "case.json"
    case.write_text(json.dumps({"frames": design.stimulus().tolist(), "expected": design.expected().tolist()}))
    root = find_verilator()
    monkeypatch.setenv("VERILATOR_ROOT", str(root))
    monkeypatch.setenv("PATH", f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}")
    # Verilator's makefile calls "python", which need not be on the path; -O0 compiles fastest.
    monkeypatch.setenv("MAKEFLAGS", f"PYTHON3={sys.executable} OPT_FAST=-O0 OPT_GLOBAL=-O0 OPT_SLOW=-O0")
    monkeypatch.setenv("DELTARNN_RTL_CASE", str(case))
    monkeypatch.syspath_prepend(Path(__file__).parent)
    verilator = runner.get_runner("verilator")
    verilator.build(
        sources=[tmp_path / name for name in design.sources],
        hdl_toplevel=design.top,
        build_dir=tmp_path / "build",
        build_args=["-O1"],
    )
    # In the folder of the design, where $readmemh looks.
    results = verilator.test(
        hdl_toplevel=design.top,
        test_module="rtl_streams",
        test_dir=tmp_path,
        build_dir=tmp_path / "build",
        results_xml=str(tmp_path / "results.xml"),
    )
    assert runner.get_results(results) == (4, 0)
