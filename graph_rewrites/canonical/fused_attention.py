"""Take apart the attention operators of `com.microsoft` that transformer optimisers write."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import MappingProxyType

import numpy as np
import onnx

from graph_rewrites.canonical.attention import merge_heads, split_heads
from graph_rewrites.canonical.decompose import MICROSOFT, Table, number, shape_of, unsupported
from graph_rewrites.emit import Emitter
from graph_rewrites.node import Node
from graph_rewrites.shapes import static_dims


def _attention(op: Emitter, node: Node) -> Sequence[str]:
    """X (N, S, I), weights of Q, K and V side by side, bias, mask, past, what is added."""
    if node.input(4) or node.input(6) or node.attr("do_rotary", 0) or any(node.outputs[1:]):
        raise unsupported(node, "keeps a cache or rotates its embedding")
    x, weights, bias = (node.input(i) for i in range(3))
    (width,) = static_dims(op.graph, weights, [1])
    sizes = node.attr("qkv_hidden_sizes") or [width // 3] * 3
    joint = op.MatMul(x, weights)
    if bias:
        joint = op.Add(joint, bias)
    heads = node.attr("num_heads")
    q, k, v = (split_heads(op, part, heads) for part in op.Split(joint, sizes, axis=-1, outputs=3))
    return [_attended(op, node, (q, k, v), sizes[0] // heads, node.input(3), node.input(5))]


def _multi_head_attention(op: Emitter, node: Node) -> Sequence[str]:
    """Q, K, V, their biases side by side, mask, what is added; any of the three joint or apart.

    Q (N, S, H·D) or with K and V as (N, S, H, 3, D); K (N, T, H·D), (N, H, T, D) or with V as
    (N, T, H, 2, D).
    """
    if any(node.input(i) for i in (6, 7, 8, 9)) or (node.outputs[3:] and node.outputs[3]):
        raise unsupported(node, "keeps a cache")
    heads, bias = node.attr("num_heads"), node.input(3)
    joint = [i for i in (0, 1) if node.input(i) and len(shape_of(op, node.input(i))) == 5]
    apart = [i for i in range(3) if node.input(i) and i not in joint]
    rows = dict.fromkeys(apart, "")
    if bias:
        if joint:
            raise unsupported(node, "adds a bias to joint inputs")
        widths = [_width(op, node.input(i), heads) for i in range(3)]
        rows = dict(zip(range(3), op.Split(bias, widths, axis=0, outputs=3), strict=True))
    parts = [_headed(op, node.input(i), heads, rows[i]) for i in apart]
    for i in joint:
        count = 3 - i
        slices = op.Split(node.input(i), num_outputs=count, axis=3, outputs=count)
        parts += [op.Transpose(op.Squeeze(s, [3]), perm=[0, 2, 1, 3]) for s in slices]
    size = static_dims(op.graph, node.input(0), [-1])[0] // (1 if 0 in joint else heads)
    y = _attended(op, node, parts, size, node.input(4), node.input(5))
    present = [op.Identity(part) for part in parts[1:]] if any(node.outputs[1:]) else ["", ""]
    return [y, *present]


def _width(op: Emitter, tensor: str, heads: int) -> int:
    """H·D."""
    packed = len(shape_of(op, tensor)) == 3
    return static_dims(op.graph, tensor, [-1])[0] * (1 if packed else heads)


def _headed(op: Emitter, tensor: str, heads: int, bias: str) -> str:
    """(N, H, S, D)."""
    if len(shape_of(op, tensor)) == 3:
        return split_heads(op, op.Add(tensor, bias) if bias else tensor, heads)
    if not bias:
        return tensor
    return str(op.Add(tensor, op.Reshape(bias, [heads, 1, -1])))


def _attended(
    op: Emitter, node: Node, parts: Sequence[str], size: int, mask: str, added: str
) -> str:
    """The attention of Q, K and V (N, H, S, D), as (N, S, H·D)."""
    q, k, v = parts
    like = node.input(0)
    scale = number(op, node.attr("scale") or 1 / math.sqrt(size), like)
    scores = op.MatMul(op.Mul(q, scale), op.Transpose(k, perm=[0, 1, 3, 2]))
    if added:
        scores = op.Add(scores, added)
    if mask:
        scores = op.Add(scores, _hidden(op, node, mask))
    if node.attr("unidirectional", 0):
        ones = op.Expand(op.constant(True, np.bool_), op.Shape(scores))
        scores = op.Where(op.Trilu(ones, upper=0), scores, number(op, -np.inf, like))
    return merge_heads(op, op.MatMul(op.Softmax(scores, axis=-1), v))


def _hidden(op: Emitter, node: Node, mask: str) -> str:
    """What to add where the mask (N, T) or (N, S, T) is 0."""
    rank = len(shape_of(op, mask))
    if rank not in (2, 3):
        raise unsupported(node, "counts the keys that it sees")
    values = (0.0, node.attr("mask_filter_value", -10000.0))
    zero, far = (number(op, value, node.input(0)) for value in values)
    hidden = op.Where(op.Cast(mask, to=onnx.TensorProto.BOOL), zero, far)
    return str(op.Unsqueeze(hidden, [1] if rank == 3 else [1, 2]))


FUSED_ATTENTION: Table = MappingProxyType(
    {
        (MICROSOFT, "Attention"): _attention,
        (MICROSOFT, "MultiHeadAttention"): _multi_head_attention,
    }
)
"""What takes each of them apart."""
