"""Smooth, leaky and thresholded activations, and the softmax.

ReLUs are in `relu`: only they change with the ReLU rule. The rules here are derivatives, and
`other_activations` decides what becomes of a negative result. Where the slope is a function of the
output they read the output, so that the activation stays fused with the convolution before it.
"""

from __future__ import annotations

from math import pi, sqrt

from graph_rewrites.emit import Emitter
from graph_rewrites.node import Node
from graph_rewrites.rules.table import Cotangents, vjp, zero
from graph_rewrites.shapes import unbroadcast

CHOICES = zero("Hardmax")
"""One-hot: piecewise constant."""


@vjp("Sigmoid", activation=True)
def sigmoid_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Sigmoid: y = 1 / (1 + exp(-x))  ->  ct · y · (1 - y)."""
    (ct,), (y,) = cts, node.outputs
    return [op.Mul(ct, op.Mul(y, op.Sub(1.0, y)))]


@vjp("Tanh", activation=True)
def tanh_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Tanh: y = tanh(x)  ->  ct · (1 - y²)."""
    (ct,), (y,) = cts, node.outputs
    return [op.Mul(ct, op.Sub(1.0, op.Mul(y, y)))]


@vjp("Softplus", activation=True)
def softplus_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Softplus: log(1 + exp(x))  ->  ct · sigmoid(x)."""
    (ct,), (x,) = cts, node.inputs
    return [op.Mul(ct, op.Sigmoid(x))]


@vjp("Softsign", activation=True)
def softsign_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Softsign: x / (1 + |x|)  ->  ct / (1 + |x|)²."""
    (ct,), (x,) = cts, node.inputs
    root = op.Add(1.0, op.Abs(x))
    return [op.Div(ct, op.Mul(root, root))]


@vjp("Mish", activation=True)
def mish_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Mish: x · t, t = tanh(softplus(x))  ->  ct · (t + x · (1 - t²) · sigmoid(x)).

    Misra 2019, arXiv 1908.08681.
    """
    (ct,), (x,) = cts, node.inputs
    t = op.Tanh(op.Softplus(x))
    dt = op.Mul(op.Sub(1.0, op.Mul(t, t)), op.Sigmoid(x))
    return [op.Mul(ct, op.Add(t, op.Mul(x, dt)))]


@vjp("LeakyRelu", activation=True)
def leaky_relu_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """LeakyRelu: x > 0 ? x : α·x  ->  x > 0 ? ct : α·ct; the slope at 0 is α."""
    (ct,), alpha = cts, node.attr("alpha", 0.01)
    return [op.Where(_positive(op, node, alpha), ct, op.Mul(alpha, ct))]


@vjp("PRelu", activation=True)
def prelu_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """PRelu: x > 0 ? x : s·x  ->  dx = x > 0 ? ct : s·ct, ds = x > 0 ? 0 : x·ct.

    The slope at 0 is s. The mask reads x: s may be negative, and then the output does not tell.
    """
    (ct,), (x, slope), (y,) = cts, node.inputs, node.outputs
    positive = op.Greater(x, 0.0)
    dslope = op.Where(positive, 0.0, op.Mul(ct, x))
    return [op.Where(positive, ct, op.Mul(ct, slope)), unbroadcast(op, dslope, slope, y)]


@vjp("Elu", activation=True)
def elu_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Elu: y = x > 0 ? x : α·(exp(x) - 1)  ->  x > 0 ? ct : ct · (y + α); the slope at 0 is α."""
    (ct,), (y,), alpha = cts, node.outputs, node.attr("alpha", 1.0)
    return [op.Where(_positive(op, node, alpha), ct, op.Mul(ct, op.Add(y, alpha)))]


@vjp("Selu", activation=True)
def selu_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Selu: y = γ · (x > 0 ? x : α·(exp(x) - 1))  ->  x > 0 ? γ·ct : ct · (y + γα).

    Klambauer et al. 2017, arXiv 1706.02515. The slope at 0 is γα.
    """
    (ct,), (x,), (y,) = cts, node.inputs, node.outputs
    alpha = node.attr("alpha", 1.6732632)
    gamma = node.attr("gamma", 1.050701)
    positive = op.Greater(y if alpha >= 0 and gamma > 0 else x, 0.0)
    return [op.Mul(ct, op.Where(positive, gamma, op.Add(y, op.Mul(gamma, alpha))))]


@vjp("Celu", activation=True)
def celu_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Celu: y = x > 0 ? x : α·(exp(x/α) - 1)  ->  x > 0 ? ct : ct · (y/α + 1).

    Barron 2017, arXiv 1704.07483. y has the sign of x for every α.
    """
    (ct,), (y,), alpha = cts, node.outputs, node.attr("alpha", 1.0)
    slope = op.Add(op.Div(y, alpha), 1.0)
    return [op.Mul(ct, op.Where(op.Greater(y, 0.0), 1.0, slope))]


