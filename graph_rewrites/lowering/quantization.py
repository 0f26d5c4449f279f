"""Weights of quantised networks on the way back."""

from __future__ import annotations

from onnx import TensorProto

from graph_rewrites.canonical.evaluation import evaluate
from graph_rewrites.emit import Emitter
from graph_rewrites.lowering.pattern import pattern
from graph_rewrites.node import Node

_TYPES = frozenset({TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32})


@pattern("ConvTranspose", "Gemm", "MatMul")
def float_weight(op: Emitter, node: Node) -> str | None:
    """A weight out of a DequantizeLinear -> the floats, computed now.

    The runtime leaves DequantizeLinear alone, for the sake of its integer kernels, and would
    dequantise and turn the weight again in every run: the backward convolutions of an int8
    MobileNetV2 take a third less.
    """
    writer = op.graph.producer(node.input(1))
    if writer is None or writer.op_type != "DequantizeLinear":
        return None
    if op.graph.type(writer.input(0)).elem_type not in _TYPES or writer.attr("block_size", 0):
        return None
    values = {name: op.graph.constant(name) for name in writer.inputs if name}
    known = {name: value for name, value in values.items() if value is not None}
    if len(known) < len(values):
        return None
    # Opset 19 added types and changed nothing; the reference lacks what was before.
    weight = evaluate([writer.to_proto()], known, writer.output, max(node.opset, 19))
    attributes = {name: node.attr(name) for name in node.attributes}
    others = node.inputs[2:]
    return str(getattr(op, node.op_type)(node.input(0), weight, *others, **attributes))
