"""Where the way back begins: one class of each image."""

from __future__ import annotations

import numpy as np

from graph_rewrites.emit import Emitter
from graph_rewrites.graph import Graph
from graph_rewrites.lowering.constants import is_fixed
from graph_rewrites.lowering.pattern import pattern
from graph_rewrites.node import Node


@pattern("Gemm", "MatMul")
def chosen_row(op: Emitter, node: Node) -> str | None:
    """A product of rows with a single 1 and a dense weight -> Gather of the weight's rows.

    The dense weights are read once, for the scores, and not again for the one class that is
    explained: 4 % of a MobileNetV2's Grad-CAM. A target that names no class takes any row; its map
    is NaN in either form.
    """
    choice, weight, *added = node.inputs
    shape = op.shape(weight) or ()
    turned = node.attr("transA", 0) or node.attr("transB", 0)
    if added or turned or node.attr("alpha", 1.0) != 1.0 or len(shape) != 2:
        return None
    count, index = shape[0], _chosen(op.graph, choice, shape[0])
    if index is None or not isinstance(count, int) or not is_fixed(op.graph, weight):
        return None
    first, last = (op.constant(n, np.int64) for n in (0, count - 1))
    return str(op.Gather(weight, op.Clip(index, first, last), axis=0))


def _chosen(graph: Graph, choice: str, count: object) -> str | None:
    """The index (R,) whose one-hot rows (R, `count`) `choice` holds; None where it holds others."""
    cast = graph.producer(choice)
    equal = graph.producer(cast.input(0)) if cast is not None and cast.op_type == "Cast" else None
    if equal is None or equal.op_type != "Equal":
        return None
    column, classes = graph.producer(equal.input(0)), graph.constant(equal.input(1))
    if column is None or column.op_type != "Unsqueeze" or classes is None:
        return None
    every = classes.ndim == 1 and len(classes) == count and (classes == range(len(classes))).all()
    index = graph.shape(column.input(0))
    return column.input(0) if every and index is not None and len(index) == 1 else None
