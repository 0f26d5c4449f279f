"""The numbers that a target chooses among, and the way back from one of them to the scores.

An objective offers values (R, C), R = N·T rows, one for every image and target, and turns a choice
among them, again (R, C), into the cotangent of the explained tensor. What lies in between, the
choice of the class, is the same for all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from graph_rewrites.emit import Emitter
from graph_rewrites.explained import embedding_size
from graph_rewrites.graph import Graph
from graph_rewrites.layouts import Picture
from graph_rewrites.quantized import dequantized
from graph_rewrites.scores import Scores
from graph_rewrites.tensor_type import Dim, Shape, TensorType


def ask(graph: Graph, name: str, elem_type: int, shape: Shape) -> str:
    """Add the input `name` of an objective, as "asked/<name>" where the network has such a tensor.

    Networks call their own tensors `mask` or `target` too, and their names are not ours to change.
    """
    free = f"asked/{name}" if graph.exists(name) else name
    return graph.add_input(free, TensorType(elem_type, shape))


@dataclass(frozen=True)
class Asked:
    """What is asked about, and how often.

    Attributes:
        scores: the explained tensor.
        picture: the input that takes the pictures.
        batch: N, the leading dimension of the explained tensor.
        targets: T, the targets of each image.
        rows: int64 (R,), the image that each row belongs to; None where T = 1.
        target: the graph input that names the class; "" where the objective has none.
    """

    scores: Scores
    picture: Picture
    batch: Dim
    targets: int
    rows: str | None
    target: str = ""

    @property
    def shape(self) -> Shape:
        """(N,), or (N, T) for T > 1."""
        return (self.batch,) if self.targets == 1 else (self.batch, self.targets)

    def spread(self, op: Emitter, tensor: str) -> str:
        """(N, …) as (R, …)."""
        return str(op.Gather(tensor, self.rows, axis=0)) if self.rows else tensor

    def publish(self, op: Emitter, name: str, tensor: str, elem_type: int) -> None:
        """Make `tensor`, (R,), the graph output `name`, (N,) or (N, T)."""
        if self.targets > 1:
            tensor = op.Reshape(tensor, [-1, self.targets])
        publish(op, name, tensor, TensorType(elem_type, self.shape))


@dataclass(frozen=True)
class Offer:
    """What an objective offers.

    Attributes:
        values: float32 (R, C).
        cotangent: from the choice, float32 (R, C), to the cotangent of the explained tensor.
        valid: bool (R,), whether all that was asked makes sense but for the class; None: always.
    """

    values: str
    cotangent: Callable[[str], str]
    valid: str | None = None


def class_scores(op: Emitter, asked: Asked) -> Offer:
    """One score for each class of the whole picture."""
    tensor, axis = asked.scores.tensor, asked.scores.class_axis
    shape = op.shape(tensor) or ()
    flat = len(shape) == 2
    values = _float(op, tensor)
    if not flat:
        values = op.Reshape(values, [-1, 1 if axis is None else shape[axis]])

    def cotangent(choice: str) -> str:
        sizes = [dim if isinstance(dim, int) else 1 for dim in shape[1:]]
        return choice if flat else str(op.Reshape(choice, [-1, *sizes]))

    return Offer(asked.spread(op, values), cotangent)


def masked_scores(op: Emitter, asked: Asked) -> Offer:
    """A class's scores summed over a mask (Seg-Grad-CAM, Vinogradova et al. 2020, equation 1).

    The input `mask` is float32 (N, H, W), or (N, T, H, W), in the height and width of the picture:
    the weight of each pixel, 0 outside. It is averaged onto the grid of the scores where that is
    another one. A mask divided by its sum makes a mean; one without any weight is not valid.
    """
    scores, frame = asked.scores, [asked.picture.shape[i] for i in asked.picture.spatial_axes]
    mask = ask(op.graph, "mask", TensorProto.FLOAT, (*asked.shape, *frame))
    if asked.targets == 1:
        mask = op.Unsqueeze(mask, [1])
    marked = op.Greater(op.ReduceMax(op.Abs(mask), [2, 3], keepdims=0), 0.0)
    grid = [op.graph.known_shape(scores.tensor)[axis] for axis in scores.position_axes]
    if grid != frame or not all(isinstance(dim, int) for dim in grid):
        mask = op.Resize(
            mask,
            None,
            None,
            op.Gather(op.Shape(scores.tensor), list(scores.position_axes)),
            mode="linear",
            coordinate_transformation_mode="half_pixel",
            antialias=1,
            axes=[2, 3],
        )
    weights = op.Reshape(mask, [0, asked.targets, -1])
    return _weighted(op, asked, _table(op, scores), weights, op.Reshape(marked, [-1]))


def box_scores(op: Emitter, asked: Asked) -> Offer:
    """The scores of one box of a detector, before its boxes are sorted out.

    The input `box` is int64 (N,) or (N, T): the box's number, in the order of the explained tensor;
    -1 stands for the one with the greatest score, of the target's class where one is given. The
    output `box/used` tells which it is.
    """
    table = _table(op, asked.scores)  # (N, A, C)
    none, zero, one = (op.constant(n, np.int64) for n in (-1, 0, 1))
    box = ask(op.graph, "box", TensorProto.INT64, asked.shape)
    wanted = op.Reshape(box, [0, asked.targets])
    target = op.Reshape(asked.target, [0, 1, asked.targets])
    classes = op.constant(np.arange(asked.scores.classes)[:, None], np.int64)
    named = op.MatMul(table, op.Cast(op.Equal(target, classes), to=TensorProto.FLOAT))
    greatest = op.ReduceMax(table, [2], keepdims=1)
    best = op.ArgMax(op.Where(op.Equal(target, none), greatest, named), axis=1, keepdims=0)
    used = op.Where(op.Equal(wanted, none), best, wanted)  # (N, T)
    count = op.Gather(op.Shape(table), one, axis=0)
    valid = op.And(op.GreaterOrEqual(used, zero), op.Less(used, count))
    numbers = op.Range(zero, count, one)
    weights = op.Cast(op.Equal(op.Unsqueeze(used, [2]), numbers), to=TensorProto.FLOAT)
    asked.publish(op, "box/used", op.Reshape(used, [-1]), TensorProto.INT64)
    return _weighted(op, asked, table, weights, op.Reshape(valid, [-1]))


def similarity(op: Emitter, asked: Asked) -> Offer:
    """The cosine of an image's embedding u to another one, r: u·r / |u||r|; the only class.

    The input `reference` is r, float32 (N, D) or (N, T, D). The output `similarity/embedding`,
    (N, D), is u: what another image needs as its reference. ∂cos/∂u = (r/|r| - cos · u/|u|) / |u|.
    """
    tensor = asked.scores.tensor
    size = embedding_size(op.graph, tensor)
    reference = ask(op.graph, "reference", TensorProto.FLOAT, (*asked.shape, size))
    embedding = op.Reshape(_float(op, tensor), [-1, size])
    published = TensorType(TensorProto.FLOAT, (asked.batch, size))
    publish(op, "similarity/embedding", embedding, published)
    own, other = asked.spread(op, embedding), op.Reshape(reference, [-1, size])
    length, other_length = (op.ReduceL2(u, [1], keepdims=1) for u in (own, other))
    own, other = op.Div(own, length), op.Div(other, other_length)
    cosine = op.ReduceSum(op.Mul(own, other), [1], keepdims=1)

    def cotangent(choice: str) -> str:
        slope = op.Div(op.Sub(other, op.Mul(cosine, own)), length)
        behind = op.Shape(tensor, start=1)
        return str(op.Reshape(op.Mul(choice, slope), op.Concat([-1], behind, axis=0)))

    return Offer(cosine, cotangent, op.Reshape(op.Greater(other_length, 0.0), [-1]))


@dataclass(frozen=True)
class Objective:
    """An objective: what it offers, and whether a target chooses a class."""

    offer: Callable[[Emitter, Asked], Offer]
    has_classes: bool = True


KINDS: dict[str, Objective] = {
    "class": Objective(class_scores),
    "mask": Objective(masked_scores),
    "box": Objective(box_scores),
    "similarity": Objective(similarity, has_classes=False),
}


def publish(op: Emitter, name: str, tensor: str, type_: TensorType) -> None:
    """Make `tensor` the graph output `name`."""
    op.graph.append("Identity", [tensor], [name], name=name, metadata=op.stamp)
    op.graph.add_output(name, type_)


def _order(op: Emitter, scores: Scores) -> list[int]:
    """The axes with the classes last: batch, places, classes."""
    rank, axis = op.rank(scores.tensor), scores.class_axis
    return [*(i for i in range(rank) if i != axis), axis or 0]


def _table(op: Emitter, scores: Scores) -> str:
    """The scores as (N, P, C): all places in the order of the tensor, the classes last."""
    values, order = _float(op, scores.tensor), _order(op, scores)
    if order != sorted(order):
        values = op.Transpose(values, perm=order)
    size = op.graph.known_shape(scores.tensor)[order[-1]]
    return values if len(order) == 3 else str(op.Reshape(values, [0, -1, size]))


def _weighted(op: Emitter, asked: Asked, table: str, weights: str, valid: str) -> Offer:
    """Σ_p weight_p · score_pc for each row, of weights (N, T, P) and scores (N, P, C)."""
    scores, order = asked.scores, _order(op, asked.scores)
    size = op.graph.known_shape(scores.tensor)[order[-1]]
    sums = op.Reshape(op.MatMul(weights, table), [-1, size])

    def cotangent(choice: str) -> str:
        places = op.Shape(table, start=1, end=2)
        column = op.Reshape(weights, op.Concat([-1], places, [1], axis=0))  # (R, P, 1)
        spread = op.Mul(column, op.Unsqueeze(choice, [1]))
        dims = op.Gather(op.Shape(scores.tensor), order[1:])
        wide = op.Reshape(spread, op.Concat([-1], dims, axis=0))
        back = [order.index(axis) for axis in sorted(order)]
        return str(wide if order == sorted(order) else op.Transpose(wide, perm=back))

    return Offer(sums, cotangent, valid)


def _float(op: Emitter, tensor: str) -> str:
    """The values of the explained tensor as float32, behind its quantisation."""
    values = dequantized(op, tensor)
    if op.graph.type(values).elem_type in (TensorProto.FLOAT, TensorProto.UNDEFINED):
        return values
    return str(op.Cast(values, to=TensorProto.FLOAT))
