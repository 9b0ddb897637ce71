"""Small ONNX files with recurrent layers, each as some exporter writes it, and ONNX Runtime's answer to them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

FloatArray = NDArray[np.float32]
GATES = {"GRU": 3, "LSTM": 4}
OPSET = 18


class Builder:
    """Nodes and constants of a graph in the making."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def parameter(self, name: str, *shape: int, scale: float = 0.5) -> str:
        return self.constant(name, self.random.uniform(-scale, scale, shape).astype(np.float32))

    def constant(self, name: str, value: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, operator: str, *inputs: str, outputs: Sequence[str] = (), **attributes: Any) -> str:
        names = list(outputs) or [f"v{len(self.nodes)}"]
        self.nodes.append(helper.make_node(operator, list(inputs), names, **attributes))
        return names[0]

    def save(self, path: Path, inputs: dict[str, Any], outputs: Sequence[str], opset: int = OPSET) -> Path:
        """Write the graph; inputs: name -> shape of a float32 tensor, or (element type, shape)."""
        infos = []
        for name, given in inputs.items():
            kind, shape = given if isinstance(given, tuple) else (TensorProto.FLOAT, given)
            infos.append(helper.make_tensor_value_info(name, kind, shape))
        graph = helper.make_graph(
            self.nodes, "test", infos, [onnx.ValueInfoProto(name=name) for name in outputs], self.constants
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        onnx.save(model, path)
        return path


def recurrent_node(
    b: Builder,
    cell: str,
    inputs: int,
    hidden: int,
    x: str,
    *,
    direction: str = "forward",
    bias: bool = True,
    lengths: str = "",
    states: Sequence[str] = (),
    prefix: str = "",
    **attributes: Any,
) -> str:
    """A GRU or LSTM node with random weights; outputs PREFIX_y, PREFIX_h, PREFIX_c. Its y."""
    d, rows = (2 if direction == "bidirectional" else 1), GATES[cell] * hidden
    prefix = prefix or cell.lower()
    names = [b.parameter(f"{prefix}_W", d, rows, inputs), b.parameter(f"{prefix}_R", d, rows, hidden)]
    names.append(b.parameter(f"{prefix}_B", d, 2 * rows) if bias else "")
    if cell == "GRU":
        attributes.setdefault("linear_before_reset", 1)
    outputs = [f"{prefix}_y", f"{prefix}_h", f"{prefix}_c"][: 3 if cell == "LSTM" else 2]
    b.node(
        cell,
        x,
        *names,
        lengths,
        *states,
        outputs=outputs,
        hidden_size=hidden,
        direction=direction,
        name=prefix,
        **attributes,
    )
    return outputs[0]


def onnx_runtime(path: Path) -> Any:
    """A session of ONNX Runtime, quiet and of one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def slow_signal(seed: int, *shape: int) -> FloatArray:
    """Changes little from step to step, along the first axis."""
    return np.random.default_rng(seed).normal(0, 0.2, shape).cumsum(0).astype(np.float32)
