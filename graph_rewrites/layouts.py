"""Follow the meaning of the axes from the convolutions through the network.

Convolutions, pools and normalisations prescribe (N, C, spatial…); everything else moves axes
about. A tensor whose layout cannot be followed has none, and no class activation map is made of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graph_rewrites.axes import CHANNEL, UNKNOWN, Atom, Layout, broadcast
from graph_rewrites.graph import Graph
from graph_rewrites.network import Way
from graph_rewrites.node import Node
from graph_rewrites.tensor_type import Shape

ACTIVATIONS = frozenset(
    {
        "Relu", "Clip", "LeakyRelu", "PRelu", "ThresholdedRelu", "Elu", "Celu", "Selu", "Sigmoid",
        "HardSigmoid", "HardSwish", "Swish", "Mish", "Gelu", "Tanh", "Softplus", "Softsign",
        "Shrink",
    }
)  # fmt: skip
NORMALIZATIONS = frozenset(
    {
        "BatchNormalization", "InstanceNormalization", "GroupNormalization", "LayerNormalization",
        "RMSNormalization", "LpNormalization", "LRN", "MeanVarianceNormalization",
    }
)  # fmt: skip
POOLS = frozenset({"MaxPool", "AveragePool", "LpPool"})
GLOBAL_POOLS = frozenset({"GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"})
REDUCTIONS = frozenset(
    {
        "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
        "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp",
    }
)  # fmt: skip
ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Sum", "Mean", "Max", "Min", "Where"})
RESHAPES = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})
QUANTIZATION = frozenset({"QuantizeLinear", "DequantizeLinear"})

_ELEMENTWISE = (
    ACTIVATIONS
    | ARITHMETIC
    | QUANTIZATION
    | {
        "Identity", "Cast", "Dropout", "Expand", "Softmax", "LogSoftmax", "Hardmax", "Neg", "Abs",
        "Exp", "Log", "Sqrt", "Reciprocal", "Erf", "Sin", "Cos", "Tan", "Asin", "Acos", "Atan",
        "Sinh", "Cosh", "Asinh", "Acosh", "Atanh", "Sign", "Floor", "Ceil", "Round", "Mod",
        "CumSum",
    }
)  # fmt: skip
_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose", "DepthToSpace", "SpaceToDepth"})
_CHANNELS_FIRST = (
    _CONVOLUTIONS
    | POOLS
    | GLOBAL_POOLS
    | {"BatchNormalization", "InstanceNormalization", "GroupNormalization", "LRN"}
)
_RESIZES = frozenset({"Concat", "Split", "Slice", "Pad", "Resize", "Upsample", "Tile"})


@dataclass(frozen=True)
class Picture:
    """The graph input that the convolutions see.

    Attributes:
        tensor: its name.
        shape: its shape.
        channel_axis: axis of the colours.
        spatial_axes: the other axes behind the batch, in the order of the feature maps' ones.
    """

    tensor: str
    shape: Shape
    channel_axis: int
    spatial_axes: tuple[int, ...]


@dataclass(frozen=True)
class Layouts:
    """The layouts found: by tensor, and that of the picture (None if no input reaches a window)."""

    by_tensor: dict[str, Layout]
    picture: Picture | None


def find_layouts(graph: Graph, way: Way) -> Layouts:
    """Follow the axes along `way`."""
    known: dict[str, Layout] = {}
    for name in graph.inputs:
        shape = graph.shape(name)
        if name in way.tensors and shape:
            # The picture's axes carry their own number until a convolution tells what they mean.
            known[name] = Layout.of((f"{name}:{axis}" for axis in range(len(shape))), shape)
    picture = None
    for node in way.nodes:
        picture = picture or _picture(graph, node, known)
        known.update(_outputs(graph, way, node, known))
    return Layouts(known, picture)


def _picture(graph: Graph, node: Node, known: dict[str, Layout]) -> Picture | None:
    """The picture, if `node` prescribes a layout and looks at a graph input's own axes."""
    layout = known.get(node.input(0))
    if node.op_type not in _CHANNELS_FIRST or layout is None:
        return None
    marks = [meaning.rpartition(":") for meaning in layout.meanings]
    tensor = next((owner for owner, _, _ in marks if owner in graph.inputs), "")
    shape = graph.shape(tensor)
    if shape is None or len(shape) < 3 or len(shape) != len(marks):
        return None
    axes = [int(number) if owner == tensor else None for owner, _, number in marks]
    missing = set(range(len(shape))).difference(axes)
    # Pictures whose colours are taken apart and joined again lose track of one axis, no more.
    whole = [missing.pop() if axis is None and len(missing) == 1 else axis for axis in axes]
    if any(axis is None for axis in whole) or len(set(whole)) != len(whole):
        return None
    _, colours, *spatial = (axis for axis in whole if axis is not None)
    return Picture(tensor, shape, colours, tuple(spatial))


