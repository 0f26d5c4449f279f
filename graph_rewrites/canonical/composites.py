"""Take apart operators that are nothing but a composition of older ones.

ONNX gives most of them a body of nodes, but the bodies are of little use: that of
GroupNormalization has nearly thirty nodes, that of Attention more, and shape inference stops at
every one of these operators. In opset 21 the runtime has a kernel for none of them that a
composition would lose. What is written here is what exporters write.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

import numpy as np
import onnx

from graph_rewrites.canonical.attention import attention, rotary_embedding, tensor_scatter
from graph_rewrites.canonical.decompose import Table, kept, number, shape_of
from graph_rewrites.emit import Emitter
from graph_rewrites.errors import UnsupportedOperatorError
from graph_rewrites.node import Node

_AWAY = "graph_rewrites"


def set_aside(model: onnx.ModelProto) -> None:
    """Hide the operators of `COMPOSITES` from the version converter, in place.

    It would take them for unknown or deprecated ones; what is of another domain it passes by.
    """
    found = [node for node in model.graph.node if (node.domain, node.op_type) in COMPOSITES]
    for node in found:
        node.domain = _AWAY
    if found:
        model.opset_import.append(onnx.helper.make_opsetid(_AWAY, 1))


def bring_back(model: onnx.ModelProto) -> None:
    """Undo `set_aside`, in place, whatever the operator set has become."""
    for node in model.graph.node:
        if node.domain == _AWAY:
            node.domain = ""
    for entry in [entry for entry in model.opset_import if entry.domain == _AWAY]:
        model.opset_import.remove(entry)


def _swish(op: Emitter, node: Node) -> Sequence[str]:
    """X · sigmoid(α X)."""
    x, alpha = node.input(0), node.attr("alpha", 1.0)
    if alpha == 1.0:
        return [op.Mul(x, op.Sigmoid(x))]
    shape_of(op, x)  # for the type of the constant
    return [op.Mul(x, op.Sigmoid(op.Mul(x, number(op, alpha, x))))]


def _group_normalization(op: Emitter, node: Node) -> Sequence[str]:
    """X (N, C, …), scale, bias -> each of the G groups of channels as one channel of an instance.

    Below opset 21 scale and bias have one entry per group, since then one per channel.
    """
    (x, scale, bias), groups = node.inputs, node.attr("num_groups")
    shape_of(op, scale)  # for the type of the constants
    dtype = onnx.helper.tensor_dtype_to_np_dtype(op.graph.type(scale).elem_type)
    rows, one, zero = (
        op.Reshape(x, [0, groups, -1]),
        np.ones(groups, dtype),
        np.zeros(groups, dtype),
    )
    normal = op.InstanceNormalization(rows, one, zero, epsilon=node.attr("epsilon", 1e-5))
    parts = op.Reshape(normal, op.Concat([0], op.Shape(scale), [-1], axis=0))
    y = op.Add(op.Mul(parts, op.Unsqueeze(scale, [1])), op.Unsqueeze(bias, [1]))
    return [op.Reshape(y, op.Shape(x))]


def _rms_normalization(op: Emitter, node: Node) -> Sequence[str]:
    """X / √(mean X² + ε) · scale, the mean over `axis` and those behind it."""
    (x, scale), axis = node.inputs, node.attr("axis", -1)
    rank = len(shape_of(op, x))
    mean = op.ReduceMean(op.Mul(x, x), list(range(axis % rank, rank)), keepdims=1)
    root = op.Sqrt(op.Add(mean, number(op, node.attr("epsilon", 1e-5), x)))
    return [op.Mul(op.Div(x, root), scale)]


def _cast_like(op: Emitter, node: Node) -> Sequence[str]:
    """X in the element type of another tensor, through which no gradient passes."""
    x, like = node.inputs
    shape_of(op, like)  # for its type
    return [op.Cast(x, to=op.graph.type(like).elem_type, **kept(node))]


def _cum_prod(op: Emitter, node: Node) -> Sequence[str]:
    """The products of all that came before along an axis: each of one row of a triangle of x."""
    x, axis = node.inputs
    rank, at = len(shape_of(op, x)), node.constant(axis)
    if at is None:
        raise UnsupportedOperatorError(
            f"{node} computes the axis that it runs along; export the model with a constant axis"
        )
    behind = rank - 1 - int(at.item()) % rank
    size = op.Shape(x, start=rank - 1 - behind, end=rank - behind)
    place = op.Range(op.constant(0, np.int64), op.Squeeze(size), op.constant(1, np.int64))
    row, column = op.Unsqueeze(place, [1]), op.Unsqueeze(place, [0])
    first, last = (row, column) if node.attr("reverse", 0) else (column, row)
    taken = (op.Less if node.attr("exclusive", 0) else op.LessOrEqual)(first, last)
    taken = op.Reshape(taken, op.Concat(size, [-1] + [1] * behind, axis=0))
    rows = op.Where(taken, op.Unsqueeze(x, [rank - 1 - behind]), number(op, 1.0, x))
    return [op.ReduceProd(rows, [rank - behind], keepdims=0)]


def _mean_variance_normalization(op: Emitter, node: Node) -> Sequence[str]:
    """(X - mean) / (deviation + 1e-9) over `axes`."""
    x, axes = node.input(0), node.attr("axes", [0, 2, 3])
    shape_of(op, x)  # for the type of the constant
    centred = op.Sub(x, op.ReduceMean(x, axes, keepdims=1))
    deviation = op.Sqrt(op.ReduceMean(op.Mul(centred, centred), axes, keepdims=1))
    return [op.Div(centred, op.Add(deviation, number(op, 1e-9, x)))]


COMPOSITES: Table = MappingProxyType(
    {
        ("", "Attention"): attention,
        ("", "CastLike"): _cast_like,
        ("", "CumProd"): _cum_prod,
        ("", "GroupNormalization"): _group_normalization,
        ("", "MeanVarianceNormalization"): _mean_variance_normalization,
        ("", "RMSNormalization"): _rms_normalization,
        ("", "RotaryEmbedding"): rotary_embedding,
        ("", "Swish"): _swish,
        ("", "TensorScatter"): tensor_scatter,
    }
)
"""What takes each of them apart."""
