"""ONNX's GRU and LSTM operators as recurrent sites."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from deltarnn.onnx.graph import Array, Graph, UnsupportedGraphError, attributes
from deltarnn.onnx.recurrent import GATES, Site, Weights

ORDER = {"GRU": (1, 0, 2), "LSTM": (0, 2, 3, 1)}
"""Where PyTorch's gates r z n, i f g o stand among ONNX's z r h, i o f c."""
ACTIVATIONS = {"GRU": (["Sigmoid", "Tanh"], ["Sigmoid", "Relu"]), "LSTM": (["Sigmoid", "Tanh", "Tanh"],)}
"""What delta layers have, per direction."""
DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
PLAIN = {"activations", "direction", "hidden_size", "layout", "linear_before_reset", "input_forget", "output_sequence"}


def site_of(node: Any, graph: Graph) -> Site:
    """The site of a GRU or LSTM node.

    Raises
    ------
    UnsupportedGraphError
        Naming the node and what it has that delta layers do not: weights that are not constant, peepholes other than 0,
        a clip, other activation functions, float16; or weights whose shapes do not fit.
    """
    cell = node.op_type
    name = node.name or next(output for output in node.output if output)
    options = attributes(node)
    check_options(f"{cell} {name!r}", cell, options)
    inputs = [*node.input, *[""] * (8 - len(node.input))]
    if cell == "LSTM" and inputs[7] and (inputs[7] not in graph.constants or graph.constants[inputs[7]].any()):
        raise UnsupportedGraphError(
            f"LSTM {name!r} has peepholes (input P), which delta layers lack: export it without"
        )
    w, r, b = (_constant(graph, f"{cell} {name!r}", *pair) for pair in zip("WRB", inputs[1:4], strict=True))
    assert w is not None
    assert r is not None
    reverse = DIRECTIONS[options.get("direction", "forward")]
    _check_shapes(f"{cell} {name!r}", cell, len(reverse), options.get("hidden_size"), {"W": w, "R": r, "B": b})
    gru: dict[str, Any] = {}
    if cell == "GRU":
        gru["reset_after"] = bool(options.get("linear_before_reset", 0))
        gru["candidate"] = "relu" if "relu" in (name.lower() for name in activations(options)) else "tanh"
    biases = np.zeros((len(reverse), 2 * w.shape[1]), np.float32) if b is None else b
    weights = tuple(_weights(cell, w[d], r[d], biases[d], gru) for d in range(len(reverse)))
    outputs = [*node.output, *[""] * (3 - len(node.output))]
    return Site(
        name=name,
        weights=weights,
        reverse=reverse,
        x=inputs[0],
        h=inputs[5],
        c=inputs[6] if cell == "LSTM" else "",
        y=outputs[0],
        next_h=outputs[1],
        next_c=outputs[2] if cell == "LSTM" else "",
        lengths=inputs[4],
        batch_first=options.get("layout", 0) == 1,
    )


def check_options(what: str, cell: str, options: dict[str, Any]) -> None:
    """Raise UnsupportedGraphError for an attribute that changes what is computed in a way that delta layers do not."""
    if "clip" in options:
        raise UnsupportedGraphError(
            f"{what} clips its gates (clip={options['clip']:g}), which delta layers do not: export it without"
        )
    if options.get("input_forget", 0):
        raise UnsupportedGraphError(
            f"{what} couples its input and forget gates (input_forget=1): delta layers do not: export it without"
        )
    if options.get("direction", "forward") not in DIRECTIONS:
        raise UnsupportedGraphError(
            f"{what} has the direction {options['direction']!r}: there are {', '.join(DIRECTIONS)}"
        )
    given = activations(options)
    directions = len(DIRECTIONS[options.get("direction", "forward")])
    allowed = [[name.lower() for name in one * directions] for one in ACTIVATIONS[cell]]
    if given and [name.lower() for name in given] not in allowed:
        raise UnsupportedGraphError(
            f"{what} has the activation functions {', '.join(given)}: delta layers have "
            f"{' or '.join(', '.join(one) for one in ACTIVATIONS[cell])}, the same in both directions"
        )
    unknown = set(options) - PLAIN
    if unknown:
        raise UnsupportedGraphError(f"{what} has the attribute {sorted(unknown)[0]}, which the importer does not know")


def activations(options: dict[str, Any]) -> list[str]:
    """The activation functions that a node names."""
    return [value.decode() if isinstance(value, bytes) else value for value in options.get("activations", [])]


def _constant(graph: Graph, what: str, label: str, name: str) -> Array | None:
    if not name and label == "B":
        return None
    if name not in graph.constants:
        raise UnsupportedGraphError(
            f"{what}: its weights {label} ({name!r}) are computed when the model runs; the importer needs constants: "
            "export the model with its parameters inside"
        )
    value = graph.constants[name]
    if value.dtype != np.float32:
        raise UnsupportedGraphError(
            f"{what}: its weights {label} are {value.dtype}; the importer takes float32: export or convert it to that"
        )
    return value


def _check_shapes(what: str, cell: str, directions: int, hidden: int | None, given: dict[str, Array | None]) -> None:
    """UnsupportedGraphError if W, R or B is not what the operator is defined for."""
    w, r = given["W"], given["R"]
    assert w is not None
    assert r is not None
    hidden = r.shape[-1] if hidden is None else hidden
    rows = GATES[cell] * hidden
    wanted = {"W": (directions, rows, w.shape[-1]), "R": (directions, rows, hidden), "B": (directions, 2 * rows)}
    for label, shape in wanted.items():
        value = given[label]
        if value is not None and value.shape != shape:
            raise UnsupportedGraphError(
                f"{what}: {label} has shape {value.shape}, for {directions} direction(s) of {hidden} units it must be "
                f"{shape}: the file is damaged, or made by hand"
            )


def _weights(cell: str, w: Array, r: Array, b: Array, options: dict[str, Any]) -> Weights:
    """From ONNX's W (G·H, I), R (G·H, H), B (2·G·H,) of one direction."""
    weight_ih, weight_hh, bias_ih, bias_hh = (reordered(part, ORDER[cell]) for part in (w, r, *np.split(b, 2)))
    return Weights(cell, weight_ih, weight_hh, bias_ih, bias_hh, **options)