@vjp("ThresholdedRelu", activation=True)
def thresholded_relu_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """ThresholdedRelu: x > α ? x : 0  ->  x > α ? ct : 0."""
    (ct,), (x,), (y,), alpha = cts, node.inputs, node.outputs, node.attr("alpha", 1.0)
    passed = op.Greater(y, 0.0) if alpha >= 0 else op.Greater(x, alpha)
    return [op.Where(passed, ct, 0.0)]


@vjp("Shrink", activation=True)
def shrink_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Shrink: x < -λ ? x + bias : x > λ ? x - bias : 0  ->  |x| > λ ? ct : 0."""
    (ct,), (x,) = cts, node.inputs
    return [op.Where(op.Greater(op.Abs(x), node.attr("lambd", 0.5)), ct, 0.0)]


@vjp("HardSigmoid", activation=True)
def hard_sigmoid_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """HardSigmoid: y = clamp(α·x + β, 0, 1)  ->  α·ct where 0 < y < 1."""
    (ct,), (y,) = cts, node.outputs
    inside = op.And(op.Greater(y, 0.0), op.Less(y, 1.0))
    return [op.Where(inside, op.Mul(node.attr("alpha", 0.2), ct), 0.0)]


@vjp("HardSwish", activation=True)
def hard_swish_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """HardSwish: x · clamp(x/6 + 1/2, 0, 1)  ->  x ≤ -3 ? 0 : x < 3 ? ct·(x/3 + 1/2) : ct."""
    (ct,), (x,) = cts, node.inputs
    ramp = op.Add(op.Mul(x, 1.0 / 3.0), 0.5)
    slope = op.Where(op.Less(x, 3.0), op.Where(op.Greater(x, -3.0), ramp, 0.0), 1.0)
    return [op.Mul(ct, slope)]


@vjp("Gelu", activation=True)
def gelu_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Gelu: x · Φ(x)  ->  ct · (Φ(x) + x · φ(x)), Φ the normal distribution and φ its density.

    With `approximate="tanh"` Φ and φ are those of Hendrycks & Gimpel 2016, arXiv 1606.08415:
    Φ(x) = (1 + tanh u) / 2 with u = √(2/π) · (x + 0.044715 x³).
    """
    (ct,), (x,) = cts, node.inputs
    if node.attr("approximate", "none") == "tanh":
        c, k, square = sqrt(2.0 / pi), 0.044715, op.Mul(x, x)
        t = op.Tanh(op.Mul(x, op.Add(c, op.Mul(c * k, square))))
        du = op.Add(c, op.Mul(3.0 * c * k, square))
        density = op.Mul(0.5, op.Mul(op.Sub(1.0, op.Mul(t, t)), du))
        below = op.Mul(0.5, op.Add(1.0, t))
    else:
        below = op.Mul(0.5, op.Add(1.0, op.Erf(op.Mul(x, sqrt(0.5)))))
        density = op.Mul(1.0 / sqrt(2.0 * pi), op.Exp(op.Mul(-0.5, op.Mul(x, x))))
    return [op.Mul(ct, op.Add(below, op.Mul(x, density)))]


@vjp("Softmax")
def softmax_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Softmax: y = softmax(x) along `axis`  ->  y · (ct - Σ ct·y)."""
    (ct,), (y,) = cts, node.outputs
    weighted = op.ReduceSum(op.Mul(ct, y), [node.attr("axis", -1)], keepdims=1)
    return [op.Mul(y, op.Sub(ct, weighted))]


@vjp("LogSoftmax")
def log_softmax_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """LogSoftmax: y = x - log Σ exp(x) along `axis`  ->  ct - exp(y) · Σ ct."""
    (ct,), (y,) = cts, node.outputs
    total = op.ReduceSum(ct, [node.attr("axis", -1)], keepdims=1)
    return [op.Sub(ct, op.Mul(op.Exp(y), total))]


def _positive(op: Emitter, node: Node, alpha: float) -> str:
    """[x > 0], read off the output unless a negative `alpha` makes both branches positive."""
    return str(op.Greater(node.output if alpha >= 0 else node.input(0), 0.0))
