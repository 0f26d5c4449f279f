"""Convolutions on the way back."""

from __future__ import annotations

import numpy as np

from graph_rewrites.emit import Emitter
from graph_rewrites.lowering.blocked import repeated
from graph_rewrites.lowering.constants import is_fixed
from graph_rewrites.lowering.pattern import pattern
from graph_rewrites.node import Node
from graph_rewrites.shapes import is_static, static_dims
from graph_rewrites.windows import Window


@pattern("Slice")
def cropped_convolution(op: Emitter, node: Node) -> str | None:
    """Slice of a ConvTranspose -> ConvTranspose with more padding, on one side too.

    The rule pads evenly, which is all that CUDA has a kernel for, and crops what is too much
    (TensorFlow's padding "SAME"): on the CPU one copy less, and the patterns below find their case.
    """
    transposed = op.graph.producer(node.input(0))
    size, cropped = op.shape(node.input(0)), op.shape(node.output)
    if transposed is None or transposed.op_type != "ConvTranspose" or size is None:
        return None
    starts, axes, steps = (node.constant(node.input(i)) for i in (1, 3, 4))
    spatial = range(2, len(size))
    if starts is None or axes is None or steps is not None or list(axes) != list(spatial):
        return None
    if cropped is None or not is_static((*size[2:], *cropped[2:])) or min(starts) < 0:
        return None
    if len(op.graph.consumers(node.input(0))) > 1:
        return None
    window = Window.of(transposed)
    left = [int(a) - int(b) for a, b in zip(size[2:], cropped[2:], strict=True) if a and b]
    begin = [p + int(start) for p, start in zip(window.begin, starts, strict=True)]
    end = [p + n - int(start) for p, n, start in zip(window.end, left, starts, strict=True)]
    attributes = {name: transposed.attr(name) for name in transposed.attributes}
    attributes["pads"] = [*begin, *end]
    return str(op.ConvTranspose(*transposed.inputs, **attributes))


@pattern("ConvTranspose")
def flipped_convolution(op: Emitter, node: Node) -> str | None:
    """ConvTranspose of stride 1 -> Conv with the weight turned round.

    The runtime has a blocked kernel for Conv and none for ConvTranspose, which is a matrix product
    and a scatter for every image and group: 1.1 to 1.4 times the time for dense 3×3 kernels, 4 to
    13 times for depthwise ones. The graph turns the weight that the file holds; the runtime does
    so once, when it loads the model.
    """
    window, w = Window.of(node), node.input(1)
    begin = [e - 1 - p for e, p in zip(window.extents, window.begin, strict=True)]
    end = [e - 1 - p for e, p in zip(window.extents, window.end, strict=True)]
    if max(window.strides) > 1 or min(*begin, *end) < 0 or not is_fixed(op.graph, w):
        return None
    return _flipped(op, node, node.input(0), [*begin, *end])


@pattern("ConvTranspose")
def spread_depthwise_convolution(op: Emitter, node: Node) -> str | None:
    """Depthwise ConvTranspose of stride s -> zeros between the cotangents, and the flipped Conv.

    Each cotangent is repeated s×s times and all copies but the first are multiplied by zero; a
    blocked convolution of stride 1 does the rest. 1.2 to 3.5 times as fast as a matrix product and
    a scatter for every channel, and the result is in blocked layout.
    """
    x, w = node.inputs[:2]
    window, group, shape = Window.of(node), node.attr("group", 1), op.shape(x)
    weight = op.graph.known_shape(w)
    if group == 1 or len(weight) != 4 or weight[:2] != (group, 1) or not is_fixed(op.graph, w):
        return None
    if shape is None or not is_static(shape[2:]):
        return None
    added = node.attr("output_padding", [0, 0])
    begin = [e - 1 - p for e, p in zip(window.extents, window.begin, strict=True)]
    end = [
        e - s - p + a
        for e, s, p, a in zip(window.extents, window.strides, window.end, added, strict=True)
    ]
    if min(*begin, *end) < 0:
        return None
    first = np.zeros(window.strides, np.float32)
    first[0, 0] = 1.0
    mask = np.tile(first, static_dims(op.graph, x, [2, 3]))
    return _flipped(op, node, op.Mul(repeated(op, x, window.strides), mask), [*begin, *end])


def _flipped(op: Emitter, node: Node, x: str, pads: list[int]) -> str:
    """The convolution of stride 1 of `x` with the weight of a ConvTranspose, turned round."""
    group, dilations = node.attr("group", 1), list(Window.of(node).dilations)
    weight = _turned(op, node.input(1), group)
    return str(op.Conv(x, weight, *node.inputs[2:], group=group, dilations=dilations, pads=pads))


def _turned(op: Emitter, w: str, group: int) -> str:
    """(M, C / group, *kernel) as (C, M / group, *kernel), the kernel mirrored."""
    rank = op.rank(w)
    outputs, inputs, *kernel = static_dims(op.graph, w, range(rank))
    if group == 1:
        w = op.Transpose(w, perm=[1, 0, *range(2, rank)])
    elif outputs > group or inputs > 1:
        w = op.Reshape(w, [group, outputs // group, inputs, *kernel])
        w = op.Transpose(w, perm=[0, 2, 1, *range(3, rank + 1)])
        w = op.Reshape(w, [group * inputs, outputs // group, *kernel])
    axes = [2 + axis for axis, size in enumerate(kernel) if size > 1]
    if not axes:
        return w
    last, before_first = [-1] * len(axes), [-(2**31)] * len(axes)
    return str(op.Slice(w, last, before_first, axes, last))
