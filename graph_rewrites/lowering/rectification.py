"""Masks of ReLUs."""

from __future__ import annotations

from onnx import TensorProto

from graph_rewrites.emit import Emitter
from graph_rewrites.lowering.constants import is_fixed, is_zero
from graph_rewrites.lowering.pattern import pattern
from graph_rewrites.node import Node
from graph_rewrites.stamps import FORWARD_KEY, PREFIX_KEY

_STEEP = 2.0**127  # times 2^-126, the least normal number, still above 1
_STEEP_BELOW = 2.0**100  # times an upper bound still finite
_FINITE = frozenset({"Add", "Mul", "Relu", "Sum"})
_BOUNDS = (2.0**-20, 2.0**20)  # times the spacing of numbers just below it still above 1

_RULE = (PREFIX_KEY, FORWARD_KEY)
"""What the nodes that one rule emitted at one place have in common."""

Step = tuple[str, float, float]
"""The tensor, alpha and beta of a HardSigmoid."""


@pattern("Where")
def step_mask(op: Emitter, node: Node) -> str | None:
    """Where(y > 0, ct, 0) -> ct · HardSigmoid(y; 2^127, 0); for y < c times another step.

    A HardSigmoid so steep is exactly 0 or 1 for every number that is no denormal, and powers of two
    keep the bound exact. It stays in the runtime's blocked layout, which comparisons and Where
    leave: a fifth of the time on depthwise networks. A Where that guards what its own rule divides
    stays: 0 times an infinity is none.
    """
    condition, ct, other = node.inputs
    steps = _steps(op, condition)
    if not steps or not is_zero(op.graph, other) or op.shape(ct) != op.shape(node.output):
        return None
    if not _is_safe(op, ct, node):
        return None
    y, alpha, beta = steps[0]
    mask = op.HardSigmoid(y, alpha=alpha, beta=beta)
    for y, alpha, beta in steps[1:]:
        mask = op.Mul(mask, op.HardSigmoid(y, alpha=alpha, beta=beta))
    return str(op.Mul(ct, mask))


def _is_safe(op: Emitter, tensor: str, node: Node) -> bool:
    """Whether `node`'s rule received `tensor`, or computed it without dividing by what may be 0."""
    writer = op.graph.producer(tensor)
    if writer is None or is_fixed(op.graph, tensor):
        return True
    if any(writer.metadata.get(k) != node.metadata.get(k) for k in _RULE):
        return True
    return writer.op_type in _FINITE and all(_is_safe(op, x, node) for x in writer.inputs)


def _steps(op: Emitter, condition: str) -> list[Step]:
    """The steps whose product is `condition`; none where it is no interval that begins at 0."""
    writer = op.graph.producer(condition)
    if writer is None:
        return []
    if writer.op_type == "And":
        first, second = (_steps(op, x) for x in writer.inputs)
        return [*first, *second] if first and second else []
    if writer.op_type not in ("Greater", "Less"):
        return []
    y, bound = writer.input(0), op.graph.constant(writer.input(1))
    if op.graph.type(y).elem_type != TensorProto.FLOAT or bound is None or bound.shape:
        return []
    if writer.op_type == "Greater":
        return [(y, _STEEP, 0.0)] if bound.item() == 0.0 else []
    least, greatest = _BOUNDS
    if not least <= bound.item() <= greatest:
        return []
    return [(y, -_STEEP_BELOW, bound.item() * _STEEP_BELOW)]
