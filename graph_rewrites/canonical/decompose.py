"""Put standard operators in place of others, node by node, as tables of decompositions say.

A decomposition is a function of an emitter and a node that returns one tensor per output; `""` in
place of a tensor leaves that output out, None in place of them all leaves the node as it is. The
results take over the names of the node's outputs, the new nodes its metadata. A fused node has the
name of the first of the nodes that it stands for and the output of the last; the new nodes are
named accordingly, so that layers keep the names that people know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from graph_rewrites.emit import Emitter
from graph_rewrites.errors import UnsupportedOperatorError
from graph_rewrites.graph import Graph
from graph_rewrites.node import Node
from graph_rewrites.tensor_type import Shape

MICROSOFT = "com.microsoft"

Decomposition = Callable[[Emitter, Node], Sequence[str] | None]
Table = Mapping[tuple[str, str], Decomposition]
"""Decompositions by domain and operator."""


def decompose(graph: Graph, table: Table) -> None:
    """Replace every node that `table` names.

    Raises:
        UnsupportedOperatorError: a node uses its operator in a way that the standard cannot say.
        UnknownShapeError: a decomposition needs a rank that the model does not tell.
    """
    found = [node for node in graph.nodes if (node.domain, node.op_type) in table]
    for node in found:
        _replace(graph, node, table[node.domain, node.op_type])
    if found:
        _infer(graph)


def _infer(graph: Graph) -> None:
    graph.sort()
    graph.infer()


def _replace(graph: Graph, node: Node, rewrite: Decomposition) -> None:
    inputs, outputs = node.inputs, node.outputs
    types = {name: graph.type(name) for name in outputs}
    before = len(graph.nodes)
    results = rewrite(Emitter(graph, node.output, node.metadata), node)
    if results is None:
        return
    for new in graph.nodes[before:]:
        new.name = f"{node.name or node.output}:{new.op_type}"
    graph.remove([node])
    for name, result in zip(outputs, results, strict=False):
        producer = graph.producer(result)
        if name and producer is not None:
            producer.name = f"{name}:{producer.op_type}"
            graph.rename_output(producer, result, name)
            graph.types[name] = types[name]
    graph.remove_idle((*inputs, *outputs))


def kept(node: Node, *dropped: str) -> dict[str, Any]:
    """The attributes of a node by name, but for those dropped and for empty lists."""
    values = {name: node.attr(name) for name in node.attributes if name not in dropped}
    return {name: value for name, value in values.items() if value != []}


def shape_of(op: Emitter, tensor: str) -> Shape:
    """The shape of a tensor, which may lie behind nodes that were decomposed just now.

    Raises:
        UnknownShapeError: not even its rank is known.
    """
    if op.graph.shape(tensor) is None:
        _infer(op.graph)
    return op.graph.known_shape(tensor)


def number(op: Emitter, value: float, like: str) -> str:
    """A scalar constant of the same floating-point type as the tensor `like`."""
    if not op.graph.type(like).elem_type:
        _infer(op.graph)
    elem_type = op.graph.type(like).elem_type or onnx.TensorProto.FLOAT
    return op.constant(value, onnx.helper.tensor_dtype_to_np_dtype(elem_type))


def channels_first(op: Emitter, tensor: str, rank: int) -> str:
    """(N, *spatial, C) -> (N, C, *spatial); the inverse of such a move is undone instead."""
    perm = [0, rank - 1, *range(1, rank - 1)]
    return _moved(op, tensor, perm, inverse=[0, *range(2, rank), 1])


def channels_last(op: Emitter, tensor: str, rank: int) -> str:
    """(N, C, *spatial) -> (N, *spatial, C)."""
    return str(op.Transpose(tensor, perm=[0, *range(2, rank), 1]))


def _moved(op: Emitter, tensor: str, perm: list[int], inverse: list[int]) -> str:
    before = op.graph.producer(tensor)
    if before is not None and before.op_type == "Transpose" and before.attr("perm") == inverse:
        return before.input(0)
    return str(op.Transpose(tensor, perm=perm))


def unsupported(node: Node, what: str) -> UnsupportedOperatorError:
    """The error for a node whose operator is known but is used in a way that is not."""
    return UnsupportedOperatorError(
        f"{node} {what}, which standard operators cannot express; "
        "use the model as it was before the runtime optimised or quantised it"
    )


def constant_of(op: Emitter, tensor: str) -> np.ndarray | None:
    """The value of a constant tensor; None where it is computed or omitted."""
    return op.graph.constant(tensor) if tensor else None
