"""Remove Identity nodes: their readers read the original."""

from __future__ import annotations

from graph_rewrites.graph import Graph


def remove_identities(graph: Graph) -> None:
    """Remove every Identity, except one that gives a graph output its name.

    One whose result a subgraph captures stays too: captures go by name.
    """
    outputs = set(graph.outputs)
    gone = []
    for node in graph.nodes:
        if node.domain or node.op_type != "Identity" or node.output in outputs:
            continue
        if not any(node.output in reader.captures for reader in graph.consumers(node.output)):
            graph.rewire(node.output, node.input(0))
            gone.append(node)
    graph.remove(gone)
