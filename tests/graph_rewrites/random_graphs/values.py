"""What a random network is made of: each operator with what keeps it in its domain.

A step of which a derivative is zero or undefined is joined with its argument again, so that every
tensor depends on the picture. What is unbounded is fed a bounded tensor: differences in float64
tell nothing about 1e30.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .draft import IMAGE, Draft, Tensor, step


def _positive(d: Draft, x: Tensor | str) -> str:
    """Something of the same shape that is 0.2 at least."""
    return d.node("Add", d.node("Softplus", x), d.constant(0.2))


# -- one tensor to one tensor ---------------------------------------------------------------------


@step(
    "Abs", "Atan", "Asinh", "Celu", "Cos", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish",
    "Identity", "LeakyRelu", "Mish", "Neg", "Selu", "Sigmoid", "Sin", "Softplus", "Softsign",
    "Tanh", "ThresholdedRelu",
)  # fmt: skip
def _plain(d: Draft, op: str, x: Tensor) -> Any:
    return d.node(op, x)


@step("Relu", "Swish", often=4)
def _relu(d: Draft, op: str, x: Tensor) -> Any:
    return d.node(op, x)


@step("Exp", "Sinh", "Cosh", "Tan")
def _of_bounded(d: Draft, op: str, x: Tensor) -> Any:
    return d.node(op, d.node(d.pick(["Tanh", "Softsign", "Sigmoid"]), x))


@step("Acos", "Asin", "Atanh")
def _of_less_than_one(d: Draft, op: str, x: Tensor) -> Any:
    return d.node(op, d.node("Mul", d.node("Softsign", x), d.constant(0.9)))


@step("Log", "Sqrt", "Reciprocal")
def _of_positive(d: Draft, op: str, x: Tensor) -> Any:
    return d.node(op, _positive(d, x))


@step("Acosh")
def _of_more_than_one(d: Draft, op: str, x: Tensor) -> Any:
    return d.node(op, d.node("Add", _positive(d, x), d.constant(1.0)))


@step("Clip")
def _clip(d: Draft, op: str, x: Tensor) -> Any:
    return d.node(op, x, **d.pick([{"min": 0.0, "max": 1.5}, {"min": -0.7}, {"max": 0.9}]))


@step("Shrink")
def _shrink(d: Draft, op: str, x: Tensor) -> Any:
    return d.node(op, x, lambd=0.3, bias=0.3)


@step("PRelu")
def _prelu(d: Draft, op: str, x: Tensor) -> Any:
    return d.node(op, x, d.weight(x.dims[0], *[1] * (x.rank - 2)))


@step("Cast")
def _cast(d: Draft, op: str, x: Tensor) -> Any:
    return d.node(op, d.node(op, x, to=11), to=1)


@step("Dropout")
def _dropout(d: Draft, op: str, x: Tensor) -> Any:
    return d.node(op, x)


@step("Ceil", "Floor", "Round", "Sign")
def _stairs(d: Draft, op: str, x: Tensor) -> Any:
    return d.node("Mul", x, d.node(op, d.node("Add", x, d.constant(0.3))))


# -- arithmetic -----------------------------------------------------------------------------------


@step("Add", "Sub", "Mul", often=2)
def _binary(d: Draft, op: str, x: Tensor) -> Any:
    pair = [x.name, d.partner(x)]
    return d.node(op, *(pair if d.chance() else pair[::-1]))


@step("Sum", "Mean", "Max", "Min")
def _several(d: Draft, op: str, x: Tensor) -> Any:
    return d.node(op, x, *(d.partner(x) for _ in range(d.integer(0, 2))))


@step("Div")
def _div(d: Draft, op: str, x: Tensor) -> Any:
    return d.node(op, x, _positive(d, d.partner(x)))


@step("Pow")
def _pow(d: Draft, op: str, x: Tensor) -> Any:
    base = d.node("Tanh", x)
    if d.chance():
        return d.node(op, base, d.constant(d.pick([2.0, 3.0])))
    exponent = d.constant(d.pick([0.5, -0.5])) if d.chance() else d.node("Sin", d.partner(x))
    return d.node(op, _positive(d, base), exponent)


@step("Mod")
def _mod(d: Draft, op: str, x: Tensor) -> Any:
    return d.node(op, x, d.constant(1.3), fmod=1) if d.opset > 9 else x.name


@step("Greater", "Less", "GreaterOrEqual", "LessOrEqual", "Equal", "Where", often=2)
def _where(d: Draft, op: str, x: Tensor) -> Any:
    compare = "Greater" if op == "Where" else op
    if compare == "Equal" and d.opset < 11:
        return x.name
    chosen = d.node(compare, x, d.constant(d.pick([0.0, 0.3])))
    return d.node("Where", chosen, x, d.node("Mul", x, d.partner(x)))


@step("And", "Or", "Xor", "Not")
def _logic(d: Draft, op: str, x: Tensor) -> Any:
    high, low = d.node("Greater", x, d.constant(0.4)), d.node("Less", x, d.constant(-0.2))
    chosen = d.node(op, high) if op == "Not" else d.node(op, high, low)
    return d.node("Where", chosen, d.partner(x), x)


@step("IsNaN", "IsInf")
def _is_special(d: Draft, op: str, x: Tensor) -> Any:
    return d.node("Where", d.node(op, x), d.constant(0.0), x)


# -- normalisation --------------------------------------------------------------------------------


def _channels(d: Draft, x: Tensor, offset: float = 0.0) -> str:
    return d.weight(x.dims[0], scale=0.2, offset=offset)


@step("BatchNormalization", ranks=(3, 4), often=2)
def _batch_normalization(d: Draft, op: str, x: Tensor) -> Any:
    variance = d.constant(np.linspace(0.5, 1.5, x.dims[0], dtype=np.float32))
    return d.node(op, x, _channels(d, x, 1), _channels(d, x), _channels(d, x), variance)


@step("InstanceNormalization", ranks=(3, 4), when=lambda dims: min(dims[1:]) > 1)
def _instance_normalization(d: Draft, op: str, x: Tensor) -> Any:
    return d.node(op, x, _channels(d, x, 1), _channels(d, x), epsilon=1e-2)


@step("GroupNormalization", ranks=IMAGE, when=lambda d: d[0] % 2 == 0 and min(d[1:]) > 1)
def _group_normalization(d: Draft, op: str, x: Tensor) -> Any:
    size = x.dims[0] if d.opset >= 21 else 2
    scale, bias = d.weight(size, offset=1.0), d.weight(size)
    return d.node(op, x, scale, bias, num_groups=2, epsilon=1e-2)


@step("LayerNormalization", "RMSNormalization", when=lambda dims: dims[-1] > 2, often=4)
def _layer_normalization(d: Draft, op: str, x: Tensor) -> Any:
    bias = [d.weight(x.dims[-1])] if op == "LayerNormalization" and d.chance() else []
    return d.node(op, x, d.weight(x.dims[-1], offset=1.0), *bias, epsilon=1e-2, axis=-1)


@step("MeanVarianceNormalization", ranks=IMAGE, when=lambda dims: min(dims[1:]) > 1)
def _mean_variance_normalization(d: Draft, op: str, x: Tensor) -> Any:
    return d.node(op, d.uneven(x), axes=[2, 3])  # of equal numbers the runtime makes NaN


@step("LRN", ranks=IMAGE)
def _lrn(d: Draft, op: str, x: Tensor) -> Any:
    return d.node(op, x, size=3, alpha=0.5, bias=1.0)


@step("LpNormalization")
def _lp_normalization(d: Draft, op: str, x: Tensor) -> Any:
    return d.node(op, x, axis=d.axis(x), p=d.pick([1, 2]))


@step("Softmax", "LogSoftmax")
def _softmax(d: Draft, op: str, x: Tensor) -> Any:
    return d.node(op, x, axis=d.axis(x) % x.rank)


@step("Hardmax")
def _hardmax(d: Draft, op: str, x: Tensor) -> Any:
    # Where rounding decides, the greatest jumps from place to place, and no difference follows it.
    return d.node("Mul", x, d.node(op, d.uneven(x), axis=x.rank - 1))
