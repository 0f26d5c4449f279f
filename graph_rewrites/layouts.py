"""Follow the meaning of the axes from the convolutions through the network.

Convolutions, pools and normalisations prescribe (N, C, spatial…); everything else moves axes
about. A tensor whose layout cannot be followed has none, and no class activation map is made of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graph_rewrites.axes import (
    CHANNEL,
    TOKENS,
    UNKNOWN,
    Atom,
    Layout,
    broadcast,
    is_mark,
    mark,
    split,
)
from graph_rewrites.graph import Graph
from graph_rewrites.network import Way
from graph_rewrites.node import Node
from graph_rewrites.picture_axes import Picture as Picture
from graph_rewrites.picture_axes import seen_in_patches, seen_through_windows
from graph_rewrites.tensor_type import Shape
from graph_rewrites.token_axes import PICKING, cut, joined, padded, picked

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

ELEMENTWISE = (
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
_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose", "DepthToSpace", "SpaceToDepth", "Col2Im"})
_CHANNELS_FIRST = (
    _CONVOLUTIONS
    | POOLS
    | GLOBAL_POOLS
    | {"BatchNormalization", "InstanceNormalization", "GroupNormalization", "LRN"}
)
_DENSE = frozenset({"MatMul", "Gemm"})
_RESIZES = frozenset({"Concat", "Split", "Slice", "Pad", "Resize", "Upsample", "Tile"})


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
            known[name] = Layout.of((mark(name, axis) for axis in range(len(shape))), shape)
    picture = None
    for node in way.nodes:
        known.update(_outputs(graph, way, node, known))
        layout = known.get(node.input(0))
        if picture is not None or layout is None:
            continue
        if node.op_type in _CHANNELS_FIRST:
            picture = seen_through_windows(graph, layout)
        elif node.op_type in _DENSE and (seen := seen_in_patches(graph, node, layout)):
            picture, known[node.output] = seen
    return Layouts(known, picture)


def _outputs(
    graph: Graph, way: Way, node: Node, known: dict[str, Layout]
) -> Iterator[tuple[str, Layout]]:
    for output in way.results(node):
        shape = graph.shape(output)
        if shape is not None:
            layout = _layout(graph, way, node, output, known)
            if layout is not None and len(layout.axes) == len(shape):
                yield output, layout


def _layout(
    graph: Graph, way: Way, node: Node, output: str, known: dict[str, Layout]
) -> Layout | None:
    """The layout of one output of `node`."""
    op, shape = node.op_type, graph.known_shape(output)
    sources = [(known[n], graph.shape(n) or ()) for n in way.sources(node) if n in known]
    if op in _CHANNELS_FIRST and len(shape) >= 3:
        return _channels_first(node, shape, sources)
    if not sources:
        return None
    if op in ELEMENTWISE | NORMALIZATIONS:
        return broadcast(sources, shape)
    layout, before = sources[0]
    if op in RESHAPES:
        return layout.reshaped(shape)
    if op == "Transpose":
        return layout.transposed(node.attr("perm", list(reversed(range(len(before))))))
    if op in REDUCTIONS:
        return _reduced(node, layout, before, shape)
    if op == "MatMul":
        return _product(node, known, shape)
    if op == "Gemm" and len(sources) == 1 and node.input(0) in known:
        return _dense(layout, shape)
    if op == "GatherND" and not node.attr("batch_dims", 0):
        return _looked_up(node, layout, shape)
    if op == "Gather":
        moved = _gathered(node, layout, before, shape)
    elif op in _RESIZES and all(len(own) == len(shape) for _, own in sources):
        moved = broadcast([(x.resized(own, shape), shape) for x, own in sources], shape)
    else:
        return None
    if moved is None or len(moved.axes) != len(before):
        return moved
    return _with_tokens(graph, node, output, known, moved)


def _channels_first(node: Node, shape: Shape, sources: list[tuple[Layout, Shape]]) -> Layout:
    """Channels are on axis 1 by definition; the other axes keep the meaning that they have."""
    prescribed = Layout.channels_first(shape)
    if not sources or len(sources[0][1]) != len(shape):
        return prescribed
    layout, before = sources[0]
    if any(map(is_mark, layout.meanings)):  # the picture's: named from here on
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
    axis = node.attr("axis", 0) % len(before)
    if indices is None or len(indices) > 2:
        return None
    if len(indices) == 2:
        return _unfolded(node, layout, axis)
    return layout.resized(before, shape) if indices else layout.without([axis])


def _looked_up(node: Node, layout: Layout, shape: Shape) -> Layout | None:
    """The layout behind a GatherND: the axes that it does not index come last, as they are."""
    indices = node.shape(node.input(1)) or (None,)
    if not isinstance(indices[-1], int):
        return None
    rest = layout.axes[indices[-1] :]
    return Layout((*((Atom(UNKNOWN, dim),) for dim in shape[: len(shape) - len(rest)]), *rest))


def _unfolded(node: Node, layout: Layout, axis: int) -> Layout | None:
    """The layout behind a Gather of windows: one axis of places in them, one of the windows.

    The windows lie further apart than the places inside one of them, and are more in number.
    """
    indices, meaning = node.constant(node.input(1)), layout.meanings[axis]
    if indices is None or min(indices.shape) < 2 or is_mark(meaning):
        return None
    steps = (indices[1, 0] - indices[0, 0], indices[0, 1] - indices[0, 0])
    windows = max((0, 1), key=lambda i: (steps[i], indices.shape[i]))
    atoms = [Atom(UNKNOWN, size) for size in indices.shape]
    atoms[windows] = Atom(meaning, indices.shape[windows])
    size = node.shape(node.input(0))
    if steps[windows] == indices.shape[1 - windows] and size and size[axis] == indices.size:
        pieces = split(Atom(meaning, indices.size), indices.shape[windows])
        atoms[windows], atoms[1 - windows] = pieces
    return Layout((*layout.axes[:axis], *((atom,) for atom in atoms), *layout.axes[axis + 1 :]))


def _with_tokens(
    graph: Graph, node: Node, output: str, known: dict[str, Layout], moved: Layout
) -> Layout:
    """The layout `moved` of an output with its axes of tokens put right: their grid moves along."""
    if node.op_type == "Concat":
        axis = node.attr("axis") % len(moved.axes)
        layouts = {name: known[name] for name in node.inputs if name in known}
        grids = {n: x.axes[axis] for n, x in layouts.items() if x.meanings[axis] == TOKENS}
        if not grids:
            return moved
        whole = joined(graph, node, axis, grids)
        return moved.replaced(axis, whole or (Atom(UNKNOWN, None),))
    layout, sizes = known[node.input(0)], graph.known_shape(output)
    for axis, meaning in enumerate(layout.meanings):
        size, now = sizes[axis], None
        if meaning != TOKENS or not isinstance(size, int):
            continue
        if node.op_type == "Pad":
            now = padded(node, axis, layout.axes[axis], size)
        elif node.op_type in PICKING:
            taken = picked(graph, node, output, axis)
            now = cut(layout.axes[axis], taken) if taken is not None else None
        moved = moved.replaced(axis, now) if now is not None else moved
    return moved


def _product(node: Node, known: dict[str, Layout], shape: Shape) -> Layout | None:
    """A MatMul's: the rows of the left operand, the columns of the right one."""
    layouts = {name: known[name] for name in node.inputs if name in known}
    left, right = (layouts.get(name) for name in node.inputs)
    if len(shape) < 2 or any(len(x.axes) < 2 for x in layouts.values()):
        return None
    if left is not None and node.input(1) not in known:
        return _dense(left, shape)
    batches = [
        (Layout(known[name].axes[:-2]), (node.shape(name) or ())[:-2])
        for name in node.inputs
        if name in known
    ]
    stack = broadcast(batches, shape[:-2])
    rows, columns = (Atom(UNKNOWN, dim) for dim in shape[-2:])
    return Layout(
        (
            *(stack.axes if stack is not None else ()),
            left.axes[-2] if left is not None else (rows,),
            right.axes[-1] if right is not None else (columns,),
        )
    )


def _dense(layout: Layout, shape: Shape) -> Layout | None:
    """A dense layer works on the last axis: it must be that of the channels to stay one."""
    if len(layout.axes) != len(shape):
        return None
    meaning = CHANNEL if layout.meanings[-1] == CHANNEL else UNKNOWN
    return Layout((*layout.axes[:-1], (Atom(meaning, shape[-1]),)))
