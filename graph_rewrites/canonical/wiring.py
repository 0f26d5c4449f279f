"""Put nodes in order, and refuse graphs whose tensors do not add up."""

from __future__ import annotations

import onnx

from graph_rewrites.canonical.functions import describe
from graph_rewrites.errors import ModelError
from graph_rewrites.graph import Graph
from graph_rewrites.node import subgraph_captures


def sort_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return `model` with producers before consumers, as every tool of the standard expects.

    Raises:
        ModelError: a tensor is read but nowhere computed, or computed twice.
    """
    graph = model.graph
    given = {value.name for value in graph.input}
    given.update(tensor.name for tensor in graph.initializer)
    given.update(tensor.values.name for tensor in graph.sparse_initializer)
    produced: set[str] = set()
    for node in graph.node:
        for name in filter(None, node.output):
            if name in given or name in produced:
                raise ModelError(
                    f"tensor {name!r} is computed by {describe(node)} although it has a value "
                    "already; the file is no valid ONNX model: export it again"
                )
            produced.add(name)
    ordered = _check_reads(graph, given, produced)
    return model if ordered else Graph(model).export()  # the door sorts


def _check_reads(graph: onnx.GraphProto, given: set[str], produced: set[str]) -> bool:
    """Whether every tensor is computed before it is read; an error where one never is."""
    ordered, known = True, set(given)
    for node in graph.node:
        for name in filter(None, (*node.input, *subgraph_captures(node))):
            if name not in known:
                if name not in produced:
                    raise ModelError(
                        f"tensor {name!r}, read by {describe(node)}, has no value; "
                        "the file is no valid ONNX model: export it again"
                    )
                ordered = False
        known.update(node.output)
    missing = next((v.name for v in graph.output if v.name not in known), None)
    if missing is not None:
        raise ModelError(
            f"output {missing!r} is neither computed nor given; the file is no valid ONNX model: "
            "export it again"
        )
    return ordered
