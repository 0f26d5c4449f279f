"""Facts about shapes, known when the graph is built or left to run time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graph_rewrites.emit import Emitter
from graph_rewrites.errors import UnknownShapeError
from graph_rewrites.graph import Graph
from graph_rewrites.tensor_type import Dim, Shape


def static_dims(graph: Graph, tensor: str, axes: Sequence[int]) -> list[int]:
    """Sizes of `tensor` along `axes`.

    Raises:
        UnknownShapeError: one of them is symbolic.
    """
    shape = graph.known_shape(tensor)
    dims = [shape[axis] for axis in axes]
    if not all(isinstance(dim, int) for dim in dims):
        raise UnknownShapeError(
            f"tensor {tensor!r} has shape {shape}, but axes {list(axes)} must be fixed; "
            "give the model's inputs a fixed height and width"
        )
    return [int(dim) for dim in dims if isinstance(dim, int)]


def same_dim(a: Dim, b: Dim) -> bool:
    """Whether two dimensions are known to be equal: the same size or the same symbol."""
    return a is not None and a == b


def reshape_like(op: Emitter, ct: str, like: str) -> str:
    """Give `ct` the shape of `like`, which has as many elements."""
    shape = op.shape(like)
    if shape is not None and sum(not isinstance(d, int) for d in shape) <= 1 and 0 not in shape:
        target = [d if isinstance(d, int) else -1 for d in shape]
        return str(op.Reshape(ct, target))
    return str(op.Reshape(ct, op.Shape(like)))


def expand_like(op: Emitter, ct: str, like: str) -> str:
    """Broadcast `ct` to the shape of `like`."""
    shape = op.shape(like)
    if shape is not None and op.shape(ct) == shape:
        return ct
    return str(op.Expand(ct, op.Shape(like)))


def unbroadcast(op: Emitter, ct: str, x: str, y: str) -> str:
    """Sum `ct`, shaped like `y`, over the axes along which `x` was broadcast to `y`.

    The adjoint of numpy broadcasting. Axes that are known to be broadcast, or known not to be, are
    settled here; the others (a symbolic size against another one) at run time.
    """
    x_shape, y_shape = op.graph.known_shape(x), op.graph.known_shape(y)
    lead = len(y_shape) - len(x_shape)
    if lead:
        ct = str(op.ReduceSum(ct, list(range(lead)), keepdims=0))
    pairs = list(zip(x_shape, y_shape[lead:], strict=True))
    summed = [axis for axis, (a, b) in enumerate(pairs) if a == 1 and b != 1]
    if summed:
        ct = str(op.ReduceSum(ct, summed, keepdims=1))
    open_axes = [
        axis for axis, (a, b) in enumerate(pairs) if not isinstance(a, int) and not same_dim(a, b)
    ]
    if open_axes:
        ct = _sum_open_axes(op, ct, x, open_axes)
    return ct


def _sum_open_axes(op: Emitter, ct: str, x: str, axes: Sequence[int]) -> str:
    """Sum over those of `axes` along which `x` turns out to have size 1."""
    sizes = op.Gather(op.Shape(x), list(axes))
    is_one = op.Equal(sizes, op.constant([1], np.int64))
    chosen = op.Compress(op.constant(list(axes), np.int64), is_one, axis=0)
    return str(op.ReduceSum(ct, chosen, keepdims=1, noop_with_empty_axes=1))


def is_static(shape: Shape) -> bool:
    """Whether every dimension is a number."""
    return all(isinstance(dim, int) for dim in shape)
