"""Operators that take elements from somewhere, or put them there.

What was taken goes back to where it came from, and adds up where it was taken twice. Where no
operator does the reverse, the forward operator itself tells the way: it is applied to the
positions of x's elements.
"""

from __future__ import annotations

import numpy as np

from graph_rewrites.emit import Emitter
from graph_rewrites.errors import UnsupportedOperatorError
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
    """ScatterElements: x with updates put or added in  ->  ct without or with, and at, the indices.

    Raises:
        UnsupportedOperatorError: the updates multiply or compete.
    """
    (ct,), (_, indices, updates) = cts, node.inputs
    axis = node.attr("axis", 0)
    dx, taken = ct, op.GatherElements(ct, indices, axis=axis)
    if not _adds(node):
        dx = op.ScatterElements(ct, indices, _zeros(op, updates), axis=axis)
    return [dx, None, taken]


@vjp("ScatterND")
def scatter_nd_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """ScatterND: x with updates put or added in  ->  ct without or with, and at, the indices.

    Raises:
        UnsupportedOperatorError: the updates multiply or compete.
    """
    (ct,), (_, indices, updates) = cts, node.inputs
    dx = ct if _adds(node) else op.ScatterND(ct, indices, _zeros(op, updates))
    return [dx, None, op.GatherND(ct, indices)]


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


def _adds(node: Node) -> bool:
    """Whether updates are added; else they replace what was there."""
    reduction = node.attr("reduction", "none")
    if reduction not in ("none", "add"):
        raise UnsupportedOperatorError(
            f"{node} combines updates by {reduction!r}, which has no rule; add one with "
            f"DEFAULT_RULES.override({node.op_type}=my_vjp), or choose a later layer"
        )
    return bool(reduction == "add")
