"""Which nodes the reverse sweep must visit.

A tensor is active where it depends on what is differentiated and the explained tensor depends on
it, both over differentiable edges. Everything else (size arithmetic, non-maximum suppression, the
detector's tail) needs no rule and gets no cotangent.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from graph_rewrites.graph import Graph
from graph_rewrites.node import Node
from graph_rewrites.quantized import INTEGER_LAYOUT
from graph_rewrites.rules.table import RuleTable

CONTROL_FLOW = frozenset({"If", "Loop", "Scan"})


def active_tensors(
    graph: Graph, nodes: Sequence[Node], wrt: Collection[str], of: Collection[str], rules: RuleTable
) -> frozenset[str]:
    """Tensors between `wrt` and `of`, both included, in the sorted `nodes`."""
    depends = _depending(graph, nodes, wrt, rules)
    needed = set(of)
    for node in reversed(nodes):
        if _passes(node, rules) and needed.intersection(node.outputs):
            needed.update(i for i in (*node.inputs, *node.captures) if i in depends)
    return frozenset(depends & needed)


def dead_end(
    graph: Graph, nodes: Sequence[Node], wrt: str, of: Collection[str], rules: RuleTable
) -> Node | None:
    """The last of the sorted `nodes` that ends every derivative between `wrt` and `of`.

    None where none of `of` is computed from `wrt` at all.
    """
    depends = _depending(graph, nodes, {wrt}, rules)
    behind = set(of)
    for node in reversed(nodes):
        if behind.intersection(node.outputs):
            if depends.intersection((*node.inputs, *node.captures)):
                return node
            behind.update((*node.inputs, *node.captures))
    return None


def _depending(
    graph: Graph, nodes: Sequence[Node], wrt: Collection[str], rules: RuleTable
) -> set[str]:
    """What has a derivative by one of `wrt`, these included."""
    depends = set(wrt)
    for node in nodes:
        if _passes(node, rules) and depends.intersection((*node.inputs, *node.captures)):
            depends.update(name for name in node.outputs if _carries(graph, node, name))
    return depends


def _passes(node: Node, rules: RuleTable) -> bool:
    rule = rules.get(node.op_type)
    return rule is None or not rule.is_zero


def _carries(graph: Graph, node: Node, output: str) -> bool:
    """Whether `output` can have a cotangent: a float, or integers that stand for one."""
    if not output:
        return False
    if graph.is_float(output) or node.op_type == "QuantizeLinear":
        return True
    elem_type = graph.type(output).elem_type
    if not elem_type:  # untyped: a custom operator's output; assume the worst
        return True
    moved = graph.type(node.input(0)).elem_type
    return node.op_type in INTEGER_LAYOUT and output == node.outputs[0] and elem_type == moved
