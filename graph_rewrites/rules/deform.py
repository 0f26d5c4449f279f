"""Convolution of a picture that is read between its pixels.

DeformConv reads N pictures, their C channels in G groups with offsets of their own, at K points for
each of P windows. For the offsets, that is N · G pictures of C / G channels, read at K · P points.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from graph_rewrites.emit import Emitter
from graph_rewrites.node import Node
from graph_rewrites.rules.table import Cotangents, vjp
from graph_rewrites.rules.taps import LINEAR, Taps, counted, gathered, scattered
from graph_rewrites.shapes import reshape_like, static_dims
from graph_rewrites.windows import Window


@vjp("DeformConv")
def deform_conv_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """DeformConv: y = W (mask · read) + b  ->  Wᵀ ct back to the pixels, the offsets, the mask."""
    (ct,), (x, w, offset), mask = cts, node.inputs[:3], node.input(4)
    group, (channels,) = node.attr("group", 1), static_dims(op.graph, w, [0])
    reading = _Reading.of(op, node, str(ct))
    weights = op.Reshape(w, [group, channels // group, -1])
    images = op.Reshape(ct, [0, group, channels // group, -1])
    columns = op.MatMul(op.Transpose(weights, perm=[0, 2, 1]), images)  # (N, group, C/group·K, P)
    pulled, read = reading.split(op, columns), reading.read(op)
    masked, dmask = read, None
    if mask:
        factor = op.Reshape(mask, reading.shape(op, 1))
        dmask = reshape_like(op, op.ReduceSum(op.Mul(pulled, read), [1]), mask)
        masked, pulled = op.Mul(read, factor), op.Mul(pulled, factor)
    turned = op.Transpose(op.Reshape(masked, op.Shape(columns)), perm=[0, 1, 3, 2])
    dw = reshape_like(op, op.ReduceSum(op.MatMul(images, turned), [0], keepdims=0), w)
    db = op.ReduceSum(ct, [0, *range(2, op.rank(x))], keepdims=0) if node.input(3) else None
    dx = reshape_like(op, reading.pixels_vjp(op, pulled), x)
    doffset = reshape_like(op, reading.offset_vjp(op, pulled), offset)
    return [dx, dw, doffset, db, dmask][: len(node.inputs)]


@dataclass(frozen=True)
class _Reading:
    """What the windows of a DeformConv read.

    Attributes:
        picture: (N · G, C / G, pixels).
        taps: the pixels around each of the K · P points.
        channels: C / G.
        taken: K.
        points: K · P, an int64 of shape (1,).
    """

    picture: str
    taps: Taps
    channels: int
    taken: int
    points: str

    @classmethod
    def of(cls, op: Emitter, node: Node, ct: str) -> _Reading:
        x, offset = node.input(0), node.input(2)
        window = Window.of(node)
        places = np.array(list(product(*map(range, window.kernel))))
        (read,) = static_dims(op.graph, node.input(1), [1])  # by each of the weight's groups
        channels = read * node.attr("group", 1) // node.attr("offset_group", 1)
        taken = len(places)
        points = op.Mul(op.ReduceProd(op.Shape(ct, start=2)), [taken])
        pixels = op.ReduceProd(op.Shape(x, start=2))
        picture = op.Reshape(x, op.Concat([-1, channels], pixels, axis=0))
        # the offsets of a point lie behind each other, those of its first axis first
        shape = op.Concat([-1, taken, len(window.kernel)], op.Shape(ct, start=2), axis=0)
        moved, taps = op.Reshape(offset, shape), None
        for n, axis in enumerate(window.axes):
            start = places[:, n] * window.dilations[n] - window.begin[n]
            steps = op.Mul(counted(op, op.Shape(ct, start=axis, end=axis + 1)), window.strides[n])
            steps = op.Reshape(steps, [-1] + [1] * (len(window.kernel) - n - 1))
            fixed = start.astype(np.float32).reshape(-1, *[1] * len(window.kernel))
            at = op.Add(op.Add(op.Gather(moved, op.constant(n, np.int64), axis=2), fixed), steps)
            size = op.Shape(x, start=axis, end=axis + 1)
            line = Taps.around(op, LINEAR, op.Flatten(at, axis=1), size)
            taps = taps.across(op, line, size) if taps else line
        assert taps is not None
        return cls(picture, taps, channels, taken, points)

    def shape(self, op: Emitter, channels: int) -> str:
        """(N · G, channels, K · P), as a tensor."""
        return str(op.Concat([-1, channels], self.points, axis=0))

    def split(self, op: Emitter, columns: str) -> str:
        """(N, …, P), C · K rows in between  ->  (N · G, C / G, K · P)."""
        return str(op.Reshape(columns, self.shape(op, self.channels)))

    def read(self, op: Emitter) -> str:
        """(N · G, C / G, K · P): what the points show."""
        parts = op.Mul(self._around(op), op.Unsqueeze(self.taps.weights, [1]))
        return str(op.ReduceSum(parts, [3], keepdims=0))

    def pixels_vjp(self, op: Emitter, pulled: str) -> str:
        """The cotangent of the pixels, for that of `read`."""
        parts = op.Mul(op.Unsqueeze(pulled, [3]), op.Unsqueeze(self.taps.weights, [1]))
        return scattered(op, parts, op.Unsqueeze(self.taps.pixels, [1]), self.picture)

    def offset_vjp(self, op: Emitter, pulled: str) -> str:
        """The cotangent of the offsets, (N · G, K, axes, P), for that of `read`."""
        parts = op.Mul(op.Unsqueeze(pulled, [3]), self._around(op))
        seen = op.ReduceSum(parts, [1], keepdims=0)
        slopes = (op.ReduceSum(op.Mul(seen, s), [2], keepdims=0) for s in self.taps.slopes)
        return str(op.Concat(*(op.Reshape(s, [0, self.taken, 1, -1]) for s in slopes), axis=2))

    def _around(self, op: Emitter) -> str:
        """(N · G, C / G, K · P, T): the pixels around the points."""
        return gathered(op, self.picture, self.taps.pixels)
