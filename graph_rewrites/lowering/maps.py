"""Maps of a layer, on their way to the size of the picture."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from graph_rewrites.emit import Emitter
from graph_rewrites.lowering.pattern import pattern
from graph_rewrites.node import Node
from graph_rewrites.shapes import is_static, static_dims

_FEW = 16  # positions: beyond, the products are more work than the operator


@pattern("Resize")
def small_map(op: Emitter, node: Node) -> str | None:
    """Bilinear Resize of a small map -> products with the weights of its rows and columns.

    The operator takes as long for one map of 7×7 as a convolution of MobileNetV2's last stage.
    """
    before, after = op.shape(node.input(0)), op.shape(node.output)
    if before is None or after is None or len(before) != 4 or before[:2] != after[:2]:
        return None
    if not (is_static(before) and is_static(after)):
        return None
    small, large = (static_dims(op.graph, x, [2, 3]) for x in (node.input(0), node.output))
    if max(small) > _FEW:
        return None
    attributes = {name: node.attr(name) for name in node.attributes}
    mode = attributes.pop("mode", None), attributes.pop("coordinate_transformation_mode", None)
    if mode != ("linear", "half_pixel") or set(attributes) - {"axes"} or not node.input(3):
        return None
    if op.graph.type(node.input(0)).elem_type != TensorProto.FLOAT:
        return None
    rows, columns = map(_weights, small, large)
    return str(op.MatMul(op.MatMul(rows, node.input(0)), columns.T))


def _weights(before: int, after: int) -> np.ndarray:
    """Linear interpolation between the middles of `before` positions, (after, before)."""
    places = (np.arange(after) + 0.5) * before / after - 0.5
    columns = [np.interp(places, range(before), unit) for unit in np.eye(before)]
    return np.stack(columns, axis=1).astype(np.float32)
