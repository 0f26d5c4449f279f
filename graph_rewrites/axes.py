"""What the axes of a tensor mean: batch, channels, height, width.

A layout lists the atoms of every axis in memory order. Splitting and merging axes (a shuffle's
Reshape, a Flatten, a group normalisation) only regroups atoms, so that a map is recognised again
when it comes back to its own shape.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from graph_rewrites.tensor_type import Dim, Shape

BATCH, CHANNEL, UNKNOWN = "N", "C", "?"
SPATIAL = "DHW"
"""Meanings of the spatial axes of a three-dimensional map, in order; fewer take the last ones."""


@dataclass(frozen=True)
class Atom:
    """An indivisible piece of an axis: its meaning and its size."""

    meaning: str
    size: Dim


Axis = tuple[Atom, ...]


@dataclass(frozen=True)
class Layout:
    """The axes of a tensor, each as its atoms from slowest to fastest."""

    axes: tuple[Axis, ...]

    @classmethod
    def of(cls, meanings: Iterable[str], shape: Shape) -> Layout:
        """One atom per axis."""
        return cls(tuple((Atom(m, d),) for m, d in zip(meanings, shape, strict=True)))

    @classmethod
    def channels_first(cls, shape: Shape) -> Layout:
        """(N, C, spatial…), the layout that convolutions and pools prescribe."""
        spatial = SPATIAL[-(len(shape) - 2) :] if len(shape) <= 5 else UNKNOWN * (len(shape) - 2)
        return cls.of((BATCH, CHANNEL, *spatial), shape)

    @property
    def meanings(self) -> tuple[str, ...]:
        """What each axis means; UNKNOWN where it mixes several things, "" where it is empty."""
        return tuple(map(_meaning, self.axes))

    @property
    def channel_axis(self) -> int | None:
        """The axis of the channels; None where this is no map.

        A map has the batch first, one channel axis, and only spatial axes besides, in their order.
        """
        meanings = self.meanings
        spatial = [m for m in meanings[1:] if m != CHANNEL]
        is_map = (
            len(meanings) >= 3
            and meanings[0] == BATCH
            and meanings.count(CHANNEL) == 1
            and "".join(spatial) == SPATIAL[-len(spatial) :]
        )
        return meanings.index(CHANNEL) if is_map else None

    def transposed(self, perm: Sequence[int]) -> Layout:
        """The layout behind a Transpose."""
        return Layout(tuple(self.axes[i] for i in perm))

    def without(self, axes: Iterable[int]) -> Layout:
        """The layout with `axes` removed."""
        gone = set(axes)
        return Layout(tuple(axis for i, axis in enumerate(self.axes) if i not in gone))

    def resized(self, before: Shape, after: Shape) -> Layout:
        """The same axes, some of them with another size."""
        return Layout(
            tuple(
                axis if _same(old, new) else (Atom(_meaning(axis) or UNKNOWN, new),)
                for axis, old, new in zip(self.axes, before, after, strict=True)
            )
        )

    def reshaped(self, shape: Shape) -> Layout | None:
        """The layout behind a Reshape to `shape`; None where the atoms cannot be followed.

        One dimension may be open, that is neither a number nor a symbol known here: it takes what
        the others leave.
        """
        atoms = list(chain.from_iterable(self.axes))
        left = _take(atoms, shape)
        if len(left) == len(shape):
            return _with_rest(left, atoms)
        atoms.reverse()
        tail = shape[len(left) + 1 :]
        right = _take(atoms, tail[::-1])
        if len(right) != len(tail) or isinstance(shape[len(left)], int):
            return None
        atoms.reverse()
        return Layout((*left, tuple(atoms), *(axis[::-1] for axis in reversed(right))))


def broadcast(operands: Sequence[tuple[Layout, Shape]], shape: Shape) -> Layout | None:
    """The layout of an elementwise result of `shape`; None where no operand tells any axis."""
    axes: list[Axis] = []
    for axis, dim in enumerate(shape):
        found: list[tuple[Axis, Dim]] = []
        for layout, own in operands:
            i = axis - len(shape) + len(own)
            if i >= 0 and layout.axes[i] and not (own[i] == 1 and dim != 1):
                found.append((layout.axes[i], own[i]))
        meanings = {_meaning(a) for a, _ in found}
        exact = next((a for a, d in found if _same(d, dim)), None)
        if len(meanings) > 1:
            axes.append((Atom(UNKNOWN, dim),))
        elif exact is not None:
            axes.append(exact)
        else:
            axes.append(tuple(Atom(meaning, dim) for meaning in meanings))
    return Layout(tuple(axes)) if any(axes) else None


def _meaning(axis: Axis) -> str:
    """The meaning of an axis; pieces of size 1 have no say beside larger ones."""
    large = [atom for atom in axis if atom.size != 1]
    if len(large) > 1:
        return CHANNEL if {atom.meaning for atom in large} == {CHANNEL} else UNKNOWN
    return (large or axis)[0].meaning if axis else ""


def _same(a: Dim, b: Dim) -> bool:
    return a is not None and a == b


def _take(atoms: list[Atom], dims: Sequence[Dim]) -> list[Axis]:
    """Consume `atoms` from the front for `dims`, as far as it goes."""
    axes: list[Axis] = []
    for dim in dims:
        taken = _take_one(atoms, dim)
        if taken is None:
            break
        axes.append(taken)
    return axes


def _take_one(atoms: list[Atom], dim: Dim) -> Axis | None:
    if not isinstance(dim, int):
        return (atoms.pop(0),) if atoms and _same(atoms[0].size, dim) else None
    if dim == 1:
        return (atoms.pop(0),) if atoms and atoms[0].size == 1 else ()
    taken: list[Atom] = []
    missing, rest = dim, list(atoms)
    while missing > 1:
        size = rest[0].size if rest else None
        if not isinstance(size, int) or size < 1:
            return None
        if missing % size:
            if size % missing:
                return None
            rest[:1] = _split(rest[0], missing)
            size = missing
        taken.append(rest.pop(0))
        missing //= size
    atoms[:] = rest
    return tuple(taken)


def _split(atom: Atom, size: int) -> tuple[Atom, Atom]:
    """A piece of `size` of an atom and what remains of it."""
    assert isinstance(atom.size, int)
    meaning = CHANNEL if atom.meaning == CHANNEL else UNKNOWN  # half a height is no height
    return Atom(meaning, size), Atom(meaning, atom.size // size)


def _with_rest(axes: list[Axis], rest: list[Atom]) -> Layout | None:
    """Append leftover atoms of size 1 to the last axis; anything larger does not fit."""
    if not axes or any(atom.size != 1 for atom in rest):
        return None
    return Layout((*axes[:-1], (*axes[-1], *rest)))
