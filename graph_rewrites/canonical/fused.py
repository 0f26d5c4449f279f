"""Take apart what the runtime's optimiser fused: `com.microsoft` floating-point operators.

The runtime writes them into a file when it saves an optimised model (levels BASIC and EXTENDED),
and calls LayerNormalization by that name in operator sets that did not have it yet. The activation
that was fused becomes a node of its own again, so that the ReLU rules find it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import MappingProxyType

import onnx

from graph_rewrites.canonical.decompose import (
    MICROSOFT,
    Table,
    channels_first,
    channels_last,
    kept,
    number,
    shape_of,
    unsupported,
)
from graph_rewrites.canonical.functions import default_opset
from graph_rewrites.canonical.fused_attention import FUSED_ATTENTION
from graph_rewrites.emit import Emitter
from graph_rewrites.node import Node

_GELU_BORN = 20
_PREMATURE = {"LayerNormalization": 17, "SimplifiedLayerNormalization": 1 << 30}
"""Operators that the runtime writes in the default domain, and the opset they were born with."""


def claim_premature(model: onnx.ModelProto) -> None:
    """Move operators that the default domain lacks at the model's opset to the runtime's, in place.

    The version converter passes by what is of another domain; `FUSED` then names them.
    """
    version = default_opset(model)
    found = False
    for node in model.graph.node:
        if not node.domain and version < _PREMATURE.get(node.op_type, 0):
            node.domain, found = MICROSOFT, True
    if found and all(entry.domain != MICROSOFT for entry in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(MICROSOFT, 1))


# -- convolutions and products -------------------------------------------------------------------

_FUSION = (
    "activation", "activation_params", "activation_alpha", "activation_beta", "activation_gamma",
)  # fmt: skip


def _fused_conv(op: Emitter, node: Node) -> Sequence[str]:
    """X, W, B, Z -> activation(Conv(X, W, B) + Z)."""
    x, w, b, z = (node.input(i) for i in range(4))
    y = op.Conv(x, w, b or None, **kept(node, *_FUSION))
    if z:
        y = op.Add(y, z)
    return [_activated(op, node, y)]


def _nhwc_conv(op: Emitter, node: Node) -> Sequence[str]:
    """The same on X and Z of shape (N, *spatial, C); W stays (M, C, *kernel)."""
    x, w, b, z = (node.input(i) for i in range(4))
    rank = len(shape_of(op, w))
    y = op.Conv(channels_first(op, x, rank), w, b or None, **kept(node, *_FUSION))
    if z:
        y = op.Add(y, channels_first(op, z, rank))
    y = _activated(op, node, y)
    return [channels_last(op, y, rank)]


def _nhwc_max_pool(op: Emitter, node: Node) -> Sequence[str]:
    rank = len(node.attr("kernel_shape")) + 2
    y = op.MaxPool(channels_first(op, node.input(0), rank), **kept(node))
    return [channels_last(op, y, rank)]


def _fused_gemm(op: Emitter, node: Node) -> Sequence[str]:
    """A, B, C -> activation(Gemm(A, B, C))."""
    a, b, c = (node.input(i) for i in range(3))
    y = op.Gemm(a, b, c or None, **kept(node, *_FUSION))
    return [_activated(op, node, y)]


def _fused_matmul(op: Emitter, node: Node) -> Sequence[str]:
    """A, B -> alpha · A' B', each factor transposed as its two flags say."""
    a, b = (_turned(op, node, i, "AB"[i]) for i in range(2))
    y, alpha = op.MatMul(a, b), node.attr("alpha", 1.0)
    if alpha != 1.0:
        y = op.Mul(y, number(op, alpha, node.input(0)))
    return [y]


def _turned(op: Emitter, node: Node, index: int, factor: str) -> str:
    """A factor with its axes in the order of a matrix product.

    "transBatch" says that the first axis belongs behind the other batch axes, "trans" that the
    last two are swapped, in this order.
    """
    tensor = node.input(index)
    matrix, batch = (node.attr(f"{key}{factor}", 0) for key in ("trans", "transBatch"))
    rank = len(shape_of(op, tensor)) if matrix or batch else 0
    if rank < 2:
        return tensor  # the runtime ignores the flags on a vector
    axes = list(range(rank))
    if batch:
        axes.insert(rank - 2, axes.pop(0))
    if matrix:
        axes[-2:] = axes[:-3:-1]
    return str(op.Transpose(tensor, perm=axes))


# -- activations ---------------------------------------------------------------------------------

_PARAMETERS: dict[str, tuple[str, ...]] = {
    "Relu": (), "Sigmoid": (), "Tanh": (), "Softplus": (), "Softsign": (),
    "LeakyRelu": ("alpha",), "ThresholdedRelu": ("alpha",), "Elu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"), "Selu": ("alpha", "gamma"),
}  # fmt: skip
"""The activations that the runtime fuses, and their parameters in the order of the attribute."""


def _activated(op: Emitter, node: Node, y: str) -> str:
    """The activation that was fused into `node`, as a node of its own behind `y`."""
    activation, listed = node.attr("activation", ""), node.attr("activation_params", [])
    if not activation:
        return y
    if activation == "Clip":
        low, high = (number(op, value, node.input(0)) for value in listed)
        return str(op.Clip(y, low, high))
    if activation not in _PARAMETERS:
        raise unsupported(node, f"has the activation {activation!r}")
    names = _PARAMETERS[activation]
    given = dict(zip(names, listed, strict=False))  # a convolution lists them, a Gemm names them
    named = {name: node.attr(f"activation_{name}", given.get(name)) for name in names}
    return str(getattr(op, activation)(y, **{k: v for k, v in named.items() if v is not None}))


def _gelu(op: Emitter, node: Node) -> Sequence[str]:
    """X, bias -> Gelu(X + bias)."""
    x = _biased(op, node)
    if op.graph.opset >= _GELU_BORN:
        return [op.Gelu(x)]
    half, one, root = (number(op, value, node.input(0)) for value in (0.5, 1.0, math.sqrt(2.0)))
    return [op.Mul(op.Mul(x, op.Add(op.Erf(op.Div(x, root)), one)), half)]


def _fast_gelu(op: Emitter, node: Node) -> Sequence[str]:
    """X, bias -> x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³))) with x = X + bias."""
    x = _biased(op, node)
    if op.graph.opset >= _GELU_BORN:
        return [op.Gelu(x, approximate="tanh")]
    values = (0.5, 1.0, 3.0, 0.044715, math.sqrt(2.0 / math.pi))
    half, one, three, cubic, root = (number(op, value, node.input(0)) for value in values)
    inner = op.Mul(op.Add(x, op.Mul(op.Pow(x, three), cubic)), root)
    return [op.Mul(op.Mul(x, half), op.Add(op.Tanh(inner), one))]


def _biased(op: Emitter, node: Node) -> str:
    x, bias = node.input(0), node.input(1)
    return str(op.Add(x, bias)) if bias else x


def _quick_gelu(op: Emitter, node: Node) -> Sequence[str]:
    """X -> X · sigmoid(alpha X); with alpha 1 it is the SiLU."""
    x, alpha = node.input(0), node.attr("alpha", 1.702)
    inner = x if alpha == 1.0 else op.Mul(x, number(op, alpha, x))
    return [op.Mul(x, op.Sigmoid(inner))]


# -- normalisations ------------------------------------------------------------------------------


def _layer_norm(op: Emitter, node: Node) -> Sequence[str]:
    x, scale, bias = (node.input(i) for i in range(3))
    count = len(node.outputs)
    outputs = op.LayerNormalization(x, scale, bias or None, outputs=count, **kept(node))
    return outputs if count > 1 else [outputs]


def _skip_layer_norm(op: Emitter, node: Node) -> Sequence[str]:
    """Input, skip, gamma, beta, bias -> the normalised sum, its mean, 1/deviation, the sum."""
    total = _skipped(op, node, node.input(4))
    gamma, beta = node.input(2), node.input(3)
    epsilon = node.attr("epsilon", 1e-12)
    named = len([name for name in node.outputs[:3] if name])
    count = 3 if named > 1 else 1
    y = op.LayerNormalization(total, gamma, beta or None, outputs=count, axis=-1, epsilon=epsilon)
    normalised = list(y) if count > 1 else [y, "", ""]
    return [*normalised, total]


def _rms_norm(op: Emitter, node: Node) -> Sequence[str]:
    """X, scale -> X / √(mean X² + ε) · scale, and that root's reciprocal."""
    x, axis = node.input(0), node.attr("axis", -1)
    rank = len(shape_of(op, x))
    return _root_mean_square(op, node, x, node.input(1), list(range(axis % rank, rank)))


