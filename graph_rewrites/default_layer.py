"""Choose the layer of class activation maps: the last feature maps before the classifier.

The classifier ("head") is whatever only pools, normalises, reshapes, quantises, or works on a
single position. Walking back from the scores through it ends at the last tensor with a height and
width; from there back over the pooling that follows its own activation, and never at class maps
(a convolution to the classes in front of the last pool is a dense layer in disguise).

The last attention of a transformer that reads a class token is such a pooling too: it sums over the
positions for a single token. The chosen layer is the normalised one that it reads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from graph_rewrites.axes import BATCH, CHANNEL, STACKED
from graph_rewrites.graph import Graph
from graph_rewrites.layouts import (
    ACTIVATIONS,
    ARITHMETIC,
    GLOBAL_POOLS,
    NORMALIZATIONS,
    POOLS,
    QUANTIZATION,
    REDUCTIONS,
    RESHAPES,
    Layouts,
    reduced_axes,
)
from graph_rewrites.network import Way
from graph_rewrites.node import Node
from graph_rewrites.positions import idle_axes

Kind = Literal["pool", "attention", "shape", "norm", "activation", "classes", "body"]

_SHAPE = RESHAPES | QUANTIZATION | {
    "Transpose", "Identity", "Cast", "Dropout", "Slice", "Split", "Gather", "Pad", "Expand",
}  # fmt: skip
_NO_PLACE = frozenset({BATCH, CHANNEL, STACKED, ""})
_DENSE = frozenset({"Conv", "MatMul", "Gemm"})


def default_layer(graph: Graph, way: Way, layouts: Layouts, class_count: int) -> str | None:
    """The tensor that class activation maps are taken of by default, None where none fits.

    Args:
        graph: the graph.
        way: the way from the inputs to the scores.
        layouts: what the axes along it mean.
        class_count: size of its class axis.
    """
    head = _Head(graph, way, layouts, class_count)
    last = next((t for t in reversed(head.tensors) if head.has_extent(t)), None)
    return None if last is None else _before_pooling(head.trunk(last), head.is_map)


class _Head:
    """The part of the network behind which no position matters any more.

    Attributes:
        tensors: everything from which the scores are reached through the head only, in order.
    """

    def __init__(self, graph: Graph, way: Way, layouts: Layouts, class_count: int) -> None:
        self.graph, self.way, self.layouts, self.class_count = graph, way, layouts, class_count
        self._idle = idle_axes(graph, way, layouts)
        self._extent = {name: self._extends(name) for name in way.tensors}
        self._kinds: dict[str, Kind] = {}
        outside: set[str] = set()
        mixed: set[str] = set()  # from here the classes are reached through a dense layer
        weighing: set[str] = set()  # what the attention that sums over the positions is made of
        for node in reversed(way.nodes):
            results = set(way.results(node))
            kind = self._kind(node, mixable=not results & mixed)
            sources = way.sources(node)
            if kind == "body" and self._attends(node, inside=bool(results & weighing)):
                kind = "attention"
            self._kinds[node.output] = kind
            if kind == "attention" and not _projects(node, sources):
                weighing.update(sources)
            if kind in ("shape", "norm") and results & weighing:
                weighing.update(sources)
            if outside & results or (kind == "body" and any(map(self.has_extent, results))):
                outside.update(sources)
            mixes = kind in ("classes", "attention", "body") and node.op_type not in ARITHMETIC
            if mixed & results or mixes:
                mixed.update(sources)
        made = [name for node in way.nodes for name in way.results(node)]
        self.tensors = [name for name in made if name not in outside]

    def has_extent(self, tensor: str) -> bool:
        """Whether `tensor` still has positions: a height times a width above 1."""
        return self._extent[tensor]

    def is_map(self, tensor: str) -> bool:
        """Whether the axes of `tensor` are known to be those of a map."""
        layout = self.layouts.by_tensor.get(tensor)
        return layout is not None and layout.channel_axis is not None

    def trunk(self, tensor: str) -> list[tuple[str, Kind]]:
        """The chain that ends in `tensor`, with the kind of each producer, first to last.

        It begins behind the last operator that is no part of the head. Class maps and what is made
        of them are left out.
        """
        inside = set(self.tensors)
        found: list[tuple[str, Kind]] = []
        while True:
            node = self.graph.producer(tensor)
            if node is None:
                break
            kind = self._kinds[node.output]
            sources = self.way.sources(node)
            before = next(filter(self.has_extent, sources), sources[0])
            if kind == "classes":
                found.clear()
            else:
                found.append((tensor, kind))
            if kind == "body" or before not in inside:
                break
            tensor = before
        return found[::-1]

    def _kind(self, node: Node, *, mixable: bool) -> Kind:
        sources = self.way.sources(node)
        op = node.op_type
        if op in _DENSE and mixable and self._makes_class_maps(node):
            return "classes"
        if len(sources) != 1:
            return "body"
        if op in POOLS | GLOBAL_POOLS or (op in REDUCTIONS and self._pools(node)):
            return "pool"
        if op in ACTIVATIONS:
            return "activation"
        if op in NORMALIZATIONS | ARITHMETIC:  # arithmetic with constants: a bias, a scale
            return "norm"
        return "shape" if op in _SHAPE else "body"

    def _attends(self, node: Node, *, inside: bool) -> bool:
        """Whether `node` belongs to an attention that sums over the positions for a single token.

        Such an attention ends in a product without positions. `inside` says that the result of
        `node` is read by one: the weights, their logits, and the layers that project on queries,
        keys and values. They are no maps, except for the latter, which end it.
        """
        sources = self.way.sources(node)
        if not inside:
            ends = node.op_type == "MatMul" and len(sources) == 2
            return ends and not self.has_extent(node.output) and any(map(self.has_extent, sources))
        return _projects(node, sources) or not self.is_map(node.output)

    def _makes_class_maps(self, node: Node) -> bool:
        """Whether the result has one channel per class (and is only pooled from there on)."""
        layout = self.layouts.by_tensor.get(node.output)
        shape = self.graph.shape(node.output)
        if layout is None or shape is None or layout.channel_axis is None:
            return False
        return shape[layout.channel_axis] == self.class_count

    def _pools(self, node: Node) -> bool:
        """Whether a reduction leaves the channels alone."""
        layout = self.layouts.by_tensor.get(node.input(0))
        shape = self.graph.shape(node.input(0))
        axes = reduced_axes(node, len(shape)) if shape is not None else None
        if layout is None or axes is None:
            return True
        return all(layout.meanings[axis] != CHANNEL for axis in axes)

    def _extends(self, tensor: str) -> bool:
        shape = self.graph.shape(tensor)
        if shape is None or len(shape) < 3:
            return False
        layout = self.layouts.by_tensor.get(tensor)
        meanings = layout.meanings if layout is not None else (BATCH,)
        none = {i for i, meaning in enumerate(meanings) if meaning in _NO_PLACE}
        none |= self._idle.get(tensor, frozenset())
        sizes = [dim for i, dim in enumerate(shape) if i not in none and dim != 1]
        return len(sizes) > (0 if CHANNEL in meanings else 1)


def _projects(node: Node, sources: list[str]) -> bool:
    """Whether `node` is a dense layer on each position: its weights are on the right."""
    return node.op_type in ("MatMul", "Gemm") and sources == [node.input(0)]


def _before_pooling(trunk: list[tuple[str, Kind]], is_map: Callable[[str], bool]) -> str | None:
    """The tensor behind the first activation and the normalisation next to it, before a pool.

    Without an activation it is what the first pool reads. Where a pool stands between a
    convolution and its activation, the activation wins: it is the map's own. Windows of positions
    are no map: of them it is what a Reshape makes of them.
    """
    start = next((i for i, (_, kind) in enumerate(trunk) if kind == "activation"), 0)
    chosen = None
    for i, (tensor, kind) in enumerate(trunk[start:]):
        if i and kind in ("pool", "attention"):
            break
        if is_map(tensor) and (chosen is None or kind in ("norm", "activation")):
            chosen = tensor
    return chosen
