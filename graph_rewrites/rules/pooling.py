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
    zeros = op.ConstantOfShape(op.Reshape(op.Size(x), [1]))
    flat = op.ScatterElements(
        zeros, op.Reshape(indices, [-1]), op.Reshape(ct, [-1]), axis=0, reduction="add"
    )
    return [reshape_like(op, flat, x)]


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
    windows = window.counts(spatial_sizes(op, x)) or op.Shape(ct, start=2)
    share = op.Mul(ct, _share(op, node, window, windows))
    one_channel = op.Reshape(share, _joined(op, [-1, 1], windows))
    ones = np.ones((1, 1, *window.kernel), np.float32)
    return [reshape_like(op, spread(op, one_channel, ones, window, x), x)]


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
