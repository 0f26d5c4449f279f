"""Pools on the way back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graph_rewrites.emit import Emitter
from graph_rewrites.graph import Graph
from graph_rewrites.lowering.constants import is_zero
from graph_rewrites.lowering.pattern import pattern
from graph_rewrites.node import Node
from graph_rewrites.rules.pooling import put_back_at
from graph_rewrites.shapes import is_static
from graph_rewrites.stamps import is_original
from graph_rewrites.windows import Window


@pattern("Where")
def mask_before_unpooling(op: Emitter, node: Node) -> str | None:
    """The mask of a ReLU under a max-pool -> the same mask of the pooled values.

    What a max-pool puts back lies where the pooled value came from, so that the mask may read the
    pooled values, before anything is put back: a quarter of the elements, and still in blocked
    layout. Several cotangents at one place pass together or not at all.
    """
    condition, ct, other = node.inputs
    compare, found = op.graph.producer(condition), Unpooling.of(op.graph, ct)
    if compare is None or compare.op_type != "Greater" or found is None:
        return None
    if compare.input(0) != found.x or len(op.graph.consumers(ct)) > 1:
        return None
    if not is_zero(op.graph, other):
        return None
    attributes = {name: found.pool.attr(name) for name in found.pool.attributes}
    pooled = op.MaxPool(found.x, **attributes)
    op.typed(pooled, op.shape(found.ct))
    masked = op.Where(op.Greater(pooled, compare.input(1)), found.ct, other)
    return put_back_at(op, masked, found.indices, found.x)


@pattern("Reshape")
def unpooling(op: Emitter, node: Node) -> str | None:
    """ScatterElements of a max-pool whose windows do not overlap -> MaxUnpool.

    Every position gets one cotangent at most, so that nothing needs to be added up: a fifth of the
    time of ScatterElements.
    """
    found = Unpooling.of(op.graph, node.output)
    if found is None:
        return None
    window, like, windows = Window.of(found.pool), op.shape(found.x), op.shape(found.ct)
    if any(e > s for e, s in zip(window.extents, window.strides, strict=True)):
        return None
    if like is None or windows is None or not is_static(like) or not is_static(windows):
        return None
    # Where the shape that MaxUnpool assumes is not that of x, it is told, and no reader knows it.
    covered = [
        (int(n) - 1) * s + k
        for n, s, k in zip(windows[2:], window.strides, window.kernel, strict=True)
        if isinstance(n, int)
    ]
    sizes = [n for n in like[2:] if isinstance(n, int)]
    if any(c > n for c, n in zip(covered, sizes, strict=True)):
        return None  # windows reach beyond x, and MaxUnpool makes nothing smaller than they cover
    told = covered != sizes or window.padded
    size = op.constant(like, np.int64) if told else None
    strides = list(window.strides)
    kernel = list(window.kernel)
    full = op.MaxUnpool(found.ct, found.indices, size, kernel_shape=kernel, strides=strides)
    return str(op.Reshape(full, list(like)) if told else full)


@dataclass(frozen=True)
class Unpooling:
    """What the rule of MaxPool emitted.

    Attributes:
        pool: the MaxPool that makes the indices.
        x: its input.
        indices: where each window's maximum lies.
        ct: the cotangent that is put back there.
    """

    pool: Node
    x: str
    indices: str
    ct: str

    @classmethod
    def of(cls, graph: Graph, tensor: str) -> Unpooling | None:
        """The unpooling that computes `tensor`; None where something else does."""
        chain = _writers(graph, tensor, "Reshape", "ScatterElements")
        if not chain or is_original(chain[1]) or chain[1].attr("reduction") != "add":
            return None  # the network's own adds to what it likes, not to zeros
        _, indices, cts = chain[1].inputs
        pool, flat = _writers(graph, indices, "Reshape", "MaxPool"), _writers(graph, cts, "Reshape")
        if not pool or not flat or pool[1].outputs[1:] != (pool[0].input(0),):
            return None
        return cls(pool[1], pool[1].input(0), pool[1].outputs[1], flat[0].input(0))


def _writers(graph: Graph, tensor: str, *op_types: str) -> list[Node]:
    """The chain of `op_types` that ends in `tensor`, the last first, along first inputs; or []."""
    chain: list[Node] = []
    for op_type in op_types:
        node = graph.producer(tensor)
        if node is None or node.op_type != op_type:
            return []
        chain.append(node)
        tensor = node.input(0)
    return chain
