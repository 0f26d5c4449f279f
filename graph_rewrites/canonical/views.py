"""Read a strided view that changes nothing as the Reshape that it is.

PyTorch's exporter writes `as_strided` as a Gather from the flattened tensor, with indices that
arithmetic makes from the batch size. Often (ConvNeXt's classifier) the view is contiguous: the
numbers stay in order and get another shape. As a Gather it scatters on the way back and mixes the
images along one axis; as a Reshape it does neither.
"""

from __future__ import annotations

from math import prod

import numpy as np

from graph_rewrites.canonical.evaluation import evaluate
from graph_rewrites.errors import ModelError
from graph_rewrites.graph import Graph
from graph_rewrites.node import Node
from graph_rewrites.tensor_type import Dim

_AFFINE = frozenset(
    {"Add", "Cast", "Mul", "Range", "Reshape", "Shape", "Slice", "Squeeze", "Unsqueeze"}
)
"""Of these every index is an affine function of the batch size: right for two, right for all."""
_BATCHES = (2, 5)


def straighten_views(graph: Graph) -> None:
    """Replace each Gather from a flattened tensor that keeps its order by a Reshape."""
    replaced = []
    for node in graph.nodes:
        flat = graph.producer(node.input(0)) if node.op_type == "Gather" else None
        if flat is None or flat.op_type != "Reshape" or node.attr("axis", 0) != 0:
            continue
        tail = _contiguous_tail(graph, node, flat.input(0))
        if tail is None:
            continue
        name = f"{node.output}/view_shape"
        graph.add_initializer(name, np.array([-1, *tail], np.int64))
        replaced.append((node, flat.input(0), name))
    for node, source, shape in replaced:
        output, known, idle = node.output, graph.type(node.output), node.inputs
        graph.remove([node])
        graph.append("Reshape", [source, shape], [output], name=node.name, metadata=node.metadata)
        graph.types[output] = known
        graph.remove_idle(idle)
    if replaced:
        graph.sort()
        graph.infer()


def _contiguous_tail(graph: Graph, node: Node, source: str) -> list[int] | None:
    """The dimensions behind the batch of a view that keeps the order of `source`; else None."""
    flat, shape = graph.shape(node.input(0)), graph.shape(source)
    if flat is None or len(flat) != 1 or not shape:
        return None
    fixed = [dim for dim in shape[1:] if isinstance(dim, int)]
    part = _affine_part(graph, node.input(1))
    if part is None or len(fixed) != len(shape) - 1 or not _reads_only(graph, part, shape[0]):
        return None
    tails = set()
    for batch in (shape[0],) if isinstance(shape[0], int) else _BATCHES:
        index = _evaluate(graph, part, node.input(1), shape[0], batch)
        if index.ndim == 0 or len(index) != batch or index.size != batch * prod(fixed):
            return None
        if not np.array_equal(index.reshape(-1), np.arange(index.size)):
            return None
        tails.add(index.shape[1:])
    return list(tails.pop()) if len(tails) == 1 else None


def _affine_part(graph: Graph, tensor: str) -> list[Node] | None:
    """The nodes between the sizes of tensors and `tensor`, sorted; None where one is not affine."""
    pending, found = [tensor], set[str]()
    while pending:
        node = graph.producer(pending.pop())
        if node is None or node.output in found:
            continue
        if node.domain or node.op_type not in _AFFINE or len(node.outputs) != 1:
            return None
        found.add(node.output)
        if node.op_type != "Shape":
            pending.extend(name for name in node.inputs if name)
    return [node for node in graph.nodes if node.output in found]


def _reads_only(graph: Graph, part: list[Node], symbol: Dim) -> bool:
    """Whether no size but `symbol` is open among those that `part` reads."""
    shapes = [graph.shape(node.input(0)) for node in part if node.op_type == "Shape"]
    return all(
        shape is not None and all(isinstance(dim, int) or dim == symbol for dim in shape)
        for shape in shapes
    )


def _evaluate(graph: Graph, part: list[Node], tensor: str, symbol: Dim, batch: int) -> np.ndarray:
    """The value of `tensor` where the dimension `symbol` is `batch`."""
    constant = graph.constant(tensor)
    if constant is not None:
        return constant
    feeds = {}
    for node in part:
        if node.op_type == "Shape":
            dims = [batch if d == symbol else d for d in graph.known_shape(node.input(0))]
            feeds[node.output] = np.array(dims[node.attr("start", 0) : node.attr("end")], np.int64)
    nodes = [node.to_proto() for node in part if node.output not in feeds]
    for name in (name for node in nodes for name in node.input if name):
        constant = graph.constant(name)
        if constant is not None:
            feeds[name] = constant
    try:
        return evaluate(nodes, feeds, tensor, graph.opset)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ModelError(f"the indices {tensor!r} cannot be computed: {error}") from error
