"""Give the ReLUs of an existing backward graph another rule."""

from __future__ import annotations

from itertools import pairwise

import onnx

from graph_rewrites.chains import find_chains
from graph_rewrites.errors import UnknownTensorError
from graph_rewrites.graph import Graph
from graph_rewrites.node import Node
from graph_rewrites.reverse import backward_emitter, emit_relu, prune
from graph_rewrites.rows import ForwardTensors, Rows
from graph_rewrites.rules.relu import RELU_RULES, relu_site
from graph_rewrites.stamps import (
    CT_KEY,
    FORWARD_KEY,
    OP_KEY,
    PREFIX_KEY,
    RULE_KEY,
    is_original,
    note_sweep,
    rectified_at,
    refuse_lowered,
    sweeps,
)


def replace_relu_rule(model: onnx.ModelProto, relu: str, prefix: str = "grad") -> onnx.ModelProto:
    """Rewrite the ReLU backward nodes of one backward graph, and nothing else.

    Args:
        model: a model that `differentiate` returned.
        relu: the new rule: "gradient", "deconvnet" or "guided".
        prefix: which backward graph.

    Raises:
        UnknownTensorError: the model has no backward graph of this prefix.
        ModelError: the model was lowered.
    """
    if relu not in RELU_RULES:
        raise ValueError(f"relu must be one of {', '.join(RELU_RULES)}, not {relu!r}")
    graph = Graph(model)
    refuse_lowered(graph.metadata)
    record = sweeps(graph)
    if prefix not in record:
        raise UnknownTensorError.of("backward graph with the prefix", prefix, record)
    settings = record[prefix]
    rows = None
    if "rows" in settings:
        rows = Rows.of(graph, settings["rows"], int(settings["targets"]))
    tensors = ForwardTensors(graph, prefix, rows)
    forward = {node.output: node for node in graph.nodes if is_original(node)}
    chains = find_chains(graph, rectified_at(graph.nodes, prefix))
    after = {id(node): behind for node, behind in pairwise(graph.nodes)}
    for name, group in _relu_groups(graph, prefix).items():
        site = relu_site(graph, forward[name], chains)
        assert site is not None  # the sweep found it too
        ct = next(node.metadata[CT_KEY] for node in group if CT_KEY in node.metadata)
        op_type = group[0].metadata[OP_KEY]
        behind = after.get(id(group[-1]))
        graph.remove(group)
        op = backward_emitter(graph, prefix, name, op_type, relu, tensors.read, behind)
        emit_relu(op, site, relu, ct)  # under the name that has just become free
    graph.sort()
    prune(graph, prefix)  # what only the old rule read
    note_sweep(graph, prefix, {**settings, "relu": relu})
    return graph.export()


def _relu_groups(graph: Graph, prefix: str) -> dict[str, list[Node]]:
    """Backward nodes of each ReLU, by the forward node's first output."""
    groups: dict[str, list[Node]] = {}
    for node in graph.nodes:
        ours = node.metadata.get(PREFIX_KEY) == prefix
        if ours and node.metadata.get(RULE_KEY) in RELU_RULES:
            groups.setdefault(node.metadata[FORWARD_KEY], []).append(node)
    marked = {name for name, group in groups.items() if any(CT_KEY in n.metadata for n in group)}
    return {name: groups[name] for name in groups if name in marked}
