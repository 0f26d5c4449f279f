"""What the axes of a tensor mean: batch, channels, height, width.

A layout lists the atoms of every axis in memory order. Splitting and merging axes (a shuffle's
Reshape, a Flatten, a group normalisation, windows of attention) only regroups atoms, so that a map
is recognised again when it comes back to its own shape. An axis that runs over height and width is
one of tokens; it stays one when class and register tokens are put in front of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from graph_rewrites.tensor_type import Dim, Shape

BATCH, CHANNEL, TOKENS, STACKED, UNKNOWN = "N", "C", "T", "+", "?"
"""STACKED is an axis that did not come from the picture: several tensors were put together."""
SPATIAL = "DHW"
"""Meanings of the spatial axes of a three-dimensional map, in order; fewer take the last ones."""


@dataclass(frozen=True)
class Atom:
    """An indivisible piece of an axis: its meaning and its size."""

    meaning: str
    size: Dim

    @property
    def role(self) -> str:
        """What an axis of this atom alone means."""
        return self.meaning


@dataclass(frozen=True)
class Piece(Atom):
    """Part of a spatial atom that a Reshape has split.

    Attributes:
        whole: size of the atom.
        inner: how many of its positions one step of the piece spans.
    """

    whole: int
    inner: int

    @property
    def role(self) -> str:
        """The slowest piece still runs over the picture, in larger steps; the others do not."""
        outermost = isinstance(self.size, int) and self.size * self.inner == self.whole
        return self.meaning if outermost else UNKNOWN


@dataclass(frozen=True)
class Tokens(Atom):
    """A grid of tokens with others in front of it, and possibly behind.

    Attributes:
        grid: the axis of height and width alone.
        lead: how many tokens come before the grid.
    """

    grid: tuple[Atom, ...]
    lead: int


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

        A map has the batch first, one channel axis, and besides only spatial axes in their order,
        or one of tokens.
        """
        meanings = self.meanings
        spatial = [m for m in meanings[1:] if m != CHANNEL]
        is_map = (
            len(meanings) >= 3
            and meanings[0] == BATCH
            and meanings.count(CHANNEL) == 1
            and (spatial == [TOKENS] or "".join(spatial) == SPATIAL[-len(spatial) :])
        )
        return meanings.index(CHANNEL) if is_map else None

    @property
    def tokens(self) -> tuple[int, int, int] | None:
        """Height, width and leading tokens of the one axis of tokens; None without such an axis."""
        found = [axis for axis in self.axes if _meaning(axis) == TOKENS]
        if len(found) != 1:
            return None
        grid, lead = token_grid(found[0])
        height, width = (atom.size for atom in _large(grid))
        return (height, width, lead) if isinstance(height, int) and isinstance(width, int) else None

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
                axis if _same(old, new) else (Atom(_of_any_size(_meaning(axis)), new),)
                for axis, old, new in zip(self.axes, before, after, strict=True)
            )
        )

    def replaced(self, index: int, axis: Axis) -> Layout:
        """The same axes but for one."""
        return Layout((*self.axes[:index], axis, *self.axes[index + 1 :]))

    def reshaped(self, shape: Shape) -> Layout | None:
        """The layout behind a Reshape to `shape`; None where the atoms cannot be followed.

        One dimension may be open, that is neither a number nor a symbol known here: it takes what
        the others leave.
        """
        atoms = list(chain.from_iterable(self.axes))
        left = _take(atoms, shape)
        if len(left) == len(shape):
            return _with_rest(_merged(left), atoms)
        atoms.reverse()
        tail = shape[len(left) + 1 :]
        right = _take(atoms, tail[::-1], from_behind=True)
        if len(right) != len(tail) or isinstance(shape[len(left)], int):
            return None
        atoms.reverse()
        return Layout(_merged([*left, tuple(atoms), *(axis[::-1] for axis in reversed(right))]))


def mark(tensor: str, axis: int) -> str:
    """The meaning of an axis of a graph input as long as nothing tells a better one."""
    return f"{tensor}:{axis}"


def is_mark(meaning: str) -> bool:
    """Whether a meaning is a `mark`."""
    return ":" in meaning


def carries_tokens(axis: Axis) -> bool:
    """Whether tokens with others in front run along an axis, if need be merged with other axes."""
    return _meaning(axis) == TOKENS or any(isinstance(atom, Tokens) for atom in axis)


def token_grid(axis: Axis) -> tuple[Axis, int]:
    """The height and width alone of an axis of tokens, and how many others are in front."""
    tokens = _large(axis)[0]
    return (tokens.grid, tokens.lead) if isinstance(tokens, Tokens) else (axis, 0)


