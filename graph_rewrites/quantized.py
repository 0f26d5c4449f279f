"""Facts about quantised tensors: what follows a QuantizeLinear, and ReLUs that hide in one.

The runtime's quantiser removes every Relu and Clip whose work the saturation of the QuantizeLinear
behind it already does. Guided backpropagation would silently become the plain gradient if those
sites were not found again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from graph_rewrites.emit import Emitter
from graph_rewrites.graph import Graph
from graph_rewrites.network import network_consumers
from graph_rewrites.node import Node


@dataclass(frozen=True)
class Quantization:
    """A per-tensor QuantizeLinear.

    Attributes:
        tensor: the integers.
        scale: size of one step.
        zero_point: the integer that stands for 0.
        least: the least integer of the type.
        top: the greatest integer of the type.
        elem_type: the integer type, an onnx.TensorProto.DataType.
    """

    tensor: str
    scale: float
    zero_point: int
    least: int
    top: int
    elem_type: int


_INTEGERS: dict[int, tuple[int, int]] = {
    TensorProto.INT4: (-8, 7),
    TensorProto.UINT4: (0, 15),
    TensorProto.INT8: (-128, 127),
    TensorProto.UINT8: (0, 255),
    TensorProto.INT16: (-32768, 32767),
    TensorProto.UINT16: (0, 65535),
}
"""Least and greatest value of what a QuantizeLinear writes; floats of 8 bits are not integers."""

ALONG = ("axis", "block_size")
"""The attributes of a QuantizeLinear that has several scales."""


def quantization(graph: Graph, tensor: str, node: Node | None = None) -> Quantization | None:
    """The quantisation of `tensor` by `node`, or by its only reader; None where there is none."""
    if node is None:
        readers = graph.consumers(tensor)
        if len(readers) != 1 or readers[0].op_type != "QuantizeLinear":
            return None
        node = readers[0]
    scale = graph.constant(node.input(1))
    if scale is None or scale.size != 1:
        return None
    point = graph.constant(node.input(2)) if node.input(2) else np.zeros((), np.uint8)
    elem_type = graph.type(node.output).elem_type
    if point is None or elem_type not in _INTEGERS:
        return None
    return Quantization(
        node.output,
        float(scale.reshape(())),
        int(point.reshape(())),
        *_INTEGERS[elem_type],
        elem_type,
    )


_TRANSPARENT = frozenset(
    {
        "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Slice", "Split",
        "Gather", "DepthToSpace", "SpaceToDepth", "Expand", "Tile", "Dropout", "MaxPool",
        "GlobalMaxPool",
    }
)  # fmt: skip
"""Operators whose results are among the elements of their first operand."""
_MIXING = frozenset(
    {"Concat", "Pad", "Resize", "AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceMax"}
)
"""Operators whose results are among the elements of all operands, or between them."""
_SIGNED = frozenset(
    {
        "Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Sub", "Sum", "Mul",
        "BatchNormalization", "InstanceNormalization", "LayerNormalization",
        "GroupNormalization", "LRN",
    }
)  # fmt: skip
_NON_NEGATIVE = frozenset({"Relu", "Sigmoid", "Softmax", "HardSigmoid", "Exp", "Abs", "Sqrt"})
_KEEPS_SIGN = frozenset({"Add", "Sum", "Mul", "ReduceSum", "LRN"})


def saturates_as_relu(graph: Graph, node: Node) -> bool:
    """Whether the QuantizeLinear `node` does the work of a ReLU that the quantiser removed.

    Three conditions, each needed (measured: 5 of 5, 35 of 35 and none too many): its zero point is
    its type's least value; what it quantises comes from an operator that yields both signs, seen
    through operators that move or average numbers, quantised or not; and that operator's result
    is not provably non-negative already. What was cut off at 0 on the way is rectified there.
    """
    q = quantization(graph, node.input(0), node)
    if q is None or q.zero_point != q.least:
        return False
    pending, seen = [node.input(0)], set[Node]()
    while pending:
        producer = graph.producer(pending.pop())
        if producer is None or producer in seen:
            continue
        seen.add(producer)
        if producer.op_type in _SIGNED:
            if not non_negative(graph, producer.output):
                return True
        elif producer.op_type in _MIXING:
            pending.extend(i for i in producer.inputs if i and graph.is_float(i))
        elif producer.op_type in _TRANSPARENT or _keeps_both_signs(graph, producer):
            pending.append(producer.input(0))
    return False


def _keeps_both_signs(graph: Graph, node: Node) -> bool:
    if node.op_type != "QuantizeLinear":
        return node.op_type == "DequantizeLinear"
    q = quantization(graph, node.input(0), node)
    return q is not None and q.zero_point > q.least


def non_negative(graph: Graph, tensor: str) -> bool:
    """Whether `tensor` is provably ≥ 0 from the operators that compute it."""
    pending, seen = [tensor], set()
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        value = graph.constant(name)
        if value is not None:
            if value.size and value.min() < 0:
                return False
            continue
        node = graph.producer(name)
        if node is None:
            return False
        if node.op_type in _NON_NEGATIVE or _clips_below_zero(graph, node):
            continue
        if node.op_type == "QuantizeLinear":
            q = quantization(graph, node.input(0), node)
            if q is None or q.zero_point != q.least:
                pending.append(node.input(0))
        elif node.op_type == "DequantizeLinear" and graph.constant(node.input(0)) is not None:
            if _stores_negatives(graph, node):
                return False
        elif node.op_type in _TRANSPARENT or node.op_type == "DequantizeLinear":
            pending.append(node.input(0))
        elif node.op_type in _KEEPS_SIGN | _MIXING:
            pending.extend(i for i in node.inputs if i and graph.is_float(i))
        else:
            return False
    return True


def _clips_below_zero(graph: Graph, node: Node) -> bool:
    low = graph.constant(node.input(1)) if node.op_type == "Clip" and node.input(1) else None
    return low is not None and bool(low.min() >= 0)


def _stores_negatives(graph: Graph, node: Node) -> bool:
    """Whether the DequantizeLinear of a constant may yield numbers below 0."""
    stored = graph.constant(node.input(0))
    point = graph.constant(node.input(2)) if node.input(2) else np.zeros(1)
    if stored is None or point is None:
        return True
    return bool(stored.size) and float(stored.astype(np.float64).min()) < float(point.max())


INTEGER_LAYOUT = frozenset(
    {
        "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Concat", "Slice",
        "Split", "Pad", "MaxPool", "Resize", "Gather",
    }
)  # fmt: skip
"""Operators that move integers without computing with them."""


def moved_from(graph: Graph, tensor: str) -> str:
    """Where the integers in `tensor` come from, seen through operators that merely move them."""
    node = graph.producer(tensor)
    while node is not None and node.op_type in INTEGER_LAYOUT:
        tensor = node.input(0)
        node = graph.producer(tensor)
    return tensor


def is_raw(graph: Graph, tensor: str) -> bool:
    """Whether the integers in `tensor` are the picture's own, not a QuantizeLinear's."""
    return moved_from(graph, tensor) in graph.inputs


def quantizer(graph: Graph, tensor: str) -> Node | None:
    """The QuantizeLinear that made the integers in `tensor`; None where none did."""
    node = graph.producer(moved_from(graph, tensor))
    return node if node is not None and node.op_type == "QuantizeLinear" else None


def behind_quantization(graph: Graph, tensor: str) -> str:
    """Where the value of the float `tensor` is read: itself, unless only a QuantizeLinear reads it.

    Then it is the DequantizeLinear behind that: a rule that read the float itself would take its
    operator out of the runtime's integer kernels. Where there is none it is the integers.
    """
    readers = network_consumers(graph, tensor) if graph.is_float(tensor) else []
    if len(readers) != 1 or readers[0].op_type != "QuantizeLinear":
        return tensor
    return network_dequantized(graph, readers[0].output) or readers[0].output


def network_dequantized(graph: Graph, integers: str) -> str | None:
    """The output of the network's own DequantizeLinear of `integers`; None where it has none.

    Where only another QuantizeLinear reads that, it is the DequantizeLinear behind the last one:
    the runtime makes one pair of the two pairs, unless something reads what is between them.
    """
    readers = network_consumers(graph, integers)
    found = next((n.output for n in readers if n.op_type == "DequantizeLinear"), None)
    again = requantized(graph, found) if found is not None and len(readers) == 1 else None
    return found if again is None else network_dequantized(graph, again) or found


def requantized(graph: Graph, tensor: str) -> str | None:
    """The integers in which a DequantizeLinear's output goes on, if it goes on in nothing else."""
    readers = network_consumers(graph, tensor)
    if tensor in graph.outputs or len(readers) != 1 or readers[0].op_type != "QuantizeLinear":
        return None
    return readers[0].output


