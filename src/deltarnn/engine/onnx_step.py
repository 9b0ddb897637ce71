"""One time step of a delta network as an ONNX graph with explicit state, for where the engine does not run.

A general runtime multiplies by zeros too: this export is for compatibility and brings no speed (docs/engine.md).
"""

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltarnn.engine.description import Description
from deltarnn.files import write_bytes
from deltarnn.fixed.cells import entering_biases
from deltarnn.fixed.verification import UnsupportedModelError

OPSET = 17


def export_onnx_step(model: Any, path: str | os.PathLike[str]) -> None:
    """Write one step of a DeltaGRU, a DeltaLSTM, or a model with one as `.rnn` and a dense head as `.head`.

    Inputs of the graph, all float32: frame (B, I); per layer l the state, zeros before the first step: x_hat_l (B, I),
    h_l and h_hat_l (B, P), for the LSTM c_l (B, H), and with reset_after=False rh_hat_l (B, H). P is H, or the size of
    the projection. Outputs: output (B, ·), and per state the same name after next_: what to give with the next frame.
    The graph needs no memory m: it computes W x̂ + U ĥ + b anew, which is the same number (MATH §4).

    Raises
    ------
    ValueError
        For a bidirectional or a quantised model, and for one that computes anything beside `.rnn` and `.head`, which
        would be lost: the graph is run on a random sequence and must give what the model gives.
    ModuleNotFoundError
        If the package onnx is missing: pip install 'deltarnn[onnx]'.
    """
    description = Description.of(model, _run)
    if description.quantization is not None:
        raise UnsupportedModelError(
            "the model has fixed-point formats, whose integer arithmetic this export does not carry: set "
            "layer.quantization = None to export it in float, or use the C export (deltarnn export)"
        )
    write_bytes(os.fspath(path), _Graph(description).build().SerializeToString())


def _run(description: Description, frames: NDArray[np.float32]) -> NDArray[Any]:
    """The graph's output (T, ·) over frames (T, I), step by step."""
    from onnx.reference import ReferenceEvaluator

    graph = _Graph(description)
    evaluator = ReferenceEvaluator(graph.build())
    names = [value.name for value in graph.outputs]
    widths = {value.name: value.type.tensor_type.shape.dim[1].dim_value for value in graph.inputs[1:]}
    state = {name: np.zeros((1, width), np.float32) for name, width in widths.items()}
    outputs = []
    for frame in frames:
        results = dict(zip(names, evaluator.run(None, {"frame": frame[None], **state}), strict=True))
        outputs.append(results["output"][0])
        state = {name: results[f"next_{name}"] for name in state}
    return np.stack(outputs)


