"""The lowering of pointwise functions of one or two operands, by the operation's name (engine.frames)."""

import math
from collections.abc import Callable
from typing import Any

from deltarnn.engine.frames import FrameLowering, NotStreamableError, Operations, Value, array_of, refusal
from deltarnn.engine.program import Places, ProgramBuilder

Bound = dict[str, Any]
"""A call's arguments by name."""

UNARY = {
    "abs": "absolute", "erf": "erf", "exp": "exp", "log": "log", "neg": "negate", "reciprocal": "reciprocal",
    "relu": "relu", "sigmoid": "sigmoid", "sqrt": "sqrt", "tanh": "tanh",
}  # fmt: skip
BINARY = {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "div": "divide",
    "maximum": "maximum",
    "minimum": "minimum",
}


def unary(low: FrameLowering, node: Any, a: Bound) -> Value:
    name = str(node.target).split(".")[1].rstrip("_")
    return Value(low.builder.apply(UNARY[name], a["self"].ready()), low.axis_of(node))


def pointwise(
    function: Callable[[ProgramBuilder, Places, Bound], Places],
) -> Callable[[FrameLowering, Any, Bound], Value]:
    """An operation on each element of `self` (or `input`), of builder, places and arguments."""

    def lowered(low: FrameLowering, node: Any, a: Bound) -> Value:
        value = a["self"] if "self" in a else a["input"]
        return Value(function(low.builder, value.ready(), a), low.axis_of(node))

    return lowered


def _gelu(b: ProgramBuilder, x: Places, a: Bound) -> Places:
    if a.get("approximate", "none") == "tanh":
        cube = b.combine("multiply", b.combine("multiply", x, x), x)
        inner = b.combine("add", x, b.combine("multiply", cube, b.constant(0.044715)))
        bent = b.apply("tanh", b.combine("multiply", inner, b.constant(math.sqrt(2 / math.pi))))
    else:
        bent = b.apply("erf", b.combine("multiply", x, b.constant(math.sqrt(0.5))))
    half = b.combine("multiply", x, b.constant(0.5))
    return b.combine("add", half, b.combine("multiply", half, bent))


def _hardsigmoid(b: ProgramBuilder, x: Places, a: Bound) -> Places:
    return b.apply("clip", b.combine("add", b.combine("multiply", x, b.constant(1 / 6)), b.constant(0.5)), 0.0, 1.0)


def _softplus(b: ProgramBuilder, x: Places, a: Bound) -> Places:
    if a.get("beta", 1) == 1:
        return b.apply("softplus", x)
    bent = b.apply("softplus", b.combine("multiply", x, b.constant(float(a["beta"]))))
    return b.combine("multiply", bent, b.constant(1 / float(a["beta"])))


def _elu(b: ProgramBuilder, x: Places, a: Bound) -> Places:
    if a.get("scale", 1) != 1 or a.get("input_scale", 1) != 1:
        raise NotStreamableError(refusal("elu with scales"))
    return b.apply("elu", x, float(a["alpha"]))


def _clip(low: Any, high: Any) -> tuple[float, float]:
    return -math.inf if low is None else float(low), math.inf if high is None else float(high)


FUNCTIONS: dict[str, Callable[[ProgramBuilder, Places, Bound], Places]] = {
    "clamp": lambda b, x, a: b.apply("clip", x, *_clip(a["min"], a["max"])),
    "clamp_max": lambda b, x, a: b.apply("clip", x, *_clip(None, a["max"])),
    "clamp_min": lambda b, x, a: b.apply("clip", x, *_clip(a["min"], None)),
    "elu": _elu,
    "gelu": _gelu,
    "hardsigmoid": _hardsigmoid,
    "hardswish": lambda b, x, a: b.combine("multiply", x, _hardsigmoid(b, x, a)),
    "hardtanh": lambda b, x, a: b.apply("clip", x, float(a["min_val"]), float(a["max_val"])),
    "leaky_relu": lambda b, x, a: b.apply("leaky_relu", x, float(a["negative_slope"])),
    "log_sigmoid": lambda b, x, a: b.apply("negate", b.apply("softplus", b.apply("negate", x))),
    "mish": lambda b, x, a: b.combine("multiply", x, b.apply("tanh", b.apply("softplus", x))),
    "relu6": lambda b, x, a: b.apply("clip", x, 0.0, 6.0),
    "rsqrt": lambda b, x, a: b.apply("reciprocal", b.apply("sqrt", x)),
    "silu": lambda b, x, a: b.combine("multiply", x, b.apply("sigmoid", x)),
    "softplus": _softplus,
    "square": lambda b, x, a: b.combine("multiply", x, x),
}


def binary(low: FrameLowering, node: Any, a: Bound) -> Value:
    name = str(node.target).split(".")[1].rstrip("_")
    if a.get("rounding_mode") is not None:
        raise NotStreamableError("rounds a quotient")
    left, right = (operand(low, a[side]) for side in ("self", "other"))
    if name == "rsub":
        name, left, right = "sub", right, left
    if a.get("alpha", 1) != 1:
        right = low.builder.combine("multiply", right, low.constant(a["alpha"]))
    return Value(low.builder.combine(BINARY[name], left, right), low.axis_of(node))


def operand(low: FrameLowering, value: Any) -> Places:
    return value.ready() if isinstance(value, Value) else low.constant(value)


def power(low: FrameLowering, node: Any, a: Bound) -> Value:
    exponent, x = a["exponent"], a["self"]
    if not isinstance(x, Value) or isinstance(exponent, Value) or array_of(exponent).size != 1:
        raise NotStreamableError("a power whose exponent is no number")
    number, b = float(array_of(exponent).reshape(())), low.builder
    places = x.ready()
    return Value(
        b.combine("multiply", places, places) if number == 2 else b.apply("power", places, number), low.axis_of(node)
    )


def prelu(low: FrameLowering, node: Any, a: Bound) -> Value:
    value = a["self"]
    places, weight, b = value.ready(), array_of(a["weight"]), low.builder
    slope = b.constant(weight.reshape([-1, *[1] * (places.ndim - 2)] if places.ndim > 1 else -1))
    negative = b.combine("multiply", b.apply("clip", places, -math.inf, 0.0), slope)
    return Value(b.combine("add", b.apply("relu", places), negative), value.axis)


POINTWISE: Operations = {
    **dict.fromkeys(UNARY, unary),
    **{name: pointwise(function) for name, function in FUNCTIONS.items()},
    **dict.fromkeys((*BINARY, "rsub"), binary),
    **dict.fromkeys(("prelu", "_prelu_kernel"), prelu),
    "pow": power,
}
