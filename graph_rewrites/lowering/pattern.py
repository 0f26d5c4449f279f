"""What a lowering pattern is, and how a table of them is applied.

A pattern is a function `(op, node)`: it looks at one node, emits the faster form with `op`, and
returns the tensor that takes the place of the node's output; None where the node is not its case,
and then it must not have emitted anything. It looks like a rule (`rules.table`), and a new one
needs nothing but its line in a provider's table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graph_rewrites.emit import Emitter
from graph_rewrites.graph import Graph
from graph_rewrites.node import Node
from graph_rewrites.stamps import is_original

Rewrite = Callable[[Emitter, Node], str | None]


@dataclass(frozen=True)
class Pattern:
    """One way to write a piece of a graph faster.

    Attributes:
        op_types: the operators of the nodes that it looks at.
        rewrite: see the module; its docstring says the form, the reason and what was measured.
        everywhere: whether it also looks at the network's own nodes, and not only at those that a
            sweep or a head has added.
    """

    op_types: frozenset[str]
    rewrite: Rewrite
    everywhere: bool = False

    @property
    def name(self) -> str:
        """The function's name."""
        return self.rewrite.__name__


def pattern(*op_types: str, everywhere: bool = False) -> Callable[[Rewrite], Pattern]:
    """Declare the function below as a pattern for nodes of `op_types`."""

    def declare(rewrite: Rewrite) -> Pattern:
        return Pattern(frozenset(op_types), rewrite, everywhere)

    return declare


def apply(graph: Graph, patterns: Sequence[Pattern]) -> dict[str, int]:
    """Apply `patterns` in their order, in place; how often each one found its case, by name."""
    counts = {}
    for each in patterns:
        counts[each.name] = sum(_replaced(graph, each, node) for node in graph.nodes)
        if counts[each.name]:
            graph.sort()
            graph.infer()  # the next pattern reads the shapes of what this one wrote
    return counts


def _replaced(graph: Graph, each: Pattern, node: Node) -> bool:
    if node.op_type not in each.op_types or node.domain or not node.outputs:
        return False  # without outputs: removed, an earlier case left nothing for it to do
    if is_original(node) and not (each.everywhere and _is_float(graph, node)):
        return False
    output, inputs = node.output, (*node.inputs, *node.captures)
    result = each.rewrite(Emitter(graph, output, node.metadata, before=node), node)
    if result is None:
        return False
    writer = graph.producer(result)
    assert writer is not None
    graph.remove([node])
    graph.rename_output(writer, result, output)
    graph.remove_idle(inputs)
    return True


def _is_float(graph: Graph, node: Node) -> bool:
    """Whether the network itself computes `node` in floats, and not in integers between a pair."""
    neighbours = [*map(graph.producer, node.inputs), *graph.consumers(node.output)]
    return not any(n and n.op_type in ("DequantizeLinear", "QuantizeLinear") for n in neighbours)
