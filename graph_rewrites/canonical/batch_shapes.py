"""Where the batch axis goes through operators that are given a shape, and how that must change.

A constant shape that was written for one batch names it; its entry becomes 0 ("as the input's") or
-1 ("what is left"). Rules are as in `batch_axes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

from graph_rewrites.canonical.batch_axes import (
    Axes,
    AxisRule,
    NotFreeError,
    acted_axes,
    constant,
    mixes,
    only_first,
)
from graph_rewrites.canonical.values import Batch
from graph_rewrites.node import Node

if TYPE_CHECKING:
    from graph_rewrites.canonical.batch import Tracker


@dataclass(frozen=True)
class ShapeEdit:
    """A constant that must change: input `index` of `node`, and attributes that go with it.

    With `values` None the input is to be left out.
    """

    node: Node
    index: int
    values: list[int] | None
    attributes: dict[str, list[int]] = field(default_factory=dict)


def _reshape(tracker: Tracker, node: Node) -> Axes:
    batch = tracker.axis(node.input(0))
    if batch is None:
        raise mixes(node)
    source, target = tracker.shape(node.input(0)), _entries(tracker, node, 1)
    copies = not node.attr("allowzero", 0)
    dims = _resolved(source, target, tracker.size, copies)
    place, block = _place(tracker, node, source, target, dims)
    kept = copies and place == batch and block == tracker.block(node.input(0))
    entry = target[place]
    copied_elsewhere = copies and batch != place and batch < len(target) and target[batch] == 0
    neutral = isinstance(entry, Batch) or entry == -1 or (entry == 0 and kept)
    if not neutral or copied_elsewhere:
        values = _neutral(node, target, dims, place, kept)
        if copied_elsewhere:
            values[batch] = tracker.extent(node.input(0))
        tracker.edit(ShapeEdit(node, 1, values))
    tracker.merge(node.output, block)
    return [place]


def _place(
    tracker: Tracker,
    node: Node,
    source: Sequence[Any],
    target: Sequence[Any],
    dims: Sequence[int | None],
) -> tuple[int, int]:
    """The axis of a Reshape's result that counts the images, and how many places each has there.

    The numbers stay in order, so as many positions as before lie in front of that axis, and the
    images are the slow part of it.
    """
    batch = tracker.axis(node.input(0))
    blocks = {
        at: dim // tracker.size
        for at, dim in enumerate(dims)
        if dim and dim % tracker.size == 0 and _count(dims[:at]) == _count(source[:batch])
    }
    counted = _counted(target)
    whole = [at for at in (batch, *blocks) if at is not None and blocks.get(at) == 1]
    place = next((at for at in (*counted, *whole, *blocks) if at in blocks), None)
    if place is None:
        raise NotFreeError(f"{node} to shape {list(target)} does not keep the batch in one axis")
    if any(at != place for at in counted):
        raise mixes(node)
    return place, blocks[place]


def _resolved(
    source: Sequence[Any], target: Sequence[Any], size: int, copies: bool
) -> list[int | None]:
    """The dimensions that a Reshape gives at the fixed batch, None where they are not known."""
    dims = [size * entry.block if isinstance(entry, Batch) else entry for entry in target]
    dims = [dim if isinstance(dim, int) else None for dim in dims]
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
    side = slice(0, axis) if batch < axis else slice(axis, len(source))
    inner = _count(source[batch + 1 : side.stop])
    if _count(source[side.start : batch]) == 1 and inner:
        tracker.merge(node.output, tracker.block(node.input(0)) * inner)
        return [0 if batch < axis else 1]
    raise mixes(node)


def _squeeze(tracker: Tracker, node: Node) -> Axes:
    batch = only_first(tracker, node)
    axes, source = constant(tracker, node, 1), tracker.shape(node.input(0))
    if axes is None:  # all of length 1, which the batch may become
        axes = [at for at, dim in enumerate(source) if dim == 1]
        if not all(isinstance(dim, int) for dim in source):
            raise NotFreeError(f"{node} names no axes, and the sizes of its input are open")
        tracker.edit(ShapeEdit(node, 1, axes))
    gone = acted_axes(tracker, node, axes)
    if batch in gone:
        raise mixes(node)
    return [batch - sum(axis < batch for axis in gone)]


def _expand(tracker: Tracker, node: Node) -> Axes:
    source, target = tracker.shape(node.input(0)), _entries(tracker, node, 1)
    batch = tracker.axis(node.input(0))
    counted = _counted(target)
    rank = max(len(source), len(target))
    if batch is None:
        if len(counted) != 1:
            raise mixes(node)
        axis = rank - len(target) + counted[0]
        here = axis - (rank - len(source))
        if here >= 0 and source[here] != 1:
            raise mixes(node)
        tracker.merge(node.output, target[counted[0]].block)
        return [axis]
    here = len(target) - (len(source) - batch)
    block = tracker.block(node.input(0))
    if any(at != here or target[at].block != block for at in counted):
        raise mixes(node)
    if here >= 0 and not counted and target[here] != 1:
        if target[here] != tracker.extent(node.input(0)):
            raise mixes(node)
        values = [1 if at == here else entry for at, entry in enumerate(target)]
        tracker.edit(ShapeEdit(node, 1, _numbers(node, values)))
    return [rank - (len(source) - batch)]


def _constant_of_shape(tracker: Tracker, node: Node) -> Axes:
    target = _entries(tracker, node, 0)
    counted = _counted(target)
    if len(counted) != 1:
        raise mixes(node)
    tracker.merge(node.output, target[counted[0]].block)
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
    if _holds(tracker, node.input(2)):
        scales = node.constant(node.input(2))
        if scales is None or scales[at] != 1:
            raise mixes(node)
        return [batch]
    sizes = _entries(tracker, node, 3)
    if sizes[at] != Batch(tracker.block(node.input(0))):
        policy = node.attr("keep_aspect_ratio_policy", "stretch")
        if sizes[at] != tracker.extent(node.input(0)) or policy != "stretch":
            raise mixes(node)
        kept = [i for i in range(len(axes)) if i != at]
        values = _numbers(node, [sizes[i] for i in kept])
        tracker.edit(ShapeEdit(node, 3, values, {"axes": [axes[i] for i in kept]}))
    return [batch]


def _holds(tracker: Tracker, tensor: str) -> bool:
    """Whether a tensor is given and holds something: opset 11 wrote an empty one for none."""
    return bool(tensor) and tracker.shape(tensor) != (0,)


def _one_hot(tracker: Tracker, node: Node) -> Axes:
    batch = only_first(tracker, node)
    rank = len(tracker.shape(node.input(0))) + 1
    return [batch + (node.attr("axis", -1) % rank <= batch)]


def _entries(tracker: Tracker, node: Node, index: int) -> list[Any]:
    value = tracker.values.get(node.input(index))
    if value is None or tracker.axis(node.input(index)) is not None:
        raise NotFreeError(f"the shape {node.input(index)!r} that {node} is given is unknown")
    return list(value.reshape(-1))


def _counted(entries: Sequence[Any]) -> list[int]:
    """Where a shape names the number of images."""
    return [at for at, entry in enumerate(entries) if isinstance(entry, Batch)]


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
    "Squeeze": _squeeze,
}
"""The rules of the operators that are given a shape."""