def forward_node(weights: Weights) -> tuple[dict[str, Array], dict[str, Any]]:
    """W, R and B, and the attributes, of the node that computes a layer forwards: what `site_of` reads."""
    order = [int(place) for place in np.argsort(ORDER[weights.cell])]
    w, r, *biases = (reordered(array, order)[None] for array in weights.arrays.values())
    options: dict[str, Any] = {"hidden_size": weights.hidden_size}
    if weights.cell == "GRU":
        options["linear_before_reset"] = int(weights.reset_after)
        options["activations"] = ["Sigmoid", weights.candidate.title()]
    return {"W": w, "R": r, "B": np.concatenate(biases, axis=1)}, options


def reordered(values: Array, order: Sequence[int]) -> Array:
    """Blocks of rows, one per gate, in another order."""
    blocks = np.split(values, len(order))
    return np.ascontiguousarray(np.concatenate([blocks[gate] for gate in order]))


def is_recurrent(node: Any) -> bool:
    """Whether a node is a recurrent operator that the importer takes."""
    return node.op_type in GATES and node.domain in ("", "ai.onnx")


def weight_inputs(graph: Graph) -> list[str]:
    """Inputs of the graph that are W, R or B of its GRU and LSTM nodes."""
    inputs = set(graph.inputs)
    names = [name for node in graph.nodes if is_recurrent(node) for name in node.input[1:4]]
    return [name for name in dict.fromkeys(names) if name in inputs]
