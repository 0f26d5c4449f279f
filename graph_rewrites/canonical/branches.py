"""Resolve every `If` whose condition is known: the branch that is taken moves into the main graph.

Exporters write an If where Python code asked for a size ("squeeze if this is 1"). With the sizes
known it has one outcome. An If that an image decides stays; the sweep refuses it where it matters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import onnx

from graph_rewrites.canonical.constants import constant_value
from graph_rewrites.canonical.evaluation import evaluate
from graph_rewrites.canonical.values import Values
from graph_rewrites.graph import Graph
from graph_rewrites.node import Node, renamed

_ARITHMETIC = frozenset(
    {
        "Abs", "Add", "And", "Cast", "Concat", "Div", "Equal", "Gather", "Greater",
        "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Max", "Min", "Mod", "Mul", "Neg",
        "Not", "Or", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum", "Reshape", "Shape",
        "Size", "Slice", "Squeeze", "Sub", "Unsqueeze", "Where", "Xor",
    }
)  # fmt: skip
_LARGEST = 64  # longer tensors hold no sizes


def resolve_branches(graph: Graph) -> bool:
    """Replace each If that can be decided now by the nodes of the branch that it takes.

    Fixed dimensions count as known, a fixed batch too: that branch is the one that every image
    takes by itself.

    Returns:
        Whether there was one.
    """
    found = False
    while (decided := _first_decided(graph)) is not None:
        _inline(graph, *decided)
        graph.sort()
        graph.infer()  # the next condition may depend on what this branch computes
        found = True
    return found


def _first_decided(graph: Graph) -> tuple[Node, onnx.GraphProto] | None:
    """The first If with a known condition, and its branch."""
    if not any(node.op_type == "If" and not node.domain for node in graph.nodes):
        return None
    sizes, known = Values(graph), dict[str, np.ndarray]()
    for node in graph.nodes:
        if node.domain:
            continue
        if node.op_type == "If":
            condition = _value(graph, known, node.input(0))
            if condition is not None and condition.size == 1:
                return node, node.attributes["then_branch" if condition.all() else "else_branch"].g
        elif node.op_type in _ARITHMETIC and len(node.outputs) == 1:
            value = _computed(graph, sizes, known, node)
            if value is not None:
                known[node.output] = value
    return None


def _value(graph: Graph, known: Mapping[str, np.ndarray], tensor: str) -> np.ndarray | None:
    if tensor in known:
        return known[tensor]
    stored = graph.initializers.get(tensor)
    if stored is None or np.prod(stored.dims, dtype=int) > _LARGEST:
        return None
    return graph.constant(tensor)


def _computed(
    graph: Graph, sizes: Values, known: Mapping[str, np.ndarray], node: Node
) -> np.ndarray | None:
    """What a node computes, from the sizes that are known; None where it cannot be told."""
    if sizes.visit(node) and (told := sizes.array(node.output)) is not None:
        return told
    feeds = {name: _value(graph, known, name) for name in node.inputs if name}
    given = {name: value for name, value in feeds.items() if value is not None}
    if len(given) < len(feeds) or not feeds:
        return None
    try:
        value = evaluate([node.to_proto()], given, node.output, graph.opset)
    except Exception:  # the reference may refuse in any way; the runtime will judge the node
        return None
    return value if value.size <= _LARGEST else None


# -- moving a branch -----------------------------------------------------------------------------


def _inline(graph: Graph, node: Node, branch: onnx.GraphProto) -> None:
    """Put the nodes of `branch` in place of the If `node`."""
    inputs, outputs, captures = node.inputs, node.outputs, node.captures
    graph.remove([node])
    names = _unique(graph, branch, prefix=next(filter(None, outputs), "branch"))
    names.update(_direct(branch, outputs))
    for tensor in branch.initializer:
        graph.add_initializer(names[tensor.name], tensor)
    for inner in branch.node:
        _move(graph, renamed(inner, names))
    for value, output in zip(branch.output, outputs, strict=True):
        source = names.get(value.name, value.name)
        if output and source != output:
            graph.append("Identity", [source], [output], name=output)
    graph.remove_idle((*inputs, *captures))


def _move(graph: Graph, inner: onnx.NodeProto) -> None:
    domain = "" if inner.domain == "ai.onnx" else inner.domain
    constant = constant_value(inner) if not domain and inner.op_type == "Constant" else None
    if constant is not None:
        graph.add_initializer(inner.output[0], constant)
        return
    graph.append(
        inner.op_type,
        inner.input,
        inner.output,
        attributes=inner.attribute,
        name=inner.name,
        domain=domain,
        metadata={entry.key: entry.value for entry in inner.metadata_props},
    )


def _unique(graph: Graph, branch: onnx.GraphProto, prefix: str) -> dict[str, str]:
    """A name for every tensor that `branch` computes or stores, its own where that is free."""
    taken = set(_bound_below(node.to_proto() for node in graph.nodes))
    taken.update(_bound_below(branch.node))
    names: dict[str, str] = {}
    for name in _bound(branch):
        fresh = name
        while graph.exists(fresh) or fresh in taken:
            fresh = f"{prefix}/{name}" if fresh == name else f"{fresh}_"
        taken.add(fresh)
        names[name] = fresh
    return names


def _direct(branch: onnx.GraphProto, outputs: Iterable[str]) -> dict[str, str]:
    """The results that a node of `branch` can compute under the name of the output at once."""
    computed = {n for node in branch.node if node.op_type != "Constant" for n in node.output}
    named: dict[str, str] = {}
    for value, output in zip(branch.output, outputs, strict=True):
        if output and value.name in computed:
            named.setdefault(value.name, output)
    return named


def _bound(graph: onnx.GraphProto) -> Iterator[str]:
    yield from (tensor.name for tensor in graph.initializer)
    yield from (name for node in graph.node for name in node.output if name)


def _bound_below(nodes: Iterable[onnx.NodeProto]) -> Iterator[str]:
    """The names that the subgraphs of `nodes` bind, at any depth."""
    for node in nodes:
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from (value.name for value in graph.input)
                yield from _bound(graph)
                yield from _bound_below(graph.node)
