"""One question about N images: their targets, as the explanation model takes them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from analyzer.errors import UsageError
from analyzer.explained import Explained
from analyzer.intake import Intake
from analyzer.masks import place_mask, read_mask
from analyzer.pictures import PictureSource
from analyzer.targets import ARG_MAX, Box, Classes, Item, Mask, Similarity, of_kind

Rows: TypeAlias = Sequence[Sequence[Item]]
Facts: TypeAlias = Sequence[Mapping[str, Any]]
Embed: TypeAlias = Callable[[list[PictureSource]], tuple[npt.NDArray[np.float32], Facts]]

_OBJECTIVES: Mapping[type, str] = {Mask: "mask", Box: "box", Similarity: "similarity"}


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked about N images, T times each.

    Attributes:
        targets: T.
        feeds: The inputs of the explanation model besides the images, (N, …), or (N, T, …) for
            T > 1.
        asked: For each image and target what was asked besides the class; plain JSON values.
    """

    targets: int
    feeds: Mapping[str, npt.NDArray[Any]]
    asked: tuple[tuple[Mapping[str, Any], ...], ...]

    def labels(
        self, classes: Classes, used: npt.NDArray[np.int64], boxes: npt.NDArray[np.int64] | None
    ) -> tuple[tuple[str, ...], ...]:
        """Each map's subject in words, from the classes and boxes that were used."""
        rows = used.reshape(len(used), -1).tolist()
        numbers = rows if boxes is None else boxes.reshape(len(boxes), -1).tolist()
        return tuple(
            tuple(
                _label(classes.label(index), facts, box if boxes is not None else None)
                for index, box, facts in zip(*columns, strict=True)
            )
            for columns in zip(rows, numbers, self.asked, strict=True)
        )

    def described(self, outputs: Mapping[str, npt.NDArray[Any]]) -> list[list[dict[str, Any]]]:
        """For each image and target: the class and box used, and what else was asked."""
        names = {"class": "target/used", "box": "box/used"}
        used = {
            name: outputs[key].reshape(len(self.asked), -1).tolist()
            for name, key in names.items()
            if key in outputs
        }
        return [
            [
                {**{name: rows[n][t] for name, rows in used.items()}, **facts}
                for t, facts in enumerate(row)
            ]
            for n, row in enumerate(self.asked)
        ]


def objective_of(rows: Rows) -> str | None:
    """The objective that the kind of the targets asks for; None for plain classes.

    Raises:
        UsageError: Targets of several kinds.
    """
    kinds = {kind for row in rows for one in row if (kind := type(one)) in _OBJECTIVES}
    if not kinds:
        return None
    kind = min(kinds, key=lambda k: k.__name__)
    of_kind(rows, kind)
    return _OBJECTIVES[kind]


def ask(rows: Rows, explained: Explained, intake: Intake, embed: Embed) -> Question:
    """Make the inputs of the explanation model.

    Args:
        rows: T targets for each of N images.
        explained: What is explained, found for the kind of the targets.
        intake: The images.
        embed: The embeddings of pictures, and what to record of them.

    Raises:
        UsageError: A class, a box or a mask that does not exist or fit.
        ImageError: A mask or a reference that does not decode.
    """
    classes = explained.classes
    if explained.objective == "similarity":
        images = [one.image for row in of_kind(rows, Similarity) for one in row]
        vectors, facts = embed(images)
        return _question(rows, {"reference": vectors}, facts)
    if explained.objective == "class":
        target = [classes.index(one) for row in rows for one in row]  # type: ignore[arg-type]
        return _question(rows, {"target": np.array(target, np.int64)}, [{}] * len(target))
    if explained.objective == "mask":
        masks = _lift(rows, Mask)
        target = [classes.index(one.target) for row in masks for one in row]
        weights, facts = _place(masks, intake)
        return _question(rows, {"target": np.array(target, np.int64), "mask": weights}, facts)
    boxes = [one for row in _lift(rows, Box) for one in row]
    target = [classes.index(one.target) for one in boxes]
    numbers = [_number(one.index, explained.scores.places) for one in boxes]
    feeds = {"target": np.array(target, np.int64), "box": np.array(numbers, np.int64)}
    return _question(rows, feeds, [{}] * len(boxes))


def _question(rows: Rows, feeds: Mapping[str, npt.NDArray[Any]], facts: Facts) -> Question:
    """Shape what was made for all N·T targets in a row."""
    images, targets = len(rows), len(rows[0])
    lead = (images,) if targets == 1 else (images, targets)
    return Question(
        targets,
        {name: values.reshape(*lead, *values.shape[1:]) for name, values in feeds.items()},
        tuple(tuple(facts[n * targets : (n + 1) * targets]) for n in range(images)),
    )


def _lift(rows: Rows, kind: type[Any]) -> list[list[Any]]:
    """Plain classes as targets of a kind: of the whole picture, of the best box."""
    plain = int | str | None | np.integer
    return of_kind(
        [[kind(target=one) if isinstance(one, plain) else one for one in row] for row in rows], kind
    )


def _place(
    masks: Sequence[Sequence[Mask]], intake: Intake
) -> tuple[npt.NDArray[np.float32], Facts]:
    placed, facts = [], list[Mapping[str, Any]]()
    for row, picture, geometry in zip(masks, intake.pictures, intake.geometry, strict=True):
        for one in row:
            if one.mask is None:
                placed.append(np.ones(geometry.input, np.float32))
                facts.append({"mask": None})
                continue
            name, weights = read_mask(one.mask, picture)
            placed.append(place_mask(weights, geometry, name))
            facts.append({"mask": name, "weight": round(float(weights.sum(dtype=float)), 3)})
    return np.stack(placed), facts


def _number(index: int | None, boxes: int | None) -> int:
    if index is None:
        return ARG_MAX
    if isinstance(index, bool | np.bool_) or not isinstance(index, int | np.integer):
        raise UsageError(f"box {index!r} is no number; give its place in the model's tensor")
    if index < ARG_MAX or (boxes is not None and index >= boxes):
        limit = "" if boxes is None else f"; the model has boxes 0 to {boxes - 1}"
        raise UsageError(f"box {index} is out of range{limit} (-1 is the best)")
    return int(index)


def _label(name: str, facts: Mapping[str, Any], box: int | None) -> str:
    if box is not None:
        return f"{name} in box {box}"
    if "reference" in facts:
        return f"similarity to {facts['reference']}"
    return f"{name} in {facts['mask']}" if facts.get("mask") else name
