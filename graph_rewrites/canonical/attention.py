"""Take apart the operators of attention, which were born with opset 23 and 24.

Their standard bodies cannot be inlined: an omitted input in front of a given one has no type there.
The nodes written here are those that an exporter writes for an older operator set.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from graph_rewrites.canonical.decompose import number, shape_of
from graph_rewrites.emit import Emitter
from graph_rewrites.node import Node
from graph_rewrites.shapes import same_dim, static_dims

_HEADS_FIRST = [0, 2, 1, 3]
"""(N, S, H, D) to (N, H, S, D), and back."""


def attention(op: Emitter, node: Node) -> Sequence[str]:
    """softmax(scale · Q Kᵀ + bias) V, a softmax without any visible key being 0.

    Q (N, H, S, D), K (N, G, T, D), V (N, G, T, E) with G a divisor of H, or each as (N, S, H·D).
    """
    packed = len(shape_of(op, node.input(0))) == 3
    heads = [node.attr(f"{name}_num_heads", 1) for name in ("q", "kv", "kv")]
    if not packed:
        heads = [static_dims(op.graph, node.input(i), [1])[0] for i in range(3)]
    q, k, v = (
        split_heads(op, node.input(i), heads[i]) if packed else node.input(i) for i in range(3)
    )
    if node.input(4):
        k, v = op.Concat(node.input(4), k, axis=2), op.Concat(node.input(5), v, axis=2)
    present = [op.Identity(k), op.Identity(v)] if any(node.outputs[1:3]) else ["", ""]
    k, v = (_repeated(op, tensor, *heads[:2]) for tensor in (k, v))
    size = static_dims(op.graph, node.input(0), [-1])[0] // (heads[0] if packed else 1)
    scale = number(op, node.attr("scale") or 1 / math.sqrt(size), node.input(0))
    products = op.MatMul(op.Mul(q, scale), op.Transpose(k, perm=[0, 1, 3, 2]))
    y, stages = _weighted(op, node, q, v, products)
    if packed:
        y = merge_heads(op, y)
    return [y, *present, stages[node.attr("qk_matmul_output_mode", 0)]]


def _weighted(
    op: Emitter, node: Node, q: str, v: str, products: str
) -> tuple[str, tuple[str, ...]]:
    """The result, and what `qk_matmul_output_mode` chooses from."""
    capped, cap = products, node.attr("softcap", 0.0)
    if cap:
        cap = number(op, cap, node.input(0))
        capped = op.Mul(op.Tanh(op.Div(products, cap)), cap)
    bias = _bias(op, node, q, v)
    if not bias:
        weights = op.Softmax(capped, axis=-1)
        return op.MatMul(weights, v), (products, capped, capped, weights)
    zero, hidden = (number(op, value, node.input(0)) for value in (0.0, -np.inf))
    empty = op.Equal(op.ReduceMax(bias, [-1], keepdims=1), hidden)
    # The softmax of an empty row must stay finite, for the sake of its gradient.
    weights = op.Softmax(op.Add(capped, op.Where(empty, zero, bias)), axis=-1)
    weights = op.Where(empty, zero, weights)
    masked = op.Add(capped, bias) if node.attr("qk_matmul_output_mode", 0) == 2 else capped
    return op.MatMul(weights, v), (products, capped, masked, weights)


def split_heads(op: Emitter, tensor: str, heads: int) -> str:
    """(N, S, H·D) -> (N, H, S, D)."""
    return str(op.Transpose(op.Reshape(tensor, [0, 0, heads, -1]), perm=_HEADS_FIRST))


def merge_heads(op: Emitter, tensor: str) -> str:
    """(N, H, S, D) -> (N, S, H·D)."""
    return str(op.Reshape(op.Transpose(tensor, perm=_HEADS_FIRST), [0, 0, -1]))


def _repeated(op: Emitter, tensor: str, heads: int, groups: int) -> str:
    """(N, G, T, D) -> (N, H, T, D): each group of keys or values serves H/G heads in a row."""
    if heads == groups:
        return tensor
    copies = op.Expand(op.Unsqueeze(tensor, [2]), [1, 1, heads // groups, 1, 1])
    shape = op.Concat([0, heads], op.Shape(tensor, start=2), axis=0)
    return str(op.Reshape(copies, shape))


def _bias(op: Emitter, node: Node, q: str, v: str) -> str:
    """What is added to the products before the softmax: -∞ where a query sees no key; or ""."""
    rows, columns = op.Shape(q, start=2, end=3), op.Shape(v, start=2, end=3)
    mask, allowed = node.input(3), _visible(op, node, rows, columns)
    zero, hidden = (number(op, value, node.input(0)) for value in (0.0, -np.inf))
    if mask:
        if not op.graph.is_float(mask):
            mask = op.Where(mask, zero, hidden)
        keys = shape_of(op, node.input(2))[-2]
        if node.input(4) or not same_dim(shape_of(op, node.input(3))[-1], keys):
            missing = op.Sub(columns, op.Shape(mask, start=-1))
            mask = op.Pad(mask, op.Concat([0], missing, axis=0), hidden, [-1])
    if not allowed:
        return mask
    bias = op.Where(allowed, zero, hidden)
    return str(op.Add(mask, bias)) if mask else str(bias)


def _visible(op: Emitter, node: Node, rows: str, columns: str) -> str:
    """Which key j each query i may see, (S, T) or (N, 1, S, T); "" where it may see all."""
    left, right = (node.attr(f"{side}_window_size", -1) for side in ("left", "right"))
    if not node.attr("is_causal", 0) and max(left, right) < 0 and not node.input(6):
        return ""
    zero, one = op.constant(0, np.int64), op.constant(1, np.int64)
    j = op.Range(zero, op.Squeeze(columns), one)
    i = op.Unsqueeze(op.Range(zero, op.Squeeze(rows), one), [1])
    filled = op.Unsqueeze(node.input(6), [1, 2, 3]) if node.input(6) else ""
    if node.input(4):  # the queries come behind the past keys
        i = op.Add(i, op.Shape(node.input(4), start=2, end=3))
    elif filled:
        i = op.Add(i, op.Sub(filled, rows))
    seen = [op.LessOrEqual(j, i)] if node.attr("is_causal", 0) else []
    if right >= 0:
        seen.append(op.LessOrEqual(j, op.Add(i, op.constant(right, np.int64))))
    if left >= 0:
        seen.append(op.GreaterOrEqual(j, op.Sub(i, op.constant(left, np.int64))))
    if filled:
        seen.append(op.Less(j, filled))
    allowed = ""
    for condition in seen:
        allowed = op.And(allowed, condition) if allowed else condition
    return allowed


def rotary_embedding(op: Emitter, node: Node) -> Sequence[str]:
    """Rotate pairs of entries of X (N, H, S, D) or (N, S, H·D) by angles that grow with S."""
    x, packed = node.input(0), len(shape_of(op, node.input(0))) == 3
    if packed:
        x = op.Reshape(x, [0, 0, node.attr("num_heads"), -1])
    cos, sin = (
        op.Gather(node.input(i), node.input(3)) if node.input(3) else node.input(i) for i in (1, 2)
    )  # (N, S, R/2)
    cos, sin = (op.Unsqueeze(angles, [2 if packed else 1]) for angles in (cos, sin))
    size, rest = node.attr("rotary_embedding_dim", 0), None
    if size:
        x, rest = op.Slice(x, [0], [size], [3]), op.Slice(x, [size], [1 << 62], [3])
    if node.attr("interleaved", 0):
        pairs = op.Reshape(x, [0, 0, 0, -1, 2])
        a, b = (
            op.Squeeze(part, [-1]) for part in op.Split(pairs, num_outputs=2, axis=-1, outputs=2)
        )
    else:
        a, b = op.Split(x, num_outputs=2, axis=-1, outputs=2)
    turned = [op.Sub(op.Mul(cos, a), op.Mul(sin, b)), op.Add(op.Mul(sin, a), op.Mul(cos, b))]
    if node.attr("interleaved", 0):
        y = op.Concat(*(op.Unsqueeze(part, [-1]) for part in turned), axis=-1)
        y = op.Reshape(y, [0, 0, 0, -1])
    else:
        y = op.Concat(*turned, axis=-1)
    y = op.Concat(y, rest, axis=-1) if rest else y
    return [op.Reshape(y, [0, 0, -1]) if packed else y]


def tensor_scatter(op: Emitter, node: Node) -> Sequence[str]:
    """The cache (N, …) with `update` written along `axis`, from the sample's write index on."""
    cache, update, starts = (node.input(i) for i in range(3))
    rank, mode = len(shape_of(op, cache)), node.attr("mode", "linear")
    axis = node.attr("axis", -2) % rank
    count = op.Squeeze(op.Shape(update, start=axis, end=axis + 1))
    zero, one = op.constant(0, np.int64), op.constant(1, np.int64)
    places = op.Unsqueeze(op.Range(zero, count, one), list(range(1, rank - axis)))
    if starts:
        places = op.Add(places, op.Unsqueeze(starts, list(range(1, rank))))
    if mode == "circular":
        places = op.Mod(places, op.Shape(cache, start=axis, end=axis + 1))
    places = op.Expand(places, op.Shape(update))
    return [op.ScatterElements(cache, places, update, axis=axis)]
