"""Write operator-quantised nodes (`QLinear*`, `QGemm`) as dequantise - operator - quantise.

Both say the same function, and the runtime fuses the three back into the integer kernel when it
loads the model. Between them the tensors have real values, which can be differentiated (straight
through the rounding), and a ReLU that the quantiser folded into the saturation can be found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from graph_rewrites.canonical.decompose import (
    MICROSOFT,
    Decomposition,
    Table,
    channels_first,
    channels_last,
    constant_of,
    kept,
    shape_of,
    unsupported,
)
from graph_rewrites.emit import Emitter
from graph_rewrites.node import Node

_SUFFIX = "_quantized"


def _dequantized(op: Emitter, node: Node, first: int, axis: int | None = None) -> str:
    """The real values of the operand whose tensor, scale and zero point are inputs `first` on.

    Args:
        op: the emitter.
        node: the quantised node.
        first: the index of the tensor among its inputs.
        axis: the axis along which scales may differ; None where they must not.
    """
    tensor, scale, zero = (node.input(first + i) for i in range(3))
    return dequantized(op, node, tensor, scale, zero, axis)


def dequantized(
    op: Emitter, node: Node, tensor: str, scale: str, zero: str, axis: int | None = None
) -> str:
    """`scale` · (`tensor` - `zero`), per tensor or per slice along `axis`.

    Raises:
        UnsupportedOperatorError: there are several scales where the operator allows one only.
    """
    shape = shape_of(op, scale)
    if shape in ((), (1,)):
        return str(op.DequantizeLinear(tensor, scale, zero or None))
    if axis is None or len(shape) != 1:
        raise unsupported(node, f"has scales {scale!r} of shape {shape} for {tensor!r}")
    if zero and shape_of(op, zero) != shape:
        zero = op.Expand(zero, op.Shape(scale))
    return str(op.DequantizeLinear(tensor, scale, zero or None, axis=axis))


def _quantized(op: Emitter, node: Node, real: str, first: int) -> str:
    """`real` as integers; its scale and zero point are the inputs `first` and `first` + 1."""
    integers = str(op.QuantizeLinear(real, node.input(first), node.input(first + 1) or None))
    _rename(op, real, node.output)
    return integers


def _rename(op: Emitter, real: str, integers: str) -> None:
    """Give the float behind which the quantiser wrote `integers` its name back.

    The runtime's quantiser calls the integers by the float's name and a suffix. Where it had to
    dequantise them again, for an operator that has no integers, that float has the name.
    """
    name, graph = integers.removesuffix(_SUFFIX), op.graph
    writer, taken = graph.producer(real), graph.producer(name) if name else None
    if name in ("", integers) or writer is None or name in graph.outputs:
        return
    if taken is not None and taken.op_type == "DequantizeLinear" and taken.input(0) == integers:
        graph.rename_output(taken, name, op.fresh("dequantized"))
    if not graph.exists(name):
        graph.rename_output(writer, real, name)


def _bias(op: Emitter, bias: str, scales: Sequence[str], factor: float = 1.0) -> str:
    """A 32-bit bias, whose scale is that of the accumulator: the product of the operands'."""
    several = any(shape_of(op, scale) not in ((), (1,)) for scale in scales)
    values = [v for v in (constant_of(op, scale) for scale in scales) if v is not None]
    if len(values) == len(scales):
        product = math.prod(values) * np.float32(factor)
        scale = op.constant(product.reshape(-1 if several else ()))
    else:
        scale = op.Mul(op.Mul(*scales), factor)
    along = {"axis": len(shape_of(op, bias)) - 1} if several else {}
    return str(op.DequantizeLinear(bias, scale, **along))


# -- convolution and products --------------------------------------------------------------------


def _conv(op: Emitter, node: Node) -> Sequence[str]:
    """X, W, B -> Conv; W (M, C, *kernel) may have one scale per output channel."""
    rank = len(shape_of(op, node.input(3)))
    last = node.attr("channels_last", 0)
    x = channels_first(op, node.input(0), rank) if last else node.input(0)
    x = dequantized(op, node, x, node.input(1), node.input(2))
    w = _dequantized(op, node, 3, axis=0)
    b, scales = node.input(8), (node.input(1), node.input(4))
    b = _bias(op, b, scales) if b else ""
    y = op.Conv(x, w, b, **kept(node, "channels_last"))
    y = _quantized(op, node, y, 6)
    return [channels_last(op, y, rank) if last else y]


def _matmul(op: Emitter, node: Node) -> Sequence[str]:
    """A, B -> A B; B may have one scale per column."""
    a = _dequantized(op, node, 0)
    b = _dequantized(op, node, 3, axis=len(shape_of(op, node.input(3))) - 1)
    return [_quantized(op, node, op.MatMul(a, b), 6)]


