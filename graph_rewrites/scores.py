"""Find the class scores: the tensor before softmax and before quantisation.

Gradients are taken of scores, not of probabilities: a softmax couples the classes and saturates.
Exported files hide the scores behind a softmax, behind the quantisation of its result, and behind
whatever reshapes the two.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from types import FrameType
from typing import Literal

from graph_rewrites.errors import ModelError, UnknownTensorError
from graph_rewrites.graph import Graph
from graph_rewrites.network import network_outputs
from graph_rewrites.node import Node
from graph_rewrites.quantized import quantizer
from graph_rewrites.score_axes import channel_axis, class_axis, described, place_axes, wide_axes

Link = Literal["softmax", "log_softmax", "sigmoid", "none"]

_LINKS: dict[str, Link] = {
    "Softmax": "softmax",
    "LogSoftmax": "log_softmax",
    "Sigmoid": "sigmoid",
}
_AROUND = frozenset({"Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity"})
_QUANTIZATION = frozenset({"QuantizeLinear", "DequantizeLinear"})


class AmbiguousScoresWarning(UserWarning):
    """Several outputs could be the class scores; the first is explained."""


@dataclass(frozen=True)
class Scores:
    """The class scores of a network.

    Attributes:
        tensor: what is explained: float, or the integers of a quantised output that nothing
            dequantises. One number per image and class, at every place where it has places.
        class_axis: the axis of `tensor` that counts the classes; None where it has no such axis.
        classes: how many classes a target may name: 2 for one logit behind a sigmoid.
        peeled: operators between `tensor` and `output`, in the order in which they run.
        output: the graph output that the scores lead to; a tensor inside the network itself.
        link: what turns the scores into probabilities.
        position_axes: the axes that count places: the pixels of a segmentation, the boxes of a
            detector; empty for the scores of a whole picture.
        places: how many places there are; None where there are none, or the file leaves it open.
    """

    tensor: str
    class_axis: int | None
    classes: int
    peeled: tuple[str, ...]
    output: str
    link: Link
    position_axes: tuple[int, ...] = ()
    places: int | None = None


def find_scores(graph: Graph, output: str | None = None) -> Scores:
    """Find the class scores of a canonical graph.

    Args:
        graph: the graph; what earlier calls added to it is overlooked.
        output: the graph output to start from. By default the first float output that holds one
            number per class, else the first quantised one.

    Raises:
        UnknownTensorError: the network has no output of this name.
        UnknownShapeError: the number of classes is not known.
        ModelError: no output holds one number per class.

    Warns:
        AmbiguousScoresWarning: other outputs lead to other scores.
    """
    outputs = network_outputs(graph)
    if output is not None:
        if output not in outputs:
            raise UnknownTensorError.of("output", output, outputs)
        return scores_of(graph, output)
    floats = [name for name in outputs if graph.is_float(name)]
    integers = [name for name in outputs if name not in floats]
    found: list[Scores] = []
    reasons: list[ModelError] = []
    for name in (*floats, *integers):
        try:
            found.append(_scores(graph, name))
        except ModelError as error:
            reasons.append(error)
    if not found:
        raise _nothing_found(graph, outputs, reasons)
    _warn_of_others(found)
    return found[0]


def _nothing_found(
    graph: Graph, outputs: Sequence[str], reasons: Sequence[ModelError]
) -> ModelError:
    if len(reasons) == 1:
        return reasons[0]
    listed = ", ".join(f"{name!r} {described(graph.shape(name))}" for name in outputs)
    return ModelError(
        f"no output holds one score per class (outputs: {listed or 'none'}); "
        "name the tensor to explain with `of`"
    )


def _warn_of_others(found: Sequence[Scores]) -> None:
    others = [other.output for other in found[1:] if other.tensor != found[0].tensor]
    if others:
        warnings.warn(
            f"several outputs could be the class scores: {found[0].output!r} is explained, not "
            + ", ".join(map(repr, others)),
            AmbiguousScoresWarning,
            stacklevel=_frames_inside() + 1,  # whoever called this package
        )


def _frames_inside() -> int:
    """How many frames above the caller belong to this package, the caller included."""
    package = __name__.partition(".")[0]
    frame: FrameType | None = sys._getframe(1)
    count = 0
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        frame, count = frame.f_back, count + 1
    return count


def scores_of(graph: Graph, output: str) -> Scores:
    """The scores that `output` leads back to: one per class, or one per class at many places.

    Raises:
        UnknownShapeError: the number of classes is not known.
        ModelError: it holds no scores, or does not tell which axis counts the classes.
    """
    if len(wide_axes(graph.shape(output))) < 2:
        return _scores(graph, output)
    link = _link_behind(graph, output, everywhere=True)
    if link is None:
        _must_be_values(graph, output)
        return scores_of_tensor(graph, output)
    kind, nodes = link
    peeled = tuple(node.op_type for node in reversed(nodes))
    given = None if kind == "sigmoid" else nodes[-1].attr("axis", -1)
    return _at_places(graph, nodes[-1].input(0), given, peeled, output, kind)


def scores_of_tensor(graph: Graph, tensor: str) -> Scores:
    """Any tensor as scores, just as it is: nothing behind or in front of it is peeled."""
    if len(wide_axes(graph.shape(tensor))) < 2:
        axis, size = class_axis(graph, tensor)
        return Scores(tensor, axis, size, (), tensor, "none")
    return _at_places(graph, tensor, None, (), tensor, "none")


def _at_places(
    graph: Graph, tensor: str, given: int | None, peeled: tuple[str, ...], output: str, link: Link
) -> Scores:
    axis = None if given is None else given % len(graph.known_shape(tensor))
    axis, size, places = place_axes(graph, tensor, axis)
    classes = 2 if link == "sigmoid" and size == 1 else size
    dims = [dim for i in places if isinstance(dim := graph.known_shape(tensor)[i], int)]
    count = prod(dims) if len(dims) == len(places) else None
    return Scores(tensor, axis, classes, peeled, output, link, places, count)


def _scores(graph: Graph, output: str) -> Scores:
    """The scores that `output` leads back to, one per class."""
    link = _link_behind(graph, output)
    if link is None:
        _must_be_values(graph, output)
        axis, size = class_axis(graph, output)
        return Scores(output, axis, size, (), output, "none")
    kind, nodes = link
    tensor = nodes[-1].input(0)
    for node in _before_the_link(graph, tensor):
        nodes.append(node)
        tensor = node.input(0)
    axis, size = class_axis(graph, tensor)
    classes = 2 if kind == "sigmoid" and size == 1 else size
    return Scores(tensor, axis, classes, tuple(n.op_type for n in reversed(nodes)), output, kind)


def _must_be_values(graph: Graph, output: str) -> None:
    if not graph.is_float(output) and quantizer(graph, output) is None:
        raise ModelError(
            f"output {output!r} holds integers that no QuantizeLinear made, not scores; "
            "name the tensor to explain with `of`"
        )


def _link_behind(
    graph: Graph, output: str, *, everywhere: bool = False
) -> tuple[Link, list[Node]] | None:
    """What makes probabilities of scores, and the nodes from `output` back to it; None if nothing.

    A softmax over another axis than that of the classes (attention, a spatial softmax) is none.
    `everywhere` lets the probabilities be those of many places.
    """
    over_classes = _over_channels if everywhere else _over_classes
    nodes: list[Node] = []
    node = graph.producer(output)
    while node is not None:
        nodes.append(node)
        before = graph.producer(node.input(0))
        if node.op_type == "Log" and before is not None and before.op_type == "Softmax":
            return ("log_softmax", [*nodes, before]) if over_classes(graph, before) else None
        if node.op_type in _LINKS:
            return (_LINKS[node.op_type], nodes) if over_classes(graph, node) else None
        if node.op_type not in _AROUND | _QUANTIZATION:
            return None
        node = before
    return None


def _over_classes(graph: Graph, link: Node) -> bool:
    if link.op_type == "Sigmoid":
        return True
    shape = graph.shape(link.output)
    axes = wide_axes(shape)
    if shape is None or len(axes) > 1:
        return False
    axis: int = link.attr("axis", -1) % len(shape)
    return not axes or axes == [axis]


def _over_channels(graph: Graph, link: Node) -> bool:
    """Whether a link at many places is over the classes there: over no axis of a map's places."""
    shape = graph.shape(link.output)
    if link.op_type == "Sigmoid" or shape is None:
        return shape is not None
    axis: int = link.attr("axis", -1) % len(shape)
    return channel_axis(graph, link.output) in (None, axis)


def _before_the_link(graph: Graph, tensor: str) -> list[Node]:
    """What merely re-arranges or casts the scores in front of the link, last first.

    A DequantizeLinear ends it: quantised scores are explained at their dequantised value.
    """
    nodes = []
    size = _size(graph, tensor)
    node = graph.producer(tensor)
    while node is not None and node.op_type in _AROUND:
        before = node.input(0)
        if not graph.is_float(before) or size is None or _size(graph, before) != size:
            break
        nodes.append(node)
        node = graph.producer(before)
    return nodes


def _size(graph: Graph, tensor: str) -> int | None:
    """The number of classes of `tensor`, None where it has no class axis or no fixed size."""
    try:
        return class_axis(graph, tensor)[1]
    except ModelError:
        return None
