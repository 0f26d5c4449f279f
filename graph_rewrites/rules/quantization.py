"""Cast, QuantizeLinear and DequantizeLinear: the straight-through estimator.

Rounding has a zero derivative almost everywhere; what people mean by the gradient of a quantised
network is the gradient of the function that it approximates (Bengio et al. 2013, arXiv 1308.3432).
So the cotangent passes unchanged, saturated elements included: a mask there would blank the black
and the white pixels of a picture. A QuantizeLinear that is a folded ReLU is no business of this
file but of `relu`.
"""

from __future__ import annotations

from graph_rewrites.emit import Emitter
from graph_rewrites.errors import UnsupportedOperatorError
from graph_rewrites.node import Node
from graph_rewrites.quantized import is_raw, quantizer
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
    q = node.input(0)
    dq = op.Mul(ct, _along(op, node, q)) if is_raw(op.graph, q) else ct
    return [dq, *(None for _ in node.inputs[1:])]


@vjp("Cast")
def cast_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """X -> x in another type: cotangents are float32 throughout, so nothing changes.

    But integers that a QuantizeLinear made count its steps, and their cotangent is that of the
    dequantised value: it is divided by the scale.
    """
    (ct,), (x,) = cts, node.inputs
    source = quantizer(op.graph, x) if not op.graph.is_float(x) else None
    return [ct if source is None else op.Div(ct, _along(op, source, x))]


def _along(op: Emitter, node: Node, tensor: str) -> str:
    """The scale of the (de)quantising `node`, in a shape that broadcasts over the integers.

    Raises:
        UnsupportedOperatorError: there are several, and along no axis of `tensor` alone.
    """
    scale, shape = node.input(1), op.shape(node.input(1))
    if shape in ((), (1,)):
        return scale
    rank = len(op.shape(tensor) or ())
    if shape is None or len(shape) != 1 or tensor not in (node.input(0), node.output):
        raise UnsupportedOperatorError(
            f"{node} has scales {scale!r} of shape {shape}, which its integers cannot "
            "be told apart by where they are read; quantise this tensor with one scale"
        )
    axis = node.attr("axis", 1) % rank
    return str(op.Reshape(scale, [-1 if i == axis else 1 for i in range(rank)]))