def _skip_rms_norm(op: Emitter, node: Node) -> Sequence[str]:
    """The same of input + skip + bias over the last axis; outputs as `_skip_layer_norm`'s."""
    total = _skipped(op, node, node.input(3))
    y, inverse = _root_mean_square(op, node, total, node.input(2), [-1])
    return [y, "", inverse, total]


def _skipped(op: Emitter, node: Node, bias: str) -> str:
    total = str(op.Add(node.input(0), node.input(1)))
    return str(op.Add(total, bias)) if bias else total


def _root_mean_square(
    op: Emitter, node: Node, x: str, scale: str, axes: list[int]
) -> tuple[str, str]:
    epsilon = number(op, node.attr("epsilon", 1e-5), node.input(0))
    mean = op.ReduceMean(op.Mul(x, x), axes, keepdims=1)
    inverse = op.Reciprocal(op.Sqrt(op.Add(mean, epsilon)))
    return op.Mul(op.Mul(x, inverse), scale), inverse


FUSED: Table = MappingProxyType({
    (MICROSOFT, "FusedConv"): _fused_conv,
    (MICROSOFT, "NhwcConv"): _nhwc_conv,
    (MICROSOFT, "NhwcFusedConv"): _nhwc_conv,
    (MICROSOFT, "NhwcMaxPool"): _nhwc_max_pool,
    (MICROSOFT, "FusedGemm"): _fused_gemm,
    (MICROSOFT, "FusedMatMul"): _fused_matmul,
    (MICROSOFT, "TransposeMatMul"): _fused_matmul,
    (MICROSOFT, "Gelu"): _gelu,
    (MICROSOFT, "BiasGelu"): _gelu,
    (MICROSOFT, "FastGelu"): _fast_gelu,
    (MICROSOFT, "QuickGelu"): _quick_gelu,
    (MICROSOFT, "LayerNormalization"): _layer_norm,
    (MICROSOFT, "SimplifiedLayerNormalization"): _rms_norm,
    (MICROSOFT, "SkipLayerNormalization"): _skip_layer_norm,
    (MICROSOFT, "SkipSimplifiedLayerNormalization"): _skip_rms_norm,
    **FUSED_ATTENTION,
})  # fmt: skip
"""What takes each fused operator apart."""
