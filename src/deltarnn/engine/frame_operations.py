"""The lowering of torch's operations to one frame, by the operation's name (engine.frames)."""

from typing import Any

import numpy as np

from deltarnn.engine import operators
from deltarnn.engine.frame_pointwise import POINTWISE, Bound
from deltarnn.engine.frames import FrameLowering, NotStreamableError, Operations, Stream, Value, array_of, refusal
from deltarnn.engine.program import ZERO, Places

REDUCTIONS = {"mean": "mean", "sum": "sum", "amax": "highest", "amin": "lowest"}


def apart(value: Value, axes: Any) -> list[int]:
    """Axes from the front, none of which is time."""
    counted = [int(axis) % value.places.ndim for axis in axes]
    if value.axis in counted:
        raise NotStreamableError("looks at all frames at once: a stream has no later ones")
    return counted


def unchanged(low: FrameLowering, node: Any, a: Bound) -> Value:
    value: Value = a["self"] if "self" in a else a["input"]
    if not node.meta["val"].dtype.is_floating_point:
        raise NotStreamableError("turns the signal into whole numbers")
    return value


def glu(low: FrameLowering, node: Any, a: Bound) -> Value:
    value, axis = a["self"], apart(a["self"], [a["dim"]])[0]
    left, right = np.split(value.ready(), 2, axis)
    return Value(low.builder.combine("multiply", left, low.builder.apply("sigmoid", right)), value.axis)


def reduce(low: FrameLowering, node: Any, a: Bound) -> Value:
    name, value = str(node.target).split(".")[1], a["self"]
    axes = a.get("dim")
    axes = range(value.places.ndim) if axes is None or axes == [] else axes if isinstance(axes, list) else [axes]
    axes = apart(value, axes)
    return Value(low.builder.reduce(REDUCTIONS[name], value.ready(), axes, bool(a.get("keepdim"))), low.axis_of(node))


def softmax(low: FrameLowering, node: Any, a: Bound) -> Value:
    value = a["self"]
    (axis,) = apart(value, [a["dim"]])
    places = operators.softmax(low.builder, value.ready(), axis)
    return Value(low.builder.apply("log", places) if "log" in str(node.target) else places, value.axis)


def layer_norm(low: FrameLowering, node: Any, a: Bound) -> Value:
    value = a["input"]
    axes = apart(value, range(-len(a["normalized_shape"]), 0))
    scale, shift = (None if a.get(name) is None else low.constant(a[name]) for name in ("weight", "bias"))
    if "rms" in str(node.target):
        epsilon = float(np.finfo(np.float32).eps) if a["eps"] is None else a["eps"]
        rooted = operators.root_mean_square(low.builder, value.ready(), axes, epsilon)
        return Value(operators.scaled(low.builder, rooted, scale, None), value.axis)
    return Value(operators.normalization(low.builder, value.ready(), axes, a["eps"], scale, shift), value.axis)


def group_norm(low: FrameLowering, node: Any, a: Bound) -> Value:
    value = a["input"]
    places, groups = value.ready(), int(a["num_groups"])
    apart(value, range(1, places.ndim))
    scale, shift = (
        None if a.get(name) is None else low.constant(array_of(a[name]).reshape([-1, *[1] * (places.ndim - 2)]))
        for name in ("weight", "bias")
    )
    grouped = places.reshape(len(places), groups, -1)
    normal = operators.normalization(low.builder, grouped, [2], a["eps"], None, None).reshape(places.shape)
    return Value(operators.scaled(low.builder, normal, scale, shift), value.axis)


def batch_norm(low: FrameLowering, node: Any, a: Bound) -> Value:
    value = a["input"]
    if a["training"] or a["running_mean"] is None:
        raise NotStreamableError(
            "a BatchNorm that takes its statistics from the signal: keep running statistics, and call model.eval()"
        )
    places = value.ready()
    apart(value, [1])
    width = places.shape[1]
    scale = np.ones(width, np.float32) if a["weight"] is None else array_of(a["weight"])
    shift = np.zeros(width, np.float32) if a["bias"] is None else array_of(a["bias"])
    statistics = array_of(a["running_mean"]), array_of(a["running_var"])
    return Value(operators.batch_normalization(low.builder, places, scale, shift, *statistics, a["eps"]), value.axis)


def linear(low: FrameLowering, node: Any, a: Bound) -> Value:
    value, weight = a["input"], a["weight"]
    if not isinstance(value, Value) or isinstance(weight, Value):
        raise NotStreamableError("a product with weights that come from the signal")
    apart(value, [-1])
    bias = None if a["bias"] is None else array_of(a["bias"])
    return Value(low.builder.linear(value.ready(), array_of(weight).T, bias), low.axis_of(node))


