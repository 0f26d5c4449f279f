"""Spell out automatic padding: afterwards every window says its own pads.

The definition is ONNX's: SAME gives ceil(input / stride) outputs, the odd cell of padding goes to
the end for SAME_UPPER and to the beginning for SAME_LOWER; a ConvTranspose is sized the other way
round, input * stride.

A pool that rounds its size up (ceil_mode) counts no window that begins in the padding behind; shape
inference before opset 22 does. Where rounding up adds no window, it goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graph_rewrites.errors import UnknownShapeError, UnsupportedOperatorError
from graph_rewrites.graph import Graph
from graph_rewrites.node import Node
from graph_rewrites.windows import Window

_POOLS = frozenset({"MaxPool", "AveragePool", "LpPool"})
_WEIGHT = {"Conv": 1, "ConvTranspose": 1, "ConvInteger": 1, "QLinearConv": 3}
"""Convolutions, and which of their inputs is the weight."""


def make_pads_explicit(graph: Graph) -> None:
    """Replace `auto_pad`, and `output_shape` of a ConvTranspose, by `pads`.

    Raises:
        UnknownShapeError: the pads depend on a height or width that the model leaves open.
        UnsupportedOperatorError: runtimes do not agree what the pads should be.
    """
    for node in graph.nodes:
        if node.domain or node.op_type not in _POOLS | _WEIGHT.keys():
            continue
        mode = node.attr("auto_pad", "NOTSET")
        sized = mode.startswith("SAME") or node.attr("output_shape")
        if node.op_type == "ConvTranspose" and sized:
            _settle_transposed(node, mode)
        elif mode != "NOTSET":
            _settle(node, mode)
        node.set_attr("auto_pad", None)
        _settle_rounding(graph, node)


def settle_rounding(graph: Graph) -> None:
    """Let pools of fixed size round it up only where that adds a window, in place."""
    for node in graph.nodes:
        if not node.domain and node.op_type in _POOLS:
            _settle_rounding(graph, node)


def _settle_rounding(graph: Graph, node: Node) -> None:
    if node.attr("ceil_mode", 0) and _adds_no_window(node):
        node.set_attr("ceil_mode", None)
        graph.infer()  # the sizes behind it, before they decide about the next


def _adds_no_window(node: Node) -> bool:
    """Whether a pool of fixed size has as many windows as one that rounds its size down."""
    sizes = [dim for dim in (node.shape(node.input(0)) or ())[2:] if isinstance(dim, int)]
    up = Window.of(node)
    if len(sizes) < len(up.kernel):
        return False
    return up.counts(sizes) == replace(up, ceil=False).counts(sizes)


def _settle(node: Node, mode: str) -> None:
    extents = _extents(node)
    totals = [0] * len(extents)
    if mode != "VALID":
        if node.op_type in _POOLS and any(d != 1 for d in node.attr("dilations", ())):
            raise _disputed(node, "a dilated window")
        strides = _strides(node, len(extents))
        totals = [
            extent - 1 if stride == 1 else _same_total(node, axis, stride, extent)
            for axis, (stride, extent) in enumerate(zip(strides, extents, strict=True))
        ]
        node.set_attr("ceil_mode", None)  # SAME rounds up by itself
    node.set_attr("pads", _split(totals, mode))


def _same_total(node: Node, axis: int, stride: int, extent: int) -> int:
    size = _size(node, axis)
    total = (-(-size // stride) - 1) * stride + extent - size
    if total < -1:
        raise _disputed(node, "strides that step over cells between its windows")
    return max(0, total)


def _disputed(node: Node, what: str) -> UnsupportedOperatorError:
    return UnsupportedOperatorError(
        f"{node} pads automatically with {what}, where the standard and its runtimes disagree; "
        "export the model with explicit pads"
    )


def _settle_transposed(node: Node, mode: str) -> None:
    extents = _extents(node)
    strides = _strides(node, len(extents))
    extra = list(node.attr("output_padding", [0] * len(extents)))
    wanted = node.attr("output_shape")
    totals = []
    for axis, (stride, extent) in enumerate(zip(strides, extents, strict=True)):
        total = extra[axis] + extent - stride
        if wanted:
            total += stride * _size(node, axis) - wanted[len(wanted) - len(extents) + axis]
        if wanted and total < 0:
            extra[axis] -= total
        totals.append(max(0, total))
    node.set_attr("pads", _split(totals, "SAME_UPPER" if mode == "SAME_UPPER" else "SAME_LOWER"))
    node.set_attr("output_padding", extra if any(extra) else None)
    node.set_attr("output_shape", None)


def _split(totals: Sequence[int], mode: str) -> list[int]:
    small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return [*large, *small] if mode == "SAME_LOWER" else [*small, *large]


def _extents(node: Node) -> list[int]:
    """How many input cells each axis of the dilated window spans."""
    kernel = node.attr("kernel_shape")
    if kernel is None:
        weight = node.input(_WEIGHT.get(node.op_type, 0))
        shape = node.shape(weight) or ()
        kernel = [dim for dim in shape[2:] if isinstance(dim, int)]
        if len(shape) < 3 or len(kernel) != len(shape) - 2:
            raise UnknownShapeError(
                f"{node} pads automatically, but the size of its weight {weight!r} is unknown; "
                "export the model with explicit pads"
            )
    dilations = node.attr("dilations", [1] * len(kernel))
    return [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]


def _strides(node: Node, rank: int) -> list[int]:
    return list(node.attr("strides", [1] * rank))


def _size(node: Node, axis: int) -> int:
    shape = node.shape(node.input(0))
    size = shape[axis + 2] if shape is not None else None
    if not isinstance(size, int):
        raise UnknownShapeError(
            f"{node} pads automatically, and its input {node.input(0)!r} of shape {shape} leaves "
            "the size open that the pads depend on; give the model's inputs a fixed height and "
            "width, or export it with explicit pads"
        )
    return size
