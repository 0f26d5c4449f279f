"""The heart of the package: what a ReLU does with the cotangent that reaches it.

========== ======================= =====================================
rule       backward                source
========== ======================= =====================================
gradient   ct · [0 < y < c]        Simonyan et al. 2013, arXiv 1312.6034
deconvnet  max(ct, 0)              Zeiler & Fergus 2014, arXiv 1311.2901
guided     max(ct, 0) · [0 < y < c]  Springenberg et al. 2015, arXiv 1412.6806
========== ======================= =====================================

A ReLU is a `Relu`, a `Clip(0, c)` (ReLU6; not the clip inside a hard-sigmoid), or a QuantizeLinear
whose saturation does a ReLU's work because the quantiser removed the explicit one. The derivative
at both bounds is 0 (as PyTorch's). Masks read the tensor behind the activation; where that is
quantised at once, they read the integers, because a second reader of the float in between would
stop the runtime from running the convolution in integers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import onnx
from onnx import TensorProto

from graph_rewrites.emit import Emitter
from graph_rewrites.graph import Graph
from graph_rewrites.node import Node
from graph_rewrites.quantized import Quantization, quantization, saturates_as_relu
from graph_rewrites.rules.table import Cotangents, vjp


@dataclass(frozen=True)
class ReluSite:
    """Where a network rectifies.

    Attributes:
        kind: "relu", "clip" or "folded" (into a QuantizeLinear).
        mask: the tensor that tells which elements passed.
        lower: `mask` at 0, in its own numbers.
        upper: `mask` at the upper bound, None where there is none.
        elem_type: the type of `mask`, an onnx.TensorProto.DataType.
    """

    kind: str
    mask: str
    lower: float
    upper: float | None
    elem_type: int

    def passed(self, op: Emitter) -> str:
        """[0 < y < c], a boolean tensor."""
        y, elem_type = self.mask, self.elem_type
        if elem_type in (TensorProto.INT4, TensorProto.UINT4):  # no operator compares these
            y, elem_type = op.Cast(y, to=TensorProto.INT8), TensorProto.INT8
        dtype = onnx.helper.tensor_dtype_to_np_dtype(elem_type)
        above = op.Greater(y, op.constant(self.lower, dtype))
        if self.upper is None:
            return str(above)
        return str(op.And(above, op.Less(y, op.constant(self.upper, dtype))))


def gradient(op: Emitter, site: ReluSite, ct: str) -> str:
    """The derivative: the cotangent passes where the activation did."""
    return str(op.Where(site.passed(op), ct, 0.0))


def deconvnet(op: Emitter, site: ReluSite, ct: str) -> str:
    """Rectify the signal on its way back; what the forward pass did does not matter."""
    del site
    return str(op.Relu(ct))


def guided(op: Emitter, site: ReluSite, ct: str) -> str:
    """Both gates: only positive signal, only through units that were active."""
    return str(op.Where(site.passed(op), op.Relu(ct), 0.0))


ReluRule = Callable[[Emitter, ReluSite, str], str]

RELU_RULES: Mapping[str, ReluRule] = MappingProxyType(
    {"gradient": gradient, "deconvnet": deconvnet, "guided": guided}
)


def relu_site(graph: Graph, node: Node) -> ReluSite | None:
    """The ReLU that `node` is, None where it is none."""
    if node.op_type == "QuantizeLinear":
        return _folded(graph, node) if saturates_as_relu(graph, node) else None
    if node.op_type == "Relu":
        bound = None
    elif node.op_type == "Clip":
        low, bound = clip_bounds(graph, node)
        if low != 0.0 or bound is None or bound <= 0 or is_hard_sigmoid_clip(graph, node):
            return None
    else:
        return None
    behind = quantization(graph, node.output)
    kind = node.op_type.lower()
    if behind is None:
        return ReluSite(kind, node.output, 0.0, bound, TensorProto.FLOAT)
    return _quantised_site(kind, behind, bound)


@vjp("Relu", "Clip", activation=True)
def clip_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """X -> clamp(x, lo, hi): ct where lo < y < hi. The bounds are constants, no cotangent.

    The sweep asks for the rule of a ReLU by its name; this is the rule of every other Clip.
    """
    (ct,) = cts
    assert ct is not None
    site = relu_site(op.graph, node)
    dx = _inside(op, node, ct) if site is None else gradient(op, site, ct)
    return [dx, *(None for _ in node.inputs[1:])]


def clip_bounds(graph: Graph, node: Node) -> tuple[float | None, float | None]:
    """Constant bounds of a Clip, None where one is absent or computed."""
    values = [graph.constant(node.input(i)) if node.input(i) else None for i in (1, 2)]
    low, high = (None if v is None else float(v.reshape(())) for v in values)
    return low, high


def is_hard_sigmoid_clip(graph: Graph, node: Node) -> bool:
    """Whether a Clip is the middle of (x + 3) clipped to [0, 6] and divided by 6."""
    before = graph.producer(node.input(0))
    if before is None or before.op_type != "Add" or clip_bounds(graph, node) != (0.0, 6.0):
        return False
    shift = next((v for v in map(graph.constant, before.inputs) if v is not None), None)
    if shift is None or shift.size != 1 or float(shift.reshape(())) != 3.0:
        return False
    return any(after.op_type in ("Mul", "Div") for after in graph.consumers(node.output))


def _folded(graph: Graph, node: Node) -> ReluSite:
    q = quantization(graph, node.input(0), node)
    assert q is not None  # the node is a QuantizeLinear
    return ReluSite("folded", q.tensor, q.zero_point, q.top, q.elem_type)


def _quantised_site(kind: str, q: Quantization, bound: float | None) -> ReluSite:
    """The site's bounds in the integers of the QuantizeLinear that follows the activation."""
    upper = None if bound is None else min(q.top, round(bound / q.scale) + q.zero_point)
    return ReluSite(kind, q.tensor, q.zero_point, upper, q.elem_type)


def _inside(op: Emitter, node: Node, ct: str) -> str:
    (y,) = node.outputs
    inside = [
        compare(y, bound)
        for compare, bound in ((op.Greater, node.input(1)), (op.Less, node.input(2)))
        if bound
    ]
    if not inside:
        return ct
    mask = inside[0] if len(inside) == 1 else op.And(*inside)
    return str(op.Where(mask, ct, 0.0))
