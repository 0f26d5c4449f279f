"""Choose the explained class at run time, inside the graph."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from onnx import TensorProto

from graph_rewrites.emit import Emitter
from graph_rewrites.errors import SeveralTargetsError
from graph_rewrites.graph import Graph
from graph_rewrites.heads.objectives import KINDS, Asked, ask
from graph_rewrites.layouts import Picture
from graph_rewrites.rows import Rows
from graph_rewrites.scores import Scores
from graph_rewrites.stamps import PREFIX_KEY
from graph_rewrites.tensor_type import Dim


@dataclass(frozen=True)
class Selection:
    """The chosen scores. R = N·T rows, one per image and target.

    Attributes:
        seed: cotangent of the scores tensor, (R, …): for the score that was chosen.
        valid: bool (R,): whether the target names anything.
        rows: the image that each row belongs to; None where T = 1.
        targets: T.
        batch: the leading dimension of the model's scores.
    """

    seed: str
    valid: str
    rows: Rows | None
    targets: int
    batch: Dim


def select_targets(
    graph: Graph, scores: Scores, targets: int, objective: str, picture: Picture
) -> Selection:
    """Add the inputs of an objective, and the outputs `target/used` and `score/used`.

    `target` is int64 (N,), or (N, T) for T > 1; -1 stands for the class with the greatest score,
    the first on ties. A target that names no class, an empty mask, a box that does not exist: each
    makes `score/used` NaN, and the maps with it.

    Raises:
        ValueError: `targets` is no positive number.
        SeveralTargetsError: several targets are asked for and the batch is fixed.
    """
    op = Emitter(graph, "target", {PREFIX_KEY: "target"})
    kind = KINDS[objective]
    asked = _asked(op, scores, targets, picture)
    if kind.has_classes:
        asked = replace(asked, target=ask(graph, "target", TensorProto.INT64, asked.shape))
    offer = kind.offer(op, asked)
    two_sided = _two_sided(op, scores)
    values = op.Concat(op.Neg(offer.values), offer.values, axis=1) if two_sided else offer.values
    used = op.ArgMax(values, axis=1, keepdims=0)
    if kind.has_classes:
        wanted = op.Reshape(asked.target, [-1]) if targets > 1 else asked.target
        used = op.Where(op.Equal(wanted, op.constant(-1, np.int64)), used, wanted)
    chosen = op.Equal(op.Unsqueeze(used, [1]), op.constant(np.arange(scores.classes), np.int64))
    valid = op.And(
        op.GreaterOrEqual(used, op.constant(0, np.int64)),
        op.Less(used, op.constant(scores.classes, np.int64)),
    )
    if offer.valid is not None:
        valid = op.And(valid, offer.valid)
    score = op.ReduceSum(op.Where(chosen, values, 0.0), [1], keepdims=0)
    asked.publish(op, "target/used", used, TensorProto.INT64)
    asked.publish(op, "score/used", op.Where(valid, score, float("nan")), TensorProto.FLOAT)
    choice = op.Cast(chosen, to=TensorProto.FLOAT)
    if two_sided:
        choice = op.MatMul(choice, op.constant([[-1.0], [1.0]]))
    several = Rows.of(graph, asked.rows, targets) if asked.rows else None
    return Selection(offer.cotangent(choice), valid, several, targets, asked.batch)


def _asked(op: Emitter, scores: Scores, targets: int, picture: Picture) -> Asked:
    if not isinstance(targets, int) or targets < 1:
        raise ValueError(f"targets must be 1 or more, not {targets!r}")
    batch: Dim = 1  # of scores (C,) that have lost it
    if scores.class_axis != 0:
        batch = (op.shape(scores.tensor) or (None,))[0]
    if targets == 1:
        return Asked(scores, picture, batch, targets, None)
    if isinstance(batch, int):
        raise SeveralTargetsError(
            f"{targets} targets per image need a free batch, but the batch of {scores.tensor!r} is "
            f"fixed at {batch}; explain one target at a time"
        )
    count = op.Gather(op.Shape(scores.tensor), op.constant(0, np.int64), axis=0)
    images = op.Range(op.constant(0, np.int64), count, op.constant(1, np.int64))
    rows = op.Reshape(op.Expand(op.Unsqueeze(images, [1]), [1, targets]), [-1])
    return Asked(scores, picture, batch, targets, str(rows))


def _two_sided(op: Emitter, scores: Scores) -> bool:
    """Whether one logit z behind a sigmoid speaks for two classes: -z for 0 and z for 1."""
    if scores.link != "sigmoid" or scores.classes != 2:
        return False
    shape = op.shape(scores.tensor) or ()
    return scores.class_axis is None or shape[scores.class_axis] == 1
