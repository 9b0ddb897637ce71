"""ONNX's own tests of its GRU and LSTM operators: passed, or refused by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

import onnx
from onnx import helper, numpy_helper
from onnx.backend.test.case.node import gru, lstm

from deltarnn.onnx import UnsupportedGraphError, load

REFUSED = {"test_lstm_with_peepholes": "peepholes"}


def collected() -> list[tuple[str, Any, list[Any], list[Any]]]:
    """(name, node, inputs, outputs) of each test."""
    found: list[tuple[str, Any, list[Any], list[Any]]] = []
    for module, tests in ((gru, gru.GRU), (lstm, lstm.LSTM)):
        before = module.expect

        def keep(node: Any, inputs: list[Any], outputs: list[Any], name: str, **_: Any) -> None:
            found.append((name, node, inputs, outputs))

        module.expect = keep
        try:
            for export in (getattr(tests, name) for name in sorted(vars(tests)) if name.startswith("export")):
                export()
        finally:
            module.expect = before
    return found


CASES = collected()


def test_there_are_as_many_as_onnx_ships() -> None:
    assert len(CASES) >= 12


@pytest.mark.parametrize("weights", [("W", "R", "B", "P"), ()], ids=["constants", "inputs"])
@pytest.mark.parametrize(("name", "node", "inputs", "outputs"), CASES, ids=[case[0] for case in CASES])
def test_passes_or_is_refused(
    tmp_path: Path, name: str, node: Any, inputs: list[Any], outputs: list[Any], weights: tuple[str, ...]
) -> None:
    """With the weights as constants, and as the inputs that they are in these tests."""
    given = dict(zip([n for n in node.input if n], inputs, strict=True))
    constants = [numpy_helper.from_array(value, n) for n, value in given.items() if n in weights]
    feed = {n: value for n, value in given.items() if n not in weights}
    infos = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for n, v in feed.items()
    ]
    present = [output for output in node.output if output]
    graph = helper.make_graph([node], name, infos, [onnx.ValueInfoProto(name=n) for n in present], constants)
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=8), path)
    if name in REFUSED:
        with pytest.raises(UnsupportedGraphError, match=REFUSED[name]):
            load(path).run(present, feed)
        return
    for got, expected in zip(load(path).run(present, feed), outputs, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-6)
