"""Normalisations, as they are in a trained network.

Scales, biases and stored statistics are the network's constants and get no cotangent.
"""

from __future__ import annotations

from graph_rewrites.emit import Emitter
from graph_rewrites.errors import UnsupportedOperatorError
from graph_rewrites.node import Node
from graph_rewrites.rules.table import Cotangents, vjp
from graph_rewrites.shapes import reshape_like


@vjp("BatchNormalization")
def batch_normalization_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """BatchNormalization: x (N, C, …), statistics (C,)  ->  ct · scale / √(variance + ε).

    Raises:
        UnsupportedOperatorError: the node normalises by the statistics of its own batch.
    """
    if node.attr("training_mode", 0):
        raise UnsupportedOperatorError(
            f"{node} is in training mode: each image would depend on the others of its batch; "
            "export the model for inference (model.eval() in PyTorch)"
        )
    x, scale, _, _, variance = node.inputs
    factor = op.Div(scale, op.Sqrt(op.Add(variance, node.attr("epsilon", 1e-5))))
    per_channel = op.Reshape(factor, [-1] + [1] * (op.rank(x) - 2))
    return [op.Mul(cts[0], per_channel), None, None, None, None]


@vjp("LayerNormalization")
def layer_normalization_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """LayerNormalization: y = x̂ · scale + bias, x̂ = (x - mean) / deviation over `axis` and on.

    With g = ct · scale, dx = (g - mean(g) - x̂ · mean(g · x̂)) / deviation: g without its constant
    part and its part along x̂, since moving x along either leaves y as it is.

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
    centred = op.Sub(x, op.ReduceMean(x, axes))
    variance = op.ReduceMean(op.Mul(centred, centred), axes)
    deviation = op.Sqrt(op.Add(variance, node.attr("epsilon", 1e-5)))
    normal, g = op.Div(centred, deviation), op.Mul(ct, scale)
    along = op.Mul(normal, op.ReduceMean(op.Mul(g, normal), axes))
    dx = op.Div(op.Sub(op.Sub(g, op.ReduceMean(g, axes)), along), deviation)
    return [dx, None, *(None for _ in bias)]


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
