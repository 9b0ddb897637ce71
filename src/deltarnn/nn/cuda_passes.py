"""The two passes of a layer over a sequence on a GPU, as launches of the kernels of native/cuda; float32.

Everything goes by events, in a fixed order: a sample's result does not depend on the rest of the batch. The weights'
gradients are one product over all steps, and follow torch's own switch for TF32.
"""

import struct
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from deltarnn.nn import cuda_kernels
from deltarnn.nn.cuda_kernels import Shape, Variant
from deltarnn.nn.cuda_plan import GPU, LIST_FLOATS, Plan, plan_for
from deltarnn.nn.operands import address

INPUT_TILE = 8, 4, 64
"""Warps of a block that multiplies inputs, rows of each, and columns at a time; the last two as in inputs.cuh."""


class Device:
    """Where the kernels run: the GPU of the tensors. Tests have one that runs them on a CPU."""

    kind = "cuda"
    unavailable = staticmethod(cuda_kernels.unavailable)
    gpu = staticmethod(cuda_kernels.gpu)
    launch = staticmethod(cuda_kernels.launch)
    counters = staticmethod(cuda_kernels.counters)


device: Any = Device()


class Team(NamedTuple):
    """A pass over the recurrence: what its kernel is compiled for, its launch, and its first arguments."""

    plan: Plan
    variant: Variant
    shape: Shape
    arguments: tuple[int, ...]

    @staticmethod
    def of(plan: Plan, gpu: GPU, lstm: bool, hard: bool, inputs: int, hidden: int) -> "Team":
        """The kernel and launch of a plan."""
        variant = Variant(
            *(lstm, plan.scope, plan.resident, plan.inputs_resident, plan.spread),
            *(
                32 * plan.warps,
                plan.blocks_together(gpu),
                inputs,
                hidden,
                plan.units,
                plan.parts,
                plan.samples,
                int(hard),
                plan.input_parts,
            ),
        )
        cluster = plan.blocks if plan.scope == "cluster" else 1
        shape = Shape(plan.teams * plan.blocks, 32 * plan.warps, plan.shared_bytes, cluster, plan.scope == "grid")
        return Team(plan, variant, shape, (plan.blocks, plan.units, plan.samples, plan.parts, plan.teams))


class Layer(NamedTuple):
    """How a layer of these sizes runs over a batch."""

    gates: int
    tape_width: int
    forward: Team
    backward: Team

    @staticmethod
    def of(x: Tensor, lstm: bool, hidden: int, hard: bool) -> "Layer":
        """For x (T, B, I), on its GPU."""
        return _layer(device.gpu(x.device.index), lstm, hard, x.shape[1], x.shape[2], hidden)


@lru_cache(maxsize=1024)
def _layer(gpu: GPU, lstm: bool, hard: bool, batch: int, inputs: int, hidden: int) -> Layer:
    gates = 4 if lstm else 3
    plans = (plan_for(gpu, backward, gates, batch, inputs, hidden) for backward in (False, True))
    teams = (Team.of(plan, gpu, lstm, hard, inputs, hidden) for plan in plans)
    return Layer(gates, (gates + 2) * hidden + inputs, *teams)


class Record(NamedTuple):
    """What is told of the events: Σ|Δh|, counts (4,); where wanted, bits (T, B, ·) of x and h, per sample (2, B)."""

    l1: Tensor
    counts: Tensor
    fired_x: Tensor | None
    fired_h: Tensor | None
    events: Tensor | None


@lru_cache(maxsize=1024)
def bits(threshold: float) -> int:
    """Of a float32, as the kernels take it."""
    value: int = struct.unpack("i", struct.pack("f", threshold))[0]
    return value


def _counters(like: Tensor, plan: Plan, summarises: bool) -> int:
    """For teams of a grid, and for the last block to know that it is the last."""
    return address(device.counters(like.device)) if summarises or plan.scope == "grid" else 0


