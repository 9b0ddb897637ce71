"""Operators that programs compute by several instructions, or by one over windows of places."""

from collections.abc import Sequence

import numpy as np

from deltarnn.engine.program import FloatArray, Places, ProgramBuilder


def convolution(
    b: ProgramBuilder,
    a: Places,
    weight: FloatArray,
    bias: FloatArray | None,
    strides: Sequence[int],
    dilations: Sequence[int],
    padding: Sequence[tuple[int, int]],
    groups: int,
) -> Places:
    """a (B, C, sizes…) with kernels (O, C / groups, …) → (B, O, sizes…), as a product of the windows' places with the
    kernels. padding: zeros before and after each axis."""
    outputs, channels, *kernel = weight.shape
    axes = len(kernel)
    extents = [(size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True)]
    padded = np.pad(a, [(0, 0), (0, 0), *padding])
    windows = np.lib.stride_tricks.sliding_window_view(padded, extents, axis=tuple(range(2, 2 + axes)))
    windows = windows[tuple(slice(None, None, step) for step in (1, 1, *strides, *dilations))]
    results = []
    for group in range(groups):
        # (B, C, out…, kernel…) → (B, out…, kernel…, C): channels next to each other, as the results are stored
        of_group = np.moveaxis(windows[:, group * channels : (group + 1) * channels], 1, -1)
        chosen = slice(group * outputs // groups, (group + 1) * outputs // groups)
        matrix = np.moveaxis(weight[chosen], 1, -1).reshape(outputs // groups, -1).T
        rows = of_group.reshape(*of_group.shape[: 1 + axes], -1)
        results.append(b.linear(rows, matrix, None if bias is None else bias[chosen]))
    return np.moveaxis(np.concatenate(results, axis=-1), -1, 1)


def softmax(b: ProgramBuilder, a: Places, axis: int) -> Places:
    """exp(a) / Σ exp(a) over an axis."""
    powers = b.apply("exp", b.combine("subtract", a, b.reduce("highest", a, [axis], keep=True)))
    return b.combine("divide", powers, b.reduce("sum", powers, [axis], keep=True))


def normalization(
    b: ProgramBuilder, a: Places, axes: Sequence[int], epsilon: float, scale: Places | None, shift: Places | None
) -> Places:
    """(a − mean) / √(variance + ε) over axes, times scale, plus shift."""
    centred = b.combine("subtract", a, b.reduce("mean", a, axes, keep=True))
    return scaled(b, root_mean_square(b, centred, axes, epsilon), scale, shift)


def root_mean_square(b: ProgramBuilder, a: Places, axes: Sequence[int], epsilon: float) -> Places:
    """a / √(mean of a² + ε) over axes."""
    square = b.reduce("mean", b.combine("multiply", a, a), axes, keep=True)
    return b.combine("divide", a, b.apply("sqrt", b.combine("add", square, b.constant(np.float32(epsilon)))))


def scaled(b: ProgramBuilder, a: Places, scale: Places | None, shift: Places | None) -> Places:
    """a · scale + shift, each where it is given."""
    result = a if scale is None else b.combine("multiply", a, scale)
    return result if shift is None else b.combine("add", result, shift)


def batch_normalization(
    b: ProgramBuilder,
    a: Places,
    scale: FloatArray,
    shift: FloatArray,
    mean: FloatArray,
    variance: FloatArray,
    epsilon: float,
) -> Places:
    """(a − mean) / √(variance + ε) · scale + shift, channel by channel: axis 1."""
    factor = scale / np.sqrt(variance + epsilon)
    shape = [-1, *[1] * (a.ndim - 2)]
    return scaled(b, a, b.constant(factor.reshape(shape)), b.constant((shift - mean * factor).reshape(shape)))
