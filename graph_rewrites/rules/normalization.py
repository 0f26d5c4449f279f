"""Normalisations, as they are in a trained network.

y = x̂ · scale + bias with x̂ = (x - mean) / deviation. Scales and biases are mostly the network's
constants; those that are not get their cotangents, Σ ct · x̂ and Σ ct over what shares them. Group,
root-mean-square and mean-variance normalisation are made of others: see `canonical.composites`.
"""

from __future__ import annotations

from collections.abc import Sequence

from graph_rewrites.emit import Emitter
from graph_rewrites.errors import UnsupportedOperatorError
from graph_rewrites.node import Node
from graph_rewrites.rules.table import Cotangents, vjp
from graph_rewrites.shapes import reshape_like, unbroadcast


@vjp("BatchNormalization")
def batch_normalization_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """BatchNormalization: y = scale · x̂ + bias, statistics (C,)  ->  ct · scale / deviation.

    With d = Σ ct · x̂: scale gets d, the variance -d · scale / (2 deviation²).

    Raises:
        UnsupportedOperatorError: the node normalises by the statistics of its own batch.
    """
    if node.attr("training_mode", 0):
        raise UnsupportedOperatorError(
            f"{node} is in training mode: each image would depend on the others of its batch; "
            "export the model for inference (model.eval() in PyTorch)"
        )
    ct, (x, scale, _, mean, variance) = cts[0], node.inputs
    raised = op.Add(variance, node.attr("epsilon", 1e-5))
    deviation = op.Sqrt(raised)
    factor = op.Div(scale, deviation)
    dx = op.Mul(ct, _per_channel(op, factor, x))
    if _are_constant(node, node.inputs[1:]):
        return [dx, None, None, None, None]
    centred = op.Sub(x, _per_channel(op, mean, x))
    normal = op.Div(centred, _per_channel(op, deviation, x))
    dscale, dbias = _channel_sum(op, op.Mul(ct, normal), x), _channel_sum(op, ct, x)
    dvariance = op.Mul(op.Div(op.Mul(dscale, scale), raised), -0.5)
    return [dx, dscale, dbias, op.Neg(op.Mul(dbias, factor)), dvariance]


@vjp("InstanceNormalization")
def instance_normalization_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """InstanceNormalization: x (N, C, …) over the pixels of each channel; see `_through`."""
    (ct,), (x, scale, bias) = cts, node.inputs
    pixels = list(range(2, op.rank(x)))
    normal, deviation = _normalised(op, x, pixels, node.attr("epsilon", 1e-5))
    dx = _through(op, op.Mul(ct, _per_channel(op, scale, x)), normal, deviation, pixels)
    if _are_constant(node, (scale, bias)):
        return [dx, None, None]
    return [dx, _channel_sum(op, op.Mul(ct, normal), x), _channel_sum(op, ct, x)]


@vjp("LayerNormalization")
def layer_normalization_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """LayerNormalization: x over `axis` and those behind it; see `_through`.

    Raises:
        UnsupportedOperatorError: the explained tensor depends on one of the statistics too.
    """
    ct, *statistics = cts
    if ct is None or any(statistics):
        raise UnsupportedOperatorError(
            f"{node} is differentiated by its second or third output, its statistics; "
            "write these as ReduceMean nodes of their own"
        )
    x, scale, *bias = node.inputs
    rank = op.rank(x)
    axes = list(range(node.attr("axis", -1) % rank, rank))
    normal, deviation = _normalised(op, x, axes, node.attr("epsilon", 1e-5))
    dx = _through(op, op.Mul(ct, scale), normal, deviation, axes)
    if _are_constant(node, (scale, *bias)):
        return [dx, None, *(None for _ in bias)]
    dscale = unbroadcast(op, op.Mul(ct, normal), scale, x)
    return [dx, dscale, *(unbroadcast(op, ct, b, x) if b else None for b in bias)]


