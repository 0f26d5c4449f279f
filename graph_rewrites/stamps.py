"""What is written on every node that a rewrite adds, so that people and later calls can read it.

A backward node carries the prefix of the call that made it, the forward node it belongs to (by its
first output), that node's operator and the rule; the node that ends an activation's backward also
the cotangent it received.
"""

from __future__ import annotations

from graph_rewrites.node import Node

PREFIX_KEY = "graph_rewrites.prefix"
FORWARD_KEY = "graph_rewrites.forward"
OP_KEY = "graph_rewrites.op"
RULE_KEY = "graph_rewrites.rule"
CT_KEY = "graph_rewrites.ct"

SWEEPS_KEY = "graph_rewrites.sweeps"
"""Model metadata: JSON, the settings of every sweep by prefix."""


def is_original(node: Node) -> bool:
    """Whether `node` belongs to the network itself and was not added by a rewrite."""
    return PREFIX_KEY not in node.metadata
