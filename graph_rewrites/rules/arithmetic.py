"""Element-wise arithmetic.

Two inputs of different shapes are broadcast; on the way back each cotangent is summed over the axes
along which its input was. Steps (rounding, signs, comparisons, logic) pass nothing back.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import pi, sqrt

from onnx import TensorProto

from graph_rewrites.emit import Emitter
from graph_rewrites.node import Node
from graph_rewrites.rules.table import Cotangents, vjp, zero
from graph_rewrites.shapes import unbroadcast

STEPS = zero("Floor", "Ceil", "Round", "Sign")
"""Piecewise constant: zero wherever there is a derivative."""

PREDICATES = (
    *zero("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "IsInf", "IsNaN"),
    *zero("And", "Or", "Xor", "Not"),
)
"""Their outputs are booleans: piecewise constant too."""


@vjp("Add", "Sum")
def add_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Add and Sum: a + b + …  ->  ct for every term."""
    (ct,) = cts
    return _unbroadcast_each(op, node, [ct for _ in node.inputs])


@vjp("Sub")
def sub_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Sub: a - b  ->  da = ct, db = -ct."""
    (ct,) = cts
    return _unbroadcast_each(op, node, [ct, op.Neg(ct)])


@vjp("Mul")
def mul_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Mul: a · b  ->  da = ct · b, db = ct · a."""
    (ct,), (a, b) = cts, node.inputs
    return _unbroadcast_each(op, node, [op.Mul(ct, b), op.Mul(ct, a)])


@vjp("Div")
def div_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Div: y = a / b  ->  da = ct / b, db = -ct · y / b."""
    (ct,), (_, b), (y,) = cts, node.inputs, node.outputs
    da = op.Div(ct, b)
    return _unbroadcast_each(op, node, [da, op.Neg(op.Mul(da, y))])


@vjp("Mod")
def mod_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Mod: a - k·b, k whole  ->  da = ct; b has no cotangent, as ONNX declares."""
    (ct,) = cts
    return _unbroadcast_each(op, node, [ct, None])


@vjp("Neg")
def neg_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Neg: -x  ->  -ct."""
    return [op.Neg(cts[0])]


@vjp("Abs")
def abs_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Abs: |x|  ->  ct · sign(x); 0 at x = 0."""
    (ct,), (x,) = cts, node.inputs
    return [op.Mul(ct, op.Sign(x))]


@vjp("Exp")
def exp_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Exp: y = exp(x)  ->  ct · y."""
    (ct,), (y,) = cts, node.outputs
    return [op.Mul(ct, y)]


@vjp("Log")
def log_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Log: log(x)  ->  ct / x."""
    (ct,), (x,) = cts, node.inputs
    return [op.Div(ct, x)]


@vjp("Sqrt")
def sqrt_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Sqrt: y = √x  ->  ct / 2y; 0 at x = 0, where the slope is infinite and 0 · ∞ would be NaN."""
    (ct,), (y,) = cts, node.outputs
    return [op.Where(op.Greater(y, 0.0), op.Div(ct, op.Mul(2.0, y)), 0.0)]


@vjp("Reciprocal")
def reciprocal_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Reciprocal: y = 1 / x  ->  -ct · y²."""
    (ct,), (y,) = cts, node.outputs
    return [op.Neg(op.Mul(ct, op.Mul(y, y)))]


@vjp("Pow")
def pow_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Pow: y = x^p  ->  dx = ct · p · x^(p-1), dp = ct · y · log(x).

    dx is 0 where x = 0 and p < 1 (an infinite slope, or 0 · ∞ for p = 0); dp is 0 where x ≤ 0. An
    integer p has no cotangent.
    """
    (ct,), (x, p), (y,) = cts, node.inputs, node.outputs
    learnt = op.graph.is_float(p)
    p = p if learnt else op.Cast(p, to=TensorProto.FLOAT)
    slope = op.Mul(p, op.Pow(x, op.Sub(p, 1.0)))
    pole = op.And(op.Equal(x, 0.0), op.Less(p, 1.0))
    dx = op.Mul(ct, op.Where(pole, 0.0, slope))
    dp = op.Mul(ct, op.Where(op.Greater(x, 0.0), op.Mul(y, op.Log(x)), 0.0)) if learnt else None
    return _unbroadcast_each(op, node, [dx, dp])


@vjp("Mean")
def mean_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Mean: (a + b + …) / n  ->  ct / n for every term."""
    share = op.Mul(cts[0], 1.0 / len(node.inputs))
    return _unbroadcast_each(op, node, [share for _ in node.inputs])


@vjp("Max", "Min")
def max_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Max and Min: y = max(a, b, …)  ->  ct for the largest; equal ones share it evenly.

    An even split is a subgradient and treats equal inputs alike, as the runtime's training build
    does. The extreme is taken anew: read behind a quantisation, y equals none of the inputs.
    """
    (ct,) = cts
    y = getattr(op, node.op_type)(*node.inputs)
    wins = [op.Cast(op.Equal(x, y), to=TensorProto.FLOAT) for x in node.inputs]
    share = op.Div(ct, op.Sum(*wins))
    return _unbroadcast_each(op, node, [op.Mul(share, win) for win in wins])


@vjp("Where")
def where_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Where: c ? a : b  ->  da = c ? ct : 0, db = c ? 0 : ct."""
    (ct,), (c, _, _) = cts, node.inputs
    return _unbroadcast_each(op, node, [None, op.Where(c, ct, 0.0), op.Where(c, 0.0, ct)])


@vjp("Erf")
def erf_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Erf: erf(x)  ->  ct · 2/√π · exp(-x²)."""
    (ct,), (x,) = cts, node.inputs
    return [op.Mul(ct, op.Mul(2.0 / sqrt(pi), op.Exp(op.Neg(op.Mul(x, x)))))]


def _unbroadcast_each(op: Emitter, node: Node, cts: Sequence[str | None]) -> Cotangents:
    """Bring cotangents, shaped like the output, to the shapes of their inputs."""
    return [
        None if ct is None else unbroadcast(op, ct, x, node.output)
        for ct, x in zip(cts, node.inputs, strict=True)
    ]
