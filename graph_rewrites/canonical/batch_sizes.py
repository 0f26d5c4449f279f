"""Sizes at the fixed batch that shape inference of the whole graph does not find.

It follows some shape arithmetic, but no division, and exporters divide: heights by windows. What
`Values` finds is given to the inference of single nodes, one after the other.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx.numpy_helper

from graph_rewrites.canonical.values import Batch, Values
from graph_rewrites.graph import Graph
from graph_rewrites.node import Node
from graph_rewrites.tensor_type import TensorType


def sharpen(graph: Graph, values: Values, node: Node, size: int) -> None:
    """Write the types of a node's outputs where inference left a size of them open.

    Args:
        graph: its fixed batch counts as known.
        values: what the shape arithmetic up to the node gave.
        node: the next node.
        size: the fixed batch.
    """
    if node.domain or node.captures or all(_is_settled(graph, name) for name in node.outputs):
        return
    read = [name for name in node.inputs if name]
    if not all(_is_settled(graph, name) for name in read):
        return
    types = {name: graph.type(name).declare(name).type for name in read}
    data = {
        name: onnx.numpy_helper.from_array(value, name)
        for name in read
        if (value := _numbers(graph, values, name, size)) is not None
    }
    try:
        schema = onnx.defs.get_schema(node.op_type, graph.opset, "")
        found = onnx.shape_inference.infer_node_outputs(
            schema,
            node.to_proto(),
            types,
            data,
            opset_imports=[onnx.helper.make_opsetid("", graph.opset)],
        )
    except (onnx.defs.SchemaError, onnx.shape_inference.InferenceError, RuntimeError):
        return  # the size stays open
    for name, kind in found.items():
        if kind.HasField("tensor_type"):
            graph.types[name] = TensorType.of(onnx.ValueInfoProto(name=name, type=kind))


def _is_settled(graph: Graph, tensor: str) -> bool:
    shape = graph.shape(tensor) if tensor else ()
    return shape is not None and all(isinstance(dim, int) for dim in shape)


def _numbers(graph: Graph, values: Values, tensor: str, size: int) -> np.ndarray | None:
    """The value of a small integer tensor at the fixed batch."""
    value = values.get(tensor)
    if value is None:
        return None
    entries = [size * e.block if isinstance(e, Batch) else e for e in value.reshape(-1)]
    if not all(isinstance(entry, int) for entry in entries):
        return None
    dtype = onnx.helper.tensor_dtype_to_np_dtype(graph.type(tensor).elem_type)
    return np.array(entries, dtype).reshape(value.shape)
