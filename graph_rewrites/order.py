"""A stable, iterative topological sort."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from graph_rewrites.errors import ModelError
from graph_rewrites.node import Node


def topological(nodes: Sequence[Node]) -> list[Node]:
    """Return `nodes` so that producers precede consumers, otherwise in the order given.

    Tensors captured by subgraphs count as inputs. Kahn's algorithm with a heap on the present
    position: a list that is sorted already comes back as it is.

    Raises:
        ModelError: the nodes form a cycle.
    """
    producer = {name: i for i, node in enumerate(nodes) for name in node.outputs if name}
    waiting = []
    readers: dict[int, list[int]] = {}
    for i, node in enumerate(nodes):
        sources = {producer[n] for n in (*node.inputs, *node.captures) if n in producer}
        waiting.append(len(sources))
        for source in sources:
            readers.setdefault(source, []).append(i)
    ready = [i for i, count in enumerate(waiting) if not count]
    order = []
    while ready:
        i = heapq.heappop(ready)
        order.append(nodes[i])
        for reader in readers.get(i, ()):
            waiting[reader] -= 1
            if not waiting[reader]:
                heapq.heappush(ready, reader)
    if len(order) != len(nodes):
        stuck = next(node for node, count in zip(nodes, waiting, strict=True) if count)
        raise ModelError(f"the graph has a cycle through {stuck}; it is no valid ONNX model")
    return order
