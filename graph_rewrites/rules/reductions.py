"""Reductions: what one number was made of gets its cotangent back.

In canonical form the axes are an input: a constant, or a tensor that is known only at run time.
"""

from __future__ import annotations

from math import prod

import numpy as np
from onnx import TensorProto

from graph_rewrites.emit import Emitter
from graph_rewrites.node import Node
from graph_rewrites.rules.table import Cotangents, vjp, zero
from graph_rewrites.shapes import expand_like

INDICES = zero("ArgMax", "ArgMin")
"""Positions, not values: piecewise constant."""

Axes = str | list[int]
"""A tensor's name where the axes are computed; [] where a reduction leaves its input alone."""


@vjp("ReduceSum")
def reduce_sum_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """ReduceSum: Σ x  ->  ct at every term."""
    return _one(node, expand_like(op, _kept(op, node, cts[0]), node.input(0)))


@vjp("ReduceMean")
def reduce_mean_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """ReduceMean: Σ x / n  ->  ct / n at every term."""
    share = op.Div(_kept(op, node, cts[0]), _terms(op, node))
    return _one(node, expand_like(op, share, node.input(0)))


@vjp("ReduceMax", "ReduceMin")
def reduce_max_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """ReduceMax and ReduceMin  ->  ct at the extreme; equal ones share it evenly, as in PyTorch.

    The extreme is taken anew: read behind a quantisation, y equals no element of x.
    """
    (ct,), x = cts, node.input(0)
    axes = _axes(op, node)
    if axes == []:
        return _one(node, ct)
    extreme = getattr(op, node.op_type)(x, axes, keepdims=1)
    wins = op.Cast(op.Equal(x, extreme), to=TensorProto.FLOAT)
    share = op.Div(_kept(op, node, ct), op.ReduceSum(wins, axes, keepdims=1))
    return _one(node, op.Mul(wins, share))


@vjp("ReduceProd")
def reduce_prod_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """ReduceProd: Π x  ->  ct · the product of the other factors, also where some of them are 0."""
    (ct,), x = cts, node.input(0)
    axes = _axes(op, node)
    if axes == []:
        return _one(node, ct)
    is_zero = op.Equal(x, 0.0)
    factors = op.Where(is_zero, 1.0, x)
    others = op.Div(op.ReduceProd(factors, axes, keepdims=1), factors)
    zeros = op.Cast(is_zero, to=TensorProto.FLOAT)
    other_zeros = op.Sub(op.ReduceSum(zeros, axes, keepdims=1), zeros)
    slope = op.Where(op.Greater(other_zeros, 0.0), 0.0, others)
    return _one(node, op.Mul(slope, _kept(op, node, ct)))


@vjp("ReduceL1")
def reduce_l1_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """ReduceL1: Σ |x|  ->  ct · sign(x); 0 at x = 0."""
    return _one(node, op.Mul(op.Sign(node.input(0)), _kept(op, node, cts[0])))


@vjp("ReduceSumSquare")
def reduce_sum_square_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """ReduceSumSquare: Σ x²  ->  2x · ct."""
    return _one(node, op.Mul(op.Mul(2.0, node.input(0)), _kept(op, node, cts[0])))


@vjp("ReduceLogSum")
def reduce_log_sum_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """ReduceLogSum: y = log Σ x  ->  ct / exp(y) at every term."""
    (ct,), (y,) = cts, node.outputs
    share = _kept(op, node, op.Div(ct, op.Exp(y)))
    return _one(node, expand_like(op, share, node.input(0)))


@vjp("ReduceLogSumExp")
def reduce_log_sum_exp_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """ReduceLogSumExp: y = log Σ exp(x)  ->  ct · exp(x - y).

    The least float stands for y = -∞: where every x is -∞, x - y would be NaN.
    """
    (ct,), (y,) = cts, node.outputs
    total = op.Max(_kept(op, node, y), float(np.finfo(np.float32).min))
    return _one(node, op.Mul(op.Exp(op.Sub(node.input(0), total)), _kept(op, node, ct)))


@vjp("ReduceL2")
def reduce_l2_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """ReduceL2: y = √Σx²  ->  x · ct / y; 0 where y = 0, the least of the subgradients there."""
    (ct,), (y,) = cts, node.outputs
    norm = _kept(op, node, y)
    unit = op.Where(op.Greater(norm, 0.0), op.Div(node.input(0), norm), 0.0)
    return _one(node, op.Mul(unit, _kept(op, node, ct)))


def _one(node: Node, dx: str | None) -> Cotangents:
    """The cotangent of x, and none for the axes."""
    return [dx, *(None for _ in node.inputs[1:])]


def _axes(op: Emitter, node: Node) -> Axes:
    """The axes that `node` reduces."""
    axes = node.input(1)
    constant = node.constant(axes)
    if axes and constant is None:
        return axes
    listed = [] if constant is None else [int(axis) for axis in constant.reshape(-1)]
    if listed or node.attr("noop_with_empty_axes", 0):
        return listed
    return list(range(op.rank(node.input(0))))


def _kept(op: Emitter, node: Node, reduced: str | None) -> str:
    """`reduced`, shaped like the output of `node`, with the axes reduced at size 1."""
    assert reduced is not None  # a reduction has one output
    axes = _axes(op, node)
    if axes == [] or node.attr("keepdims", 1):
        return reduced
    return str(op.Unsqueeze(reduced, axes))


def _terms(op: Emitter, node: Node) -> str | float:
    """How many elements of x one element of y was made of."""
    x, (y,) = node.input(0), node.outputs
    axes, shape = _axes(op, node), op.graph.known_shape(x)
    if not isinstance(axes, str):
        sizes = [shape[axis] for axis in axes]
        fixed = [size for size in sizes if isinstance(size, int)]
        if len(fixed) == len(sizes):
            return float(prod(fixed))
    return str(op.Cast(op.Div(op.Size(x), op.Size(y)), to=TensorProto.FLOAT))
