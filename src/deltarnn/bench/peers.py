"""What the engine is measured against: the same layer, dense, in torch and in ONNX Runtime."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

FloatArray = NDArray[np.float32]
OPSET = 17


def torch_call(layer: nn.RNNBase, frames: FloatArray, threads: int) -> Callable[[], Any]:
    """The layer over frames (T, I) in one call, with its state given and taken."""
    x = torch.from_numpy(frames)
    zeros = torch.zeros(layer.num_layers, layer.hidden_size)
    state: Any = (zeros, zeros) if isinstance(layer, nn.LSTM) else zeros

    def call() -> Any:
        torch.set_num_threads(threads)
        with torch.no_grad():
            return layer(x, state)

    return call


def onnxruntime_call(
    layer: nn.RNNBase, frames: FloatArray, threads: int, dynamic_int8: bool = False
) -> Callable[[], Any]:
    """ONNX Runtime's GRU or LSTM operators over frames (T, I) in one call, state given and taken.

    dynamic_int8: its dynamic quantisation, which it has for the LSTM only. The float result is checked against `layer`.
    """
    import onnxruntime

    model = _onnx_model(layer, len(frames))
    if dynamic_int8:
        model = _quantized(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {node.name: np.zeros(node.shape, np.float32) for node in session.get_inputs()}
    feed["x"] = frames[:, None]
    if not dynamic_int8:
        expected = torch_call(layer, frames, 1)()[0].numpy()
        np.testing.assert_allclose(session.run(["y"], feed)[0][:, 0], expected, rtol=0, atol=1e-3)
    return lambda: session.run(None, feed)


def _onnx_model(layer: nn.RNNBase, steps: int) -> Any:
    from onnx import TensorProto, helper, numpy_helper

    cell = layer.mode
    order = (1, 0, 2) if cell == "GRU" else (0, 3, 1, 2)  # PyTorch's r z n, i f g o as z r h, i o f c
    states = ["h"] if cell == "GRU" else ["h", "c"]
    nodes: list[Any] = []
    constants = [numpy_helper.from_array(np.array([1]), "direction")]
    signal = "x"
    for index in range(layer.num_layers):

        def reordered(name: str, index: int = index) -> FloatArray:
            parameter = getattr(layer, f"{name}_l{index}").detach().numpy()
            return np.concatenate([np.split(parameter, len(order))[gate] for gate in order])[None]

        bias = np.concatenate([reordered("bias_ih"), reordered("bias_hh")], axis=1)
        for name, values in (("W", reordered("weight_ih")), ("R", reordered("weight_hh")), ("B", bias)):
            constants.append(numpy_helper.from_array(values, f"{name}{index}"))
        inputs = [signal, f"W{index}", f"R{index}", f"B{index}", "", *(f"{state}{index}" for state in states)]
        outputs = [f"Y{index}", *(f"next_{state}{index}" for state in states)]
        options: dict[str, Any] = {"linear_before_reset": 1} if cell == "GRU" else {}
        nodes.append(helper.make_node(cell, inputs, outputs, hidden_size=layer.hidden_size, **options))
        signal = "y" if index == layer.num_layers - 1 else f"y{index}"
        nodes.append(helper.make_node("Squeeze", [f"Y{index}", "direction"], [signal]))

    def value(name: str, *shape: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))

    names = [f"{state}{index}" for index in range(layer.num_layers) for state in states]
    hidden = layer.hidden_size
    graph = helper.make_graph(
        nodes,
        "dense",
        [value("x", steps, 1, layer.input_size), *(value(name, 1, 1, hidden) for name in names)],
        [value("y", steps, 1, hidden), *(value(f"next_{name}", 1, 1, hidden) for name in names)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


def _quantized(model: Any) -> Any:
    import logging
    import tempfile
    from pathlib import Path

    import onnx
    from onnxruntime.quantization import quantize_dynamic

    logging.getLogger().setLevel(logging.ERROR)  # it advises preprocessing on the root logger
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "quantized.onnx"
        quantize_dynamic(model, path)
        return onnx.load(path)
