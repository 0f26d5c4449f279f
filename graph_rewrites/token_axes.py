"""Operators that put tokens beside a grid of tokens, or take some of them out again."""

from __future__ import annotations

from collections.abc import Iterable

from graph_rewrites.axes import TOKENS, UNKNOWN, Atom, Axis, Tokens, token_grid
from graph_rewrites.graph import Graph
from graph_rewrites.node import Node

PICKING = frozenset({"Slice", "Split", "Gather"})


def joined(graph: Graph, node: Node, axis: int, grids: dict[str, Axis]) -> Axis | None:
    """The axis behind a Concat of tokens, None unless exactly one part is a grid.

    Args:
        graph: the graph.
        node: the Concat.
        axis: the axis along which it works.
        grids: that axis of the inputs whose axis is one of tokens.
    """
    parts = [name for name in node.inputs if name in grids]
    total = _size(graph, node.output, axis)
    before = [_size(graph, name, axis) for name in node.inputs[: node.inputs.index(parts[0])]]
    if len(parts) != 1 or total is None or None in before:
        return None
    grid, lead = token_grid(grids[parts[0]])
    lead += sum(size for size in before if size is not None)
    return (Tokens(TOKENS, total, grid, lead),)


def padded(node: Node, axis: int, before: Axis, size: int) -> Axis | None:
    """The axis of tokens `before` behind a Pad to `size`, None where its edge is repeated."""
    pads, axes = node.constant(node.input(1)), node.constant(node.input(3))
    if pads is None or node.attr("mode", "constant") != "constant" or (pads < 0).any():
        return None
    rank = len(node.graph.known_shape(node.input(0)))
    where = list(range(rank)) if axes is None else [int(a) % rank for a in axes]
    begin = int(pads[where.index(axis)]) if axis in where else 0
    grid, lead = token_grid(before)
    return (Tokens(TOKENS, size, grid, lead + begin),)


def picked(graph: Graph, node: Node, output: str, axis: int) -> range | None:
    """The positions that `output` takes along `axis`; None where they are not known or no range.

    Args:
        graph: the graph.
        node: one of `PICKING`; it works on `axis` alone or leaves it as it is.
        output: the output of `node` that is meant.
        axis: the axis of its first input.
    """
    size = _size(graph, node.input(0), axis)
    if size is None:
        return None
    if node.op_type == "Slice":
        return _sliced(node, axis, size)
    rank = len(graph.known_shape(node.input(0)))
    if node.attr("axis", 0) % rank != axis:
        return range(size)
    if node.op_type == "Split":
        lengths = [_size(graph, name, axis) for name in node.outputs]
        before = lengths[: node.outputs.index(output)]
        if None in lengths:
            return None
        start = sum(length for length in before if length is not None)
        return range(start, start + (lengths[len(before)] or 0))
    indices = node.constant(node.input(1))
    if indices is None or indices.size != 1:
        return None
    first = int(indices.reshape(())) % size
    return range(first, first + 1)


def cut(axis: Axis, taken: range) -> Axis:
    """An axis of tokens of which only the positions `taken` are left."""
    grid, lead = token_grid(axis)
    end = lead + _count(grid)
    if taken.step == 1 and taken.start <= lead and taken.stop >= end:
        if len(taken) == end - lead:
            return grid
        return (Tokens(TOKENS, len(taken), grid, lead - taken.start),)
    return (Atom(UNKNOWN, len(taken)),)


def spares_the_grid(axis: Axis, taken: range) -> bool:
    """Whether the positions `taken` lie beside the grid of an axis of tokens."""
    grid, lead = token_grid(axis)
    return not any(lead <= position < lead + _count(grid) for position in taken)


def _count(grid: Iterable[Atom]) -> int:
    count = 1
    for atom in grid:
        assert isinstance(atom.size, int)
        count *= atom.size
    return count


def _sliced(node: Node, axis: int, size: int) -> range | None:
    starts, ends, axes, steps = (node.constant(node.input(i)) for i in range(1, 5))
    if starts is None or ends is None or (axes is None and node.input(3)):
        return None
    if steps is None and node.input(4):
        return None
    rank = len(node.graph.known_shape(node.input(0)))
    where = [int(a) % rank for a in (range(len(starts)) if axes is None else axes.tolist())]
    if axis not in where:
        return range(size)
    i = where.index(axis)
    step = 1 if steps is None else int(steps[i])
    return range(size)[slice(int(starts[i]), _end(int(ends[i]), size), step)]


def _end(end: int, size: int) -> int | None:
    """ONNX writes "to the very beginning" of a backward slice as a number below -size."""
    return None if end < -size else end


def _size(graph: Graph, tensor: str, axis: int) -> int | None:
    shape = graph.shape(tensor)
    dim = shape[axis] if shape is not None and axis < len(shape) else None
    return dim if isinstance(dim, int) else None