@vjp("LpNormalization")
def lp_normalization_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """LpNormalization: y = x / n, n = Σ|x| or √Σx² along `axis`  ->  (ct - ∂n · Σ ct·y) / n.

    ∂n, the slope of the norm, is sign(x) or y. Where n = 0 nothing is passed back.
    """
    (ct,), (x,), (y,) = cts, node.inputs, node.outputs
    one, axes = node.attr("p", 2) == 1, [node.attr("axis", -1)]
    norm = op.ReduceL1(x, axes) if one else op.ReduceL2(x, axes)
    along = op.ReduceSum(op.Mul(ct, y), axes, keepdims=1)
    across = op.Sub(ct, op.Mul(op.Sign(x) if one else y, along))
    return [op.Where(op.Greater(norm, 0.0), op.Div(across, norm), 0.0)]


@vjp("LRN")
def lrn_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """LRN: y = x · n^-β with n = bias + α · mean of x² over a window of `size` channels.

    dx = ct · n^-β - 2αβ · x · (mean of ct·y/n over the mirrored window): channel j is in the window
    of i where i is in the mirrored window of j. Means count the zeros beyond the first and the
    last channel.
    """
    (ct,), (x,), (y,) = cts, node.inputs, node.outputs
    alpha, beta, bias = node.attr("alpha", 1e-4), node.attr("beta", 0.75), node.attr("bias", 1.0)
    size = node.attr("size")
    before, after = (size - 1) // 2, size // 2
    n = op.Add(bias, op.Mul(alpha, _channel_mean(op, op.Mul(x, x), x, before, after)))
    others = _channel_mean(op, op.Div(op.Mul(ct, y), n), x, after, before)
    own = op.Mul(ct, op.Pow(n, -beta))
    return [op.Sub(own, op.Mul(2.0 * alpha * beta, op.Mul(x, others)))]


def _channel_mean(op: Emitter, t: str, like: str, before: int, after: int) -> str:
    """Mean of `t`, shaped like `like` (N, C, …), over a window of channels around each one."""
    image = op.Unsqueeze(op.Reshape(t, [0, 0, -1]), [1])  # (N, 1, C, pixels)
    mean = op.AveragePool(
        image,
        kernel_shape=[before + after + 1, 1],
        pads=[before, 0, after, 0],
        count_include_pad=1,
    )
    return reshape_like(op, mean, like)


def _normalised(op: Emitter, x: str, axes: list[int], epsilon: float) -> tuple[str, str]:
    """x̂ over `axes` and the deviation √(variance + ε)."""
    centred = op.Sub(x, op.ReduceMean(x, axes, keepdims=1))
    variance = op.ReduceMean(op.Mul(centred, centred), axes, keepdims=1)
    deviation = op.Sqrt(op.Add(variance, epsilon))
    return op.Div(centred, deviation), deviation


def _through(op: Emitter, g: str | None, normal: str, deviation: str, axes: list[int]) -> str:
    """(g - mean(g) - x̂ · mean(g · x̂)) / deviation: the cotangent of x for `g`, that of x̂.

    g without its constant part and its part along x̂, since moving x along either leaves x̂ as it is.
    """
    along = op.Mul(normal, op.ReduceMean(op.Mul(g, normal), axes, keepdims=1))
    across = op.Sub(op.Sub(g, op.ReduceMean(g, axes, keepdims=1)), along)
    return str(op.Div(across, deviation))


def _per_channel(op: Emitter, values: str, x: str) -> str:
    """`values` (C,) in a shape that broadcasts against `x` (N, C, …)."""
    return str(op.Reshape(values, [-1] + [1] * (op.rank(x) - 2)))


def _channel_sum(op: Emitter, t: str | None, x: str) -> str:
    """Sum `t`, shaped like `x` (N, C, …), to (C,)."""
    return str(op.ReduceSum(t, [0, *range(2, op.rank(x))], keepdims=0))


def _are_constant(node: Node, tensors: Sequence[str]) -> bool:
    """Whether all of `tensors` are constants, which need no cotangent."""
    return all(node.constant(tensor) is not None for tensor in tensors if tensor)
