"""Operators that take elements from somewhere, or put them there.

What was taken goes back to where it came from, and adds up where it was taken twice. Where no
operator does the reverse, the forward operator itself tells the way: it is applied to the
positions of x's elements.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from graph_rewrites.emit import Emitter
from graph_rewrites.node import Node
from graph_rewrites.rules.table import Cotangents, vjp
from graph_rewrites.shapes import reshape_like


@vjp("Gather")
def gather_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Gather: x[…, indices, …] along `axis`  ->  ct added up where it was taken from."""
    (ct,), (x, indices) = filter(None, cts), node.inputs
    taken = op.Gather(positions(op, x), indices, axis=node.attr("axis", 0))
    return [put_back(op, ct, taken, x), None]


@vjp("GatherElements")
def gather_elements_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """GatherElements: x[…, indices[…], …] along `axis`  ->  ct added up at the indices."""
    (ct,), (x, indices) = cts, node.inputs
    return [_scattered(op, ct, indices, x, node.attr("axis", 0)), None]


@vjp("GatherND")
def gather_nd_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """GatherND: x[indices[i]] for each i  ->  ct added up where it was taken from."""
    (ct,), (x, indices) = filter(None, cts), node.inputs
    taken = op.GatherND(positions(op, x), indices, batch_dims=node.attr("batch_dims", 0))
    return [put_back(op, ct, taken, x), None]


@vjp("Compress")
def compress_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Compress: the slices of x where a condition holds  ->  ct put back there."""
    (ct,), (x, condition) = filter(None, cts), node.inputs
    axis = node.attr("axis")
    given = {} if axis is None else {"axis": axis}
    return [put_back(op, ct, op.Compress(positions(op, x), condition, **given), x), None]


@vjp("TopK")
def top_k_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """TopK: the k largest or smallest along `axis`  ->  ct put back where they are."""
    x, (_, indices) = node.input(0), node.outputs
    return [_scattered(op, cts[0], indices, x, node.attr("axis", -1)), None]


@vjp("ScatterElements")
def scatter_elements_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """ScatterElements: x with updates put in  ->  ct without and at the indices.

    Of updates that are multiplied or compete see `_joined_vjp`.
    """
    (ct,), (x, indices, updates) = cts, node.inputs
    axis, reduction = node.attr("axis", 0), node.attr("reduction", "none")
    if reduction not in ("none", "add"):
        at = op.GatherElements(positions(op, x), indices, axis=axis)
        dx, taken = _joined_vjp(op, node, ct, at)
        return [dx, None, taken]
    taken, rest = op.GatherElements(ct, indices, axis=axis), ct
    if reduction == "none":
        rest = op.ScatterElements(ct, indices, _zeros(op, updates), axis=axis)
    return [rest, None, taken]


@vjp("ScatterND")
def scatter_nd_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """ScatterND: x with updates put in  ->  ct without and at the indices; see ScatterElements."""
    (ct,), (x, indices, updates) = cts, node.inputs
    reduction = node.attr("reduction", "none")
    if reduction not in ("none", "add"):
        dx, taken = _joined_vjp(op, node, ct, op.GatherND(positions(op, x), indices))
        return [dx, None, taken]
    rest = ct if reduction == "add" else op.ScatterND(ct, indices, _zeros(op, updates))
    return [rest, None, op.GatherND(ct, indices)]


@vjp("Trilu")
def trilu_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Trilu: one triangle of each matrix  ->  the same triangle of ct."""
    k = node.inputs[1:]
    return [op.Trilu(cts[0], *k, upper=node.attr("upper", 1)), *(None for _ in k)]


@vjp("CumSum")
def cum_sum_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """CumSum: sums of all that came before  ->  sums of all that comes after."""
    exclusive, reverse = node.attr("exclusive", 0), node.attr("reverse", 0)
    return [op.CumSum(cts[0], node.input(1), exclusive=exclusive, reverse=1 - reverse), None]


def positions(op: Emitter, x: str) -> str:
    """The position of each element of `x` in row-major order, in the shape of `x`."""
    count = op.Range(op.constant(0, np.int64), op.Size(x), op.constant(1, np.int64))
    return str(op.Reshape(count, op.Shape(x)))


def put_back(op: Emitter, ct: str, taken: str, x: str) -> str:
    """Zeros in the shape of `x`, with `ct` added at the positions `taken`, one for each number."""
    zeros = op.Reshape(_zeros(op, x), [-1])
    flat = [op.Reshape(t, [-1]) for t in (taken, ct)]
    return reshape_like(op, op.ScatterElements(zeros, *flat, axis=0, reduction="add"), x)


def _scattered(op: Emitter, ct: str | None, indices: str, x: str, axis: int) -> str:
    """Zeros in the shape of `x`, with `ct` added at `indices` along `axis`."""
    return str(op.ScatterElements(_zeros(op, x), indices, ct, axis=axis, reduction="add"))


def _zeros(op: Emitter, like: str) -> str:
    return str(op.ConstantOfShape(op.Shape(like)))


def _joined_vjp(op: Emitter, node: Node, ct: str | None, at: str) -> tuple[str, str]:
    """The cotangents of x and of updates that join it at the positions `at`.

    Of a product each gets the product of the others, of an extreme the equal ones share evenly, as
    with ReduceProd and ReduceMax, and as in PyTorch.
    """
    x, _, updates = node.inputs
    old, new, place, given = (op.Reshape(t, [-1]) for t in (x, updates, at, ct))
    reduction = node.attr("reduction")
    if reduction == "mul":
        slopes = _product_slopes(op, old, new, place)
    else:
        slopes = _extreme_slopes(op, old, new, place, reduction)
    dx, taken = op.Mul(given, slopes[0]), op.Mul(op.Gather(given, place), slopes[1])
    return reshape_like(op, dx, x), reshape_like(op, taken, updates)


def _product_slopes(op: Emitter, old: str, new: str, place: str) -> list[str]:
    """What each of the `old`, and of the `new` that join them at `place`, is multiplied by."""
    is_zero = [op.Equal(t, 0.0) for t in (old, new)]
    factors = [op.Where(none, 1.0, t) for none, t in zip(is_zero, (old, new), strict=True)]
    counts = [op.Cast(none, to=TensorProto.FLOAT) for none in is_zero]
    product = op.ScatterElements(factors[0], place, factors[1], axis=0, reduction="mul")
    zeros = op.ScatterElements(counts[0], place, counts[1], axis=0, reduction="add")
    slopes = []
    for i, all_, none in (
        (0, product, zeros),
        (1, *(op.Gather(t, place) for t in (product, zeros))),
    ):
        others = op.Greater(op.Sub(none, counts[i]), 0.0)
        slopes.append(op.Where(others, 0.0, op.Div(all_, factors[i])))
    return slopes


def _extreme_slopes(op: Emitter, old: str, new: str, place: str, reduction: str) -> list[str]:
    """The part that each of the `old`, and of the `new` that join them at `place`, has in y."""
    extreme = op.ScatterElements(old, place, new, axis=0, reduction=reduction)
    pairs = ((old, extreme), (new, op.Gather(extreme, place)))
    wins = [op.Cast(op.Equal(t, best), to=TensorProto.FLOAT) for t, best in pairs]
    winners = op.ScatterElements(wins[0], place, wins[1], axis=0, reduction="add")
    return [op.Div(wins[0], winners), op.Div(wins[1], op.Gather(winners, place))]
