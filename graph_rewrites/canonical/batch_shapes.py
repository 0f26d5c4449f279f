"""Where the batch axis goes through operators that are given a shape, and how that must change.

A constant shape that was written for one batch names it; its entry becomes 0 ("as the input's") or
-1 ("what is left"). Rules are as in `batch_axes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

from graph_rewrites.canonical.batch_axes import Axes, AxisRule, NotFreeError, mixes, only_first
from graph_rewrites.canonical.values import BATCH
from graph_rewrites.node import Node

if TYPE_CHECKING:
    from graph_rewrites.canonical.batch import Tracker


@dataclass(frozen=True)
class ShapeEdit:
    """A constant that must change: input `index` of `node`, and attributes that go with it."""

    node: Node
    index: int
    values: list[int]
    attributes: dict[str, list[int]] = field(default_factory=dict)


def _reshape(tracker: Tracker, node: Node) -> Axes:
    batch = tracker.axis(node.input(0))
    if batch is None:
        raise mixes(node)
    source, target = tracker.shape(node.input(0)), _entries(tracker, node, 1)
    copies = not node.attr("allowzero", 0)
    dims = _resolved(source, target, tracker.size, copies)
    places = [
        at
        for at, dim in enumerate(dims)
        if dim == tracker.size and _count(dims[:at]) == _count(source[:batch])
    ]
    if not places:
        raise NotFreeError(f"{node} to shape {target} does not keep the batch as one axis")
    counted = [at for at, entry in enumerate(target) if entry is BATCH]
    place = next((at for at in [*counted, batch] if at in places), places[0])
    if any(at != place for at in counted):
        raise mixes(node)
    entry = target[place]
    copied_elsewhere = copies and batch != place and batch < len(target) and target[batch] == 0
    neutral = entry is BATCH or entry == -1 or (entry == 0 and copies and place == batch)
    if not neutral or copied_elsewhere:
        values = _neutral(node, target, dims, place, copies and place == batch)
        if copied_elsewhere:
            values[batch] = tracker.size
        tracker.edit(ShapeEdit(node, 1, values))
    return [place]


def _resolved(
    source: Sequence[Any], target: Sequence[Any], size: int, copies: bool
) -> list[int | None]:
    """The dimensions that a Reshape gives at the fixed batch, None where they are not known."""
    dims = [size if entry is BATCH else entry for entry in target]
    for at, entry in enumerate(dims):
        if entry == 0 and copies:
            dims[at] = source[at] if isinstance(source[at], int) else None
    if dims.count(-1) == 1:
        at = dims.index(-1)
        dims[at] = None
        total, rest = _count(source), _count(dims[:at] + dims[at + 1 :])
        if total is not None and rest:
            dims[at] = total // rest
    return dims


def _neutral(
    node: Node, target: Sequence[Any], dims: Sequence[int | None], place: int, copies: bool
) -> list[int]:
    """`target` with an entry at `place` that holds for any batch."""
    if not all(isinstance(entry, int) for at, entry in enumerate(target) if at != place):
        raise NotFreeError(f"{node} to shape {list(target)} names the batch and is not constant")
    values = [int(entry) if at != place else 0 for at, entry in enumerate(target)]
    if copies:
        return values
    if -1 in values:
        at = values.index(-1)
        size = dims[at]
        if size is None:
            raise NotFreeError(f"{node} to shape {list(target)} leaves two sizes open")
        values[at] = size
    values[place] = -1
    return values


def _flatten(tracker: Tracker, node: Node) -> Axes:
    batch = only_first(tracker, node)
    source = tracker.shape(node.input(0))
    axis = node.attr("axis", 1)
    axis += len(source) if axis < 0 else 0
    if batch < axis and _count(source[:batch]) == 1 and _count(source[batch + 1 : axis]) == 1:
        return [0]
    if batch >= axis and _count(source[axis:batch]) == 1 and _count(source[batch + 1 :]) == 1:
        return [1]
    raise mixes(node)


def _expand(tracker: Tracker, node: Node) -> Axes:
    source, target = tracker.shape(node.input(0)), _entries(tracker, node, 1)
    batch = tracker.axis(node.input(0))
    counted = [at for at, entry in enumerate(target) if entry is BATCH]
    rank = max(len(source), len(target))
    if batch is None:
        if len(counted) != 1:
            raise mixes(node)
        axis = rank - len(target) + counted[0]
        here = axis - (rank - len(source))
        if here >= 0 and source[here] != 1:
            raise mixes(node)
        return [axis]
    here = len(target) - (len(source) - batch)
    if any(at != here for at in counted):
        raise mixes(node)
    if here >= 0 and target[here] is not BATCH and target[here] != 1:
        if target[here] != tracker.size:
            raise mixes(node)
        values = [1 if at == here else entry for at, entry in enumerate(target)]
        tracker.edit(ShapeEdit(node, 1, _numbers(node, values)))
    return [rank - (len(source) - batch)]


def _constant_of_shape(tracker: Tracker, node: Node) -> Axes:
    counted = [at for at, e in enumerate(_entries(tracker, node, 0)) if e is BATCH]
    if len(counted) != 1:
        raise mixes(node)
    return counted


def _resize(tracker: Tracker, node: Node) -> Axes:
    batch = tracker.axis(node.input(0))
    if batch is None or node.attr("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise mixes(node)
    rank = len(tracker.shape(node.input(0)))
    axes = [axis % rank for axis in node.attr("axes", list(range(rank)))]
    if batch not in axes:
        return [batch]
    at = axes.index(batch)
    if node.input(2):
        scales = node.constant(node.input(2))
        if scales is None or scales[at] != 1:
            raise mixes(node)
        return [batch]
    sizes = _entries(tracker, node, 3)
    if sizes[at] is not BATCH:
        policy = node.attr("keep_aspect_ratio_policy", "stretch")
        if sizes[at] != tracker.size or policy != "stretch":
            raise mixes(node)
        kept = [i for i in range(len(axes)) if i != at]
        values = _numbers(node, [sizes[i] for i in kept])
        tracker.edit(ShapeEdit(node, 3, values, {"axes": [axes[i] for i in kept]}))
    return [batch]


def _one_hot(tracker: Tracker, node: Node) -> Axes:
    batch = only_first(tracker, node)
    rank = len(tracker.shape(node.input(0))) + 1
    return [batch + (node.attr("axis", -1) % rank <= batch)]


def _entries(tracker: Tracker, node: Node, index: int) -> list[Any]:
    value = tracker.values.get(node.input(index))
    if value is None or tracker.axis(node.input(index)) is not None:
        raise NotFreeError(f"the shape {node.input(index)!r} that {node} is given is unknown")
    return list(value.reshape(-1))


def _numbers(node: Node, entries: Sequence[Any]) -> list[int]:
    if not all(isinstance(entry, int) for entry in entries):
        raise NotFreeError(f"the shape that {node} is given names the batch and is not constant")
    return [int(entry) for entry in entries]


def _count(dims: Sequence[Any]) -> int | None:
    """Number of elements, None where a dimension is not known."""
    return prod(dims) if all(isinstance(dim, int) for dim in dims) else None


SHAPE_RULES: dict[str, AxisRule] = {
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Flatten": _flatten,
    "OneHot": _one_hot,
    "Reshape": _reshape,
    "Resize": _resize,
}
"""The rules of the operators that are given a shape."""
