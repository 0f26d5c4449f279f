"""Which rule each activation of a network got: the report that keeps guided backpropagation honest.

Hook-based tools skip functional, fused and unknown activations in silence. Here every activation is
listed, those that hide in a QuantizeLinear included, and one that the exporter wrote as several
operators is listed once, by the name that people know.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import onnx

from graph_rewrites.canonical import open_canonical
from graph_rewrites.chains import Chain, find_chains
from graph_rewrites.graph import Graph
from graph_rewrites.layouts import ACTIVATIONS
from graph_rewrites.node import Node
from graph_rewrites.rules.relu import is_guard, relu_site
from graph_rewrites.stamps import FORWARD_KEY, PREFIX_KEY, RULE_KEY, is_original, rectified_at

NOT_REACHED = "not reached"


@dataclass(frozen=True)
class ActivationRule:
    """One activation of the network.

    Attributes:
        tensor: the result: the forward node's first output.
        node: the forward node's name ("" where the file gives none).
        op_type: its operator, or the name of the activation that a chain of operators computes.
        kind: "relu", "clip" (0 to c), "folded" (a ReLU inside a QuantizeLinear) or "smooth".
        rule: "gradient", "deconvnet", "guided", "positive", or "not reached" by the sweep.
    """

    tensor: str
    node: str
    op_type: str
    kind: str
    rule: str


@dataclass(frozen=True)
class Coverage:
    """Every activation of a network, in the order of the forward pass."""

    activations: tuple[ActivationRule, ...]

    @property
    def relus(self) -> tuple[ActivationRule, ...]:
        """Those that the ReLU rule applies to."""
        return tuple(a for a in self.activations if a.kind != "smooth")

    def as_dict(self) -> dict[str, Any]:
        """Plain lists and strings, for JSON."""
        return {"activations": [asdict(activation) for activation in self.activations]}


def coverage(model: onnx.ModelProto, prefix: str = "grad") -> Coverage:
    """Report the rule that each activation got in the backward graph `prefix` of `model`.

    On a model without such a backward graph every activation is "not reached".
    """
    return find_coverage(open_canonical(model), prefix)


def find_coverage(graph: Graph, prefix: str) -> Coverage:
    """`coverage` of an opened graph."""
    rules = {
        node.metadata[FORWARD_KEY]: node.metadata[RULE_KEY]
        for node in graph.nodes
        if node.metadata.get(PREFIX_KEY) == prefix and node.metadata.get(RULE_KEY, "vjp") != "vjp"
    }
    chains = find_chains(graph, rectified_at(graph.nodes, prefix))
    found = []
    for node in graph.nodes:
        chain = chains.get(node.output)
        kind = _kind(graph, node, chain) if is_original(node) else None
        if kind is not None:
            parts = chain.nodes[::-1] if chain is not None else (node,)
            rule = next((rules[n.output] for n in parts if n.output in rules), NOT_REACHED)
            name = chain.name if chain is not None else node.op_type
            found.append(ActivationRule(node.output, node.name, name, kind, rule))
    return Coverage(tuple(found))


def _kind(graph: Graph, node: Node, chain: Chain | None) -> str | None:
    if chain is not None:
        return chain.kind if node.output == chain.output else None
    site = relu_site(graph, node)
    if site is not None:
        return site.kind
    named = node.op_type in ACTIVATIONS and not node.domain
    return "smooth" if named and not is_guard(graph, node) else None
