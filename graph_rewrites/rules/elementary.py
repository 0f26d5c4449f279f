"""Trigonometric and hyperbolic functions and their inverses.

Each rule reads whichever of input and output gives the slope at full precision: 1 - x² near x = 1
is (1 - x)(1 + x), whose factors are exact.
"""

from __future__ import annotations

from graph_rewrites.emit import Emitter
from graph_rewrites.node import Node
from graph_rewrites.rules.table import Cotangents, vjp


@vjp("Sin")
def sin_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Sin: sin(x)  ->  ct · cos(x)."""
    (ct,), (x,) = cts, node.inputs
    return [op.Mul(ct, op.Cos(x))]


@vjp("Cos")
def cos_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Cos: cos(x)  ->  -ct · sin(x)."""
    (ct,), (x,) = cts, node.inputs
    return [op.Neg(op.Mul(ct, op.Sin(x)))]


@vjp("Tan")
def tan_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Tan: y = tan(x)  ->  ct · (1 + y²)."""
    (ct,), (y,) = cts, node.outputs
    return [op.Mul(ct, op.Add(1.0, op.Mul(y, y)))]


@vjp("Asin")
def asin_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Asin: arcsin(x)  ->  ct / √(1 - x²); 0 at |x| = 1, where the slope is infinite."""
    (ct,), (x,) = cts, node.inputs
    return [_over_root(op, ct, op.Mul(op.Sub(1.0, x), op.Add(1.0, x)))]


@vjp("Acos")
def acos_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Acos: arccos(x)  ->  -ct / √(1 - x²); 0 at |x| = 1, where the slope is infinite."""
    (ct,), (x,) = cts, node.inputs
    return [op.Neg(_over_root(op, ct, op.Mul(op.Sub(1.0, x), op.Add(1.0, x))))]


@vjp("Atan")
def atan_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Atan: arctan(x)  ->  ct / (1 + x²)."""
    (ct,), (x,) = cts, node.inputs
    return [op.Div(ct, op.Add(1.0, op.Mul(x, x)))]


@vjp("Sinh")
def sinh_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Sinh: sinh(x)  ->  ct · cosh(x)."""
    (ct,), (x,) = cts, node.inputs
    return [op.Mul(ct, op.Cosh(x))]


@vjp("Cosh")
def cosh_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Cosh: cosh(x)  ->  ct · sinh(x)."""
    (ct,), (x,) = cts, node.inputs
    return [op.Mul(ct, op.Sinh(x))]


@vjp("Asinh")
def asinh_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Asinh: arsinh(x)  ->  ct / √(1 + x²)."""
    (ct,), (x,) = cts, node.inputs
    return [op.Div(ct, op.Sqrt(op.Add(1.0, op.Mul(x, x))))]


@vjp("Acosh")
def acosh_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Acosh: arcosh(x)  ->  ct / √(x² - 1); 0 at x = 1, where the slope is infinite."""
    (ct,), (x,) = cts, node.inputs
    return [_over_root(op, ct, op.Mul(op.Sub(x, 1.0), op.Add(x, 1.0)))]


@vjp("Atanh")
def atanh_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Atanh: artanh(x)  ->  ct / (1 - x²)."""
    (ct,), (x,) = cts, node.inputs
    return [op.Div(ct, op.Mul(op.Sub(1.0, x), op.Add(1.0, x)))]


def _over_root(op: Emitter, ct: str | None, square: str) -> str:
    """Ct / √square, 0 where `square` is not positive: an infinite slope times 0 would be NaN."""
    return str(op.Where(op.Greater(square, 0.0), op.Div(ct, op.Sqrt(square)), 0.0))
