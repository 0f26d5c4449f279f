"""What the runtime computes once, when it loads a model."""

from __future__ import annotations

from math import prod

from graph_rewrites.graph import Graph

_SMALL = 64  # elements


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


def share_constants(graph: Graph) -> None:
    """Let readers of equal small constants read one of them, in place.

    Sizes that were folded differ in nothing but their names, and hide from the runtime that several
    backward passes compute the same.
    """
    first: dict[tuple[str, tuple[int, ...], bytes], str] = {}
    for name, tensor in list(graph.initializers.items()):
        value = graph.constant(name) if prod(tensor.dims) <= _SMALL else None
        if value is not None and value.dtype.kind in "biuf":
            same = first.setdefault((value.dtype.str, value.shape, value.tobytes()), name)
            if same != name:
                graph.rewire(name, same)


def is_zero(graph: Graph, tensor: str) -> bool:
    """Whether `tensor` is the constant 0."""
    value = graph.constant(tensor)
    return value is not None and value.size == 1 and value.item() == 0.0
