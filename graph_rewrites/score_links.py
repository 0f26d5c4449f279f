"""What turns scores into probabilities, and what lies between it and an output.

Behind a softmax or a sigmoid files move axes, quantise, clip, and scale or shift by a number. A
larger probability stays the larger one through all of these, so that the scores in front of the
link still say the same.
"""

from __future__ import annotations

from typing import Literal

from graph_rewrites.graph import Graph
from graph_rewrites.node import Node
from graph_rewrites.score_axes import channel_axis, wide_axes

Link = Literal["softmax", "log_softmax", "sigmoid", "none"]

AROUND = frozenset({"Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity"})
"""What merely re-arranges or casts."""
MOVING = AROUND | {"QuantizeLinear", "DequantizeLinear"}
"""What passes its values on, rounded at most."""

_LINKS: dict[tuple[str, ...], Link] = {
    ("Softmax",): "softmax",
    ("Exp", "LogSoftmax"): "softmax",
    ("LogSoftmax",): "log_softmax",
    ("Log", "Softmax"): "log_softmax",
    ("Sigmoid",): "sigmoid",
}  # last first
_LINKING = frozenset(name for names in _LINKS for name in names)
_FIRST = frozenset(names[-1] for names in _LINKS)
_MONOTONE = MOVING | {"Clip", "Log", "Exp"}
_RESCALING = frozenset({"Add", "Sub", "Mul", "Div"})


def link_behind(
    graph: Graph, output: str, *, everywhere: bool = False
) -> tuple[Link, list[Node]] | None:
    """What makes probabilities of scores, and the nodes from `output` back to it; None if nothing.

    A softmax over another axis than that of the classes (attention, a spatial softmax) is none;
    nor is one sigmoid that is scaled or shifted: that is a regression within bounds.
    `everywhere` lets the probabilities be those of many places.
    """
    nodes: list[Node] = []
    node = graph.producer(output)
    while node is not None:
        nodes.append(node)
        if node.op_type in _FIRST:
            break
        before = data_behind(graph, node)
        node = graph.producer(before) if before is not None else None
    if node is None:
        return None
    kind = _LINKS.get(tuple(n.op_type for n in nodes if n.op_type in _LINKING))
    over_classes = over_channels if everywhere else _over_classes
    if kind is None or not over_classes(graph, node):
        return None
    rescaled = any(n.op_type in _RESCALING for n in nodes)
    if kind == "sigmoid" and rescaled and not wide_axes(graph.shape(node.output)):
        return None
    return kind, nodes


def data_behind(graph: Graph, node: Node) -> str | None:
    """The input in whose order the elements of a monotone node's output are; None if of none."""
    if node.op_type in _MONOTONE:
        return node.input(0)
    if node.op_type not in _RESCALING:
        return None
    left, right = node.inputs
    if _is_number(graph, right, node.op_type in ("Mul", "Div")):
        return left
    if node.op_type in ("Add", "Mul") and _is_number(graph, left, node.op_type == "Mul"):
        return right
    return None


def _is_number(graph: Graph, tensor: str, positive: bool) -> bool:
    value = graph.constant(tensor)
    return value is not None and value.size == 1 and (not positive or value.item() > 0)


def _over_classes(graph: Graph, link: Node) -> bool:
    if link.op_type == "Sigmoid":
        return True
    shape = graph.shape(link.output)
    axes = wide_axes(shape)
    if shape is None or len(axes) > 1:
        return False
    axis: int = link.attr("axis", -1) % len(shape)
    return not axes or axes == [axis]


def over_channels(graph: Graph, link: Node) -> bool:
    """Whether a link at many places is over the classes there: over no axis of a map's places."""
    shape = graph.shape(link.output)
    if link.op_type == "Sigmoid" or shape is None:
        return shape is not None
    axis: int = link.attr("axis", -1) % len(shape)
    return channel_axis(graph, link.output) in (None, axis)
