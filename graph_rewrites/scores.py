"""Find the class scores: the tensor before softmax and before quantisation.

Gradients are taken of scores, not of probabilities: a softmax couples the classes and saturates.
Exported files hide the scores behind a softmax, behind the quantisation of its result, and behind
whatever reshapes the two.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import onnx

from graph_rewrites.canonical import open_canonical
from graph_rewrites.errors import ModelError, UnknownShapeError, UnknownTensorError
from graph_rewrites.graph import Graph
from graph_rewrites.network import network_outputs
from graph_rewrites.node import Node
from graph_rewrites.quantized import quantizer
from graph_rewrites.tensor_type import Dim, Shape

Link = Literal["softmax", "log_softmax", "sigmoid", "none"]

_LINKS: dict[str, Link] = {
    "Softmax": "softmax",
    "LogSoftmax": "log_softmax",
    "Sigmoid": "sigmoid",
}
_AROUND = frozenset({"Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity"})
_QUANTIZATION = frozenset({"QuantizeLinear", "DequantizeLinear"})


class AmbiguousScoresWarning(UserWarning):
    """Several outputs could be the class scores; the first is explained."""


@dataclass(frozen=True)
class Scores:
    """The class scores of a network.

    Attributes:
        tensor: what is explained: float, or the integers of a quantised output that nothing
            dequantises. One number per image and class.
        class_axis: the axis of `tensor` that counts the classes; None where it has no such axis.
        classes: how many classes a target may name: 2 for one logit behind a sigmoid.
        peeled: operators between `tensor` and `output`, in the order in which they run.
        output: the graph output that the scores lead to.
        link: what turns the scores into probabilities.
    """

    tensor: str
    class_axis: int | None
    classes: int
    peeled: tuple[str, ...]
    output: str
    link: Link


def scores(model: onnx.ModelProto, output: str | None = None) -> Scores:
    """`find_scores` of a model, in its canonical form."""
    return find_scores(open_canonical(model), output)


def find_scores(graph: Graph, output: str | None = None) -> Scores:
    """Find the class scores of a canonical graph.

    Args:
        graph: the graph; what earlier calls added to it is overlooked.
        output: the graph output to start from. By default the first float output that holds one
            number per class, else the first quantised one.

    Raises:
        UnknownTensorError: the network has no output of this name.
        UnknownShapeError: the number of classes is not known.
        ModelError: no output holds one number per class.

    Warns:
        AmbiguousScoresWarning: other outputs lead to other scores.
    """
    outputs = network_outputs(graph)
    if output is not None:
        if output not in outputs:
            raise UnknownTensorError.of("output", output, outputs)
        return _scores(graph, output)
    floats = [name for name in outputs if graph.is_float(name)]
    integers = [name for name in outputs if name not in floats]
    found: list[Scores] = []
    reasons: list[ModelError] = []
    for name in (*floats, *integers):
        try:
            found.append(_scores(graph, name))
        except ModelError as error:
            reasons.append(error)
    if not found:
        raise _nothing_found(graph, outputs, reasons)
    _warn_of_others(found)
    return found[0]


def _nothing_found(
    graph: Graph, outputs: Sequence[str], reasons: Sequence[ModelError]
) -> ModelError:
    if len(reasons) == 1:
        return reasons[0]
    listed = ", ".join(f"{name!r} {_described(graph.shape(name))}" for name in outputs)
    return ModelError(
        f"no output holds one score per class (outputs: {listed or 'none'}); "
        "name the tensor to explain with `of`"
    )


def _warn_of_others(found: Sequence[Scores]) -> None:
    others = [other.output for other in found[1:] if other.tensor != found[0].tensor]
    if others:
        warnings.warn(
            f"several outputs could be the class scores: {found[0].output!r} is explained, not "
            + ", ".join(map(repr, others)),
            AmbiguousScoresWarning,
            stacklevel=4,  # the caller of `scores`, `differentiate` or `explanation_model`
        )


def _scores(graph: Graph, output: str) -> Scores:
    """The scores that `output` leads back to."""
    link = _link_behind(graph, output)
    if link is None:
        if not graph.is_float(output) and quantizer(graph, output) is None:
            raise ModelError(
                f"output {output!r} holds integers that no QuantizeLinear made, not scores; "
                "name the tensor to explain with `of`"
            )
        axis, size = _class_axis(graph, output)
        return Scores(output, axis, size, (), output, "none")
    kind, nodes = link
    tensor = nodes[-1].input(0)
    for node in _before_the_link(graph, tensor):
        nodes.append(node)
        tensor = node.input(0)
    axis, size = _class_axis(graph, tensor)
    classes = 2 if kind == "sigmoid" and size == 1 else size
    return Scores(tensor, axis, classes, tuple(n.op_type for n in reversed(nodes)), output, kind)


def _link_behind(graph: Graph, output: str) -> tuple[Link, list[Node]] | None:
    """What makes probabilities of scores, and the nodes from `output` back to it; None if nothing.

    A softmax over another axis than that of the classes (attention, a spatial softmax) is none.
    """
    nodes: list[Node] = []
    node = graph.producer(output)
    while node is not None:
        nodes.append(node)
        before = graph.producer(node.input(0))
        if node.op_type == "Log" and before is not None and before.op_type == "Softmax":
            return ("log_softmax", [*nodes, before]) if _over_classes(graph, before) else None
        if node.op_type in _LINKS:
            return (_LINKS[node.op_type], nodes) if _over_classes(graph, node) else None
        if node.op_type not in _AROUND | _QUANTIZATION:
            return None
        node = before
    return None


def _over_classes(graph: Graph, link: Node) -> bool:
    if link.op_type == "Sigmoid":
        return True
    shape = graph.shape(link.output)
    axes = _wide_axes(shape)
    if shape is None or len(axes) > 1:
        return False
    axis: int = link.attr("axis", -1) % len(shape)
    return not axes or axes == [axis]


def _before_the_link(graph: Graph, tensor: str) -> list[Node]:
    """What merely re-arranges or casts the scores in front of the link, last first.

    A DequantizeLinear ends it: quantised scores are explained at their dequantised value.
    """
    nodes = []
    size = _size(graph, tensor)
    node = graph.producer(tensor)
    while node is not None and node.op_type in _AROUND:
        before = node.input(0)
        if not graph.is_float(before) or size is None or _size(graph, before) != size:
            break
        nodes.append(node)
        node = graph.producer(before)
    return nodes


def _wide_axes(shape: Shape | None) -> list[int]:
    """Axes behind the batch that are not known to have size 1."""
    return [axis for axis, dim in enumerate(shape or ()) if axis and dim != 1]


def _size(graph: Graph, tensor: str) -> int | None:
    """The number of classes of `tensor`, None where it has no class axis or no fixed size."""
    try:
        return _class_axis(graph, tensor)[1]
    except ModelError:
        return None


def _class_axis(graph: Graph, tensor: str) -> tuple[int | None, int]:
    """The one axis behind the batch that is not 1, and its size.

    One score per image may come as (N, 1) or as (N,).

    Raises:
        UnknownShapeError: the rank, or the size of that axis, is not known.
        ModelError: there are several such axes.
    """
    shape = graph.shape(tensor)
    if shape is None:
        raise UnknownShapeError(
            f"the shape of output {tensor!r} is unknown, so its class axis is too; "
            "run onnx.shape_inference on the model or declare the shape"
        )
    if len(shape) < 2:
        return _without_batch(shape)
    axes = _wide_axes(shape)
    if len(axes) > 1:
        raise ModelError(
            f"tensor {tensor!r} {_described(shape)} does not hold one score per class; "
            "name the tensor to explain with `of`"
        )
    axis = axes[0] if axes else 1
    return axis, _fixed(tensor, shape, shape[axis])


def _without_batch(shape: Shape) -> tuple[int | None, int]:
    """(C,), where the file dropped a batch of 1, or (N,) with one score per image."""
    if shape and isinstance(shape[0], int) and shape[0] > 1:
        return 0, shape[0]
    return None, 1


def _fixed(tensor: str, shape: Shape, dim: Dim) -> int:
    if isinstance(dim, int):
        return dim
    raise UnknownShapeError(
        f"tensor {tensor!r} {_described(shape)} does not tell the number of classes; "
        "declare the shape of the model's output"
    )


def _described(shape: Shape | None) -> str:
    if shape is None:
        return "of unknown shape"
    return f"({', '.join('?' if dim is None else str(dim) for dim in shape)})"
