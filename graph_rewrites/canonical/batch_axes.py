"""Where the batch axis goes through each operator, if the operator keeps images apart.

A rule takes the tracker and a node that reads something of every image; it answers with the axis
of each output that counts the images, and raises `NotFreeError` where the operator mixes images or
would cease to be valid for another number of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from graph_rewrites.node import Node

if TYPE_CHECKING:
    from graph_rewrites.canonical.batch import Tracker

_TO_THE_END = 2**31 - 1
"""From here on an `end` of a Slice means no end."""

Axes = Sequence[int | None]
AxisRule = Callable[["Tracker", Node], Axes]


class NotFreeError(Exception):
    """The batch cannot be freed; the message says why."""


def mixes(node: Node) -> NotFreeError:
    """The error for an operator that acts along the batch."""
    return NotFreeError(f"{node} acts along the batch")


def only_first(tracker: Tracker, node: Node) -> int:
    """The batch axis of input 0.

    Raises:
        NotFreeError: another input depends on the images too, or only another one does.
    """
    for name in node.inputs[1:]:
        if tracker.axis(name) is not None:
            raise NotFreeError(f"{node} reads {name!r}, which differs between images")
    axis = tracker.axis(node.input(0))
    if axis is None:
        raise mixes(node)
    return axis


def constant(tracker: Tracker, node: Node, index: int) -> list[int] | None:
    """Input `index` as constant numbers; None where it is omitted.

    Raises:
        NotFreeError: it is not constant.
    """
    if not node.input(index):
        return None
    numbers = tracker.values.numbers(node.input(index))
    if numbers is None:
        raise NotFreeError(f"input {node.input(index)!r} of {node} is not constant")
    return numbers


def acted_axes(tracker: Tracker, node: Node, axes: Iterable[int]) -> set[int]:
    """`axes` of the node's first input, counted from the front."""
    rank = len(tracker.shape(node.input(0)))
    return {axis % rank for axis in axes}


def _elementwise(tracker: Tracker, node: Node) -> Axes:
    """Inputs broadcast against each other, all images at the same distance from the last axis."""
    ranks = {name: len(tracker.shape(name)) for name in node.inputs if name}
    return [_broadcast(tracker, node, ranks)] * len(node.outputs)


def _broadcast(tracker: Tracker, node: Node, ranks: dict[str, int]) -> int:
    """The batch axis of the result where inputs of these ranks broadcast against each other."""
    axes = tracker.axes
    batched = {name: rank - axes[name] for name, rank in ranks.items() if name in axes}
    if len(set(batched.values())) != 1:
        raise mixes(node)
    from_end = next(iter(batched.values()))
    for name, rank in ranks.items():
        if name not in batched and rank >= from_end and tracker.shape(name)[rank - from_end] != 1:
            raise NotFreeError(f"{node} combines each image with its own part of {name!r}")
    return max(ranks.values()) - from_end


def _image_first(tracker: Tracker, node: Node) -> Axes:
    """(N, C, ...) in, (N, C, ...) out; the other inputs are weights."""
    if only_first(tracker, node) != 0:
        raise mixes(node)
    if node.op_type == "MaxPool" and len(node.outputs) > 1 and node.outputs[1]:
        raise NotFreeError(f"the indices of {node} count through all images")
    if node.op_type == "BatchNormalization" and node.attr("training_mode", 0):
        raise mixes(node)
    return [0]


def _along_axis(default: int) -> AxisRule:
    """Operators with one `axis` attribute that keep the shape."""

    def rule(tracker: Tracker, node: Node) -> Axes:
        batch = only_first(tracker, node)
        if batch in acted_axes(tracker, node, [node.attr("axis", default)]):
            raise mixes(node)
        return [batch] * len(node.outputs)

    return rule


def _layer_norm(tracker: Tracker, node: Node) -> Axes:
    batch = only_first(tracker, node)
    (first,) = acted_axes(tracker, node, [node.attr("axis", -1)])
    if batch >= first:
        raise mixes(node)
    return [batch] * len(node.outputs)


