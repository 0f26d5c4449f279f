"""What speaks against an output being the class scores: a doubt that is told, not an error.

A detector's file may end in its decoded boxes: coordinates beside scores, or the scores of the
best boxes, sorted. Some classifiers do arithmetic with their probabilities.
"""

from __future__ import annotations

from graph_rewrites.graph import Graph
from graph_rewrites.node import Node
from graph_rewrites.score_axes import wide_axes
from graph_rewrites.score_links import MOVING, data_behind, link_behind, over_channels

_OF_PROBABILITIES = frozenset(
    {
        "Add", "Sub", "Mul", "Div", "Sum", "Mean", "Max", "Min", "ReduceMean", "Concat", "Slice",
        "Gather", "Split",
    }
)  # fmt: skip
_WITH_PARAMETERS = frozenset({"Div", "ReduceMean", "Slice", "Gather", "Split"})


def doubt(graph: Graph, tensor: str, *, boxes: bool) -> str | None:
    """What `tensor` seems to hold instead of scores; None without a doubt.

    Args:
        graph: the canonical graph.
        tensor: what is explained.
        boxes: whether it has one axis of places.
    """
    node = _maker(graph, tensor)
    if node is not None and node.op_type == "TopK":
        return "the largest values in their order, not one score per class"
    if boxes and _joins_unlike_parts(graph, tensor):
        return "unlike things side by side, as boxes and their scores"
    if _holds_probabilities(graph, tensor):
        return "probabilities, which a softmax or sigmoid couples and saturates"
    return None


def _maker(graph: Graph, tensor: str) -> Node | None:
    """The node that made the values of `tensor`, wherever they were moved since."""
    node = graph.producer(tensor)
    while node is not None and node.op_type in MOVING:
        node = graph.producer(node.input(0))
    return node


def _joins_unlike_parts(graph: Graph, tensor: str) -> bool:
    """Whether `tensor` is a Concat of parts of several kinds, or lines up such Concats."""
    node = _maker(graph, tensor)
    while node is not None and node.op_type == "Concat":
        kinds = {_kind(graph, part) for part in node.inputs}
        if len(kinds) > 1:
            return True
        node = _maker(graph, node.input(0))
    return False


def _kind(graph: Graph, part: str) -> str:
    if (link := link_behind(graph, part, everywhere=True)) is not None:
        return link[0]
    node = _maker(graph, part)
    return node.op_type if node is not None else ""


def _holds_probabilities(graph: Graph, tensor: str) -> bool:
    """Whether `tensor` is made of nothing but softmaxes over classes, or of one binary sigmoid."""
    links = _links_behind(graph, tensor)
    if not links or not wide_axes(graph.shape(tensor)):
        return False
    if any(link.op_type == "Sigmoid" for link in links.values()):
        return len(links) == 1 and not any(wide_axes(graph.shape(name)) for name in links)
    return True


def _links_behind(graph: Graph, tensor: str) -> dict[str, Node] | None:
    """The links that arithmetic makes `tensor` of, by output; None where there is more to it."""
    found: dict[str, Node] = {}
    pending, seen = [tensor], set[str]()
    while pending:
        name = pending.pop()
        if name in seen or graph.constant(name) is not None:
            continue
        seen.add(name)
        node = graph.producer(name)
        if node is None:
            return None
        if _is_link(graph, node):
            found[name] = node
        elif (before := data_behind(graph, node)) is not None:
            pending.append(before)
        elif node.op_type in _OF_PROBABILITIES:
            pending.extend(node.inputs[:1] if node.op_type in _WITH_PARAMETERS else node.inputs)
        else:
            return None
    return found


def _is_link(graph: Graph, node: Node) -> bool:
    if node.op_type == "Sigmoid":
        return True
    if node.op_type != "Softmax" or not over_channels(graph, node):
        return False
    axis: int = node.attr("axis", -1)
    return graph.known_shape(node.output)[axis] != 1
