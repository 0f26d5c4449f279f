"""Which axis of a tensor counts the classes, and which count places.

Class scores have one axis that is not 1. Scores at many places (the pixels of a segmentation, the
boxes of a detector) have several: there the axes' meaning tells, as the convolutions pass it on.
"""

from __future__ import annotations

from graph_rewrites.axes import CHANNEL
from graph_rewrites.errors import ModelError, UnknownShapeError
from graph_rewrites.graph import Graph
from graph_rewrites.layouts import find_layouts
from graph_rewrites.network import way_to
from graph_rewrites.tensor_type import Dim, Shape


def class_axis(graph: Graph, tensor: str) -> tuple[int | None, int]:
    """The one axis behind the batch that is not 1, and its size.

    One score per image may come as (N, 1) or as (N,).

    Raises:
        UnknownShapeError: the rank, or the size of that axis, is not known.
        ModelError: there are several such axes.
    """
    shape = _ranked(graph, tensor)
    if len(shape) < 2:
        return _without_batch(shape)
    axes = wide_axes(shape)
    if len(axes) > 1:
        raise ModelError(
            f"tensor {tensor!r} {described(shape)} does not hold one score per class; "
            "name the tensor to explain with `of`"
        )
    axis = axes[0] if axes else 1
    return axis, _fixed(tensor, shape, shape[axis])


def place_axes(
    graph: Graph, tensor: str, given: int | None = None
) -> tuple[int, int, tuple[int, ...]]:
    """The axis that counts the classes, its size, and the axes that count places.

    The class axis is `given` by a softmax; else the one that a convolution or a dense layer made
    last; else, of two, the smaller one: boxes outnumber classes.

    Raises:
        UnknownShapeError: the rank, or the size of the class axis, is not known.
        ModelError: the axes do not tell which of them counts the classes.
    """
    shape = _ranked(graph, tensor)
    axis = given if given is not None else _by_meaning(graph, tensor)
    if axis is None:
        axis = _by_size(shape)
    if axis is None:
        raise ModelError(
            f"cannot tell which axis of tensor {tensor!r} {described(shape)} counts the classes; "
            "name a tensor before it, where a convolution, a dense layer or a softmax tells"
        )
    places = tuple(i for i in range(1, len(shape)) if i != axis and shape[i] != 1)
    return axis, _fixed(tensor, shape, shape[axis]), places


def channel_axis(graph: Graph, tensor: str) -> int | None:
    """The axis of the channels of a map; None where the tensor is none."""
    layout = find_layouts(graph, way_to(graph, [tensor])).by_tensor.get(tensor)
    return layout.channel_axis if layout is not None else None


def wide_axes(shape: Shape | None) -> list[int]:
    """Axes behind the batch that are not known to have size 1."""
    return [axis for axis, dim in enumerate(shape or ()) if axis and dim != 1]


def described(shape: Shape | None) -> str:
    """A shape as text."""
    if shape is None:
        return "of unknown shape"
    return f"({', '.join('?' if dim is None else str(dim) for dim in shape)})"


def _ranked(graph: Graph, tensor: str) -> Shape:
    shape = graph.shape(tensor)
    if shape is None:
        raise UnknownShapeError(
            f"the shape of output {tensor!r} is unknown, so its class axis is too; "
            "run onnx.shape_inference on the model or declare the shape"
        )
    return shape


def _by_meaning(graph: Graph, tensor: str) -> int | None:
    layout = find_layouts(graph, way_to(graph, [tensor])).by_tensor.get(tensor)
    meanings = layout.meanings[1:] if layout is not None else ()
    return meanings.index(CHANNEL) + 1 if meanings.count(CHANNEL) == 1 else None


def _by_size(shape: Shape) -> int | None:
    axes = wide_axes(shape)
    sizes = [size for axis in axes if isinstance(size := shape[axis], int)]
    if len(axes) != 2 or not sizes or (len(sizes) == 2 and sizes[0] == sizes[1]):
        return None
    return next(axis for axis in axes if shape[axis] == min(sizes))


def _without_batch(shape: Shape) -> tuple[int | None, int]:
    """(C,), where the file dropped a batch of 1, or (N,) with one score per image."""
    if shape and isinstance(shape[0], int) and shape[0] > 1:
        return 0, shape[0]
    return None, 1


def _fixed(tensor: str, shape: Shape, dim: Dim) -> int:
    if isinstance(dim, int):
        return dim
    raise UnknownShapeError(
        f"tensor {tensor!r} {described(shape)} does not tell the number of classes; "
        "declare the shape of the model's output"
    )
