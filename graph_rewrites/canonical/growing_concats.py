"""Let each step of a growing concatenation start from the one before it.

DenseNet's layers read Concat(a), Concat(a, b), Concat(a, b, c), …: every one of them repeats all
earlier features, and on the way back every feature would collect one cotangent from each. Written
as Concat(Concat(a, b), c) the numbers and the copying are the same, and a layer's cotangents need
one sum (DenseNet-121: 535 Adds become 58).
"""

from __future__ import annotations

from graph_rewrites.graph import Graph
from graph_rewrites.node import Node


def nest_concats(graph: Graph) -> None:
    """Let a Concat whose first inputs are those of another one read that one's output, in place."""
    concats: dict[tuple[int, tuple[str, ...]], Node] = {}
    for node in graph.nodes:
        rank = len(graph.shape(node.output) or ())
        if node.op_type == "Concat" and rank and _is_plain(graph, node):
            concats.setdefault((node.attr("axis") % rank, node.inputs), node)
    nested = False
    for (axis, inputs), node in concats.items():
        for length in range(len(inputs) - 1, 1, -1):
            before = concats.get((axis, inputs[:length]))
            if before is not None:
                graph.set_inputs(node, [before.output, *inputs[length:]])
                nested = True
                break
    if nested:
        graph.sort()


def _is_plain(graph: Graph, node: Node) -> bool:
    """Whether it joins floats, and none out of a DequantizeLinear, with which it may run fused."""
    writers = [graph.producer(tensor) for tensor in node.inputs]
    quantised = any(w is not None and w.op_type == "DequantizeLinear" for w in writers)
    return graph.is_float(node.output) and not quantised