def _arg_extreme(tracker: Tracker, node: Node) -> Axes:
    batch = only_first(tracker, node)
    (axis,) = acted_axes(tracker, node, [node.attr("axis", 0)])
    if axis == batch:
        raise mixes(node)
    return [batch - (axis < batch and not node.attr("keepdims", 1))]


def _reduce(tracker: Tracker, node: Node) -> Axes:
    batch = only_first(tracker, node)
    axes = constant(tracker, node, 1)
    if not axes:
        if node.attr("noop_with_empty_axes", 0):
            return [batch]
        raise mixes(node)
    reduced = acted_axes(tracker, node, axes)
    if batch in reduced:
        raise mixes(node)
    gone = 0 if node.attr("keepdims", 1) else sum(axis < batch for axis in reduced)
    return [batch - gone]


def _transpose(tracker: Tracker, node: Node) -> Axes:
    batch = only_first(tracker, node)
    rank = len(tracker.shape(node.input(0)))
    return [node.attr("perm", list(reversed(range(rank)))).index(batch)]


def _unsqueeze(tracker: Tracker, node: Node) -> Axes:
    batch = only_first(tracker, node)
    axes = constant(tracker, node, 1) or []
    rank = len(tracker.shape(node.input(0))) + len(axes)
    new = {axis % rank for axis in axes}
    return [[axis for axis in range(rank) if axis not in new][batch]]


def _gather(tracker: Tracker, node: Node) -> Axes:
    data, indices = (tracker.axis(node.input(i)) for i in (0, 1))
    (axis,) = acted_axes(tracker, node, [node.attr("axis", 0)])
    if data is None and indices is not None:
        return [axis + indices]
    if data is None or indices is not None or data == axis:
        raise mixes(node)
    added = len(tracker.shape(node.input(1))) - 1
    return [data if data < axis else data + added]


def _slice(tracker: Tracker, node: Node) -> Axes:
    batch = only_first(tracker, node)
    starts = tracker.values.get(node.input(1))
    if starts is None:
        raise NotFreeError(f"input {node.input(1)!r} of {node} is not constant")
    axes = constant(tracker, node, 3) or list(range(len(starts)))
    rank = len(tracker.shape(node.input(0)))
    for at, axis in enumerate(axes):
        if axis % rank == batch and not _is_whole(tracker, node, at):
            raise mixes(node)
    return [batch]


def _is_whole(tracker: Tracker, node: Node, at: int) -> bool:
    """Whether a Slice takes the whole of its axis number `at`, however long that is."""
    starts, ends, steps = (tracker.values.numbers(node.input(i)) for i in (1, 2, 4))
    return (
        starts is not None
        and starts[at] == 0
        and ends is not None
        and ends[at] >= _TO_THE_END
        and (not node.input(4) or (steps is not None and steps[at] == 1))
    )


def _concat(tracker: Tracker, node: Node) -> Axes:
    axes = {tracker.axis(name) for name in node.inputs} - {None}
    (acted,) = acted_axes(tracker, node, [node.attr("axis", 0)])
    if len(axes) != 1 or acted in axes:
        raise mixes(node)
    (batch,) = (axis for axis in axes if axis is not None)
    for at, name in enumerate(node.inputs):
        if tracker.axis(name) is None and not tracker.repeat(node, at, batch):
            raise NotFreeError(f"{node} joins {name!r}, which holds a part for each image")
    return [batch]


def _pad(tracker: Tracker, node: Node) -> Axes:
    batch = only_first(tracker, node)
    rank = len(tracker.shape(node.input(0)))
    pads = constant(tracker, node, 1) or []
    axes = [axis % rank for axis in constant(tracker, node, 3) or range(rank)]
    if batch in axes:
        at = axes.index(batch)
        if pads[at] or pads[at + len(axes)]:
            raise mixes(node)
    return [batch]


def _tile(tracker: Tracker, node: Node) -> Axes:
    batch = only_first(tracker, node)
    repeats = constant(tracker, node, 1) or []
    if repeats[batch] != 1:
        raise mixes(node)
    return [batch]