def forward(
    layer: Layer,
    x: Tensor,
    start: tuple[Tensor | None, ...],
    parameters: tuple[Tensor | None, ...],
    lengths: Tensor | None,
    settings: tuple[float, float, bool],
    y: Tensor,
    final: tuple[Tensor | None, ...],
    tape: Tensor | None,
    record: Record | None,
) -> None:
    """Fill y (T, B, H); final, as start x̂, h, ĥ, c, m, of which h (and c) must be there; the tape, the record.

    All contiguous but x (T, B, I), whose last stride is 1. lengths: on the GPU. parameters: as of nn.GRU or nn.LSTM,
    the biases None where m is there. settings: thx, thh, hard.
    """
    steps, batch, inputs = x.shape
    weight_ih, weight_hh, bias_ih, bias_hh = parameters
    assert weight_ih is not None
    assert weight_hh is not None
    hidden = weight_hh.shape[1]
    thx, thh, hard = settings
    plan, variant, shape, of_team = layer.forward
    sums, of_x = (0, 0), plan.input_parts
    held = []  # until the launch
    if record is not None:
        of_h = plan.blocks * (-(-plan.units // 32))
        of_x = of_x or 2 * (-(-inputs // 64))
        space = x.new_empty((batch * (of_x + of_h), 2), dtype=torch.float64)
        held.append(space)
        sums = address(space), address(space) + 16 * batch * of_x
        if plan.scope != "block" and record.fired_h is not None:
            record.fired_h.zero_()
    products = exchange = None
    if plan.input_parts == 0:
        products = _multiply_inputs(layer, x, start[0], weight_ih, lengths, thx, final[0], tape, record, sums[0])
    elif not plan.inputs_resident:
        weight_ih = weight_ih.t().contiguous()
    if not plan.resident:
        weight_hh = weight_hh.t().contiguous()
    if plan.scope == "grid":
        exchange = x.new_empty(2, batch, hidden)
    x_step, x_sample, _ = x.stride()
    l1, counts, fired_x, fired_h, events = record or (None,) * 5
    device.launch(
        *(x.device.index, "forward", "forward", variant, shape),
        (
            *of_team,
            *(_counters(x, plan, record is not None), int(hard), steps, batch, inputs, hidden),
            *(bits(thx), bits(thh), address(lengths)),
            *(x.data_ptr(), x_step, x_sample, address(products), plan.input_parts, *map(address, start)),
            *(weight_ih.data_ptr(), weight_hh.data_ptr(), address(bias_ih), address(bias_hh), y.data_ptr()),
            *(*map(address, final), address(fired_x), address(fired_h), *sums, of_x),
            *(address(l1), address(counts), address(events), address(tape), address(exchange)),
        ),
    )


def _multiply_inputs(
    layer: Layer,
    x: Tensor,
    x_hat: Tensor | None,
    weight_ih: Tensor,
    lengths: Tensor | None,
    thx: float,
    x_hat_after: Tensor | None,
    tape: Tensor | None,
    record: Record | None,
    sums: int,
) -> Tensor:
    """W_ih Δx of every step, (T, B, G·H); the events of the inputs, on the tape too."""
    steps, batch, inputs = x.shape
    rows = weight_ih.shape[0]
    hidden, lstm = rows // layer.gates, layer.gates == 4
    deltas = x.new_empty(steps * batch, inputs) if tape is None else tape.view(steps * batch, -1)[:, -inputs:]
    stride = deltas.stride(0)
    fired = 0 if record is None else address(record.fired_x)
    blocks = -(-batch * 2 * (-(-inputs // 64)) // 4)
    device.launch(
        *(x.device.index, "inputs", "encode_inputs", Variant(), Shape(blocks, 128)),
        (
            *(steps, batch, inputs, bits(thx), address(lengths)),
            *(x.data_ptr(), x.stride(0), x.stride(1), address(x_hat)),
            *(deltas.data_ptr(), stride, fired, address(x_hat_after), sums),
        ),
    )
    products = x.new_empty(steps, batch, rows)
    warps, rows_per_warp, columns = INPUT_TILE
    blocks = -(-steps * batch // (warps * rows_per_warp)) * (-(-hidden // 32))
    shape = Shape(blocks, 32 * warps, 4 * (warps * LIST_FLOATS + columns * (layer.gates * 32 | 1)))
    device.launch(
        *(x.device.index, "inputs", "multiply_inputs", Variant(lstm), shape),
        (steps * batch, inputs, hidden, deltas.data_ptr(), stride, weight_ih.data_ptr(), products.data_ptr()),
    )
    return products


class Gradients(NamedTuple):
    """What a backward pass fills: None, or empty, where not wanted. Biases: both or none."""

    x: Tensor | None
    x_hat: Tensor | None
    h: Tensor | None
    h_hat: Tensor | None
    c: Tensor | None
    m: Tensor | None
    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None
    bias_hh: Tensor | None


def backward(
    layer: Layer,
    x_shape: tuple[int, int, int],
    start: tuple[Tensor | None, Tensor | None],
    weights: tuple[Tensor, Tensor],
    lengths: Tensor | None,
    settings: tuple[float, float, bool],
    y: Tensor | None,
    tape: Tensor,
    incoming: tuple[Tensor | None, ...],
    gradients: Gradients,
) -> None:
    """Fill `gradients`. start: h, c. incoming: of y, which must be there, of the final x̂, h, ĥ, c, m, and of Σ|Δh|.

    y: the forward pass's, of a GRU. All contiguous.
    """
    steps, batch, inputs = x_shape
    (weight_ih, weight_hh), (thx, thh, hard) = weights, settings
    hidden, lstm, index = weight_hh.shape[1], layer.gates == 4, tape.device.index
    plan, variant, shape, of_team = layer.backward
    if not plan.resident:
        weight_hh = weight_hh.t().contiguous()
    grad_y, grad_x_hat, *of_state = incoming
    sums = tape.new_empty(steps * batch, 4 * hidden)
    device.launch(
        *(index, "backward", "backward", variant, shape),
        (
            *of_team,
            *(_counters(tape, plan, False), int(hard), steps, batch, inputs, hidden, bits(thh), address(lengths)),
            *(*map(address, start), weight_hh.data_ptr(), address(y), tape.data_ptr(), address(grad_y)),
            *(*map(address, of_state), sums.data_ptr(), *map(address, gradients[2:6])),
        ),
    )
    deltas = tape.as_strided(  # of h and x
        (steps * batch, hidden + inputs), (layer.tape_width, 1), layer.tape_width - hidden - inputs
    )
    products = torch.mm(sums.t(), deltas)
    biases = address(gradients.bias_ih), address(gradients.bias_hh)
    blocks = -(-layer.gates * hidden // 8) + (-(-4 * hidden // 32) if biases[0] else 0)
    device.launch(
        *(index, "weights", "take_gradients", Variant(lstm), Shape(blocks, 256, 1024)),
        (
            *(batch, inputs, hidden, products.data_ptr(), sums.data_ptr()),
            *(gradients.weight_ih.data_ptr(), gradients.weight_hh.data_ptr(), *biases),
        ),
    )
    if gradients.x is not None and gradients.x.numel() > 0:
        torch.mm(sums[:, : layer.gates * hidden], weight_ih, out=gradients.x.view(steps * batch, inputs))
        device.launch(
            *(index, "inputs", "pass_inputs_back", Variant(), Shape(-(-batch * inputs // 128), 128)),
            (
                *(steps, batch, inputs, bits(thx), address(lengths), deltas[:, hidden:].data_ptr(), layer.tape_width),
                *(address(grad_x_hat), gradients.x.data_ptr(), address(gradients.x_hat)),
            ),
        )
