"""What the runtime computes once, when it loads a model."""

from __future__ import annotations

from graph_rewrites.graph import Graph


def is_fixed(graph: Graph, tensor: str) -> bool:
    """Whether `tensor` is computed from initializers alone."""
    pending = [tensor]
    while pending:
        name = pending.pop()
        if name and name not in graph.initializers:
            writer = graph.producer(name)
            if writer is None:
                return False
            pending.extend((*writer.inputs, *writer.captures))
    return True


def is_zero(graph: Graph, tensor: str) -> bool:
    """Whether `tensor` is the constant 0."""
    value = graph.constant(tensor)
    return value is not None and value.size == 1 and value.item() == 0.0
