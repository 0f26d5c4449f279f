"""Cast, QuantizeLinear and DequantizeLinear: the straight-through estimator.

Rounding has a zero derivative almost everywhere; what people mean by the gradient of a quantised
network is the gradient of the function that it approximates (Bengio et al. 2013, arXiv 1308.3432).
So the cotangent passes unchanged, saturated elements included: a mask there would blank the black
and the white pixels of a picture. A QuantizeLinear that is a folded ReLU is no business of this
file but of `relu`.
"""

from __future__ import annotations

from graph_rewrites.emit import Emitter
from graph_rewrites.node import Node
from graph_rewrites.quantized import is_raw
from graph_rewrites.rules.table import Cotangents, vjp, zero

SCALES = zero("DynamicQuantizeLinear")
"""How a picture's own range becomes a scale counts as constant: canonical form takes from it the
scale and the zero point only, never the integers."""


@vjp("QuantizeLinear")
def quantize_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """X -> round(x / scale) + zero_point. Integers carry the cotangent of what they stand for."""
    del op
    return [cts[0], *(None for _ in node.inputs[1:])]


@vjp("DequantizeLinear")
def dequantize_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Q -> scale · (q - zero_point).

    Where q is the integer picture itself the derivative is per step of that picture, so the scale
    is multiplied in; where q comes from a QuantizeLinear its cotangent is the dequantised value's.
    """
    (ct,) = cts
    q, scale, *_ = node.inputs
    rest = [None for _ in node.inputs[1:]]
    if not is_raw(op.graph, q):
        return [ct, *rest]
    if op.shape(scale) not in ((), (1,)):  # one scale per channel
        rank = len(op.shape(q) or ())
        axis = node.attr("axis", 1) % rank
        scale = op.Reshape(scale, [-1 if i == axis else 1 for i in range(rank)])
    return [op.Mul(ct, scale), *rest]


@vjp("Cast")
def cast_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Cotangents are float32 throughout, so a change of type changes nothing."""
    del op
    return [cts[0], *(None for _ in node.inputs[1:])]
