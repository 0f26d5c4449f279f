"""Choose the layer of class activation maps where the scores have places of their own.

A segmentation or a detector scores every place; no pooling marks where its classifier begins. Its
classifier is the last layer, the one that makes the class maps: taken is the map which that layer
reads, before any upsampling. Of summed class maps the coarser ones count, the nearest to meaning;
where several scales are lined up (the heads of a detector), it is the last map that all of them
depend on, since a box of one scale owes nothing to the others.
"""

from __future__ import annotations

from math import inf, prod

from graph_rewrites.graph import Graph
from graph_rewrites.layouts import ARITHMETIC, Layouts
from graph_rewrites.network import Way
from graph_rewrites.node import Node
from graph_rewrites.scores import Scores

_LAYERS = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})
_BEFORE_UPSAMPLING = frozenset(
    {"Resize", "Upsample", "Identity", "Cast", "Dropout", "QuantizeLinear", "DequantizeLinear"}
)


def before_class_maps(graph: Graph, way: Way, layouts: Layouts, scores: Scores) -> str | None:
    """The tensor that class activation maps are taken of by default, None where none fits.

    Args:
        graph: the graph.
        way: the way from the inputs to the scores.
        layouts: what the axes along it mean.
        scores: the scores, which have places.
    """
    return _Classifier(graph, way, layouts, scores).default()


class _Classifier:
    """The layers that make the class maps, and what they read."""

    def __init__(self, graph: Graph, way: Way, layouts: Layouts, scores: Scores) -> None:
        self.graph, self.way, self.layouts, self.scores = graph, way, layouts, scores
        self._order = {name: i for i, node in enumerate(way.nodes) for name in node.outputs}
        self._found: dict[str, frozenset[str]] = {}

    def default(self) -> str | None:
        """The map read by the only such layer, or the last one that all of them depend on."""
        read = self._read_behind(self.scores.tensor)
        if len(read) <= 1:
            return next(iter(read), None)
        common = frozenset.intersection(*(self._maps_before(name) for name in read))
        return max(common, key=self._order.__getitem__, default=None)

    def _read_behind(self, tensor: str) -> frozenset[str]:
        """The maps read by the layers that `tensor` is made by."""
        if tensor not in self._found:
            self._found[tensor] = self._look_behind(tensor)
        return self._found[tensor]

    def _look_behind(self, tensor: str) -> frozenset[str]:
        node = self.graph.producer(tensor)
        if node is None or tensor not in self.way.tensors:
            return frozenset()
        sources = self.way.sources(node)
        if node.op_type in _LAYERS and not self._only_enlarges(node):
            at = self._map_at(sources[0]) if sources else None
            return frozenset() if at is None else frozenset({at})
        found = [read for name in sources if (read := self._read_behind(name))]
        if node.op_type in ARITHMETIC and found:
            return min(found, key=self._coarseness)
        return frozenset().union(*found)

    def _only_enlarges(self, node: Node) -> bool:
        """Whether a transposed convolution takes class maps to class maps, as FCN's do."""
        shape = self.graph.shape(node.input(0)) or ()
        return node.op_type == "ConvTranspose" and shape[1:2] == (self.scores.classes,)

    def _coarseness(self, read: frozenset[str]) -> tuple[float, int]:
        return (
            min(self._places(name) for name in read),
            -max(self._order[name] for name in read),
        )

    def _places(self, tensor: str) -> float:
        sizes = [d for d in (self.graph.shape(tensor) or ())[1:] if isinstance(d, int)]
        axis = self.layouts.by_tensor[tensor].channel_axis
        shape = self.graph.shape(tensor) or ()
        channels = shape[axis] if axis is not None else 1
        full = len(sizes) == len(shape) - 1 and isinstance(channels, int)
        return prod(sizes) / channels if full and isinstance(channels, int) else inf

    def _map_at(self, tensor: str) -> str | None:
        """The map that `tensor` is, before upsampling; else the nearest one in front of it."""
        while (node := self.graph.producer(tensor)) is not None:
            sources = self.way.sources(node)
            if self._is_map(tensor) and node.op_type not in _BEFORE_UPSAMPLING:
                return tensor
            if not sources:
                return None
            tensor = sources[0]
        return None

    def _is_map(self, tensor: str) -> bool:
        layout, shape = self.layouts.by_tensor.get(tensor), self.graph.shape(tensor)
        axis = layout.channel_axis if layout is not None else None
        if axis is None or shape is None:
            return False
        return any(dim != 1 for i, dim in enumerate(shape) if i not in (0, axis))

    def _maps_before(self, tensor: str) -> frozenset[str]:
        """The maps that `tensor` is made of, itself included."""
        pending, seen = [tensor], set[str]()
        while pending:
            name = pending.pop()
            node = self.graph.producer(name)
            if name not in seen and node is not None:
                seen.add(name)
                pending.extend(self.way.sources(node))
        return frozenset(name for name in seen if self._is_map(name))
