"""Fixed shapes for what a model leaves open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from graph_rewrites.canonical.padding import settle_rounding
from graph_rewrites.errors import UnknownTensorError
from graph_rewrites.graph import Graph


def specialize(graph: Graph, shapes: Mapping[str, Sequence[int]]) -> None:
    """Fix the shapes of inputs, in place, and learn every other shape from them.

    Raises:
        UnknownTensorError: the graph has no input of that name.
        ValueError: the shape contradicts the one that the input declares.
    """
    for name, shape in shapes.items():
        if name not in graph.inputs:
            raise UnknownTensorError.of("input", name, graph.inputs)
        known = graph.shape(name)
        if known is not None and not _admits(known, shape):
            raise ValueError(f"input {name!r} has shape {known}, and cannot be {tuple(shape)}")
        graph.retype(name, replace(graph.type(name), shape=tuple(shape)))
    declared = {name: graph.type(name) for name in graph.outputs}
    for name, type_ in declared.items():  # its symbols would contradict what is inferred
        graph.retype(name, replace(type_, shape=None))
    graph.infer()
    settle_rounding(graph)
    for name, type_ in declared.items():
        graph.retype(name, type_ if graph.shape(name) is None else graph.type(name))


def _admits(declared: Sequence[object], shape: Sequence[int]) -> bool:
    if len(declared) != len(shape):
        return False
    return all(not isinstance(d, int) or d == s for d, s in zip(declared, shape, strict=True))
