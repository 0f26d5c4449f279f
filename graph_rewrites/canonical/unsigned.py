"""Let int8 activations be unsigned bytes, where the runtime makes them so or had kernels for them.

On x64 the runtime's integer kernels take unsigned activations. A pair of QuantizeLinear and
DequantizeLinear in int8 becomes one in uint8 when a file is opened, unless anything else reads the
integers: a mask of the backward graph would bring its convolution back into float, and scores some
steps away. Here nothing else reads them yet. Numbers and zero points grow by 128, and what they
stand for stays the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from graph_rewrites.emit import Emitter
from graph_rewrites.graph import Graph
from graph_rewrites.node import Node
from graph_rewrites.tensor_type import TensorType

_SHIFT = 128
_MOVE = frozenset(
    {"MaxPool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Gather"}
)
"""Operators that take the integers of their first operand elsewhere, whatever their type is."""


def make_unsigned(graph: Graph, shared: bool) -> None:
    """Turn int8 into uint8 between QuantizeLinear and DequantizeLinear, in place.

    Args:
        graph: the network alone, its constants computed.
        shared: also what several operators read, or move first. The runtime leaves that in int8
            and computes in float; it is right where the file's own operators took the integers.
    """
    for node in graph.nodes:
        kind = graph.type(node.output).elem_type
        if node.op_type != "QuantizeLinear" or kind != TensorProto.INT8:
            continue
        moved, readers = _followed(graph, node.output)
        if _is_pair(graph, node, moved, readers, shared):
            for end in (node, *readers):
                zero = end.constant(end.input(2)) if end.input(2) else np.int8(0)
                shifted = np.asarray(zero, np.int16) + _SHIFT
                name = Emitter(graph, end.output).constant(shifted, np.uint8)
                graph.set_inputs(end, [end.input(0), end.input(1), name])
            node.set_attr("output_dtype", None)
            for tensor in moved:
                graph.types[tensor] = TensorType(TensorProto.UINT8, graph.shape(tensor))


def _is_pair(
    graph: Graph, node: Node, moved: set[str], readers: Sequence[Node], shared: bool
) -> bool:
    """Whether only DequantizeLinear reads what `node` writes, and but one unless it is `shared`."""
    if {reader.op_type for reader in readers} != {"DequantizeLinear"}:
        return False
    if not all(map(_has_one_zero, (node, *readers))) or not moved.isdisjoint(graph.outputs):
        return False
    return shared or [_uses(graph, name) for name in (*moved, readers[0].output)] == [1, 1]


def _followed(graph: Graph, tensor: str) -> tuple[set[str], list[Node]]:
    """All tensors that the integers are moved to, itself included, and what else reads them."""
    moved, readers, pending = {tensor}, [], [tensor]
    while pending:
        for reader in graph.consumers(pending.pop()):
            if reader.op_type in _MOVE and reader.input(0) in moved:
                moved.add(reader.output)
                pending.append(reader.output)
            else:
                readers.append(reader)
    return moved, readers


def _has_one_zero(node: Node) -> bool:
    """Whether the zero point is one for all, and known."""
    zero = node.constant(node.input(2))
    return not node.input(2) or (zero is not None and zero.size == 1)


def _uses(graph: Graph, tensor: str) -> int:
    return len(graph.consumers(tensor)) + graph.outputs.count(tensor)
