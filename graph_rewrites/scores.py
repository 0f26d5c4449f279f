"""Find the class scores: the tensor before softmax and before quantisation.

Gradients are taken of scores, not of probabilities: a softmax couples the classes and saturates.
Exported files hide the scores behind a softmax, behind the quantisation of its result, and behind
whatever reshapes the two; a detector's file puts its boxes beside the probabilities.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from types import FrameType

from graph_rewrites.errors import ModelError, UnknownTensorError
from graph_rewrites.graph import Graph
from graph_rewrites.image_axis import of_remedy, output_must_keep_images_apart
from graph_rewrites.network import network_outputs
from graph_rewrites.node import Node
from graph_rewrites.quantized import quantizer
from graph_rewrites.score_axes import class_axis, described, place_axes, wide_axes
from graph_rewrites.score_doubts import doubt
from graph_rewrites.score_links import AROUND, Link, link_behind


class AmbiguousScoresWarning(UserWarning):
    """Several outputs could be the class scores, or the one that is explained may be none."""


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
        AmbiguousScoresWarning: other outputs lead to other scores, or these may be none.
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
    warn_of_doubts(graph, found[0])
    return found[0]


def _nothing_found(
    graph: Graph, outputs: Sequence[str], reasons: Sequence[ModelError]
) -> ModelError:
    if len(reasons) == 1:
        return reasons[0]
    listed = ", ".join(f"{name!r} {described(graph.shape(name))}" for name in outputs)
    return ModelError(
        f"no output holds one score per class (outputs: {listed or 'none'}); {of_remedy(graph)}"
    )


def _warn_of_others(found: Sequence[Scores]) -> None:
    others = [other.output for other in found[1:] if other.tensor != found[0].tensor]
    if others:
        _warn(
            f"several outputs could be the class scores: {found[0].output!r} is explained, not "
            + ", ".join(map(repr, others))
        )


def warn_of_doubts(graph: Graph, found: Scores) -> None:
    """Warn where scores that nobody named do not look like scores."""
    held = doubt(graph, found.tensor, boxes=len(found.position_axes) == 1)
    if held is not None:
        _warn(
            f"output {found.output!r} {described(graph.shape(found.output))} is explained as class "
            f"scores, but seems to hold {held}; {of_remedy(graph)}"
        )


def _warn(message: str) -> None:
    # The line that is shown is that of whoever called this package.
    warnings.warn(message, AmbiguousScoresWarning, stacklevel=_frames_inside() + 1)


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
    output_must_keep_images_apart(graph, output)
    link = link_behind(graph, output, everywhere=True) or _link_beside_boxes(graph, output)
    if link is None:
        _must_be_values(graph, output)
        return scores_of_tensor(graph, output)
    kind, nodes = link
    peeled = tuple(node.op_type for node in reversed(nodes))
    given = None if kind == "sigmoid" else nodes[-1].attr("axis", -1)
    return _at_places(graph, nodes[-1].input(0), given, peeled, output, kind)


def _link_beside_boxes(graph: Graph, output: str) -> tuple[Link, list[Node]] | None:
    """The one link among the parts that a detector's file puts side by side along its classes."""
    node = graph.producer(output)
    shape = graph.shape(output)
    if node is None or node.op_type != "Concat" or shape is None or len(wide_axes(shape)) != 2:
        return None
    links = [link_behind(graph, part, everywhere=True) for part in node.inputs]
    found = [link for link in links if link is not None]
    if len(found) != 1 or len(links) < 2:
        return None
    kind, nodes = found[0]
    joined = node.attr("axis") % len(shape)
    if place_axes(graph, nodes[-1].input(0))[0] != joined:
        return None
    return kind, [node, *nodes]


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
    output_must_keep_images_apart(graph, output)
    link = link_behind(graph, output)
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


def _before_the_link(graph: Graph, tensor: str) -> list[Node]:
    """What merely re-arranges or casts the scores in front of the link, last first.

    A DequantizeLinear ends it: quantised scores are explained at their dequantised value.
    """
    nodes = []
    size = _size(graph, tensor)
    node = graph.producer(tensor)
    while node is not None and node.op_type in AROUND:
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
