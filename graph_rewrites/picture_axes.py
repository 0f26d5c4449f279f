"""Which graph input is the picture, told by the first operator that looks at its axes."""

from __future__ import annotations

from dataclasses import dataclass

from graph_rewrites.axes import BATCH, CHANNEL, SPATIAL, Atom, Layout, Piece, is_mark
from graph_rewrites.graph import Graph
from graph_rewrites.node import Node
from graph_rewrites.tensor_type import Shape


@dataclass(frozen=True)
class Picture:
    """The graph input that the convolutions see.

    Attributes:
        tensor: its name.
        shape: its shape.
        channel_axis: axis of the colours.
        spatial_axes: the other axes behind the batch, in the order of the feature maps' ones.
    """

    tensor: str
    shape: Shape
    channel_axis: int
    spatial_axes: tuple[int, ...]


def seen_through_windows(graph: Graph, layout: Layout) -> Picture | None:
    """The picture of an operator that prescribes (N, C, spatial…), if it reads input axes."""
    marks = [meaning.rpartition(":") for meaning in layout.meanings]
    tensor = next((owner for owner, _, _ in marks if owner in graph.inputs), "")
    shape = graph.shape(tensor)
    if shape is None or len(shape) < 3 or len(shape) != len(marks):
        return None
    axes = [int(number) if owner == tensor else None for owner, _, number in marks]
    missing = set(range(len(shape))).difference(axes)
    # Pictures whose colours are taken apart and joined again lose track of one axis, no more.
    whole = [missing.pop() if axis is None and len(missing) == 1 else axis for axis in axes]
    if any(axis is None for axis in whole) or len(set(whole)) != len(whole):
        return None
    _, colours, *spatial = (axis for axis in whole if axis is not None)
    return Picture(tensor, shape, colours, tuple(spatial))


def seen_in_patches(graph: Graph, node: Node, layout: Layout) -> tuple[Picture, Layout] | None:
    """The picture of a dense layer on patches that a Reshape has cut, and the layer's own layout.

    It reads every colour at every place inside a patch: a convolution in disguise.

    Args:
        graph: the graph.
        node: the MatMul or Gemm.
        layout: of its first input.
    """
    last = [atom for atom in layout.axes[-1] if is_mark(atom.meaning)]
    inside = {atom.meaning for atom in last if isinstance(atom, Piece)}
    colours = [atom.meaning for atom in last if not isinstance(atom, Piece)]
    steps = [
        atom.meaning
        for axis in layout.axes[:-1]
        for atom in axis
        if isinstance(atom, Piece) and atom.role in inside
    ]
    if len(colours) != 1 or len(steps) != 2 or set(steps) != inside:
        return None
    tensor = colours[0].rpartition(":")[0]
    columns = graph.known_shape(node.output)[-1]
    meanings = dict(zip(steps, SPATIAL[-2:], strict=True))
    axes = [
        tuple(Atom(meanings.get(atom.meaning, BATCH), atom.size) for atom in axis)
        for axis in layout.axes[:-1]
    ]
    numbers = [int(name.rpartition(":")[2]) for name in (*colours, *steps)]
    picture = Picture(tensor, graph.known_shape(tensor), numbers[0], tuple(numbers[1:]))
    return picture, Layout((*axes, (Atom(CHANNEL, columns),)))