class _Graph:
    """Nodes and constants of the graph while it is built; values are known by their names."""

    def __init__(self, description: Description) -> None:
        from onnx import helper, numpy_helper

        self.helper, self.numpy_helper = helper, numpy_helper
        self.description = description
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []

    def build(self) -> Any:
        import onnx

        a = self.description.architecture
        signal = self.input("frame", a["input_size"])
        for layer in range(a["num_layers"]):
            signal = self.layer(layer, signal)
        for index, (weight, bias, relu) in enumerate(self.description.head()):
            signal = self.linear(signal, weight, f"head_{index}", bias)
            signal = self.node("Relu", signal) if relu else signal
        head = self.description.head()
        width = len(head[-1][1]) if head else a["proj_size"] or a["hidden_size"]
        self.outputs.insert(0, self.value_info("output", width))
        self.nodes.append(self.helper.make_node("Identity", [signal], ["output"]))
        graph = self.helper.make_graph(
            self.nodes, "delta_step", self.inputs, self.outputs, list(self.constants.values())
        )
        opset = [self.helper.make_opsetid("", OPSET)]
        model = self.helper.make_model(graph, opset_imports=opset, ir_version=8, producer_name="deltarnn")
        onnx.checker.check_model(model)
        return model

    def layer(self, index: int, x: str) -> str:
        """The nodes of one layer (MATH §1–3); its output."""
        d, a = self.description, self.description.architecture
        hidden, outputs = a["hidden_size"], a["proj_size"] or a["hidden_size"]
        inputs = d.layer(index, "weight_ih").shape[1]
        x_hat, h = self.input(f"x_hat_{index}", inputs), self.input(f"h_{index}", outputs)
        h_hat = self.input(f"h_hat_{index}", outputs)
        x_hat = self.hold(x, x_hat, d.header["thx"][index])
        h_hat = self.hold(h, h_hat, d.header["thh"][index])
        self.output(f"x_hat_{index}", x_hat, inputs)
        self.output(f"h_hat_{index}", h_hat, outputs)
        biases = entering_biases(a["cell"], d.layer(index, "bias_ih"), d.layer(index, "bias_hh"))
        if a["cell"] == "GRU":
            h = self.gru(index, x_hat, h, h_hat, biases)
        else:
            c = self.input(f"c_{index}", hidden)
            from_h = self.linear(h_hat, d.layer(index, "weight_hh"), f"weight_hh_{index}")
            from_x = self.linear(x_hat, d.layer(index, "weight_ih"), f"weight_ih_{index}", biases)
            i, f, g, o = self.split(self.node("Add", from_x, from_h), 4)
            kept = self.node("Mul", self.sigmoid(f), c)
            c = self.node("Add", kept, self.node("Mul", self.sigmoid(i), self.tanh(g)))
            h = self.node("Mul", self.sigmoid(o), self.tanh(c))
            self.output(f"c_{index}", c, hidden)
            if a["proj_size"]:
                h = self.linear(h, d.layer(index, "weight_hr"), f"weight_hr_{index}")
        self.output(f"h_{index}", h, outputs)
        return h

    def gru(self, index: int, x_hat: str, h: str, h_hat: str, biases: NDArray[Any]) -> str:
        """The gates of a GRU layer; its h."""
        d, hidden = self.description, self.description.architecture["hidden_size"]
        from_x = self.linear(x_hat, d.layer(index, "weight_ih"), f"weight_ih_{index}", biases[: 3 * hidden])
        r_x, z_x, n_x = self.split(from_x, 3)
        weight_hh = d.layer(index, "weight_hh")
        if d.reset_after:
            r_h, z_h, n_h = self.split(self.linear(h_hat, weight_hh, f"weight_hh_{index}"), 3)
        else:
            r_h, z_h = self.split(self.linear(h_hat, weight_hh[: 2 * hidden], f"weight_hh_{index}"), 2)
        r = self.sigmoid(self.node("Add", r_x, r_h))
        z = self.sigmoid(self.node("Add", z_x, z_h))
        bias_nh = self.constant(f"bias_nh_{index}", biases[3 * hidden :])
        if d.reset_after:
            m_n = self.node("Add", n_x, self.node("Mul", r, self.node("Add", n_h, bias_nh)))
        else:
            rh_hat = self.hold(self.node("Mul", r, h), self.input(f"rh_hat_{index}", hidden), d.header["thh"][index])
            self.output(f"rh_hat_{index}", rh_hat, hidden)
            n_h = self.linear(rh_hat, weight_hh[2 * hidden :], f"weight_nh_{index}")
            m_n = self.node("Add", n_x, self.node("Add", n_h, bias_nh))
        n = self.node("Relu", m_n) if d.candidate == "relu" else self.tanh(m_n)
        return self.node("Add", n, self.node("Mul", z, self.node("Sub", h, n)))

    def hold(self, value: str, memory: str, threshold: float) -> str:
        """`value` where |value − memory| ≥ θ or is NaN, else `memory`."""
        distance = self.node("Abs", self.node("Sub", value, memory))
        quiet = self.node("Less", distance, self.constant(f"theta_{threshold!r}", np.array(threshold)))
        return self.node("Where", quiet, memory, value)

    def sigmoid(self, value: str) -> str:
        if not self.description.architecture["hard_activations"]:
            return self.node("Sigmoid", value)
        return self.node("HardSigmoid", value, alpha=0.25, beta=0.5)

    def tanh(self, value: str) -> str:
        if not self.description.architecture["hard_activations"]:
            return self.node("Tanh", value)
        bounds = self.constant("minus_one", np.array(-1.0)), self.constant("one", np.array(1.0))
        return self.node("Clip", value, *bounds)

    def linear(self, value: str, weight: NDArray[Any], name: str, bias: NDArray[Any] | None = None) -> str:
        operands = [value, self.constant(name, weight)]
        if bias is not None:
            operands.append(self.constant(f"{name}_bias", bias))
        return self.node("Gemm", *operands, transB=1)

    def split(self, value: str, parts: int) -> list[str]:
        names = [f"{value}_{part}" for part in range(parts)]
        self.nodes.append(self.helper.make_node("Split", [value], names, axis=1))
        return names

    def node(self, operator: str, *operands: str, **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(self.helper.make_node(operator, list(operands), [name], **attributes))
        return name

    def constant(self, name: str, values: NDArray[Any]) -> str:
        self.constants[name] = self.numpy_helper.from_array(np.ascontiguousarray(values, dtype=np.float32), name)
        return name

    def input(self, name: str, width: int) -> str:
        self.inputs.append(self.value_info(name, width))
        return name

    def output(self, name: str, value: str, width: int) -> None:
        self.nodes.append(self.helper.make_node("Identity", [value], [f"next_{name}"]))
        self.outputs.append(self.value_info(f"next_{name}", width))

    def value_info(self, name: str, width: int) -> Any:
        element = self.helper.np_dtype_to_tensor_dtype(np.dtype(np.float32))
        return self.helper.make_tensor_value_info(name, element, ["B", width])