def _gemm(op: Emitter, node: Node) -> Sequence[str]:
    """A, B, C -> alpha A' B' + C, which stays real where no scale of the output is given."""
    alpha = node.attr("alpha", 1.0)
    a = _dequantized(op, node, 0)
    b = _dequantized(op, node, 3, axis=0 if node.attr("transB", 0) else 1)
    c, scales = node.input(6), (node.input(1), node.input(4))
    y = op.Gemm(a, b, _bias(op, c, scales, alpha) if c else None, **kept(node))
    return [_quantized(op, node, y, 7) if node.input(7) else y]


# -- everything else -----------------------------------------------------------------------------


def _binary(op_type: str) -> Decomposition:
    """A, B -> C, elementwise with broadcasting."""

    def rewrite(op: Emitter, node: Node) -> Sequence[str]:
        a, b = (_dequantized(op, node, first) for first in (0, 3))
        return [_quantized(op, node, getattr(op, op_type)(a, b), 6)]

    return rewrite


def _unary(compute: Callable[[Emitter, Node, str], str]) -> Decomposition:
    """X -> Y."""

    def rewrite(op: Emitter, node: Node) -> Sequence[str]:
        return [_quantized(op, node, compute(op, node, _dequantized(op, node, 0)), 3)]

    return rewrite


def _pool(op_type: str, rank: Callable[[Emitter, Node], int]) -> Decomposition:
    """X -> Y, pooled over the spatial axes wherever the channels are."""

    def rewrite(op: Emitter, node: Node) -> Sequence[str]:
        x, last = node.input(0), node.attr("channels_last", 0)
        x = channels_first(op, x, rank(op, node)) if last else x
        x = dequantized(op, node, x, node.input(1), node.input(2))
        attributes = kept(node, "channels_last")
        y = _quantized(op, node, getattr(op, op_type)(x, **attributes), 3)
        return [channels_last(op, y, rank(op, node)) if last else y]

    return rewrite


def _softmax(op: Emitter, node: Node, x: str) -> str:
    """Softmax as the operator set that the node names means it."""
    axis, rank = node.attr("axis", -1), len(shape_of(op, node.input(0)))
    if node.attr("opset", 13) >= 13 or axis % rank == rank - 1:
        return str(op.Softmax(x, axis=axis))
    flat = op.Softmax(op.Flatten(x, axis=axis), axis=-1)  # all axes from `axis` on are one
    return str(op.Reshape(flat, op.Shape(x)))


def _mean(op: Emitter, node: Node, x: str) -> str:
    axes = node.attr("axes")
    return str(op.ReduceMean(x, axes or None, keepdims=node.attr("keepdims", 1)))


def _concat(op: Emitter, node: Node) -> Sequence[str]:
    """Y's scale and zero point, then the same of each part behind it."""
    parts = [_dequantized(op, node, first) for first in range(2, len(node.inputs), 3)]
    return [_quantized(op, node, op.Concat(*parts, **kept(node)), 0)]


def _where(op: Emitter, node: Node) -> Sequence[str]:
    x, y = (_dequantized(op, node, first) for first in (1, 4))
    return [_quantized(op, node, op.Where(node.input(0), x, y), 7)]


def _renamed(op_type: str) -> Decomposition:
    """The runtime's own spelling of an operator, from when the standard's lacked 16 bits."""

    def rewrite(op: Emitter, node: Node) -> Sequence[str]:
        emit: Callable[..., Any] = getattr(op, op_type)
        return [emit(*(name or None for name in node.inputs), **kept(node))]

    return rewrite


INTEGER: Table = MappingProxyType({
    ("", "QLinearConv"): _conv,
    (MICROSOFT, "QLinearConv"): _conv,
    ("", "QLinearMatMul"): _matmul,
    (MICROSOFT, "QGemm"): _gemm,
    (MICROSOFT, "QLinearAdd"): _binary("Add"),
    (MICROSOFT, "QLinearMul"): _binary("Mul"),
    (MICROSOFT, "QLinearSigmoid"): _unary(lambda op, _, x: str(op.Sigmoid(x))),
    (MICROSOFT, "QLinearLeakyRelu"): _unary(lambda op, n, x: str(op.LeakyRelu(x, **kept(n)))),
    (MICROSOFT, "QLinearSoftmax"): _unary(_softmax),
    (MICROSOFT, "QLinearReduceMean"): _unary(_mean),
    (MICROSOFT, "QLinearAveragePool"): _pool(
        "AveragePool", lambda _, node: len(node.attr("kernel_shape")) + 2
    ),
    (MICROSOFT, "QLinearGlobalAveragePool"): _pool(
        "GlobalAveragePool", lambda op, node: len(shape_of(op, node.input(0)))
    ),
    (MICROSOFT, "QLinearConcat"): _concat,
    (MICROSOFT, "QLinearWhere"): _where,
    (MICROSOFT, "QuantizeLinear"): _renamed("QuantizeLinear"),
    (MICROSOFT, "DequantizeLinear"): _renamed("DequantizeLinear"),
})  # fmt: skip
"""What writes each operator-quantised node as dequantise - operator - quantise."""
