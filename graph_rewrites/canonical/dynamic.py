"""Write dynamically quantised nodes in real numbers: `ConvInteger`, `MatMulInteger` and the like.

The integers of the accumulator are computed in float32: the same numbers as long as they stay below
2^24, rounded as every float is beyond. The scale of a picture follows the picture's own range;
it is computed apart from the quantisation and counts as constant on the way back.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from types import MappingProxyType

import numpy as np
from onnx import TensorProto

from graph_rewrites.canonical.decompose import (
    MICROSOFT,
    Table,
    constant_of,
    kept,
    shape_of,
)
from graph_rewrites.canonical.integer import dequantized
from graph_rewrites.emit import Emitter
from graph_rewrites.node import Node

_EXACT = 1 << 24
"""Up to here float32 tells all integers apart."""
_WIDEST = 255
"""The greatest difference of two 8-bit integers."""

_log = logging.getLogger(__name__)


def _dynamic_quantize(op: Emitter, node: Node) -> Sequence[str] | None:
    """X -> its integers, their scale, their zero point: the scale apart from the rounding."""
    x, q = node.input(0), node.outputs[0]
    if not op.graph.consumers(q) and q not in op.graph.outputs:
        return None  # it tells the scale only
    _, scale, zero = op.DynamicQuantizeLinear(x, outputs=3)
    return [op.QuantizeLinear(x, scale, zero), scale, zero]


def _conv_integer(op: Emitter, node: Node) -> Sequence[str]:
    """X, W -> the accumulator of a convolution, 32-bit integers."""
    x, w, x_zero, w_zero = (node.input(i) for i in range(4))
    if w_zero and shape_of(op, w_zero) not in ((), (1,)):
        w_zero = op.Reshape(w_zero, [-1, *(1 for _ in shape_of(op, w)[1:])])
    real = op.Conv(_steps(op, x, x_zero), _steps(op, w, w_zero), **kept(node))
    return [_accumulator(op, node, real, axes=tuple(range(1, len(shape_of(op, w)))))]


def _matmul_integer(op: Emitter, node: Node) -> Sequence[str]:
    """A, B -> the accumulator of A B, 32-bit integers; zero points may differ by row and column."""
    a, b, a_zero, b_zero = (node.input(i) for i in range(4))
    if a_zero and len(shape_of(op, a_zero)) == 1:
        a_zero = op.Unsqueeze(a_zero, [-1])
    real = op.MatMul(_steps(op, a, a_zero), _steps(op, b, b_zero))
    return [_accumulator(op, node, real, axes=(-2,))]


def _matmul_to_float(op: Emitter, node: Node) -> Sequence[str]:
    """A, B, their scales, their zero points, bias -> A B + bias, real."""
    a, b, a_scale, b_scale, a_zero, b_zero, bias = (node.input(i) for i in range(7))
    columns = len(shape_of(op, b)) - 1
    real = op.MatMul(
        dequantized(op, node, a, a_scale, a_zero),
        dequantized(op, node, b, b_scale, b_zero, axis=columns),
    )
    return [op.Add(real, bias) if bias else real]


def _dynamic_matmul(op: Emitter, node: Node) -> Sequence[str]:
    """A (real), B, its scale, its zero point, bias -> A B + bias with A rounded to integers."""
    a, b, b_scale, b_zero, bias = (node.input(i) for i in range(5))
    _, scale, zero = op.DynamicQuantizeLinear(a, outputs=3)
    rounded = op.DequantizeLinear(op.QuantizeLinear(a, scale, zero), scale, zero)
    columns = len(shape_of(op, b)) - 1
    real = op.MatMul(rounded, dequantized(op, node, b, b_scale, b_zero, axis=columns))
    return [op.Add(real, bias) if bias else real]


def _steps(op: Emitter, integers: str, zero: str) -> str:
    """`integers` - `zero` in float32."""
    real = op.Cast(integers, to=TensorProto.FLOAT)
    return str(op.Sub(real, op.Cast(zero, to=TensorProto.FLOAT)) if zero else real)


def _accumulator(op: Emitter, node: Node, real: str, axes: tuple[int, ...]) -> str:
    """`real` as 32-bit integers; who only casts those back to float32 reads it directly."""
    largest = _largest(op, node, axes)
    if largest is None or largest >= _EXACT:
        _log.info("%s may add up to %s, so its last digits may be rounded", node, largest)
    for reader in op.graph.consumers(node.output):
        if reader.op_type == "Cast" and reader.attr("to") == TensorProto.FLOAT:
            reader.op_type, reader.attributes = "Identity", {}
            op.graph.set_inputs(reader, [real])
    return str(op.Cast(real, to=TensorProto.INT32))


def _largest(op: Emitter, node: Node, axes: tuple[int, ...]) -> int | None:
    """A bound on the sums that a node adds up; None where its weights are not constant."""
    weights, zero = constant_of(op, node.input(1)), constant_of(op, node.input(3))
    if weights is None or (node.input(3) and zero is None):
        return None
    offset = np.zeros(1, np.int64) if zero is None else zero.astype(np.int64).reshape(-1)
    if node.op_type == "ConvInteger":
        offset = offset.reshape(-1, *(1 for _ in axes))
    sums = np.abs(weights.astype(np.int64) - offset).sum(axis=axes)
    return int(sums.max(initial=0)) * _WIDEST


DYNAMIC: Table = MappingProxyType({
    ("", "DynamicQuantizeLinear"): _dynamic_quantize,
    ("", "ConvInteger"): _conv_integer,
    ("", "MatMulInteger"): _matmul_integer,
    (MICROSOFT, "MatMulIntegerToFloat"): _matmul_to_float,
    (MICROSOFT, "DynamicQuantizeMatMul"): _dynamic_matmul,
})  # fmt: skip
"""What writes each dynamically quantised node in real numbers."""