def matmul(low: FrameLowering, node: Any, a: Bound) -> Value:
    left: Any = a.get("self")
    right: Any = a.get("other", a.get("mat2"))
    added: Any = None
    if "mat1" in a:  # addmm
        left, added = a["mat1"], a["self"]
        if isinstance(added, Value) or a["alpha"] != 1 or a["beta"] != 1:
            raise NotStreamableError(refusal("addmm of other forms"))
    if isinstance(left, Value) and isinstance(right, Value):
        raise NotStreamableError("a product of the signal with itself, as in attention, which the engine does not know")
    turned = isinstance(right, Value)
    value: Value = right if turned else left
    weight = array_of(left if turned else right)
    if weight.ndim != 2 or value.places.ndim < 2:
        raise NotStreamableError("a product with weights that are no matrix")
    apart(value, [-2 if turned else -1])
    rows = value.ready().swapaxes(-1, -2) if turned else value.ready()
    places = low.builder.linear(rows, weight.T if turned else weight)
    places = places.swapaxes(-1, -2) if turned else places
    return Value(
        places if added is None else low.builder.combine("add", places, low.constant(added)), low.axis_of(node)
    )


def convolution(low: FrameLowering, node: Any, a: Bound) -> Value:
    value, weight = a["input"], a["weight"]
    if isinstance(weight, Value) or a.get("transposed"):
        raise NotStreamableError("a transposed convolution, or one with weights from the signal")
    kernel = array_of(weight)
    axes = kernel.ndim - 2
    alone = value.places.ndim == axes + 1
    places, axis = (value.places[None], value.axis + 1) if alone else (value.places, value.axis)
    strides, dilations = (_each(a[name], axes) for name in ("stride", "dilation"))
    spans = [(size - 1) * step for size, step in zip(kernel.shape[2:], dilations, strict=True)]
    given = a["padding"]
    if isinstance(given, str):
        padding = [(span // 2, span - span // 2) if given == "same" else (0, 0) for span in spans]
    else:
        padding = [(int(pad), int(pad)) for pad in _each(given, axes)]
    if axis == 1:
        raise NotStreamableError("a convolution whose channels are the frames: transpose its input")
    if axis is not None and axis >= 2:
        places = _with_past(low, places, value.lead, axis, strides[axis - 2], spans[axis - 2], padding[axis - 2][0])
        padding[axis - 2] = (0, 0)
    elif value.lead:
        value.ready()
    bias = None if a["bias"] is None else array_of(a["bias"])
    groups = int(a["groups"])
    result = operators.convolution(low.builder, places, kernel, bias, strides, dilations, padding, groups)
    return Value(result[0] if alone else result, low.axis_of(node))


def _each(value: Any, axes: int) -> list[int]:
    numbers = list(value) if isinstance(value, (list, tuple)) else [value]
    return [int(number) for number in (numbers * axes if len(numbers) == 1 else numbers)]


def _with_past(
    low: FrameLowering, places: Places, lead: int, axis: int, stride: int, span: int, padding: int
) -> Places:
    """The frame behind the `span` frames before it, which the program keeps."""
    if stride != 1:
        raise NotStreamableError(
            f"a convolution with stride {stride} over the frames: the engine gives an output at every frame"
        )
    ahead = span - lead - padding
    if ahead > 0:
        raise NotStreamableError(
            f"a convolution that looks {ahead} frames ahead: pad its input by (kernel − 1) · dilation = {span} frames "
            "in front and none behind, as F.pad(x, (…, 0)) does"
        )
    if ahead < 0:
        raise NotStreamableError(
            f"a convolution with {-ahead} frames more padding in front than its kernel covers: pad by {span}"
        )
    if not span:
        return places
    shape = list(places.shape)
    shape[axis] = span
    past = low.builder.room(*shape)
    whole = np.concatenate([past, places], axis)
    low.builder.keep(past, np.take(whole, range(1, span + 1), axis))
    return whole


def pad(low: FrameLowering, node: Any, a: Bound) -> Value:
    value = a["self"]
    if a.get("mode", "constant") != "constant" or (a.get("value") or 0) != 0:
        raise NotStreamableError("padding with anything but zeros")
    sizes = [(0, 0)] * value.places.ndim
    for number in range(len(a["pad"]) // 2):
        sizes[-1 - number] = (int(a["pad"][2 * number]), int(a["pad"][2 * number + 1]))
    lead = value.lead
    if value.axis is not None:
        front = sizes[value.axis][0]
        if front < 0:
            raise NotStreamableError("drops frames in front")
        lead += front
        sizes[value.axis] = (0, 0)
    if any(size < 0 for pair in sizes for size in pair):
        raise NotStreamableError("padding by less than nothing")
    return Value(np.pad(value.places, sizes, constant_values=ZERO), value.axis, lead)


def cut(low: FrameLowering, node: Any, a: Bound) -> Any:
    """A slice; along time, one that drops padding, or takes the last frame."""
    value = a["self"]
    if not isinstance(value, Value) or value.axis is None or int(a["dim"]) % value.places.ndim != value.axis:
        return NotImplemented
    start = int(a["start"] or 0)
    if start == -1 and not low.time_axes(node):
        return Value(value.ready(), None)
    if a.get("step", 1) != 1 or start < 0 or start > value.lead:
        raise NotStreamableError("picks some of the frames: the engine gives an output at every frame")
    return Value(value.places, low.axis_of(node), value.lead - start)


def select(low: FrameLowering, node: Any, a: Bound) -> Any:
    """One index of an axis; of time the last one."""
    value = a["self"]
    if not isinstance(value, Value) or value.axis is None or int(a["dim"]) % value.places.ndim != value.axis:
        return NotImplemented
    if a["index"] != -1:
        raise NotStreamableError("picks a frame that is not the last")
    return Value(value.ready()[(slice(None),) * value.axis + (0,)], None)


def delta_layer(low: FrameLowering, node: Any, a: Bound) -> list[Value]:
    """A layer along time goes on from frame to frame; one along another axis begins anew at every frame."""
    value, layer, outputs, cells = a["x"], int(a["layer"]), int(a["outputs"]), int(a["cells"])
    directions, batch_axis = int(a["directions"]), int(a["batch_axis"])
    if value.axis is None:
        raise NotStreamableError("a delta layer over something that is no sequence")
    alone = batch_axis < 0
    places, axis = (value.ready()[:, None], value.axis + (value.axis > 0)) if alone else (value.ready(), value.axis)
    if batch_axis == 0:
        places, axis = places.swapaxes(0, 1), {0: 1, 1: 0, 2: 2}[axis]
    if axis == 2:
        raise NotStreamableError("a delta layer whose features are the frames: transpose its input")
    held = axis == 0
    if held and directions == 2:
        raise NotStreamableError("a bidirectional delta layer along the frames: its second half would need the future")
    starts = [_start(low, a[name], alone) for name in ("h0", "c0")]
    finals = []
    for depth in range(int(a["states"]) // directions):
        halves = []
        for direction in range(directions):
            part = depth * directions + direction
            order = slice(None, None, -1 if direction else 1)
            rows = []
            for row in range(places.shape[1]):
                entering = places[order, row]
                low.streams.append(Stream(layer, part, entering, held))
                h, c = (None if start is None else start[part, row] for start in starts)
                rows.append(low.builder.step((layer, part), entering, outputs, h, c, held, cells))
            halves.append(np.stack([y[order] for y, _, _ in rows], 1))
            finals.append((np.stack([h for _, h, _ in rows]), np.stack([c for _, _, c in rows])))
        places = np.concatenate(halves, -1)
    y = places[:, 0] if alone else places.swapaxes(0, 1) if batch_axis == 0 else places
    h, c = (np.stack([final[kind] for final in finals]) for kind in (0, 1))
    of_states = None if held else 1
    return [
        Value(y, value.axis),
        *(Value(state[:, 0] if alone else state, of_states) for state in (h, c)),
    ]


def _start(low: FrameLowering, given: Any, alone: bool) -> Places | None:
    """A layer's initial h or c, (states, B, ·); None for zeros.

    Of a layer along time: that of any other has rows for every frame, and so is no constant.
    """
    if isinstance(given, Value):
        raise NotStreamableError(
            "a delta layer is given an initial state that comes from the signal, of which a stream has nothing before "
            "its first frame: call the layer with its input alone, or with a constant or parameter"
        )
    if given is None or not array_of(given).any():
        return None
    places = low.constant(given)
    return places[:, None] if alone else places


OPERATIONS: Operations = {
    **POINTWISE,
    **dict.fromkeys(REDUCTIONS, reduce),
    **dict.fromkeys(("dropout", "feature_dropout", "alpha_dropout", "to", "_to_copy", "type_as"), unchanged),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution"), convolution),
    **dict.fromkeys(("pad", "constant_pad_nd"), pad),
    **dict.fromkeys(("softmax", "_softmax", "log_softmax", "_log_softmax"), softmax),
    **dict.fromkeys(("layer_norm", "rms_norm"), layer_norm),
    **dict.fromkeys(("matmul", "mm", "bmm", "addmm"), matmul),
    "batch_norm": batch_norm,
    "delta_layer": delta_layer,
    "glu": glu,
    "group_norm": group_norm,
    "linear": linear,
    "select": select,
    "slice": cut,
}
