"""Compute what depends on no image: constants behind shape operators, and shape arithmetic.

Only what makes the model no larger. Weights that are stored small stay so: a DequantizeLinear, a
Cast of 16-bit weights or an expansion of a constant is left to the runtime.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

import numpy as np
import onnx
from onnx import TensorProto

from graph_rewrites.canonical.evaluation import evaluate
from graph_rewrites.canonical.open_sizes import spell_out_sizes
from graph_rewrites.canonical.values import Values
from graph_rewrites.graph import Graph
from graph_rewrites.node import Node
from graph_rewrites.weights import is_at_hand

_LARGEST_BYTES = 1 << 20  # moving more takes time and gains nothing: the runtime does it too
_FREE_BYTES = 64  # constants up to this size may grow out of smaller ones
_FREE_INDEX_BYTES = 1024  # the same for integers, which say where numbers go

_MOVES = frozenset({
    "Cast", "Concat", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Shape", "Slice",
    "Squeeze", "Tile", "Transpose", "Unsqueeze",
})  # fmt: skip
_EXACT = frozenset({
    "Add", "Ceil", "Div", "Equal", "Floor", "Greater", "Less", "Max", "Min", "Mul", "Neg",
    "Not", "Sqrt", "Sub", "Where",
})  # fmt: skip
_INTEGER = frozenset({
    "ConstantOfShape", "Mod", "Range", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum",
    "Size",
})  # fmt: skip
_GROWING = frozenset({"ConstantOfShape", "Expand", "Range", "Tile"})

_HALF = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})


def fold_constants(graph: Graph, shapes: bool = True) -> None:
    """Replace what can be computed now by initializers of the same name.

    Operators are computed here where they only move numbers, or where IEEE 754 leaves no choice of
    the result.

    Args:
        graph: a graph in topological order.
        shapes: whether the fixed dimensions of tensors count as known. They must not while the
            batch is still fixed: it would be folded in.
    """
    while _fold_known(graph, shapes) or (shapes and spell_out_sizes(graph)):
        graph.infer()  # sizes that were computed are known now, and may tell others


def _fold_known(graph: Graph, shapes: bool) -> bool:
    """Fold what is known at present; whether that may make more known."""
    values = Values(graph)
    outputs = set(graph.outputs)
    folded: list[Node] = []
    reshaping = False
    for node in graph.nodes:
        if node.domain or len(node.outputs) != 1 or node.output in outputs:
            continue
        result = _computed(graph, node)
        if result is None and shapes and values.visit(node):
            result = values.array(node.output)
        if result is not None:
            graph.add_initializer(node.output, result)
            folded.append(node)
            reshaping |= result.dtype.kind == "i"
    sources = [name for node in folded for name in node.inputs]
    graph.remove(folded)
    graph.remove_idle(sources)
    return reshaping


def _computed(graph: Graph, node: Node) -> np.ndarray | None:
    """The result of a node whose inputs are all constant; None where it is to stay a node."""
    inputs = [name for name in node.inputs if name]
    if not inputs or not all(name in graph.initializers for name in inputs):
        return None
    replaced = sum(_bytes(graph, name) for name in inputs if _only(graph, name, node))
    counts = graph.type(node.output).elem_type in _WHOLE or node.op_type == "Range"
    budget = max(_FREE_INDEX_BYTES if counts else _FREE_BYTES, replaced)
    if not _allowed(graph, node, inputs) or not _fits(graph, node, budget):
        return None
    feeds = {name: value for name in inputs if (value := graph.constant(name)) is not None}
    try:
        result = evaluate([node.to_proto()], feeds, node.output, graph.opset)
    except Exception:  # the reference may refuse in any way; the runtime will judge the node
        return None
    return result if result.nbytes <= budget else None


def _allowed(graph: Graph, node: Node, inputs: Iterable[str]) -> bool:
    if not all(is_at_hand(graph.bulk(name)) for name in inputs):
        return False
    kinds = {graph.initializers[name].data_type for name in inputs}
    if node.op_type in _MOVES:
        return kinds <= _NUMBERS and not (node.op_type == "Cast" and kinds & _HALF)
    if node.op_type in _EXACT:
        return kinds <= _NUMBERS - _HALF
    return node.op_type in _INTEGER and kinds <= _INTEGERS


def _fits(graph: Graph, node: Node, budget: int) -> bool:
    """Whether the result will be no larger than `budget`, judged before it is computed."""
    if any(_bytes(graph, name) > _LARGEST_BYTES for name in node.inputs if name):
        return False
    known = graph.type(node.output)
    dims = [dim for dim in known.shape or () if isinstance(dim, int)]
    if known.shape is None or len(dims) < len(known.shape) or not known.elem_type:
        return node.op_type not in _GROWING or _fits_as_range(graph, node, budget)
    return prod(dims) * _item_bytes(known.elem_type) <= budget


def _fits_as_range(graph: Graph, node: Node, budget: int) -> bool:
    """The same for a Range whose bounds were only just computed, so that its type is not known."""
    bounds = [graph.constant(name) for name in node.inputs]
    if node.op_type != "Range" or any(bound is None for bound in bounds):
        return False
    start, limit, step = (int(bound) for bound in bounds if bound is not None)
    return step != 0 and 8 * len(range(start, limit, step)) <= budget


def _bytes(graph: Graph, name: str) -> int:
    tensor = graph.initializers[name]
    return int(prod(tensor.dims)) * _item_bytes(tensor.data_type)


def _item_bytes(elem_type: int) -> int:
    return int(onnx.helper.tensor_dtype_to_np_dtype(elem_type).itemsize)


def _only(graph: Graph, name: str, node: Node) -> bool:
    return graph.consumers(name) == [node] and name not in graph.outputs


_INTEGERS = frozenset(
    {
        TensorProto.BOOL,
        TensorProto.INT8,
        TensorProto.INT16,
        TensorProto.INT32,
        TensorProto.INT64,
        TensorProto.UINT8,
        TensorProto.UINT16,
        TensorProto.UINT32,
        TensorProto.UINT64,
    }
)
_WHOLE = frozenset({TensorProto.INT32, TensorProto.INT64})
_NUMBERS = _INTEGERS | _HALF | {TensorProto.FLOAT, TensorProto.DOUBLE}
