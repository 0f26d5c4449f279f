"""Which class each map explains: indices and names, for one picture or many."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import numpy as np
import numpy.typing as npt

from analyzer.errors import UsageError, nearest

One: TypeAlias = "int | str | None"
Target: TypeAlias = "One | Sequence[One] | Sequence[Sequence[One]] | npt.NDArray[np.integer]"
Targets: TypeAlias = npt.NDArray[np.int64]

ARG_MAX = -1


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


def resolve_targets(target: Target, images: int, classes: Classes) -> Targets:
    """Targets as the explanation model takes them.

    One image and a flat list: the list is that image's T targets. N images and a flat list: one
    target each. A nested list, N × T: T targets for each image.

    Returns:
        int64 (N,) for one target each, else (N, T); -1 is the arg-max.

    Raises:
        UsageError: Another length, an unknown name, an index out of range.
    """
    if isinstance(target, np.ndarray):
        if target.dtype.kind not in "iu" or target.ndim > 2:
            raise UsageError(
                f"targets must be integers with at most two axes, not {target.dtype} {target.shape}"
            )
        target = target.tolist()
    if target is None or isinstance(target, str) or not isinstance(target, Sequence):
        return np.full(images, classes.index(cast("One", target)), np.int64)
    rows = _rows(target, images)
    resolved = np.array([[classes.index(one) for one in row] for row in rows], np.int64)
    return resolved[:, 0] if resolved.shape[1] == 1 else resolved


def _rows(target: Sequence[object], images: int) -> list[list[One]]:
    """The nested form, one row for each image."""
    lists = [
        isinstance(item, Sequence | np.ndarray) and not isinstance(item, str) for item in target
    ]
    if any(lists) and not all(lists):
        raise UsageError("targets mix lists and single classes; nest all of them or none")
    if any(lists):
        nested = [list(cast("Sequence[One]", row)) for row in target]
    else:
        flat = cast("Sequence[One]", target)
        nested = [list(flat)] if images == 1 else [[one] for one in flat]
    if len(nested) != images:
        raise UsageError(f"{len(nested)} targets for {images} images; give one for each")
    widths = {len(row) for row in nested}
    if len(widths) != 1 or 0 in widths:
        raise UsageError("every image needs the same number of targets, at least one")
    return nested


def _parts(label: str) -> list[str]:
    """The synonyms of a label such as "tench, Tinca tinca"."""
    return [part.strip() for part in label.split(",")]
