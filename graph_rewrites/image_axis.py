"""Whether the first axis of a tensor counts the images.

A detector that has chosen its boxes lines up those of all images: nobody knows before it runs how
many there are, and a row belongs to no image.
"""

from __future__ import annotations

from graph_rewrites.errors import ModelError
from graph_rewrites.graph import Graph
from graph_rewrites.network import network_inputs
from graph_rewrites.node import Node
from graph_rewrites.score_axes import described
from graph_rewrites.score_links import link_behind
from graph_rewrites.tensor_type import Dim

TELLING = 7919
"""A prime that no layer has as a size: an axis of this size counts the images and nothing else."""

_CHOOSING = frozenset({"NonMaxSuppression", "NonZero", "Unique", "Compress"})


def must_keep_images_apart(graph: Graph, tensor: str, name: str) -> None:
    """Refuse a tensor inside the network, named `name`, whose first axis is not the images'."""
    if _is_free(graph) and _rows(graph, tensor) != TELLING:
        raise ModelError(
            f"{name!r} {described(graph.shape(tensor))} does not keep the images apart along its "
            "first axis; name a tensor that does"
        )


def output_must_keep_images_apart(graph: Graph, output: str) -> None:
    """Refuse an output whose first axis surely counts something else than the images.

    Exporters often lose the sizes of outputs, so that an unknown one alone is no proof.
    """
    shape = graph.shape(output)
    if not shape or isinstance(shape[0], int) or shape[0] in _batches(graph):
        return
    rows = _rows(graph, output) if _is_free(graph) else None
    if rows in (1, TELLING) or (not isinstance(rows, int) and not _chooses(graph, output)):
        return
    raise ModelError(
        f"output {output!r} {described(shape)} does not keep the images apart along its first "
        f"axis; {of_remedy(graph)}"
    )


def of_remedy(graph: Graph) -> str:
    """What to name with `of`: in a detector the scores that its boxes are chosen by."""
    for node in graph.nodes:
        if node.op_type == "NonMaxSuppression" and not _chooses(graph, node.input(1)):
            scores = _before_the_link(graph, node.input(1))
            return f"name the scores before the choice of boxes with `of`, as {scores!r}"
    return "name the tensor to explain with `of`"


def _before_the_link(graph: Graph, tensor: str) -> str:
    link = link_behind(graph, tensor, everywhere=True)
    return tensor if link is None else link[1][-1].input(0)


def _batches(graph: Graph) -> list[Dim]:
    return [(graph.shape(name) or (1,))[0] for name in network_inputs(graph)]


def _is_free(graph: Graph) -> bool:
    return any(not isinstance(dim, int) for dim in _batches(graph))


def _rows(graph: Graph, tensor: str) -> Dim:
    """The size of the first axis if the images were `TELLING`; None where that is unknown."""
    types = graph.types_at(TELLING)
    shape = types[tensor].shape if tensor in types else None
    return shape[0] if shape else None


def _chooses(graph: Graph, tensor: str) -> bool:
    """Whether values decide how many rows `tensor` has: a choice lies behind it."""
    pending, seen = [tensor], set[Node]()
    while pending:
        node = graph.producer(pending.pop())
        if node is None or node in seen:
            continue
        if node.op_type in _CHOOSING:
            return True
        seen.add(node)
        pending.extend(name for name in node.inputs if name)
    return False
