"""Pictures read along a grid of points, and the grid itself: GridSample and AffineGrid.

ONNX marks the grid and the matrix that makes it as not differentiable. They are: spatial
transformers learn by that derivative, and PyTorch has it.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from graph_rewrites.emit import Emitter
from graph_rewrites.node import Node
from graph_rewrites.rules.table import Cotangents, vjp
from graph_rewrites.rules.taps import CUBIC, LINEAR, Taps, counted, gathered, scattered
from graph_rewrites.shapes import reshape_like

_INTERPOLATIONS = {"linear": LINEAR, "bilinear": LINEAR, "cubic": CUBIC, "bicubic": CUBIC}


@vjp("GridSample")
def grid_sample_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """GridSample: Σ w x over the pixels around each point  ->  w ct there; Σ ct ∂w x by the grid.

    By the nearest pixel nothing changes when a point moves a little.
    """
    (ct,), (x, grid) = cts, node.inputs
    picture, shown = op.Reshape(x, [0, 0, -1]), op.Reshape(ct, [0, 0, -1, 1])
    taps = _taps(op, node)
    updates = op.Mul(shown, op.Unsqueeze(taps.weights, [1]))
    dx = scattered(op, updates, op.Unsqueeze(taps.pixels, [1]), picture)
    dx = reshape_like(op, dx, x)
    if node.constant(grid) is not None:
        return [dx, None]
    if not taps.slopes:
        return [dx, op.ConstantOfShape(op.Shape(grid))]
    seen = op.ReduceSum(op.Mul(shown, gathered(op, picture, taps.pixels)), [1], keepdims=0)
    slopes = [op.ReduceSum(op.Mul(seen, slope), [2], keepdims=1) for slope in taps.slopes]
    reaches = [_reach(op, node, axis) for axis in range(2, op.rank(x))]
    moved = [
        op.Mul(slope, op.Mul(reach, 0.5)) for slope, reach in zip(slopes, reaches, strict=True)
    ]
    return [dx, reshape_like(op, op.Concat(*reversed(moved), axis=2), grid)]


@vjp("AffineGrid")
def affine_grid_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """AffineGrid: each point (p, 1) times θᵀ  ->  Σ ct (p, 1) over the points.

    The points before the map are the grid of the identity.
    """
    (ct,), (_, size) = cts, node.inputs
    rank = op.rank(node.output) - 2
    identity = np.eye(rank, rank + 1, dtype=np.float32)[None]
    one = op.Concat([1], op.Slice(size, [1], [rank + 2]), axis=0)
    plain = op.AffineGrid(identity, one, align_corners=node.attr("align_corners", 0))
    points = op.Pad(op.Reshape(plain, [-1, rank]), [0, 1], 1.0, [1])
    moved = op.Transpose(op.Reshape(ct, [0, -1, rank]), perm=[0, 2, 1])
    return [op.MatMul(moved, points), None]


def _taps(op: Emitter, node: Node) -> Taps:
    """The pixels around each point of the grid."""
    mode, padding = node.attr("mode", "linear"), node.attr("padding_mode", "zeros")
    if mode == "nearest":
        return _nearest(op, node)
    if padding == "reflection":
        padding = "centres" if node.attr("align_corners", 0) else "edges"
    x, grid = node.inputs
    rank, taps = op.rank(x), None
    points = op.Reshape(grid, [0, -1, rank - 2])
    for axis in range(2, rank):
        size = op.Shape(x, start=axis, end=axis + 1)
        given = op.Gather(points, op.constant(rank - 1 - axis, np.int64), axis=2)
        last = op.Sub(op.Cast(size, to=TensorProto.FLOAT), 1.0)
        at = op.Mul(op.Add(op.Mul(given, _reach(op, node, axis)), last), 0.5)
        line = Taps.around(op, _INTERPOLATIONS[mode], at, size, padding)
        taps = taps.across(op, line, size) if taps else line
    assert taps is not None
    return taps


def _reach(op: Emitter, node: Node, axis: int) -> str:
    """Pixels between -1 and 1: the centres of the outermost pixels, or their outer edges."""
    size = op.Cast(op.Shape(node.input(0), start=axis, end=axis + 1), to=TensorProto.FLOAT)
    return str(op.Sub(size, 1.0) if node.attr("align_corners", 0) else size)


def _nearest(op: Emitter, node: Node) -> Taps:
    """The pixel nearest to each point: what a picture of the pixels' numbers shows there.

    Which of two equally near ones it is hangs on the runtime's rounding. The numbers begin with 1,
    so that 0 is what lies beyond the edges.
    """
    x, grid = node.inputs
    shape = op.Shape(x, start=2)
    numbers = op.Reshape(op.Add(counted(op, op.ReduceProd(shape)), 1.0), shape)
    images = op.Concat(op.Shape(grid, end=1), [1] * (op.rank(x) - 1), axis=0)
    picture = op.Expand(op.Unsqueeze(numbers, [0, 1]), images)
    names = ("align_corners", "mode", "padding_mode")
    given = {name: node.attr(name) for name in names if node.attr(name) is not None}
    seen = op.Unsqueeze(op.Reshape(op.GridSample(picture, grid, **given), [0, -1]), [2])
    pixels = op.Cast(op.Max(op.Sub(seen, 1.0), 0.0), to=TensorProto.INT64)
    return Taps(pixels, op.Cast(op.Greater(seen, 0.0), to=TensorProto.FLOAT), ())
