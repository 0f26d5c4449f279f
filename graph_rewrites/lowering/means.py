"""Means over the positions of a cotangent: the weights of Grad-CAM.

A mean is linear, and so is all that goes back. What spreads a cotangent over the positions need not
be done where nothing but their mean is read.
"""

from __future__ import annotations

from math import prod

import numpy as np

from graph_rewrites.emit import Emitter
from graph_rewrites.graph import Graph
from graph_rewrites.lowering.pattern import pattern
from graph_rewrites.lowering.pooling import Unpooling
from graph_rewrites.node import Node
from graph_rewrites.shapes import is_static, static_dims
from graph_rewrites.weights import is_at_hand
from graph_rewrites.windows import Window


@pattern("ReduceMean")
def mean_of_unpooled(op: Emitter, node: Node) -> str | None:
    """Mean over all positions of what a max-pool puts back -> of what it was given, in proportion.

    Each cotangent is put back at one position, so that their sum stays: the pool need not find out
    where, nor is anything put back. Dilated windows are left: one may hold nothing but padding.
    """
    found, axes = Unpooling.of(op.graph, node.input(0)), _axes(op.graph, node)
    if found is None or not axes:
        return None
    shapes = [op.shape(name) for name in (found.ct, found.x)]
    window = Window.of(found.pool)
    if axes != window.axes or window.extents != window.kernel:
        return None
    if not all(shape and is_static(shape) for shape in shapes):
        return None
    before, after = (prod(static_dims(op.graph, x, axes)) for x in (found.ct, found.x))
    return str(op.Mul(op.ReduceMean(found.ct, axes, keepdims=1), before / after))


@pattern("ReduceMean")
def mean_in_weight(op: Emitter, node: Node) -> str | None:
    """Mean over positions of ct · W, rows that are pictures -> ct times the means in W's rows.

    Under a classifier on flattened features, the way back would read its weight whole, for one
    number of each channel: VGG-16's first dense layer has 411 MB, and its means 8.
    """
    axes, result = _axes(op.graph, node), op.shape(node.output)
    chain = _chain(op.graph, node.input(0))
    if not axes or not chain or result is None or not is_static(result):
        return None
    product, *layout = chain
    rows = _matrix(op.graph, product)
    if rows is None or not _is_plain_product(op.graph, product):
        return None
    for each in layout:
        if each.op_type == "Transpose":
            rows = rows.transpose(each.attr("perm"))
        else:
            rows = rows.reshape(len(rows), *op.graph.known_shape(each.output)[1:])
    means = rows.mean(tuple(axes), dtype=np.float64).astype(rows.dtype)
    return str(op.Reshape(op.MatMul(product.input(0), means.reshape(len(rows), -1)), list(result)))


def _chain(graph: Graph, tensor: str) -> list[Node]:
    """A product of rows, then what lays each row out as a picture; [] where that is not so."""
    chain: list[Node] = []
    while True:
        node, shape = graph.producer(tensor), graph.shape(tensor)
        if node is None or shape is None or not is_static(shape):
            return []
        if len(graph.consumers(tensor)) > 1 or tensor in graph.outputs:
            return []
        chain.insert(0, node)
        if node.op_type in ("Gemm", "MatMul"):
            return chain
        row_by_row = (graph.shape(node.input(0)) or (None,))[0] == shape[0]
        turned = node.op_type == "Transpose" and (node.attr("perm") or [1])[0] == 0
        if not (turned or (node.op_type == "Reshape" and row_by_row)):
            return []
        tensor = node.input(0)


def _matrix(graph: Graph, product: Node) -> np.ndarray | None:
    """The second factor, (K, N); None where it is not fixed."""
    name, turned = product.input(1), product.attr("transB", 0) == 1
    writer = graph.producer(name)
    if writer is not None and writer.op_type == "Transpose" and writer.attr("perm") == [1, 0]:
        name, turned = writer.input(0), not turned
    if name not in graph.initializers or not is_at_hand(graph.bulk(name)):
        return None
    weight = graph.constant(name)
    return weight.T if weight is not None and turned else weight


def _is_plain_product(graph: Graph, node: Node) -> bool:
    """Whether `node` is rows times a matrix, nothing added and nothing scaled."""
    two = all(len(graph.shape(name) or ()) == 2 for name in node.inputs[:2])
    scaled = node.attr("alpha", 1.0) != 1.0 or node.attr("transA", 0)
    return two and len(node.inputs) == 2 and not scaled


def _axes(graph: Graph, node: Node) -> list[int]:
    """The axes of a mean that keeps them, behind the first; [] for others."""
    shape, axes = graph.shape(node.input(0)), graph.constant(node.input(1))
    if shape is None or axes is None or not node.attr("keepdims", 1):
        return []
    found = sorted((axes % len(shape)).tolist())
    return found if found and found[0] > 0 else []
