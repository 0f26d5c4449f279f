"""Write shapes of which only the number of images is open so that shape inference can read them.

It follows no comparison and no choice, and solves no -1 beside an open size. PyTorch's older
exporter writes `expand(n, -1, -1)` as Where(Equal(sizes, -1), ones, sizes), and `flatten(2)` as a
Reshape to Concat(Shape(x)[:2], [-1]): how many tokens a transformer has would stay unknown.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

import numpy as np
from onnx import TensorProto

from graph_rewrites.canonical.values import Entry, Symbol, Values
from graph_rewrites.emit import Emitter
from graph_rewrites.graph import Graph
from graph_rewrites.node import Node


def spell_out_sizes(graph: Graph) -> bool:
    """Replace choices between sizes by what they choose, and open sizes beside a -1 by 0.

    Args:
        graph: a graph in topological order whose types are known.

    Returns:
        Whether there was one.
    """
    values, images = Values(graph), _counted_images(graph)
    found = False
    for node in graph.nodes if images else ():
        if node.domain:
            continue
        replaced = node.inputs
        values.visit(node)
        if node.op_type == "Reshape":
            changed = _copy_images(graph, values, node, images)
        else:
            changed = node.op_type == "Where" and _name_choice(graph, values, node, images)
        if changed:
            graph.remove_idle(replaced)
            found = True
    return found


def _counted_images(graph: Graph) -> dict[Entry, str]:
    """The open leading dimensions of the graph inputs, and an input that has each.

    A name that another dimension has too says nothing: exporters call whatever is open "?".
    """
    shapes = {name: graph.shape(name) or () for name in graph.inputs}
    others = {dim for shape in shapes.values() for dim in shape[1:]}
    leading = {shape[0]: name for name, shape in shapes.items() if shape}
    return {Symbol(d): n for d, n in leading.items() if isinstance(d, str) and d not in others}


def _open_vector(
    graph: Graph, values: Values, tensor: str, images: Container[Entry]
) -> list[Entry] | None:
    """The entries of a shape of which only the number of images is open; None for others."""
    value = None if tensor in graph.initializers else values.get(tensor)
    if value is None or value.ndim != 1 or graph.type(tensor).elem_type != TensorProto.INT64:
        return None
    entries: list[Entry] = value.tolist()
    told = all(isinstance(entry, int) or entry in images for entry in entries)
    return entries if told and any(entry in images for entry in entries) else None


def _copy_images(graph: Graph, values: Values, node: Node, images: Container[Entry]) -> bool:
    """Have a Reshape copy the number of images by a 0, so that its -1 can be solved."""
    source, target = graph.shape(node.input(0)), _open_vector(graph, values, node.input(1), images)
    if source is None or target is None or -1 not in target or node.attr("allowzero", 0):
        return False
    for at, entry in enumerate(target):
        if isinstance(entry, Symbol):
            if at >= len(source) or source[at] != entry.name:
                return False
            target[at] = 0
    op = Emitter(graph, node.output, node.metadata, before=node)
    graph.set_inputs(node, [node.input(0), op.constant(target, np.int64)])
    return True


def _name_choice(graph: Graph, values: Values, node: Node, images: Mapping[Entry, str]) -> bool:
    """Make a Where the Concat of what it chooses."""
    entries = _open_vector(graph, values, node.output, images)
    if entries is None:
        return False
    op = Emitter(graph, node.output, node.metadata, before=node)
    sizes = []
    for entry in entries:
        source = images.get(entry)
        sizes.append(op.Shape(source, start=0, end=1) if source else op.constant([entry], np.int64))
    node.op_type = "Concat"
    node.set_attr("axis", 0)
    graph.set_inputs(node, sizes)
    return True
