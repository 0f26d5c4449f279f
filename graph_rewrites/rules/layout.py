"""Operators that move numbers and change none: reshape, transpose, concatenate, cut, pad, copy.

Each is linear, and its rule is its transpose: numbers go back to where they came from, copies add
up. They work on quantised tensors as well: no rule reads more of a forward tensor than its shape.
"""

from __future__ import annotations

import numpy as np

from graph_rewrites.emit import Emitter
from graph_rewrites.errors import UnsupportedOperatorError
from graph_rewrites.node import Node
from graph_rewrites.rules.contraction import along, unit_vectors
from graph_rewrites.rules.indexing import positions, put_back
from graph_rewrites.rules.table import Cotangents, vjp, zero
from graph_rewrites.shapes import is_static, reshape_like, static_dims, unbroadcast
from graph_rewrites.tensor_type import Dim

SIZES = zero("Shape", "Size", "ConstantOfShape", "EyeLike", "Range")
"""Sizes, and what is made from sizes alone: no pixel enters."""

SELECTIONS = zero("NonMaxSuppression", "NonZero", "OneHot")
"""Which elements are chosen: piecewise constant."""


_FAR_IN_FRONT = -(2**31) + 1  # no axis is so long: exporters end a Slice there that goes down to 0


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
    """Slice: x[start:end:step] along some axes  ->  ct where it was taken from, 0 elsewhere.

    A whole axis turned around is turned around again.
    """
    (ct,) = filter(None, cts)
    x, *bounds = node.inputs
    pads = _cut_off(node)
    if pads is not None:
        dx = op.Pad(ct, pads, 0.0)
    elif _turns(node):
        dx = op.Slice(ct, *bounds)
    else:
        dx = put_back(op, ct, op.Slice(positions(op, x), *bounds), x)
    return [dx, *(None for _ in bounds)]


@vjp("Pad")
def pad_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Pad: constants, or repeated elements, around x  ->  ct cropped, the repeated added up.

    Along one axis the repeating modes are a matrix: the unit vectors, padded. Constants are undone
    by the opposite padding.
    """
    (ct,), x, pads = cts, node.input(0), node.constant(node.input(1))
    mode, axes = node.attr("mode", "constant"), filter(None, [node.input(3)])
    if mode == "constant":
        opposite = op.Neg(node.input(1)) if pads is None else [-int(pad) for pad in pads]
        dx = op.Pad(ct, opposite, 0.0, *axes)
    elif pads is None:
        taken = op.Pad(positions(op, x), node.input(1), None, *axes, mode=mode)
        dx = put_back(op, str(ct), taken, x)
    else:
        dx = ct
        for axis, (begin, end) in _padded(node, pads).items():
            matrix = op.Pad(unit_vectors(op, x, axis), [0, begin, 0, end], mode=mode)
            dx = along(op, matrix, str(dx), axis, op.rank(x))
    return [dx, *(None for _ in node.inputs[1:])]


@vjp("DepthToSpace")
def depth_to_space_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """DepthToSpace: b² channels as b×b pixels  ->  SpaceToDepth, its channels in x's order.

    SpaceToDepth counts the channels (b, b, C); the mode CRD means (C, b, b).
    """
    (ct,), size = cts, node.attr("blocksize")
    dx = op.SpaceToDepth(ct, blocksize=size)
    if node.attr("mode", "DCR") == "CRD":
        (channels,) = static_dims(op.graph, node.input(0), [1])
        order = np.arange(channels).reshape(size * size, -1).T.reshape(-1)
        dx = op.Gather(dx, order, axis=1)
    return [dx]


@vjp("SpaceToDepth")
def space_to_depth_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """SpaceToDepth: b×b pixels as b² channels  ->  DepthToSpace."""
    return [op.DepthToSpace(cts[0], blocksize=node.attr("blocksize"))]


@vjp("Col2Im")
def col2im_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Col2Im: windows (N, C·k, L) added up to a picture  ->  the windows of ct.

    A convolution reads them, with one kernel for each of the k positions of a window.

    Raises:
        UnsupportedOperatorError: the size of the windows is known at run time only.
    """
    (ct,), (x, _, block) = cts, node.inputs
    kernel = node.constant(block)
    if kernel is None:
        raise UnsupportedOperatorError(
            f"{node} has windows of a size known at run time only; "
            "export the model with a constant block_shape"
        )
    count = int(np.prod(kernel))
    (columns,) = static_dims(op.graph, x, [1])
    one_each = np.eye(count, dtype=np.float32).reshape(count, 1, *kernel)
    shape = {name: node.attr(name) for name in ("strides", "pads", "dilations")}
    windows = op.Conv(
        ct,
        np.tile(one_each, (columns // count, *(1 for _ in kernel), 1)),
        group=columns // count,
        **{name: values for name, values in shape.items() if values},
    )
    return [reshape_like(op, windows, x), None, None]


@vjp("ReverseSequence")
def reverse_sequence_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """ReverseSequence: the beginnings of sequences turned round  ->  ct turned round again."""
    axes = {name: node.attr(name, d) for name, d in (("batch_axis", 1), ("time_axis", 0))}
    return [op.ReverseSequence(cts[0], node.input(1), **axes), None]


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


def _turns(node: Node) -> bool:
    """Whether a Slice reads whole axes backwards, however long they are."""
    starts, ends, steps = (node.constant(node.input(i)) for i in (1, 2, 4))
    if starts is None or ends is None or steps is None:
        return False
    return bool((starts == -1).all() and (ends <= _FAR_IN_FRONT).all() and (steps == -1).all())


def _padded(node: Node, pads: np.ndarray) -> dict[int, tuple[int, int]]:
    """Padding in front and behind, by axis, where there is any.

    Raises:
        UnsupportedOperatorError: which axes are padded is known at run time only.
    """
    rank, given = len(node.graph.known_shape(node.input(0))), node.input(3)
    axes = node.constant(given) if given else np.arange(rank)
    if axes is None:
        raise UnsupportedOperatorError(
            f"{node} pads axes known at run time only; export the model with constant axes"
        )
    both = zip(axes.tolist(), *pads.reshape(2, -1).tolist(), strict=True)
    return {axis % rank: (begin, end) for axis, begin, end in both if begin or end}
