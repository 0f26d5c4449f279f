"""Which positions of a grid of tokens the scores depend on.

A classifier that reads the class token leaves the other tokens of the last layers without
influence: their gradient is zero. Behind the last attention only the class token is computed for
the scores, so that its tensors have no positions in the sense of a class activation map.
"""

from __future__ import annotations

from collections.abc import Sequence

from graph_rewrites.axes import TOKENS, Layout, carries_tokens, token_grid
from graph_rewrites.graph import Graph
from graph_rewrites.layouts import ELEMENTWISE, REDUCTIONS, RESHAPES, Layouts, reduced_axes
from graph_rewrites.network import Way
from graph_rewrites.node import Node
from graph_rewrites.token_axes import PICKING, picked, spares_the_grid

_FROM_AN_AXIS_ON = frozenset(
    {"Softmax", "LogSoftmax", "Hardmax", "LayerNormalization", "LpNormalization"}
)
_APART = (ELEMENTWISE - {"CumSum"}) | _FROM_AN_AXIS_ON | PICKING | {
    "Concat", "Pad", "BatchNormalization",
}  # fmt: skip


def idle_axes(graph: Graph, way: Way, layouts: Layouts) -> dict[str, frozenset[int]]:
    """Of each tensor on `way` the axes of tokens along which no position of the grid matters.

    All axes of a tensor of which nothing matters.

    Args:
        graph: the graph.
        way: the way to the scores.
        layouts: what the axes along it mean.
    """
    known = layouts.by_tensor
    idle: dict[str, frozenset[int]] = {}
    for node in reversed(way.nodes):
        results = [(name, idle.get(name, frozenset())) for name in way.results(node)]
        unread = all(len(axes) == len(graph.shape(name) or ()) > 0 for name, axes in results)
        for source in way.sources(node):
            here = _every_axis(graph, source) if unread else frozenset[int]()
            if not unread and source in known:
                here = _idle_before(graph, node, source, results, known)
            idle[source] = idle[source] & here if source in idle else here
    return idle


def _idle_before(
    graph: Graph,
    node: Node,
    source: str,
    results: list[tuple[str, frozenset[int]]],
    known: dict[str, Layout],
) -> frozenset[int]:
    """The axes of `source` whose grid does not matter for any of the `results` of `node`."""
    layout = known[source]
    axes = {i for i, axis in enumerate(layout.axes) if carries_tokens(axis)}
    for output, idle in results:
        behind = _behind(graph, node, source, output, known)
        axes = {
            axis
            for axis in axes
            if behind.get(axis) in idle or _passes_by(graph, node, source, output, axis, layout)
        }
    # A grid without any other tokens beside it leaves nothing that matters.
    grids = [layout.axes[axis] for axis in axes if layout.meanings[axis] == TOKENS]
    bare = any(token_grid(axis)[0] == axis for axis in grids)
    return _every_axis(graph, source) if bare else frozenset(axes)


def _passes_by(
    graph: Graph, node: Node, source: str, output: str, axis: int, layout: Layout
) -> bool:
    """Whether `node` takes only tokens that lie beside the grid along `axis`."""
    if node.op_type not in PICKING or source != node.input(0) or layout.meanings[axis] != TOKENS:
        return False
    taken = picked(graph, node, output, axis)
    return taken is not None and spares_the_grid(layout.axes[axis], taken)


def _every_axis(graph: Graph, tensor: str) -> frozenset[int]:
    return frozenset(range(len(graph.shape(tensor) or ())))


def _behind(
    graph: Graph, node: Node, source: str, output: str, known: dict[str, Layout]
) -> dict[int, int]:
    """Where each axis of `source` is in `output`, of those whose positions stay apart."""
    op = node.op_type
    before, after = graph.known_shape(source), graph.known_shape(output)
    lead = len(after) - len(before)
    if op == "Transpose":
        perm = node.attr("perm", list(reversed(range(len(before)))))
        return {axis: i for i, axis in enumerate(perm)}
    if op in RESHAPES:
        sides = (known[source], known[output]) if output in known else ()
        found = [[i for i, a in enumerate(side.axes) if carries_tokens(a)] for side in sides]
        return dict(zip(*found, strict=False)) if found and len(found[0]) == len(found[1]) else {}
    if op in ("MatMul", "Gemm"):
        mixed = len(before) - (1 if source == node.input(0) else 2)
        return {i: i + lead for i in range(len(before)) if i != mixed}
    if op == "Gather" and lead:
        return _without([node.attr("axis", 0) % len(before)], len(before))
    if op in REDUCTIONS:
        axes = reduced_axes(node, len(before))
        kept = _without(axes, len(before)) if axes is not None else {}
        return kept if lead else {axis: axis for axis in kept}
    if op not in _APART:
        return {}
    mixed = node.attr("axis", -1) % len(before) if op in _FROM_AN_AXIS_ON else len(before)
    return {axis: axis + lead for axis in range(mixed)}


def _without(axes: Sequence[int], rank: int) -> dict[int, int]:
    """Where the axes of a tensor are when `axes` have gone."""
    return {axis: i for i, axis in enumerate(a for a in range(rank) if a not in axes)}
