"""Steps of random networks: reductions and contractions."""

from __future__ import annotations

from typing import Any

import numpy as np

from .draft import LARGEST, Draft, Tensor, step


@step("ReduceMean", "ReduceSum", often=2)
@step("ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp")
@step("ReduceProd", "ReduceLogSum")
def _reduce(d: Draft, op: str, x: Tensor) -> Any:
    first = d.integer(1, x.rank - 1)
    axes = list(range(first, d.integer(first, x.rank - 1) + 1))
    source = x.name
    if op == "ReduceLogSum":
        source = d.node("Add", d.node("Softplus", x), d.constant(0.1))  # that of -1273 is 0
    if op == "ReduceSumSquare":
        source = d.node("Softsign", x)
    if op == "ReduceProd":
        source = d.node("Add", d.node("Sigmoid", x), d.constant(0.5))
    keep = int(len(axes) == x.rank - 1 or d.chance())
    made = d.node(
        op, source, axes=axes if d.chance() else [a - x.rank for a in axes], keepdims=keep
    )
    if keep and d.chance():
        return d.node("Sub", x, made)
    dims = [1 if axis in axes else n for axis, n in enumerate(x.dims, 1)]
    return Tensor(made, tuple(n for axis, n in enumerate(dims, 1) if keep or axis not in axes))


@step("CumSum")
def _cum_sum(d: Draft, op: str, x: Tensor) -> Any:
    given = {"reverse": d.integer(0, 1), "exclusive": d.integer(0, 1)}
    return d.node(op, x, d.constant(np.array(d.axis(x))), **given)


@step("MatMul", often=2)
def _mat_mul(d: Draft, op: str, x: Tensor) -> Any:
    """By a weight on either side, or by itself as attention does."""
    rows = x.dims[-1]
    if x.rank > 2 and d.chance() and x.dims[-2] ** 2 * x.size // rows <= LARGEST * x.dims[-2]:
        turned = d.node("Transpose", x, perm=[*range(x.rank - 2), x.rank - 1, x.rank - 2])
        scores = d.node("Mul", d.node(op, x, turned), d.constant(0.3))
        return d.node(op, d.node("Softmax", scores, axis=x.rank - 1), x)
    made = d.integer(1, 4)
    if x.rank > 2 and d.chance():
        y = d.node(op, d.weight(made, x.dims[-2], scale=0.5), x)
        return Tensor(y, (*x.dims[:-2], made, rows))
    return Tensor(d.node(op, x, d.weight(rows, made, scale=0.5)), (*x.dims[:-1], made))


@step("Gemm", ranks=(2,), often=3)
def _gemm(d: Draft, op: str, x: Tensor) -> Any:
    made, turned = d.integer(1, 6), d.integer(0, 1)
    w = d.weight(*((made, x.size) if turned else (x.size, made)), scale=0.5)
    bias = d.pick([d.weight(made), d.weight(1)])
    return Tensor(d.node(op, x, w, bias, alpha=0.7, beta=1.3, transB=turned), (made,))


@step("Einsum", ranks=(3, 4))
def _einsum(d: Draft, op: str, x: Tensor) -> Any:
    letters = "nchw"[: x.rank]
    made = d.integer(1, 3)
    if d.chance():
        y = d.node(
            op, x, d.weight(x.dims[0], made, scale=0.5), equation=f"{letters},co->no{letters[2:]}"
        )
        return Tensor(y, (made, *x.dims[1:]))
    y = d.node(op, x, d.node("Tanh", x), equation=f"{letters},{letters}->n{letters[2:]}")
    return Tensor(y, x.dims[1:])


@step("Det", ranks=(4,), often=2)
def _det(d: Draft, op: str, x: Tensor) -> Any:
    channels, height, width = x.dims
    left = d.node("MatMul", d.weight(2, height, scale=0.5), d.node("Softsign", x))
    square = d.node("MatMul", left, d.weight(width, 2))
    regular = d.node("Add", square, d.weight(2, 2))  # where all rows are alike, too
    return Tensor(d.node(op, regular), (channels,))
