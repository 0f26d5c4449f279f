"""The heart of the package: what a ReLU does with the cotangent that reaches it.

========== ======================= =====================================
rule       backward                source
========== ======================= =====================================
gradient   ct · [0 < y < c]        Simonyan et al. 2013, arXiv 1312.6034
deconvnet  max(ct, 0)              Zeiler & Fergus 2014, arXiv 1311.2901
guided     max(ct, 0) · [0 < y < c]  Springenberg et al. 2015, arXiv 1412.6806
========== ======================= =====================================

A ReLU is a `Relu`, a `Clip(0, c)` (ReLU6), a chain of operators that computes one (`chains`; a Clip
inside the chain of a hard-sigmoid is none), or a QuantizeLinear whose saturation does a ReLU's work
because the quantiser removed the explicit one. The derivative at both bounds is 0 (as PyTorch's).
Masks read the tensor behind the activation; where that is quantised at once, they read the
integers, because a second reader of the float in between would stop the runtime from running the
convolution in integers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import onnx
from onnx import TensorProto

from graph_rewrites.chains import Chain
from graph_rewrites.emit import Emitter
from graph_rewrites.graph import Graph
from graph_rewrites.node import Node
from graph_rewrites.quantized import network_dequantized, quantization, saturates_as_relu
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
        site = _behind_requantization(op.graph, self)
        y, elem_type = site.mask, site.elem_type
        if elem_type in (TensorProto.INT4, TensorProto.UINT4):  # no operator compares these
            y, elem_type = op.Cast(y, to=TensorProto.INT8), TensorProto.INT8
        dtype = onnx.helper.tensor_dtype_to_np_dtype(elem_type)
        above = op.Greater(y, op.constant(site.lower, dtype))
        if site.upper is None:
            return str(above)
        return str(op.And(above, op.Less(y, op.constant(site.upper, dtype))))


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


def relu_site(
    graph: Graph, node: Node, chains: Mapping[str, Chain] = MappingProxyType({})
) -> ReluSite | None:
    """The ReLU that `node` is, or ends as the last of a chain; None where it is none.

    With `chains`, the chains of the graph, what lies inside one is no ReLU of its own.
    """
    chain = chains.get(node.output)
    if chain is not None:
        ends = chain.kind != "smooth" and chain.output == node.output
        return _site(graph, chain.kind, chain.output, chain.bound) if ends else None
    if node.op_type == "QuantizeLinear":
        return _folded(graph, node) if saturates_as_relu(graph, node) else None
    if node.op_type == "Relu":
        return _site(graph, "relu", node.output, None)
    if node.op_type != "Clip":
        return None
    low, bound = clip_bounds(graph, node)
    if low != 0.0 or (bound is None and node.input(2)) or (bound is not None and bound <= 0):
        return None
    return _site(graph, "relu" if bound is None else "clip", node.output, bound)


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


def is_guard(graph: Graph, node: Node) -> bool:
    """Whether a Clip only keeps a norm or a variance off 0: it has no activation's bounds."""
    low, _ = clip_bounds(graph, node) if node.op_type == "Clip" else (None, None)
    return low is not None and low > 0.0 and not node.input(2)


def _behind_requantization(graph: Graph, site: ReluSite) -> ReluSite:
    """`site` in real numbers behind the last pair, where its integers are only quantised again.

    Reading the integers between two pairs would stop the runtime from making one of them.
    """
    writer = graph.producer(site.mask)
    last = network_dequantized(graph, site.mask) if site.elem_type != TensorProto.FLOAT else None
    if last is None or writer is None or writer.op_type != "QuantizeLinear":
        return site
    behind = graph.producer(last)
    q = quantization(graph, writer.input(0), writer)
    if q is None or behind is None or behind.input(0) == site.mask:
        return site
    upper = None if site.upper is None else (site.upper - q.zero_point - _SLACK) * q.scale
    return ReluSite(site.kind, last, 0.0, upper, TensorProto.FLOAT)


_SLACK = 1e-3
"""Of a step: the one pair's numbers are those of the two but for rounding."""


def _folded(graph: Graph, node: Node) -> ReluSite:
    q = quantization(graph, node.input(0), node)
    assert q is not None  # the node is a QuantizeLinear
    return ReluSite("folded", q.tensor, q.zero_point, q.top, q.elem_type)


def _site(graph: Graph, kind: str, output: str, bound: float | None) -> ReluSite:
    """The site whose result is `output`, in the integers of a QuantizeLinear that follows it."""
    q = quantization(graph, output)
    if q is None:
        return ReluSite(kind, output, 0.0, bound, TensorProto.FLOAT)
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
