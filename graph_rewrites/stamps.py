"""What is written on every node that a rewrite adds, so that people and later calls can read it.

A backward node carries the prefix of the call that made it, the forward node it belongs to (by its
first output), that node's operator and the rule; the node that ends an activation's backward also
the cotangent it received.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from graph_rewrites.errors import ModelError
from graph_rewrites.graph import Graph
from graph_rewrites.node import Node

PREFIX_KEY = "graph_rewrites.prefix"
FORWARD_KEY = "graph_rewrites.forward"
OP_KEY = "graph_rewrites.op"
RULE_KEY = "graph_rewrites.rule"
CT_KEY = "graph_rewrites.ct"

SWEEPS_KEY = "graph_rewrites.sweeps"
"""Model metadata: JSON, the settings of every sweep by prefix."""

LOWERED_KEY = "graph_rewrites.lowered"
"""Model metadata: the provider that a model was lowered for."""


def is_original(node: Node) -> bool:
    """Whether `node` belongs to the network itself and was not added by a rewrite."""
    return PREFIX_KEY not in node.metadata


def rectified_at(nodes: Iterable[Node], prefix: str) -> frozenset[str]:
    """Where the sweep `prefix` applied the ReLU rule: the first output of each forward node."""
    ours = (node.metadata for node in nodes if node.metadata.get(PREFIX_KEY) == prefix)
    return frozenset(stamps[FORWARD_KEY] for stamps in ours if CT_KEY in stamps)


def sweeps(graph: Graph) -> dict[str, dict[str, str]]:
    """Prefix and settings of every backward graph that the model holds already."""
    record: dict[str, dict[str, str]] = json.loads(graph.metadata.get(SWEEPS_KEY, "{}"))
    return record


def note_sweep(graph: Graph, prefix: str, settings: Mapping[str, str]) -> None:
    """Write the settings of a backward graph into the model's metadata."""
    record = {**sweeps(graph), prefix: dict(settings)}
    graph.metadata[SWEEPS_KEY] = json.dumps(record, sort_keys=True)


def refuse_lowered(metadata: Mapping[str, str]) -> None:
    """Refuse to rewrite a model that was lowered: its nodes no longer have the rules' forms.

    Raises:
        ModelError: it was.
    """
    provider = metadata.get(LOWERED_KEY)
    if provider is not None:
        raise ModelError(
            f"this model was lowered for {provider!r}, which comes last; "
            "rewrite the model from before `lower`"
        )
