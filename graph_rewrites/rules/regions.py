"""Pools over regions of interest: RoiAlign and MaxRoiPool.

A region is a box (x1, y1, x2, y2) on one of the pictures, cut into bins. What a bin reads along the
height does not hang on what it reads along the width, so that each axis is laid out apart. Where
the boxes lie is not differentiated: detectors stop there, and so does PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from graph_rewrites.emit import Emitter
from graph_rewrites.node import Node
from graph_rewrites.rules.table import Cotangents, vjp
from graph_rewrites.rules.taps import LINEAR, Taps, counted, gathered, scattered


@vjp("RoiAlign")
def roi_align_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """RoiAlign: A x Bᵀ, the means of the points in each bin  ->  Σ Aᵀ ct B over a picture's boxes.

    mode="max" takes the largest weighted pixel around any of the points, as the runtime does.
    """
    ct, rois, image = (_with_spare(op, t) for t in (*cts, *node.inputs[1:]))
    x, (height, width) = node.input(0), (_Samples.of(op, node, rois, axis) for axis in (2, 3))
    if node.attr("mode", "avg") == "max":
        bins = [samples.bins(op) for samples in (height, width)]
        return [_max_vjp(op, ct, x, image, bins), None, None]
    pictures = counted(op, op.Shape(x, end=1), TensorProto.INT64)
    own = op.Cast(op.Equal(op.Unsqueeze(pictures, [1]), image), to=TensorProto.FLOAT)
    rows = op.Einsum(ct, width.means(op), equation="rcpq,rqw->rcpw")
    heights = op.Mul(op.Unsqueeze(own, [2, 3]), height.means(op))
    return [op.Einsum(heights, rows, equation="nrph,rcpw->nchw"), None, None]


@vjp("MaxRoiPool")
def max_roi_pool_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """MaxRoiPool: the largest pixel of each bin  ->  ct there; nothing of an empty bin."""
    x, ct, rois = node.input(0), *(_with_spare(op, t) for t in (*cts, node.input(1)))
    image = op.Cast(op.Gather(rois, op.constant(0, np.int64), axis=1), to=TensorProto.INT64)
    bins = [_whole_bins(op, node, rois, axis) for axis in (2, 3)]
    return [_max_vjp(op, ct, x, image, bins), None]


@dataclass(frozen=True)
class _Samples:
    """Where a RoiAlign reads along one axis.

    Attributes:
        at: (R, bins, S): the coordinates, in pixels, led inside the picture.
        valid: (R, bins, S): 1 where a point counts with what it shows, 0 where it shows nothing.
        exists: (R, 1, S): whether a bin of this box has so many points.
        count: (R, 1, 1): how many it has.
        size: of the picture, int64 of shape (1,).
    """

    at: str
    valid: str
    exists: str
    count: str
    size: str

    @classmethod
    def of(cls, op: Emitter, node: Node, rois: str, axis: int) -> _Samples:
        x, bins = node.input(0), node.attr(_BINS[axis], 1)
        size = op.Shape(x, start=axis, end=axis + 1)
        half = node.attr("coordinate_transformation_mode", "half_pixel") == "half_pixel"
        start, end = (
            op.Sub(op.Mul(side, node.attr("spatial_scale", 1.0)), 0.5 * half)
            for side in _sides(op, rois, 3 - axis)  # x comes first
        )
        length = op.Sub(end, start)
        step = op.Div(length if half else op.Max(length, 1.0), float(bins))
        ratio = float(node.attr("sampling_ratio", 0))
        count = op.Expand(ratio, op.Shape(step)) if ratio else op.Max(op.Ceil(step), 0.0)
        point = counted(op, _largest(op, count))
        exists, divisor = op.Less(point, count), op.Max(count, 1.0)
        inside = op.Div(op.Add(point, 0.5), divisor)  # (R, 1, S), in parts of a bin
        bin_ = np.arange(bins, dtype=np.float32)[:, None]
        at = op.Add(start, op.Mul(op.Add(bin_, inside), step))
        limit = op.Cast(size, to=TensorProto.FLOAT)
        shown = op.And(op.GreaterOrEqual(at, -1.0), op.LessOrEqual(at, limit))
        valid = op.Cast(op.And(shown, exists), to=TensorProto.FLOAT)
        at = op.Max(op.Min(at, op.Sub(limit, 1.0)), 0.0)
        return cls(at, valid, exists, divisor, size)

    def means(self, op: Emitter) -> str:
        """(R, bins, size): how much of each pixel each bin holds."""
        pixel = counted(op, self.size)
        far = op.Abs(op.Sub(op.Unsqueeze(self.at, [3]), pixel))
        near = op.Mul(op.Max(op.Sub(1.0, far), 0.0), op.Unsqueeze(self.valid, [3]))
        return str(op.Div(op.ReduceSum(near, [2], keepdims=0), self.count))

    def bins(self, op: Emitter) -> _Bins:
        """The pixels around the points, two each."""
        taps = Taps.around(op, LINEAR, op.Reshape(self.at, [0, -1]), self.size)
        shape = op.Concat(op.Shape(self.at), [2], axis=0)
        pixels, weights = (op.Reshape(t, shape) for t in (taps.pixels, taps.weights))
        weights = op.Mul(weights, op.Unsqueeze(self.valid, [3]))
        read = op.Expand(op.Unsqueeze(self.exists, [3]), shape)
        pixels, weights, read = (op.Reshape(t, [0, 0, -1]) for t in (pixels, weights, read))
        return _Bins(pixels, weights, read, self.size)


@dataclass(frozen=True)
class _Bins:
    """What the bins of a box read along one axis; (R, bins, T) each, T candidates.

    Attributes:
        pixels: which pixels, int64.
        weights: how much of each.
        read: whether each is there.
        size: of the picture, int64 of shape (1,).
    """

    pixels: str
    weights: str
    read: str
    size: str


_BINS = {2: "output_height", 3: "output_width"}


def _whole_bins(op: Emitter, node: Node, rois: str, axis: int) -> _Bins:
    """The bins of a MaxRoiPool along one axis: they begin and end with whole pixels."""
    x = node.input(0)
    bins, scale = node.attr("pooled_shape")[axis - 2], node.attr("spatial_scale", 1.0)
    size = op.Shape(x, start=axis, end=axis + 1)
    first, last = (_rounded(op, op.Mul(side, scale)) for side in _sides(op, rois, 4 - axis))
    step = op.Div(op.Max(op.Add(op.Sub(last, first), 1.0), 1.0), float(bins))
    number = np.arange(bins, dtype=np.float32)[:, None]
    limit = op.Cast(size, to=TensorProto.FLOAT)
    begin, end = (
        op.Max(op.Min(op.Add(side, first), limit), 0.0)
        for side in (op.Floor(op.Mul(step, number)), op.Ceil(op.Mul(step, number + 1)))
    )
    at = op.Add(begin, counted(op, _largest(op, op.Sub(end, begin))))
    read = op.Less(at, end)
    pixels = op.Cast(op.Where(read, at, 0.0), to=TensorProto.INT64)
    return _Bins(pixels, op.Cast(read, to=TensorProto.FLOAT), read, size)


def _max_vjp(op: Emitter, ct: str | None, x: str, image: str, bins: list[_Bins]) -> str:
    """Add `ct` (R, C, height, width), weighted, at the first largest of what each bin reads.

    All pictures make one, (1, C, N · pixels), and all bins of all boxes its points.
    """
    turned = op.Transpose(x, perm=[1, 0, 2, 3])
    picture = op.Unsqueeze(op.Flatten(turned, axis=1), [0])
    height, width = bins
    begin = op.Mul(op.Mul(op.Reshape(image, [-1, 1, 1]), height.size), width.size)
    rows = op.Add(op.Mul(height.pixels, width.size), begin)
    pixels = _crossed(op, op.Add, rows, width.pixels)
    weights = _crossed(op, op.Mul, height.weights, width.weights)
    read = _crossed(op, op.And, height.read, width.read)
    seen = op.Mul(gathered(op, picture, pixels), op.Unsqueeze(weights, [1]))
    candidates = op.Where(op.Unsqueeze(read, [1]), seen, -np.inf)
    first = op.ArgMax(candidates, axis=3, keepdims=1)  # (1, C, points, 1)
    place, weight = (
        op.GatherElements(op.Expand(op.Unsqueeze(t, [1]), op.Shape(candidates)), first, axis=3)
        for t in (pixels, weights)
    )
    given = op.Reshape(op.Transpose(ct, perm=[1, 0, 2, 3]), op.Shape(first))
    moved = scattered(op, op.Mul(given, weight), place, picture)
    return str(op.Transpose(op.Reshape(moved, op.Shape(turned)), perm=[1, 0, 2, 3]))


def _crossed(op: Emitter, join: Callable[..., str], height: str, width: str) -> str:
    """(R, bins, T) and (R, bins', T')  ->  (1, R · bins · bins', T · T')."""
    both = join(op.Unsqueeze(height, [2, 4]), op.Unsqueeze(width, [1, 3]))
    points = op.ReduceProd(op.Shape(both, end=3))
    return str(op.Reshape(both, op.Concat([1], points, [-1], axis=0)))


def _with_spare(op: Emitter, rows: str | None) -> str:
    """`rows`, one for each box, and one of zeros: so that there is one where there are no boxes."""
    return str(op.Pad(rows, [0, 1], None, [0]))


def _sides(op: Emitter, rois: str, first: int) -> tuple[str, str]:
    """Columns `first` and `first` + 2 of the boxes, (R, 1, 1) each."""
    low, high = (op.Unsqueeze(op.Gather(rois, [i], axis=1), [2]) for i in (first, first + 2))
    return low, high


def _rounded(op: Emitter, x: str) -> str:
    """To the nearest whole number, halves away from zero."""
    return str(op.Mul(op.Sign(x), op.Floor(op.Add(op.Abs(x), 0.5))))


def _largest(op: Emitter, counts: str) -> str:
    """The largest of the `counts`, as int64; 1 where there are no boxes."""
    listed = op.Concat(op.Reshape(counts, [-1]), np.ones(1, np.float32), axis=0)
    return str(op.Cast(op.ReduceMax(listed, keepdims=0), to=TensorProto.INT64))
