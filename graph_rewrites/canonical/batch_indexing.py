"""Where the batch axis goes through operators that read or write at positions given as numbers.

The rules are as in `batch_axes`. What is indexed along the batch axis itself mixes images.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from graph_rewrites.canonical.batch_axes import (
    Axes,
    AxisRule,
    NotFreeError,
    acted_axes,
    constant,
    mixes,
    only_first,
)
from graph_rewrites.node import Node

if TYPE_CHECKING:
    from graph_rewrites.canonical.batch import Tracker


def _elements(tracker: Tracker, node: Node) -> Axes:
    """GatherElements and ScatterElements: every operand holds its own part of each image."""
    (batch,) = _common(tracker, node, node.inputs)
    if batch in acted_axes(tracker, node, [node.attr("axis", 0)]):
        raise mixes(node)
    return [batch]


def _gather_nd(tracker: Tracker, node: Node) -> Axes:
    """Indices (…, q) read data at its first q axes, behind `batch_dims` common ones."""
    shared = node.attr("batch_dims", 0)
    data, indices = tracker.axis(node.input(0)), tracker.axis(node.input(1))
    if data is not None and data == indices and data < shared:
        return [data]
    read, rank = _depth(tracker, node), len(tracker.shape(node.input(1)))
    if data is None and indices is not None and shared <= indices < rank - 1:
        return [indices]
    if data is not None and indices is None and data >= shared + read:
        return [data - read + rank - 1 - shared]
    raise mixes(node)


def _scatter_nd(tracker: Tracker, node: Node) -> Axes:
    """Indices (…, q) write slices of updates over data at its first q axes."""
    data, indices, updates = (tracker.axis(name) for name in node.inputs)
    written, rank = _depth(tracker, node), len(tracker.shape(node.input(1)))
    if indices is not None or data is None or data < written:
        raise mixes(node)
    if updates != rank - 1 + data - written:
        raise mixes(node)
    return [data]


def _depth(tracker: Tracker, node: Node) -> int:
    """How many axes an index names."""
    depth = tracker.shape(node.input(1))[-1]
    if not isinstance(depth, int):
        raise NotFreeError(f"{node} reads indices {node.input(1)!r} of unknown length")
    return depth


def _all_image_first(tracker: Tracker, node: Node) -> Axes:
    """Every operand but the weights at inputs 1 and 3 of DeformConv begins with the batch."""
    weights = (1, 3) if node.op_type == "DeformConv" else ()
    read = [name for at, name in enumerate(node.inputs) if at not in weights and name]
    if _common(tracker, node, read) != [0] or any(
        tracker.axis(node.input(at)) is not None for at in weights
    ):
        raise mixes(node)
    return [0]


def _common(tracker: Tracker, node: Node, names: Iterable[str]) -> list[int]:
    axes = {tracker.axis(name) for name in names}
    if None in axes or len(axes) != 1:
        raise mixes(node)
    return [axis for axis in axes if axis is not None]


def _cumulative(tracker: Tracker, node: Node) -> Axes:
    batch, axes = only_first(tracker, node), constant(tracker, node, 1)
    if not axes or batch in acted_axes(tracker, node, axes):
        raise mixes(node)
    return [batch]


def _matrices(tracker: Tracker, node: Node) -> Axes:
    """Operators on the last two axes that keep them."""
    batch = only_first(tracker, node)
    if batch >= len(tracker.shape(node.input(0))) - 2:
        raise mixes(node)
    return [batch]


def _columns(tracker: Tracker, node: Node) -> Axes:
    if only_first(tracker, node) != 0:
        raise mixes(node)
    return [0]


INDEXING_RULES: dict[str, AxisRule] = {
    "Col2Im": _columns,
    "CumSum": _cumulative,
    "DeformConv": _all_image_first,
    "GatherElements": _elements,
    "GatherND": _gather_nd,
    "GridSample": _all_image_first,
    "ScatterElements": _elements,
    "ScatterND": _scatter_nd,
    "Trilu": _matrices,
}
"""The rules of the operators that index."""
