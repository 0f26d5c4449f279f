"""Products in float16, for tensor cores: an option of the CUDA provider."""

from __future__ import annotations

from onnx import TensorProto

from graph_rewrites.emit import Emitter
from graph_rewrites.lowering.constants import is_fixed
from graph_rewrites.lowering.pattern import pattern
from graph_rewrites.node import Node
from graph_rewrites.stamps import is_original

_SCALE = 2.0**10  # of cotangents: float16 holds nothing below 6e-8, and little below 6e-5


@pattern("Conv", "ConvTranspose", "Gemm", "MatMul", everywhere=True)
def half_product(op: Emitter, node: Node) -> str | None:
    """A product with a fixed weight -> the same in float16, between two Casts.

    Everything else, sums, masks and maps, stays in float32. Cotangents are scaled by a power of
    two on the way in and back on the way out, which is exact, so that they do not vanish. Not
    measured yet: no GPU was at hand.
    """
    x, weight, *added = node.inputs
    if is_fixed(op.graph, x) or not is_fixed(op.graph, weight):
        return None
    if op.graph.type(x).elem_type != TensorProto.FLOAT:
        return None
    scaled = not is_original(node)
    if scaled:
        x = op.Mul(x, _SCALE)
        added = [op.Mul(each, _SCALE) if each else "" for each in added]
    halves = [op.Cast(each, to=TensorProto.FLOAT16) if each else "" for each in (x, weight, *added)]
    attributes = {name: node.attr(name) for name in node.attributes}
    product = getattr(op, node.op_type)(*halves, **attributes)
    result = op.Cast(product, to=TensorProto.FLOAT)
    return str(op.Mul(result, 1 / _SCALE) if scaled else result)