def inside_integer_kernel(graph: Graph, tensor: str) -> bool:
    """Whether `tensor` lies between a linear operator and an activation that is quantised at once.

    The runtime runs the three as one, and no such number exists in the artefact's arithmetic.
    """
    readers = network_consumers(graph, tensor)
    if tensor in graph.outputs or len(readers) != 1 or readers[0].op_type not in ("Relu", "Clip"):
        return False
    after = network_consumers(graph, readers[0].output)
    return len(after) == 1 and after[0].op_type == "QuantizeLinear"


def dequantized(op: Emitter, tensor: str) -> str:
    """`tensor` as float32: itself, or the DequantizeLinear behind it, added where there is none.

    Never the float in front of a QuantizeLinear: tapping that one would take the convolution out
    of the runtime's integer kernels.
    """
    graph = op.graph
    tensor = behind_quantization(graph, tensor)
    if graph.is_float(tensor):
        wide = graph.type(tensor).elem_type in (TensorProto.FLOAT, TensorProto.UNDEFINED)
        return tensor if wide else str(op.Cast(tensor, to=TensorProto.FLOAT))
    known = network_dequantized(graph, tensor)
    if known is not None:
        return known
    source = quantizer(graph, tensor)
    if source is None:
        return str(op.Cast(tensor, to=TensorProto.FLOAT))
    moved = source.output != tensor
    along = {} if moved else {k: source.attr(k) for k in ALONG if k in source.attributes}
    return str(op.DequantizeLinear(tensor, source.input(1), source.input(2) or None, **along))