def _outputs(
    graph: Graph, way: Way, node: Node, known: dict[str, Layout]
) -> Iterator[tuple[str, Layout]]:
    for output in way.results(node):
        shape = graph.shape(output)
        if shape is not None:
            layout = _layout(graph, way, node, shape, known)
            if layout is not None and len(layout.axes) == len(shape):
                yield output, layout


def _layout(
    graph: Graph, way: Way, node: Node, shape: Shape, known: dict[str, Layout]
) -> Layout | None:
    """The layout of the result of `shape` of `node`."""
    op = node.op_type
    sources = [(known[n], graph.shape(n) or ()) for n in way.sources(node) if n in known]
    if op in _CHANNELS_FIRST and len(shape) >= 3:
        return _channels_first(node, shape, sources)
    if not sources:
        return None
    if op in _ELEMENTWISE | NORMALIZATIONS:
        return broadcast(sources, shape)
    layout, before = sources[0]
    if op in RESHAPES:
        return layout.reshaped(shape)
    if op == "Transpose":
        return layout.transposed(node.attr("perm", list(reversed(range(len(before))))))
    if op in REDUCTIONS:
        return _reduced(node, layout, before, shape)
    if op in _RESIZES and all(len(own) == len(shape) for _, own in sources):
        return broadcast([(x.resized(own, shape), shape) for x, own in sources], shape)
    if op == "Gather":
        return _gathered(node, layout, before, shape)
    if op in ("MatMul", "Gemm") and len(sources) == 1 and node.input(0) in known:
        return _dense(layout, shape)
    return None


def _channels_first(node: Node, shape: Shape, sources: list[tuple[Layout, Shape]]) -> Layout:
    """Channels are on axis 1 by definition; the other axes keep the meaning that they have."""
    prescribed = Layout.channels_first(shape)
    if not sources or len(sources[0][1]) != len(shape):
        return prescribed
    layout, before = sources[0]
    if any(":" in meaning for meaning in layout.meanings):  # the picture's: named from here on
        return prescribed
    kept = layout.resized(before, shape)
    if node.op_type in _CONVOLUTIONS:
        return Layout((kept.axes[0], prescribed.axes[1], *kept.axes[2:]))
    return kept


def reduced_axes(node: Node, rank: int) -> list[int] | None:
    """The axes that a Reduce operator reduces; None where they are computed at run time."""
    axes = node.attr("axes")
    if axes is None and node.input(1):
        given = node.constant(node.input(1))
        if given is None:
            return None
        axes = given.tolist()
    if not axes:
        return [] if node.attr("noop_with_empty_axes", 0) else list(range(rank))
    return [axis % rank for axis in axes]


def _reduced(node: Node, layout: Layout, before: Shape, shape: Shape) -> Layout | None:
    if len(shape) == len(before):
        return layout.resized(before, shape)
    axes = reduced_axes(node, len(before))
    return None if axes is None else layout.without(axes)


def _gathered(node: Node, layout: Layout, before: Shape, shape: Shape) -> Layout | None:
    indices = node.shape(node.input(1))
    if indices is None or len(indices) > 1:
        return None
    if indices:
        return layout.resized(before, shape)
    return layout.without([node.attr("axis", 0) % len(before)])


def _dense(layout: Layout, shape: Shape) -> Layout | None:
    """A dense layer works on the last axis: it must be that of the channels to stay one."""
    if len(layout.axes) != len(shape):
        return None
    meaning = CHANNEL if layout.meanings[-1] == CHANNEL else UNKNOWN
    return Layout((*layout.axes[:-1], (Atom(meaning, shape[-1]),)))
