"""Pooling.

Of equal values in a window of MaxPool or GlobalMaxPool the first, in row-major order, gets the
cotangent: what the runtime's Indices and PyTorch's max-pool say.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
from onnx import TensorProto

from graph_rewrites.emit import Emitter
from graph_rewrites.node import Node
from graph_rewrites.rules.table import Cotangents, vjp
from graph_rewrites.shapes import expand_like, reshape_like
from graph_rewrites.windows import Sizes, Window, spatial_sizes, spread


@vjp("MaxPool")
def max_pool_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """MaxPool: ct is added to where each window's maximum lies."""
    ct, (x,) = cts[0], node.inputs
    # A second pool for the indices: asking the forward one for them would slow it tenfold.
    # Without storage_order its indices always run over row-major x.
    attributes = {name: node.attr(name) for name in node.attributes if name != "storage_order"}
    _, indices = op.MaxPool(x, outputs=2, **attributes)
    return [put_back_at(op, str(ct), indices, x)]


def put_back_at(op: Emitter, ct: str, indices: str, x: str) -> str:
    """Add each of `ct` to where its index, in row-major order, says; zeros elsewhere, like `x`."""
    zeros = op.Reshape(op.ConstantOfShape(op.Shape(x)), [-1])
    flat = op.ScatterElements(
        zeros, op.Reshape(indices, [-1]), op.Reshape(ct, [-1]), axis=0, reduction="add"
    )
    return reshape_like(op, flat, x)


@vjp("GlobalMaxPool")
def global_max_pool_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """GlobalMaxPool: ct goes to where each channel's maximum lies."""
    (ct,), (x,) = cts, node.inputs
    rows = op.Reshape(x, [0, 0, -1])
    zeros = op.ConstantOfShape(op.Shape(rows))
    first = op.ArgMax(rows, axis=2, keepdims=1)
    rows = op.ScatterElements(zeros, first, op.Reshape(ct, [0, 0, 1]), axis=2)
    return [reshape_like(op, rows, x)]


@vjp("GlobalAveragePool")
def global_average_pool_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """GlobalAveragePool: every position gets ct over the number of positions."""
    (ct,), (x,) = cts, node.inputs
    sizes = spatial_sizes(op, x)
    if isinstance(sizes, list):
        share = op.Mul(ct, 1.0 / prod(sizes))
    else:
        share = op.Div(ct, op.Cast(op.ReduceProd(sizes, keepdims=0), to=TensorProto.FLOAT))
    return [expand_like(op, share, x)]


@vjp("AveragePool")
def average_pool_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """AveragePool: every position gets ct / divisor of the windows that it is in."""
    (ct,), (x,) = cts, node.inputs
    window = Window.of(node)
    if window.is_pixel:  # an adaptive pool to the size that there is, as in VGG-16
        return [ct]
    windows = window.counts(spatial_sizes(op, x)) or op.Shape(ct, start=2)
    share = op.Mul(ct, _share(op, node, window, windows))
    return [_spread_evenly(op, share, window, windows, x)]


@vjp("LpPool")
def lp_pool_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """LpPool: y = (Σ |x|^p)^(1/p)  ->  sign(x) |x|^(p-1) · Σ ct / y^(p-1) over the windows of x.

    A window of zeros passes nothing back, as with ReduceL2.
    """
    (ct,), (x,), p = cts, node.inputs, node.attr("p", 2)
    window = Window.of(node)
    windows = window.counts(spatial_sizes(op, x)) or op.Shape(ct, start=2)
    share = _over_norm(op, ct, node.output, p)
    return [op.Mul(_power_slope(op, x, p), _spread_evenly(op, share, window, windows, x))]


@vjp("GlobalLpPool")
def global_lp_pool_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """GlobalLpPool: y = (Σ |x|^p)^(1/p) of each channel  ->  sign(x) |x|^(p-1) · ct / y^(p-1)."""
    (ct,), (x,), p = cts, node.inputs, node.attr("p", 2)
    return [op.Mul(_power_slope(op, x, p), _over_norm(op, ct, node.output, p))]


@vjp("MaxUnpool")
def max_unpool_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """MaxUnpool: y[indices] = x, 0 elsewhere  ->  ct[indices].

    Indices run over the whole of y. They are taken within their image, so that they hold too where
    the images are repeated for several targets. ONNX leaves open what equal indices mean.
    """
    (ct,), (x, indices) = cts, node.inputs[:2]
    images = op.Reshape(ct, [0, -1])
    inside = op.Mod(op.Reshape(indices, [0, -1]), op.Shape(images, start=1))
    dx = reshape_like(op, op.GatherElements(images, inside, axis=1), x)
    return [dx, *(None for _ in node.inputs[1:])]


def _power_slope(op: Emitter, x: str, p: int) -> str:
    """The slope of |x|^p / p: sign(x) |x|^(p-1)."""
    if p == 2:
        return x
    sign = op.Sign(x)
    return str(sign if p == 1 else op.Mul(sign, op.Pow(op.Abs(x), float(p - 1))))


def _over_norm(op: Emitter, ct: str | None, norm: str, p: int) -> str | None:
    """Ct / norm^(p-1); 0 where the norm is 0, the least of the subgradients there."""
    if p == 1:
        return ct
    power = norm if p == 2 else op.Pow(norm, float(p - 1))
    return str(op.Where(op.Greater(power, 0.0), op.Div(ct, power), 0.0))


def _spread_evenly(op: Emitter, ct: str | None, window: Window, windows: Sizes, x: str) -> str:
    """Add each window's `ct` (N, C, *windows) to every position of `x` in that window."""
    one_channel = op.Reshape(ct, _joined(op, [-1, 1], windows))
    ones = np.ones((1, 1, *window.kernel), np.float32)
    return reshape_like(op, spread(op, one_channel, ones, window, x), x)


def _share(op: Emitter, node: Node, window: Window, windows: Sizes) -> float | str:
    """One over each window's divisor: a number, or (1, 1, *windows) where they differ.

    The divisor counts the window's positions inside the input or, with count_include_pad, inside
    the padded input; those that ceil_mode adds behind the padding never count.
    """
    padding_counts = node.attr("count_include_pad", 0) == 1
    if not window.ceil and (padding_counts or not window.padded):
        return 1.0 / prod(window.kernel)
    ones = op.Expand(1.0, _joined(op, [1, 1], spatial_sizes(op, node.input(0))))
    if padding_counts:
        ones = op.Pad(ones, [0, 0, *window.begin, 0, 0, *window.end], 1.0)
        window = replace(window, begin=(0,) * len(window.kernel), end=(0,) * len(window.kernel))
    tail = [window.ceil * (stride - 1) for stride in window.strides]
    window = replace(window, end=tuple(np.add(window.end, tail).tolist()))
    kernel = np.ones((1, 1, *window.kernel), np.float32)
    counts = op.Conv(ones, kernel, **window.attributes())
    if window.ceil:
        counts = op.Slice(counts, [0] * len(tail), windows, window.axes)
    return str(op.Reciprocal(op.Max(counts, 1.0)))  # a dilated window may miss the input altogether


def _joined(op: Emitter, lead: list[int], sizes: Sizes) -> Sizes:
    """A shape that begins with `lead` and goes on with `sizes`."""
    return lead + sizes if isinstance(sizes, list) else str(op.Concat(lead, sizes, axis=0))
