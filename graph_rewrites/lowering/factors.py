"""Constant factors for each channel: the way back through batch normalisation."""

from __future__ import annotations

from graph_rewrites.emit import Emitter
from graph_rewrites.graph import Graph
from graph_rewrites.lowering.constants import is_fixed, is_zero
from graph_rewrites.lowering.pattern import pattern
from graph_rewrites.node import Node


@pattern("Mul")
def factor_before_mask(op: Emitter, node: Node) -> str | None:
    """A product factor · Where(mask, ct, 0) -> Where(mask, factor · ct, 0), behind a convolution.

    There the runtime folds the factor into the convolution's weight (normalisation before the
    ReLU, as in DenseNet-121: 60 depthwise convolutions less).
    """
    for masked, factor in (node.inputs, node.inputs[::-1]):
        where = op.graph.producer(masked)
        if where is None or where.op_type != "Where" or len(op.graph.consumers(masked)) > 1:
            continue
        condition, ct, other = where.inputs
        writer = op.graph.producer(ct)
        if writer is None or writer.op_type not in ("Conv", "ConvTranspose"):
            continue
        if is_zero(op.graph, other) and _is_per_channel(op.graph, factor):
            scaled = op.typed(op.Mul(ct, factor), op.shape(ct))
            return str(op.Where(condition, scaled, other))
    return None


@pattern("ConvTranspose")
def factor_in_weight(op: Emitter, node: Node) -> str | None:
    """ConvTranspose of factor · ct -> ConvTranspose of ct, its weight times factor.

    One pass over the cotangents less (normalisation behind the convolution); the runtime computes
    that weight once, when it loads the model.
    """
    ct, w, *bias = node.inputs
    product = op.graph.producer(ct)
    if product is None or product.op_type != "Mul" or not is_fixed(op.graph, w):
        return None
    weight = op.graph.known_shape(w)
    for x, factor in (product.inputs, product.inputs[::-1]):
        shape = op.shape(factor)
        if shape is None or shape[:1] != weight[:1] or not _is_per_channel(op.graph, factor):
            continue
        column = op.Reshape(factor, [-1] + [1] * (len(weight) - 1))
        scaled = op.typed(op.Mul(w, column), weight)
        attributes = {name: node.attr(name) for name in node.attributes}
        return str(op.ConvTranspose(x, scaled, *bias, **attributes))
    return None


def _is_per_channel(graph: Graph, tensor: str) -> bool:
    """Whether `tensor` is fixed, of shape (C, 1, …)."""
    shape = graph.shape(tensor) or ()
    return len(shape) > 1 and all(dim == 1 for dim in shape[1:]) and is_fixed(graph, tensor)
