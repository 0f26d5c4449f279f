"""What `explain` is asked to explain: classes, a mask, boxes, or a likeness, from its options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from analyzer.errors import ImageError

if TYPE_CHECKING:
    from analyzer.targets import Item

T = TypeVar("T")


def wanted(
    targets: Sequence[str], masks: Sequence[Path], boxes: Sequence[int], likes: Sequence[Path]
) -> list[Item] | None:
    """The targets of each picture, None for the arg-max.

    One class goes with several masks or boxes, one mask or box with several classes; several of
    both are paired in order.

    Raises:
        click.UsageError: Options that exclude each other, numbers that do not pair, a picture that
            cannot be read.
    """
    from analyzer import Box, Mask, Similarity

    given = [
        name for name, values in (("mask", masks), ("box", boxes), ("similar-to", likes)) if values
    ]
    if len(given) > 1 or (likes and targets):
        others = ", ".join(f"--{name}" for name in (*given, *(["target"] if targets else [])))
        raise click.UsageError(f"{others} exclude each other; explain one kind at a time")
    for path in (*masks, *likes):
        _must_be_readable(path)
    if likes:
        return [Similarity(path) for path in likes]
    if masks:
        return [Mask(target, mask) for target, mask in _paired(targets, masks, "mask")]
    if boxes:
        return [Box(index, target) for target, index in _paired(targets, boxes, "box")]
    return list(targets) or None


def _paired(targets: Sequence[str], places: Sequence[T], name: str) -> list[tuple[str | None, T]]:
    count = max(len(targets), len(places))
    if {len(targets) or 1, len(places)} - {1, count}:
        raise click.UsageError(
            f"{len(targets)} targets and {len(places)} --{name} do not pair; give one of either, "
            "or as many of both"
        )
    classes: list[str | None] = list(targets) or [None]
    return [(classes[i % len(classes)], places[i % len(places)]) for i in range(count)]


def _must_be_readable(path: Path) -> None:
    from analyzer.pictures import read_picture

    try:
        read_picture(path, (0, 0, 0))
    except ImageError as error:
        raise click.UsageError(str(error)) from error
