"""Feature maps: list them under names that people know, choose one, and find it by name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graph_rewrites.axes import TOKENS
from graph_rewrites.class_maps import before_class_maps
from graph_rewrites.default_layer import default_layer
from graph_rewrites.errors import ModelError, UnknownTensorError
from graph_rewrites.graph import Graph
from graph_rewrites.layer_names import module_paths, under, weight_paths, within, written_paths
from graph_rewrites.layouts import Layouts, Picture, find_layouts
from graph_rewrites.network import (
    Way,
    carries_values,
    display_name,
    network_consumers,
    network_inputs,
    network_outputs,
    way_to,
)
from graph_rewrites.quantized import inside_integer_kernel, network_dequantized
from graph_rewrites.scores import Scores, find_scores
from graph_rewrites.stamps import is_original
from graph_rewrites.tensor_type import Shape

Stride = tuple[int | float, ...]
TokenGrid = tuple[int, int, int]

LISTING = "`onnx-analyzer inspect` and graph_rewrites.feature_maps list the layers"
"""What to do about a layer that is not known."""


@dataclass(frozen=True)
class FeatureMap:
    """A tensor that class activation maps can be taken of.

    Attributes:
        tensor: its name; of a quantised value the float's in front of the QuantizeLinear.
        path: the module path of the layer that computes it, "" where the file does not tell it.
        shape: its shape, batch first.
        channel_axis: the axis of the channels; of tokens (N, L, C) it is 2.
        stride: the picture's size over the map's along each spatial axis, None where a size is not
            fixed. That is the step between positions where they divide the picture evenly; padding
            makes it smaller: 96 pixels over 7 positions that lie 16 apart are 13.7.
        default: whether it is the layer that is used when none is named.
        index: the number that finds it (see `resolve`): its position among the feature maps, less
            their count where a tensor or a path of the network is named like the position.
        name: the name that says best which it is: its path where that finds it, or its tensor;
            several may have one path, which finds the last of them.
        tokens: None for a map; for a grid of tokens its height, its width and how many leading
            tokens to drop.
    """

    tensor: str
    path: str
    shape: Shape
    channel_axis: int
    stride: Stride | None
    default: bool
    index: int
    name: str
    tokens: TokenGrid | None = None

    @property
    def spread(self) -> tuple[Shape, int]:
        """Shape and channel axis of the map with its tokens laid out: (N, h, w, C) of (N, L, C)."""
        if self.tokens is None:
            return self.shape, self.channel_axis
        height, width, _ = self.tokens
        batch, channels = self.shape[0], self.shape[self.channel_axis]
        if self.channel_axis == 1:
            return (batch, channels, height, width), 1
        return (batch, height, width, channels), 3


@dataclass(frozen=True)
class Resolved:
    """Where a tensor or layer is read and differentiated.

    Attributes:
        name: the name as it was given.
        tensor: where the value is read: for a quantised value the DequantizeLinear behind it.
        gradient_at: the tensor whose cotangent is the gradient: for a quantised value the
            integers, which several DequantizeLinear may read.
        feature_map: the name under which `find_feature_maps` lists it, if it does.
    """

    name: str
    tensor: str
    gradient_at: str
    feature_map: str


def find_feature_maps(graph: Graph, scores: Scores | None = None) -> tuple[FeatureMap, ...]:
    """List every tensor of a canonical graph that a class activation map can be taken of.

    Listed are tensors with positions, channels and a known layout, on the way from an input to the
    scores, in the order in which they are computed. A network without scores is listed as a whole
    and has no default.

    Args:
        graph: the graph; what earlier calls added to it is overlooked.
        scores: the scores, if they are known already.
    """
    if scores is None:
        try:
            scores = find_scores(graph)
        except ModelError:
            scores = None
    way = way_to(graph, [scores.tensor] if scores is not None else network_outputs(graph))
    layouts = find_layouts(graph, way)
    chosen = _default(graph, way, layouts, scores)
    paths = module_paths(way.nodes)
    found = [
        (tensor, paths[node.output], *as_map)
        for node in way.nodes
        for tensor in way.results(node)
        if (as_map := _as_map(graph, layouts, tensor)) is not None
    ]
    places = {tensor: path for tensor, path, *_ in found}
    indices, names = _indices(graph, places), _names(graph, places)
    return tuple(
        FeatureMap(
            tensor,
            path,
            shape,
            axis,
            _stride(layouts.picture, shape, axis, tokens),
            tensor == chosen,
            index,
            names[tensor],
            tokens,
        )
        for index, (tensor, path, shape, axis, tokens) in zip(indices, found, strict=True)
    )


def resolve(graph: Graph, name: str, maps: Sequence[FeatureMap] | None = None) -> Resolved:
    """Find a tensor by its name, or a layer by its path or its index among the feature maps.

    Args:
        graph: the canonical graph.
        name: a tensor of the network, an input included; a module path ("layer4" is the last map
            at or under that path, "conv5_block3_out" one without its beginning); or an index
            ("-1" is the last feature map). A name goes before an index.
        maps: the feature maps, if they are known already.

    Raises:
        UnknownTensorError: nothing of this name; the message suggests the nearest.
    """
    tensor = name if _is_network_tensor(graph, name) else _by_layer(graph, name, maps)
    listed = display_name(graph, tensor)
    integers = _integers(graph, tensor)
    if integers is None:
        return Resolved(name, tensor, tensor, listed)
    writer = graph.producer(tensor)
    if writer is not None and writer.op_type == "DequantizeLinear":
        return Resolved(name, tensor, integers, listed)
    return Resolved(name, network_dequantized(graph, integers) or integers, integers, listed)


def _default(graph: Graph, way: Way, layouts: Layouts, scores: Scores | None) -> str | None:
    if scores is None:
        return None
    if scores.position_axes:
        chosen = before_class_maps(graph, way, layouts, scores)
        return None if chosen is None else display_name(graph, chosen)
    axis = scores.class_axis
    size = (graph.shape(scores.tensor) or ())[axis] if axis is not None else 1
    count = size if isinstance(size, int) else scores.classes
    chosen = default_layer(graph, way, layouts, count)
    return None if chosen is None else display_name(graph, chosen)


def _as_map(
    graph: Graph, layouts: Layouts, tensor: str
) -> tuple[Shape, int, TokenGrid | None] | None:
    """Shape, channel axis and tokens of a tensor that is listed, None for the others."""
    layout, shape = layouts.by_tensor.get(tensor), graph.shape(tensor)
    if layout is None or shape is None or display_name(graph, tensor) != tensor:
        return None
    if inside_integer_kernel(graph, tensor):
        return None
    axis, tokens = layout.channel_axis, layout.tokens
    if axis is None or (TOKENS in layout.meanings and tokens is None):
        return None
    positions = [dim for i, dim in enumerate(shape) if i not in (0, axis)]
    return (shape, axis, tokens) if any(dim != 1 for dim in positions) else None


def _stride(
    picture: Picture | None, shape: Shape, channel_axis: int, tokens: TokenGrid | None
) -> Stride | None:
    if picture is None:
        return None
    sizes = [dim for i, dim in enumerate(shape) if i not in (0, channel_axis)]
    if tokens is not None:
        sizes = list(tokens[:2])
    whole = [picture.shape[axis] for axis in picture.spatial_axes]
    if len(sizes) != len(whole):
        return None
    steps: list[int | float] = []
    for large, small in zip(whole, sizes, strict=True):
        if not isinstance(large, int) or not isinstance(small, int) or not small:
            return None
        steps.append(large // small if large % small == 0 else large / small)
    return tuple(steps)


def _indices(graph: Graph, paths: Mapping[str, str]) -> list[int]:
    """Positions; from the end, and so negative, where a name hides the one from the beginning."""
    names = {re.split(r"[./]", path, maxsplit=1)[0] for path in paths.values()}
    return [
        i - len(paths) if str(i) in names or _is_network_tensor(graph, str(i)) else i
        for i in range(len(paths))
    ]


def _names(graph: Graph, paths: Mapping[str, str]) -> dict[str, str]:
    """The path of each tensor where it is the last at or under it, else the tensor itself."""
    last: dict[str, str] = {}
    for tensor, path in paths.items():
        last |= {path[: end.start()]: tensor for end in re.finditer(r"[./]|$", path)}
    return {
        tensor: path
        if path and last[path] == tensor and not _is_network_tensor(graph, path)
        else tensor
        for tensor, path in paths.items()
    }


def _is_network_tensor(graph: Graph, name: str) -> bool:
    node = graph.producer(name)
    return is_original(node) if node is not None else name in network_inputs(graph)


def _by_layer(graph: Graph, name: str, maps: Sequence[FeatureMap] | None) -> str:
    listed = find_feature_maps(graph) if maps is None else maps
    paths = {m.tensor: m.path for m in listed if m.path}
    found = under(name, paths) if name else []
    found = found or _by_index(name, listed) or within(name, paths)
    if not found and name:
        makers = [node for m in listed if (node := graph.producer(m.tensor)) is not None]
        for others in (weight_paths(makers), written_paths(makers)):
            found = found or under(name, others) or within(name, others)
    if not found and listed and _is_integer(name):
        raise UnknownTensorError(
            f"the model has no layer or tensor {name!r}; its layers are {-len(listed)} to "
            f"{len(listed) - 1}"
        )
    if not found:
        tensors = [o for node in graph.nodes if is_original(node) for o in node.outputs if o]
        known = dict.fromkeys([*paths.values(), *network_inputs(graph), *tensors])
        raise UnknownTensorError.of("layer or tensor", name, known, LISTING)
    return found[-1]


def _is_integer(name: str) -> bool:
    return re.fullmatch("-?[0-9]+", name) is not None


def _by_index(name: str, listed: Sequence[FeatureMap]) -> list[str]:
    inside = _is_integer(name) and -len(listed) <= int(name) < len(listed)
    return [listed[int(name)].tensor] if inside else []


def _integers(graph: Graph, tensor: str) -> str | None:
    """The quantised tensor that stands for `tensor`: itself, or what its only reader makes of it.

    Graph inputs stand for themselves, whatever their type.
    """
    node = graph.producer(tensor)
    if node is None:
        return None
    if not graph.is_float(tensor):
        return tensor if carries_values(graph, tensor) else None
    if node.op_type == "DequantizeLinear" and graph.producer(node.input(0)) is not None:
        return node.input(0)
    readers = network_consumers(graph, tensor)
    if len(readers) == 1 and readers[0].op_type == "QuantizeLinear":
        return readers[0].output
    return None