def _quantize(tracker: Tracker, node: Node) -> Axes:
    batch = only_first(tracker, node)
    rank = len(tracker.shape(node.input(1)))
    if rank > 1 or (rank == 1 and batch in acted_axes(tracker, node, [node.attr("axis", 1)])):
        raise mixes(node)
    return [batch]


def _matmul(tracker: Tracker, node: Node) -> Axes:
    """Images may count the rows of the left matrix, or lie in the leading (stacking) axes."""
    left, right = node.inputs
    ranks = {name: len(tracker.shape(name)) for name in (left, right)}
    if min(ranks.values()) < 2:
        raise NotFreeError(f"{node} multiplies by a vector")
    if tracker.axis(left) == ranks[left] - 2 and right not in tracker.axes and ranks[right] == 2:
        return [ranks[left] - 2]
    axis = _broadcast(tracker, node, ranks)
    if axis >= max(ranks.values()) - 2:
        raise mixes(node)
    return [axis]


def _gemm(tracker: Tracker, node: Node) -> Axes:
    a, b, c = (tracker.axis(node.input(i)) for i in range(3))
    if b is not None or a != (1 if node.attr("transA", 0) else 0):
        raise mixes(node)
    if node.input(2) and c != 0:
        shape = tracker.shape(node.input(2))
        if c is not None or (len(shape) == 2 and shape[0] != 1):
            raise mixes(node)
    elif c == 0 and len(tracker.shape(node.input(2))) != 2:
        raise mixes(node)
    return [0]


def _einsum(tracker: Tracker, node: Node) -> Axes:
    """One letter is the batch, in every operand that has one, in no other, and in the result."""
    spelled = node.attr("equation").replace(" ", "")
    terms, arrow, result = spelled.partition("->")
    operands = list(zip(terms.split(","), node.inputs, strict=True))
    if not arrow or "." in spelled:
        raise NotFreeError(f"{node} does not spell out its axes in {spelled!r}")
    letters = {term[axis] for term, name in operands if (axis := tracker.axis(name)) is not None}
    letter = letters.pop()
    if letters or result.count(letter) != 1:
        raise mixes(node)
    for term, name in operands:
        if term.count(letter) != (tracker.axis(name) is not None):
            raise mixes(node)
    return [result.index(letter)]


_ELEMENTWISE = (
    "Abs", "Acos", "Acosh", "Add", "And", "Asin", "Asinh", "Atan", "Atanh", "BitShift",
    "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Cast", "CastLike", "Ceil", "Celu",
    "Clip", "Cos", "Cosh", "Div", "Dropout", "Elu", "Equal", "Erf", "Exp", "Floor", "Gelu",
    "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN",
    "LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Mean", "Min", "Mish", "Mod", "Mul",
    "Neg", "Not", "Or", "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Shrink",
    "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Tan",
    "Tanh", "ThresholdedRelu", "Where", "Xor",
)  # fmt: skip
_IMAGE_FIRST = (
    "AveragePool", "BatchNormalization", "Conv", "ConvInteger", "ConvTranspose", "DepthToSpace",
    "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "GroupNormalization",
    "InstanceNormalization", "LRN", "LpPool", "MaxPool", "QLinearConv", "SpaceToDepth",
)  # fmt: skip
_REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare",
)  # fmt: skip
_ALONG_LAST = ("Hardmax", "LogSoftmax", "LpNormalization", "Softmax", "TopK")

AXIS_RULES: dict[str, AxisRule] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(_IMAGE_FIRST, _image_first),
    **dict.fromkeys(_REDUCTIONS, _reduce),
    **dict.fromkeys(("ArgMax", "ArgMin"), _arg_extreme),
    **dict.fromkeys(("DequantizeLinear", "QuantizeLinear"), _quantize),
    **dict.fromkeys(_ALONG_LAST, _along_axis(-1)),
    "Concat": _concat,
    "Einsum": _einsum,
    "Gather": _gather,
    "Gemm": _gemm,
    "LayerNormalization": _layer_norm,
    "MatMul": _matmul,
    "Pad": _pad,
    "Slice": _slice,
    "Split": _along_axis(0),
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""What keeps images apart, by operator. What is missing here is taken to mix them."""