def broadcast(operands: Sequence[tuple[Layout, Shape]], shape: Shape) -> Layout | None:
    """The layout of an elementwise result of `shape`; None where no operand tells any axis.

    An axis that an operand does not know is what another one says: a sum with tokens has their
    positions. Where two contradict each other, nothing is known.
    """
    axes: list[Axis] = []
    for axis, dim in enumerate(shape):
        found: list[tuple[Axis, Dim]] = []
        for layout, own in operands:
            i = axis - len(shape) + len(own)
            if i >= 0 and layout.axes[i] and not (own[i] == 1 and dim != 1):
                found.append((layout.axes[i], own[i]))
        known = [(a, d) for a, d in found if _meaning(a) != UNKNOWN] or found
        meanings = {_meaning(a) for a, _ in known}
        exact = next((a for a, d in known if _same(d, dim)), None)
        if len(meanings) > 1:
            axes.append((Atom(UNKNOWN, dim),))
        elif exact is not None:
            axes.append(exact)
        else:
            axes.append(tuple(Atom(_of_any_size(meaning), dim) for meaning in meanings))
    return Layout(tuple(axes)) if any(axes) else None


def split(atom: Atom, size: int) -> tuple[Atom, Atom]:
    """An atom as an outer piece of `size` and the inner one."""
    assert isinstance(atom.size, int)
    rest = atom.size // size
    if isinstance(atom, Piece):
        whole, inner = atom.whole, atom.inner
    else:
        whole, inner = atom.size, 1
    if atom.meaning in SPATIAL or is_mark(atom.meaning):
        outer = Piece(atom.meaning, size, whole, inner * rest)
        return outer, Piece(atom.meaning, rest, whole, inner)
    meaning = CHANNEL if atom.meaning == CHANNEL else UNKNOWN
    return Atom(meaning, size), Atom(meaning, rest)


def _large(axis: Axis) -> Axis:
    """The atoms that have a say: pieces of size 1 have none beside larger ones."""
    return tuple(atom for atom in axis if atom.size != 1)


def _meaning(axis: Axis) -> str:
    """The meaning of an axis."""
    large = _large(axis)
    if len(large) < 2:
        return (large or axis)[0].role if axis else ""
    roles = [atom.role for atom in large]
    if "".join(roles) == SPATIAL[-2:]:
        return TOKENS
    # What a Reshape took from a height counts as channels: the picture went from space to depth.
    rest = {atom.role for atom in large if not isinstance(atom, Piece) or atom.role != UNKNOWN}
    return CHANNEL if rest == {CHANNEL} else UNKNOWN


def _of_any_size(meaning: str) -> str:
    """The meaning of an axis whose size has changed: tokens are no grid any more."""
    return UNKNOWN if meaning == TOKENS else meaning or STACKED


def _merged(axes: Iterable[Axis]) -> tuple[Axis, ...]:
    """The axes with pieces put together again that lie side by side."""
    merged = []
    for axis in axes:
        atoms: list[Atom] = []
        for atom in axis:
            joint = _joint(atoms[-1], atom) if atoms else None
            atoms[-1:] = [*atoms[-1:], atom] if joint is None else [joint]
        merged.append(tuple(atoms))
    return tuple(merged)


def _joint(outer: Atom, inner: Atom) -> Atom | None:
    """Two pieces as one, None where they do not fit."""
    if not isinstance(outer, Piece) or not isinstance(inner, Piece):
        return None
    assert isinstance(outer.size, int)
    assert isinstance(inner.size, int)
    same = outer.meaning == inner.meaning and outer.whole == inner.whole
    if not same or outer.inner != inner.size * inner.inner:
        return None
    size = outer.size * inner.size
    if size == outer.whole:
        return Atom(outer.meaning, size)
    return Piece(outer.meaning, size, outer.whole, inner.inner)


def _same(a: Dim, b: Dim) -> bool:
    return a is not None and a == b


def _take(atoms: list[Atom], dims: Sequence[Dim], *, from_behind: bool = False) -> list[Axis]:
    """Consume `atoms` for `dims`, as far as it goes; both reversed if it goes `from_behind`."""
    axes: list[Axis] = []
    for dim in dims:
        taken = _take_one(atoms, dim, from_behind)
        if taken is None:
            break
        axes.append(taken)
    return axes


def _take_one(atoms: list[Atom], dim: Dim, from_behind: bool) -> Axis | None:
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
            if from_behind:
                rest[:1] = split(rest[0], size // missing)[::-1]
            else:
                rest[:1] = split(rest[0], missing)
            size = missing
        taken.append(rest.pop(0))
        missing //= size
    atoms[:] = rest
    return tuple(taken)


def _with_rest(axes: tuple[Axis, ...], rest: list[Atom]) -> Layout | None:
    """Append leftover atoms of size 1 to the last axis; anything larger does not fit."""
    if not axes or any(atom.size != 1 for atom in rest):
        return None
    return Layout((*axes[:-1], (*axes[-1], *rest)))
