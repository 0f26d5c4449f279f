"""Operators that move numbers and change none: reshape, transpose, concatenate, cut, pad, copy.

Each is linear, and its rule is its transpose: numbers go back to where they came from, copies add
up. They work on quantised tensors as well: no rule reads more of a forward tensor than its shape.
"""

from __future__ import annotations

import numpy as np

from graph_rewrites.emit import Emitter
from graph_rewrites.errors import UnsupportedOperatorError
from graph_rewrites.node import Node
from graph_rewrites.rules.table import Cotangents, vjp, zero
from graph_rewrites.shapes import is_static, reshape_like, unbroadcast
from graph_rewrites.tensor_type import Dim

SIZES = zero("Shape", "Size", "ConstantOfShape", "EyeLike", "Range")
"""Sizes, and what is made from sizes alone: no pixel enters."""

SELECTIONS = zero("NonMaxSuppression", "NonZero", "OneHot")
"""Which elements are chosen: piecewise constant."""


@vjp("Identity")
def identity_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Identity: x  ->  ct."""
    return [cts[0]]


@vjp("Dropout")
def dropout_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Dropout: x  ->  ct; in a trained network dropout does nothing.

    Raises:
        UnsupportedOperatorError: its training mode is on, or decided at run time.
    """
    mode = node.input(2)
    training = node.constant(mode) if mode else np.array(False)
    if training is None or training.any():
        raise UnsupportedOperatorError(
            f"{node} is in training mode: its output is random; "
            "export the model for inference (model.eval() in PyTorch)"
        )
    return [cts[0], *(None for _ in node.inputs[1:])]


@vjp("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """The same numbers in another shape  ->  ct in the shape of x."""
    (ct,) = filter(None, cts)
    return [reshape_like(op, ct, node.input(0)), *(None for _ in node.inputs[1:])]


@vjp("Transpose")
def transpose_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Axes in the order `perm`, reversed by default  ->  ct with its axes put back."""
    (ct,), (x,) = cts, node.inputs
    perm = node.attr("perm", list(reversed(range(op.rank(x)))))
    return [op.Transpose(ct, perm=[perm.index(axis) for axis in range(len(perm))])]


@vjp("Concat")
def concat_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Tensors one behind the other along `axis`  ->  ct cut into their sizes."""
    (ct,) = cts
    if len(node.inputs) == 1:
        return [ct]
    axis = node.attr("axis") % op.rank(node.output)
    sizes: list[Dim] | str = [op.graph.known_shape(x)[axis] for x in node.inputs]
    if not is_static(tuple(sizes)):
        sizes = op.Concat(*(op.Shape(x, start=axis, end=axis + 1) for x in node.inputs), axis=0)
    return list(op.Split(ct, sizes, axis=axis, outputs=len(node.inputs)))


@vjp("Split")
def split_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Pieces of x along `axis`  ->  their cotangents joined; zeros for pieces nobody read."""
    parts = [
        op.ConstantOfShape(op.Shape(y)) if ct is None else ct
        for y, ct in zip(node.outputs, cts, strict=True)
    ]
    dx = op.Concat(*parts, axis=node.attr("axis", 0))
    return [dx, *(None for _ in node.inputs[1:])]


@vjp("Slice")
def slice_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Slice: x[start:end:step] along some axes  ->  ct where it was taken from, 0 elsewhere."""
    (ct,) = filter(None, cts)
    x, *bounds = node.inputs
    pads = _cut_off(node)
    if pads is not None:
        dx = op.Pad(ct, pads, 0.0)
    else:
        dx = _put_back(op, ct, op.Slice(_positions(op, x), *bounds), x)
    return [dx, *(None for _ in bounds)]


@vjp("Gather")
def gather_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Gather: x[…, indices, …] along `axis`  ->  ct added up where it was taken from."""
    (ct,), (x, indices) = filter(None, cts), node.inputs
    taken = op.Gather(_positions(op, x), indices, axis=node.attr("axis", 0))
    return [_put_back(op, ct, taken, x), None]


@vjp("Pad")
def pad_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Pad: constants around x  ->  ct padded by the opposite, cropped where x was padded.

    Raises:
        UnsupportedOperatorError: the padding repeats elements of x.
    """
    mode = node.attr("mode", "constant")
    if mode != "constant":
        raise UnsupportedOperatorError(
            f"{node} pads in mode {mode!r}, which has no rule yet; "
            "add one with DEFAULT_RULES.override(Pad=my_vjp), or choose a later layer"
        )
    pads, axes = node.constant(node.input(1)), filter(None, [node.input(3)])
    opposite = op.Neg(node.input(1)) if pads is None else [-int(pad) for pad in pads]
    dx = op.Pad(cts[0], opposite, 0.0, *axes)
    return [dx, *(None for _ in node.inputs[1:])]


@vjp("Expand")
def expand_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Expand: x broadcast to a shape  ->  ct summed over the axes that were."""
    (ct,) = filter(None, cts)
    return [unbroadcast(op, ct, node.input(0), node.output), None]


@vjp("Tile")
def tile_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Tile: x repeated r times along each axis of size d  ->  Σ over the repeats of ct.

    For the sum ct is seen as (r, d, r, d, …).
    """
    (ct,), (x, repeats) = cts, node.inputs
    pairs = op.Concat(op.Unsqueeze(repeats, [1]), op.Unsqueeze(op.Shape(x), [1]), axis=1)
    copies = op.Reshape(ct, op.Reshape(pairs, [-1]))
    return [op.ReduceSum(copies, list(range(0, 2 * op.rank(x), 2)), keepdims=0), None]


def _cut_off(node: Node) -> list[int] | None:
    """Pads (begins, ends) that undo a Slice in steps of 1, None where they are not constant."""
    shape = node.shape(node.input(0))
    starts, ends, axes, steps = (node.constant(node.input(i)) for i in (1, 2, 3, 4))
    computed = any(name and node.constant(name) is None for name in node.inputs[1:])
    if shape is None or computed or starts is None or ends is None:
        return None
    if steps is not None and (steps != 1).any():
        return None
    pads = [0] * 2 * len(shape)
    along = range(len(starts)) if axes is None else axes
    for start, end, axis in zip(starts, ends, along, strict=True):
        at = int(axis) % len(shape)
        size = shape[at]
        if not isinstance(size, int):
            return None
        first, behind, _ = slice(start, end).indices(size)
        pads[at], pads[at + len(shape)] = first, size - max(first, behind)
    return pads


def _positions(op: Emitter, x: str) -> str:
    """The position of each element of `x` in row-major order, in the shape of `x`."""
    count = op.Range(op.constant(0, np.int64), op.Size(x), op.constant(1, np.int64))
    return str(op.Reshape(count, op.Shape(x)))


def _put_back(op: Emitter, ct: str, taken: str, x: str) -> str:
    """Zeros in the shape of `x`, with `ct` added at the positions `taken`, one for each number."""
    zeros = op.Reshape(op.ConstantOfShape(op.Shape(x)), [-1])
    flat = [op.Reshape(t, [-1]) for t in (taken, ct)]
    return reshape_like(op, op.ScatterElements(zeros, *flat, axis=0, reduction="add"), x)
