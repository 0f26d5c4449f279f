"""Slopes of smooth activations."""

from __future__ import annotations

from graph_rewrites.emit import Emitter
from graph_rewrites.graph import Graph
from graph_rewrites.lowering.pattern import pattern
from graph_rewrites.node import Node


@pattern("Add")
def silu_slope(op: Emitter, node: Node) -> str | None:
    """The two ways back through x · sigmoid(x), added -> ct · (s + y · (1 - s)).

    ct·s + (ct·x) · (s · (1 - s)) with one factor ct taken out and x·s = y: four products less a
    SiLU, and what is left depends on the forward pass alone, so that several cotangents share it.
    """
    for direct, inner in (node.inputs, node.inputs[::-1]):
        found = _silu(op.graph, direct, inner)
        if found is not None:
            ct, s, y = found
            slope = op.Add(s, op.Mul(y, op.Sub(1.0, s)))
            return str(op.Mul(ct, slope))
    return None


def _silu(graph: Graph, direct: str, inner: str) -> tuple[str, str, str] | None:
    """Cotangent, sigmoid and output of the SiLU whose two cotangents these are."""
    through_x, through_s = (_factors(graph, t) for t in (direct, inner))
    for ct, s in _both_ways(through_x):
        sigmoid = graph.producer(s)
        if sigmoid is None or sigmoid.op_type != "Sigmoid":
            continue
        x = sigmoid.input(0)
        output = next((n.output for n in graph.consumers(x) if _is_product(n, x, s)), None)
        for outer, slope in _both_ways(through_s):
            if (
                output is not None
                and sorted(_factors(graph, outer)) == sorted((ct, x))
                and _is_slope(graph, slope, s)
            ):
                return ct, s, output
    return None


def _is_slope(graph: Graph, tensor: str, s: str) -> bool:
    """Whether `tensor` is s · (1 - s)."""
    for one, other in _both_ways(_factors(graph, tensor)):
        if one == s and _complement(graph, other) == s:
            return True
    return False


def _is_product(node: Node, a: str, b: str) -> bool:
    return node.op_type == "Mul" and sorted(node.inputs) == sorted((a, b))


def _factors(graph: Graph, tensor: str) -> tuple[str, ...]:
    writer = graph.producer(tensor)
    return writer.inputs if writer is not None and writer.op_type == "Mul" else ()


def _both_ways(pair: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    return (pair, pair[::-1]) if len(pair) == 2 else ()


def _complement(graph: Graph, tensor: str) -> str | None:
    """What `tensor` takes from 1, None where it is no such difference."""
    writer = graph.producer(tensor)
    if writer is None or writer.op_type != "Sub":
        return None
    one = graph.constant(writer.input(0))
    return writer.input(1) if one is not None and one.size == 1 and one.item() == 1.0 else None


@pattern("Sub")
def sigmoid_complement(op: Emitter, node: Node) -> str | None:
    """1 - s, s out of a Sigmoid -> HardSigmoid(s; -1, 1): the same number in blocked layout."""
    s = _complement(op.graph, node.output)
    writer = op.graph.producer(s) if s is not None else None
    if writer is None or writer.op_type not in ("Sigmoid", "HardSigmoid"):
        return None
    return str(op.HardSigmoid(s, alpha=-1.0, beta=1.0))
