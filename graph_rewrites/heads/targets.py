"""Choose the explained class at run time, inside the graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from graph_rewrites.emit import Emitter
from graph_rewrites.errors import ModelError
from graph_rewrites.graph import Graph
from graph_rewrites.quantized import dequantized
from graph_rewrites.rows import Rows
from graph_rewrites.scores import Scores
from graph_rewrites.stamps import PREFIX_KEY
from graph_rewrites.tensor_type import Dim, TensorType


@dataclass(frozen=True)
class Selection:
    """The chosen scores. R = N·T rows, one per image and target.

    Attributes:
        seed: cotangent of the scores tensor, (R, …): one at the chosen class, else zero.
        valid: bool (R,): whether the target names a class.
        rows: the image that each row belongs to; None where T = 1.
        targets: T.
        batch: the leading dimension of the model's scores.
    """

    seed: str
    valid: str
    rows: Rows | None
    targets: int
    batch: Dim


def select_targets(graph: Graph, scores: Scores, targets: int) -> Selection:
    """Add the input `target` and the outputs `target/used` and `score/used`.

    `target` is int64 (N,), or (N, T) for T > 1; -1 stands for the class with the greatest score,
    the first on ties. A target that names no class makes `score/used` NaN, and the maps with it.

    Raises:
        ValueError: `targets` is no positive number.
        ModelError: several targets are asked for and the batch is fixed.
    """
    if not isinstance(targets, int) or targets < 1:
        raise ValueError(f"targets must be 1 or more, not {targets!r}")
    op = Emitter(graph, "target", {PREFIX_KEY: "target"})
    batch: Dim = 1  # of scores (C,) that have lost it
    if scores.class_axis != 0:
        batch = (graph.shape(scores.tensor) or (None,))[0]
    if targets > 1 and isinstance(batch, int):
        raise ModelError(
            f"{targets} targets per image need a free batch, but the batch of {scores.tensor!r} is "
            f"fixed at {batch}; explain one target at a time"
        )
    shape = (batch,) if targets == 1 else (batch, targets)
    graph.add_input("target", TensorType(TensorProto.INT64, shape))
    values = _class_values(op, scores)
    used, rows = _used(op, values, targets)
    valid = op.And(
        op.GreaterOrEqual(used, op.constant(0, np.int64)),
        op.Less(used, op.constant(scores.classes, np.int64)),
    )
    classes = op.constant(np.arange(scores.classes), np.int64)
    chosen = op.Equal(op.Unsqueeze(used, [1]), classes)
    if rows:
        values = op.Gather(values, rows, axis=0)
    score = op.ReduceSum(op.Where(chosen, values, 0.0), [1], keepdims=0)
    publish(op, "target/used", _per_image(op, used, targets), TensorType(TensorProto.INT64, shape))
    score = op.Where(valid, score, float("nan"))
    publish(op, "score/used", _per_image(op, score, targets), TensorType(TensorProto.FLOAT, shape))
    several = Rows.of(graph, rows) if rows else None
    return Selection(_seed(op, chosen, scores), valid, several, targets, batch)


def publish(op: Emitter, name: str, tensor: str, type_: TensorType) -> None:
    """Make `tensor` the graph output `name`."""
    op.graph.append("Identity", [tensor], [name], name=name, metadata=op.stamp)
    op.graph.add_output(name, type_)


def _class_values(op: Emitter, scores: Scores) -> str:
    """The scores as (N, C); a single logit z behind a sigmoid as (-z, z)."""
    values = dequantized(op, scores.tensor)
    rank = len(op.shape(scores.tensor) or ())
    if _is_binary(op, scores):
        values = op.Reshape(values, [-1, 1])
        return str(op.Concat(op.Neg(values), values, axis=1))
    return str(op.Reshape(values, [-1, scores.classes])) if rank != 2 else values


def _is_binary(op: Emitter, scores: Scores) -> bool:
    """Whether the scores are one logit behind a sigmoid: two classes, one number."""
    shape = op.shape(scores.tensor) or ()
    return scores.link == "sigmoid" and all(dim == 1 for dim in shape[1:])


def _used(op: Emitter, values: str, targets: int) -> tuple[str, str | None]:
    """Targets with the arg-max filled in, (R,), and the image of each row."""
    best = op.ArgMax(values, axis=1, keepdims=0 if targets == 1 else 1)
    used = op.Where(op.Equal("target", op.constant(-1, np.int64)), best, "target")
    if targets == 1:
        return str(used), None
    count = op.Gather(op.Shape("target"), op.constant(0, np.int64), axis=0)
    images = op.Range(op.constant(0, np.int64), count, op.constant(1, np.int64))
    rows = op.Reshape(op.Expand(op.Unsqueeze(images, [1]), [1, targets]), [-1])
    return str(op.Reshape(used, [-1])), str(rows)


def _seed(op: Emitter, chosen: str, scores: Scores) -> str:
    seed = op.Cast(chosen, to=TensorProto.FLOAT)
    if _is_binary(op, scores):
        seed = op.MatMul(seed, op.constant([[-1.0], [1.0]]))
    shape = op.shape(scores.tensor) or ()
    if len(shape) == 2:
        return str(seed)
    return str(op.Reshape(seed, [-1, *(1 if not isinstance(d, int) else d for d in shape[1:])]))


def _per_image(op: Emitter, tensor: str, targets: int) -> str:
    return tensor if targets == 1 else str(op.Reshape(tensor, [-1, targets]))
