"""What each map explains: classes, by index or name, masks, boxes, similarities."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar, cast

import numpy as np
import numpy.typing as npt

from analyzer.errors import UsageError, nearest
from analyzer.pictures import PictureSource

One: TypeAlias = "int | str | None"
ARG_MAX = -1


@dataclass(frozen=True, eq=False)
class Mask:
    """A class of a segmentation, its scores summed over a part of the picture.

    Attributes:
        target: Class index or name; None is the one with the greatest sum.
        mask: The part, in the picture's own height and width: a picture or an array of integers or
            booleans, where everything above 0 belongs to it, or an array of floats, the weight of
            each pixel. None is the whole picture.
    """

    target: One = None
    mask: "PictureSource | None" = None


@dataclass(frozen=True)
class Box:
    """A class in one box of a detector, before its boxes are sorted out.

    Attributes:
        index: The box's number, in the order of the model's tensor; None is the one with the
            greatest score.
        target: Class index or name; None is the greatest in this box.
    """

    index: int | None = None
    target: One = None


@dataclass(frozen=True, eq=False)
class Similarity:
    """How near the picture's embedding is to another picture's: the cosine of the two.

    Attributes:
        image: The other picture.
    """

    image: PictureSource


Item: TypeAlias = "One | Mask | Box | Similarity"
Target: TypeAlias = "Item | Sequence[Item] | Sequence[Sequence[Item]] | npt.NDArray[np.integer]"
T = TypeVar("T")


@dataclass(frozen=True)
class Classes:
    """The classes of a model: how many, and their names where known."""

    count: int | None
    labels: tuple[str, ...] | None = None

    def check(self, model: str) -> None:
        """Refuse names that do not belong to the model; `model` is named in the message.

        Raises:
            UsageError: There are more or fewer names than classes.
        """
        if None not in (self.labels, self.count) and len(self.labels or ()) != self.count:
            raise UsageError(
                f"{model}: {len(self.labels or ())} class names for {self.count} classes; "
                "give the names of this very model, with its background class where it has one"
            )

    def label(self, index: int) -> str:
        """The name of a class, or its index as text."""
        if self.labels is not None and 0 <= index < len(self.labels):
            return self.labels[index]
        return str(index)

    def index(self, one: One) -> int:
        """A class index from an index, a name, or None for the arg-max.

        Raises:
            UsageError: A name unknown or of several classes, an index out of range.
        """
        if one is None:
            return ARG_MAX
        if isinstance(one, str):
            return self._by_name(one)
        if isinstance(one, bool | np.bool_) or not isinstance(one, int | np.integer):
            raise UsageError(f"target {one!r} is neither a class index nor a name")
        if one < ARG_MAX or (self.count is not None and one >= self.count):
            limit = "" if self.count is None else f"; the model has classes 0 to {self.count - 1}"
            raise UsageError(f"target {one} is out of range{limit} (-1 is the arg-max)")
        return int(one)

    def _by_name(self, name: str) -> int:
        for matches in self._readings(name):
            if len(matches) == 1:
                return matches[0]
            if matches:
                raise UsageError(
                    f"target {name!r} names {len(matches)} classes "
                    f"({', '.join(map(str, matches))}); give the index"
                )
        digits = name.strip()
        if digits.removeprefix("-").isdecimal():
            return self.index(int(digits))
        if not self.labels:
            raise UsageError(
                f"target {name!r}: the model has no class names; give an index or labels"
            )
        synonyms = [part for label in self.labels for part in (label, *_parts(label))]
        raise UsageError(f"unknown class {name!r}{nearest(name, synonyms)}")

    def _readings(self, name: str) -> Iterator[list[int]]:
        """Matching classes, strictest reading first: exact, any case, one of several synonyms."""
        labels, folded = self.labels or (), name.strip().casefold()
        yield [i for i, label in enumerate(labels) if label == name]
        yield [i for i, label in enumerate(labels) if label.strip().casefold() == folded]
        yield [i for i, label in enumerate(labels) if folded in map(str.casefold, _parts(label))]


def nest(target: Target, images: int) -> list[list[Item]]:
    """The T targets of each of N images.

    One image and a flat list: the list is that image's T targets. N images and a flat list: one
    target each. A nested list, N × T: T targets for each image. A single target is everybody's.

    Raises:
        UsageError: Another length.
    """
    if isinstance(target, np.ndarray):
        if target.dtype.kind not in "iu" or target.ndim > 2:
            raise UsageError(
                f"targets must be integers with at most two axes, not {target.dtype} {target.shape}"
            )
        target = target.tolist()
    if isinstance(target, str) or not isinstance(target, Sequence):
        return [[cast("Item", target)] for _ in range(images)]
    lists = [
        isinstance(item, Sequence | np.ndarray) and not isinstance(item, str) for item in target
    ]
    if any(lists) and not all(lists):
        raise UsageError("targets mix lists and single targets; nest all of them or none")
    if any(lists):
        nested = [list(cast("Sequence[Item]", row)) for row in target]
    else:
        flat = cast("Sequence[Item]", target)
        nested = [list(flat)] if images == 1 else [[one] for one in flat]
    if len(nested) != images:
        raise UsageError(f"{len(nested)} targets for {images} images; give one for each")
    widths = {len(row) for row in nested}
    if len(widths) != 1 or 0 in widths:
        raise UsageError("every image needs the same number of targets, at least one")
    return nested


def of_kind(rows: Sequence[Sequence[Item]], kind: type[T]) -> list[list[T]]:
    """The same rows, all of whose targets are of one kind.

    Raises:
        UsageError: Another kind is among them.
    """
    others = {type(one).__name__ for row in rows for one in row if not isinstance(one, kind)}
    if others:
        raise UsageError(
            f"targets mix {kind.__name__} and {', '.join(sorted(others))}; "
            "explain one kind at a time"
        )
    return [[one for one in row if isinstance(one, kind)] for row in rows]


def _parts(label: str) -> list[str]:
    """The synonyms of a label such as "tench, Tinca tinca"."""
    return [part.strip() for part in label.split(",")]
