"""Recurrent modules in TorchScript: their code is compiled and fixed, but their parameters can be read."""

from typing import NoReturn

import torch
from torch import Tensor, nn

SCRIPTED: dict[str, type[nn.Module]] = {
    "GRU": nn.GRU,
    "LSTM": nn.LSTM,
    "GRUCell": nn.GRUCell,
    "LSTMCell": nn.LSTMCell,
}
_OPERATORS = ("aten::gru(", "aten::lstm(", "aten::gru_cell(", "aten::lstm_cell(")


def has_recurrence(module: torch.jit.ScriptModule) -> bool:
    """Whether its graph, with all that it calls, computes a GRU, an LSTM or a cell."""
    try:
        graph = str(module.inlined_graph)
    except (AttributeError, RuntimeError):  # no forward
        return False
    return any(operator in graph for operator in _OPERATORS)


def dense_twin(name: str, module: torch.jit.ScriptModule) -> nn.Module:
    """The Python module over the parameters of a compiled GRU, LSTM or cell.

    Raises
    ------
    ValueError
        If the module is none itself but computes one inside, or its parameters do not tell all of it; with what to do.
    """
    dense_type = SCRIPTED.get(module.original_name)
    if dense_type is None:
        _refuse_inside(name, module)
    tensors: dict[str, Tensor] = dict(module.named_parameters(recurse=False))
    cell = issubclass(dense_type, nn.RNNCellBase)
    first = tensors["weight_ih" if cell else "weight_ih_l0"]
    rows_per_unit = 3 if module.original_name.startswith("GRU") else 4
    sizes = {
        "input_size": first.shape[1],
        "hidden_size": first.shape[0] // rows_per_unit,
        "bias": any(key.startswith("bias_ih") for key in tensors),
    }
    if not cell:
        sizes["bidirectional"] = "weight_ih_l0_reverse" in tensors
        sizes["num_layers"] = sum(key.startswith("weight_ih") for key in tensors) // (1 + sizes["bidirectional"])
        if "weight_hr_l0" in tensors:
            sizes["proj_size"] = len(tensors["weight_hr_l0"])
        if not hasattr(module, "batch_first"):
            arguments = ", ".join(f"{key}={value}" for key, value in sizes.items())
            raise ValueError(
                f"{name or 'the module'} was traced, which leaves no trace of batch_first: build it, rnn = "
                f"nn.{module.original_name}({arguments}, batch_first=…), give it the traced module's state_dict(), "
                "and convert that"
            )
        sizes |= {"batch_first": module.batch_first, "dropout": module.dropout}
    with torch.device("meta"):
        dense = dense_type(**sizes)
    for key, tensor in tensors.items():
        setattr(dense, key, tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor, tensor.requires_grad))
    return dense.train(module.training)


def _refuse_inside(name: str, module: torch.jit.ScriptModule) -> NoReturn:
    where = f"{name or 'the module'} ({module.original_name} in TorchScript)"
    inside = [key for key, child in module.named_modules() if getattr(child, "original_name", "") in SCRIPTED]
    if not inside:
        raise ValueError(
            f"{where} computes a recurrent layer whose weights are frozen into its code: convert the model from before "
            "torch.jit.freeze, or import its ONNX export (deltarnn.onnx.load)"
        )
    paths = [f"{name}.{key}" if name else key for key in inside]
    raise ValueError(
        f"{where} has recurrent modules inside, {', '.join(paths)}, and its compiled code cannot be changed: convert "
        f"each by itself, deltarnn.convert(dict(model.named_modules())[{paths[0]!r}], thx=…, thh=…), which reads its "
        "weights, and call it from a forward of your own; or import the model's ONNX export (deltarnn.onnx.load)"
    )
