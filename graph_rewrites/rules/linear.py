"""Convolutions and matrix products.

The cotangent of a convolution's input is a transposed convolution with the same weight. Its weight
and bias get none: explanations never ask for them, and a weight computed from the picture is
reported by the sweep instead of dropped.
"""

from __future__ import annotations

from graph_rewrites.emit import Emitter
from graph_rewrites.node import Node
from graph_rewrites.rules.table import Cotangents, vjp
from graph_rewrites.shapes import unbroadcast
from graph_rewrites.tensor_type import Shape
from graph_rewrites.windows import Window, spread


@vjp("Conv")
def conv_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Conv: y = W ⋆ x + b  ->  the transposed convolution of ct with W."""
    (ct,), (x, w) = cts, node.inputs[:2]
    grad = spread(op, str(ct), w, Window.of(node), x, node.attr("group", 1))
    return [grad, *[None] * (len(node.inputs) - 1)]


@vjp("ConvTranspose")
def conv_transpose_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """ConvTranspose: the adjoint of a convolution  ->  that convolution of ct."""
    (ct,), w = cts, node.input(1)
    grad = op.Conv(ct, w, group=node.attr("group", 1), **Window.of(node).attributes())
    return [grad, *[None] * (len(node.inputs) - 1)]


@vjp("Gemm")
def gemm_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Gemm: α·A'·B' + β·C  ->  α·ct·B'ᵀ, α·A'ᵀ·ct (each turned back if A or B was), β·ct."""
    (ct,), (a, b), (y,) = cts, node.inputs[:2], node.outputs
    alpha, beta = node.attr("alpha", 1.0), node.attr("beta", 1.0)
    turn_a, turn_b = node.attr("transA", 0), node.attr("transB", 0)
    if turn_a:
        grad_a = op.Gemm(b, ct, alpha=alpha, transA=turn_b, transB=1)
    else:
        grad_a = op.Gemm(ct, b, alpha=alpha, transB=1 - turn_b)
    if turn_b:
        grad_b = op.Gemm(ct, a, alpha=alpha, transA=1, transB=turn_a)
    else:
        grad_b = op.Gemm(a, ct, alpha=alpha, transA=1 - turn_a)
    if not node.input(2):
        return [grad_a, grad_b, None][: len(node.inputs)]
    grad_c = unbroadcast(op, str(ct), node.input(2), y)
    return [grad_a, grad_b, grad_c if beta == 1.0 else op.Mul(grad_c, beta)]


@vjp("MatMul")
def matmul_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """MatMul: A·B  ->  ct·Bᵀ, Aᵀ·ct, summed where A or B was broadcast.

    Vectors become matrices of one row (A) or one column (B) for the time being.
    """
    (ct,), (a, b), (y,) = cts, node.inputs, node.outputs
    row, column = op.rank(a) == 1, op.rank(b) == 1
    batch = op.graph.known_shape(y)[: op.rank(y) - 2 + row + column]
    left = _with_axis(op, a, 0) if row else a
    right = _with_axis(op, b, 1) if column else b
    added = [-2] * row + [-1] * column
    if added:
        ct = op.Unsqueeze(ct, added)
    grad_a = _summed(op, op.MatMul(ct, _swapped(op, right)), left, batch)
    grad_b = _summed(op, op.MatMul(_swapped(op, left), ct), right, batch)
    return [
        op.Squeeze(grad_a, [0]) if row else grad_a,
        op.Squeeze(grad_b, [1]) if column else grad_b,
    ]


def _with_axis(op: Emitter, vector: str, axis: int) -> str:
    """A vector as a matrix of one row (axis 0) or one column (axis 1)."""
    (size,) = op.graph.known_shape(vector)
    return op.typed(op.Unsqueeze(vector, [axis]), (1, size) if axis == 0 else (size, 1))


def _swapped(op: Emitter, tensor: str) -> str:
    """The matrices of `tensor`, transposed."""
    rank = op.rank(tensor)
    return str(op.Transpose(tensor, perm=[*range(rank - 2), rank - 1, rank - 2]))


def _summed(op: Emitter, grad: str, matrix: str, batch: Shape) -> str:
    """Sum `grad` over the batch axes along which `matrix` was broadcast."""
    shape = (*batch, *op.graph.known_shape(matrix)[-2:])
    return unbroadcast(op, grad, matrix, op.typed(grad, shape))
