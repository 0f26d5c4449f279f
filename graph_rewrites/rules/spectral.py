"""Fourier transforms. They are linear; the adjoint of a transform is the inverse but for a factor.

Complex numbers are pairs on the last axis. ONNX marks the transforms as not differentiable;
PyTorch, whose pairs these are, has their derivative.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from graph_rewrites.emit import Emitter
from graph_rewrites.errors import UnsupportedOperatorError
from graph_rewrites.node import Node
from graph_rewrites.rules.table import Cotangents, vjp
from graph_rewrites.rules.taps import counted
from graph_rewrites.shapes import static_dims


@vjp("DFT")
def dft_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """DFT: F x, of x cut or padded to m numbers  ->  F̄ᵀ ct, which is m times the inverse of F.

    Of half a spectrum the other half is 0 to F̄ᵀ. A real signal made from half a spectrum owes all
    but the first number, and the one at m / 2, to both halves: twice.
    """
    (ct,), x, inverse = cts, node.input(0), node.attr("inverse", 0)
    axis, length = _axis(node), node.input(1)
    size = op.Reshape(length, [1]) if length else op.Shape(x, start=axis, end=axis + 1)
    if not node.attr("onesided", 0):
        size, dx = op.Shape(ct, start=axis, end=axis + 1), _transform(op, node, ct, 1 - inverse)
    elif inverse:
        size = op.Shape(ct, start=axis, end=axis + 1)
        half = _transform(op, node, ct, 0, onesided=1)
        dx = op.Mul(half, _halves(op, half, size, axis, op.rank(x)))
    else:
        dx = _transform(op, node, _fitted(op, ct, size, axis), 1)
    factor = op.Cast(size, to=TensorProto.FLOAT)
    dx = op.Div(dx, factor) if inverse else op.Mul(dx, factor)
    if static_dims(op.graph, x, [-1]) == [1]:
        dx = op.Slice(dx, [0], [1], [-1])
    dx = _fitted(op, dx, op.Shape(x, start=axis, end=axis + 1), axis)
    return [dx, *(None for _ in node.inputs[1:])]


@vjp("STFT")
def stft_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """STFT: F frame for each frame of the signal  ->  Fᵀ ct, added up where the frames overlap.

    F, with the window in it, is what the operator makes of the unit vectors.
    """
    (ct,), (signal, step), window, length = cts, node.inputs[:2], node.input(2), node.input(3)
    numbers = static_dims(op.graph, signal, [2])[0]
    size = op.Shape(window) if window else op.Reshape(length, [1])
    count = op.Mul(size, [numbers])
    unit = op.EyeLike(op.ConstantOfShape(op.Concat(count, count, axis=0)))
    lines, one = op.Reshape(unit, [0, -1, numbers]), op.constant(1, np.int64)
    seen = op.STFT(lines, one, window, length, onesided=node.attr("onesided", 1))
    matrix = op.Transpose(op.Flatten(seen, axis=1), perm=[1, 0])
    frames = op.MatMul(op.Reshape(ct, [0, 0, -1]), matrix)
    begin = op.Mul(counted(op, op.Shape(ct, start=1, end=2), TensorProto.INT64), step)
    within = counted(op, size, TensorProto.INT64)
    places = op.Reshape(op.Add(op.Unsqueeze(begin, [1]), within), [1, -1, 1])
    updates = op.Reshape(frames, [0, -1, numbers])
    indices, zeros = op.Expand(places, op.Shape(updates)), op.ConstantOfShape(op.Shape(signal))
    dx = op.ScatterElements(zeros, indices, updates, axis=1, reduction="add")
    return [dx, *(None for _ in node.inputs[1:])]


def _axis(node: Node) -> int:
    """The axis that a DFT runs along: an attribute below opset 20, a constant input since then.

    Raises:
        UnsupportedOperatorError: it is computed.
    """
    rank = len(node.graph.known_shape(node.input(0)))
    if node.opset < 20:
        return int(node.attr("axis", 1)) % rank
    given = node.constant(node.input(2)) if node.input(2) else np.array(-2)
    if given is None:
        raise UnsupportedOperatorError(
            f"{node} computes the axis that it runs along; export the model with a constant axis"
        )
    return int(given.item()) % rank


def _transform(op: Emitter, node: Node, t: str | None, inverse: int, onesided: int = 0) -> str:
    """Another DFT of `t` along the same axis."""
    axis = _axis(node)
    if node.opset < 20:
        return str(op.DFT(t, axis=axis, inverse=inverse, onesided=onesided))
    along = op.constant(axis, np.int64)
    return str(op.DFT(t, None, along, inverse=inverse, onesided=onesided))


def _fitted(op: Emitter, t: str | None, size: str, axis: int) -> str:
    """`t` cut, or padded with zeros, to `size` along `axis`."""
    missing = op.Sub(size, op.Shape(t, start=axis, end=axis + 1))
    return str(op.Pad(t, op.Concat([0], missing, axis=0), None, [axis]))


def _halves(op: Emitter, half: str, size: str, axis: int, rank: int) -> str:
    """How often a signal of `size` numbers has each number of `half` a spectrum: once or twice."""
    place = counted(op, op.Shape(half, start=axis, end=axis + 1), TensorProto.INT64)
    twice = op.And(op.Greater(place, [0]), op.Less(op.Mul(place, [2]), size))
    return str(op.Reshape(op.Where(twice, 2.0, 1.0), [-1] + [1] * (rank - axis - 1)))
