"""Sums over shared axes: Einsum, and products along one axis of a tensor.

An operator that is linear along one axis is a matrix there, and its adjoint is the product with
that matrix. What the matrix is, the operator itself says best: applied to the unit vectors, with
the same attributes and in the same runtime. Nothing of it is written down twice, and a runtime
works it out once, when it loads a model of fixed size.
"""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from graph_rewrites.emit import Emitter
from graph_rewrites.node import Node
from graph_rewrites.rules.table import Cotangents, vjp
from graph_rewrites.shapes import expand_like, unbroadcast
from graph_rewrites.tensor_type import Dim

Factors = Sequence[tuple[str, str]]
"""Tensors with the letters of their axes."""


@dataclass(frozen=True)
class Subscripts:
    """An Einsum equation without "…" and without diagonals.

    Attributes:
        inputs: the letters of each input, one per axis, each once.
        output: the letters of the output.
        diagonals: pairs of letters of the same axis size that stand for one: a factor x with "ii"
            is one with "ij", beside an identity matrix with "ij".
    """

    inputs: tuple[str, ...]
    output: str
    diagonals: tuple[str, ...] = ()

    @classmethod
    def of(cls, node: Node) -> Subscripts:
        """Read the equation of `node`; without an arrow the output has single letters, sorted."""
        equation = node.attr("equation").replace(" ", "")
        left, arrow, output = equation.partition("->")
        terms = left.split(",")
        if not arrow:
            single = sorted(c for c in set(left) - {",", "."} if left.count(c) == 1)
            output = "..." * ("..." in left) + "".join(single)
        ranks = [len(node.graph.known_shape(x)) for x in node.inputs]
        gaps = [r - len(t) + 3 for r, t in zip(ranks, terms, strict=True) if "..." in t]
        free = (letter for letter in string.ascii_letters if letter not in equation)
        dots = "".join(itertools.islice(free, max(gaps, default=0)))
        inputs = tuple(term.replace("...", dots) for term in terms)
        diagonals: list[str] = []
        distinct = tuple(_without_repeats(term, free, diagonals) for term in inputs)
        return cls(distinct, output.replace("...", dots), tuple(diagonals))

    @property
    def spare(self) -> str:
        """A letter that no term has."""
        used = "".join((*self.inputs, self.output))
        return next(c for c in string.ascii_letters if c not in used)

    def sizes(self, node: Node) -> dict[str, Dim]:
        """The size that belongs to each letter; an axis of size 1 is broadcast to it."""
        sizes: dict[str, Dim] = {}
        for x, term in zip(node.inputs, self.inputs, strict=True):
            for letter, dim in zip(term, node.graph.known_shape(x), strict=True):
                if sizes.get(letter, 1) == 1:
                    sizes[letter] = dim
        return sizes


@vjp("Einsum")
def einsum_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Einsum: Σ of products  ->  for each factor the Einsum of ct and the other factors."""
    (ct,), terms = cts, Subscripts.of(node)
    if not terms.output:  # the runtime knows no empty term
        ct = op.Reshape(ct, [1])
    factors = list(zip(node.inputs, terms.inputs, strict=True))
    result = (str(ct), terms.output or terms.spare)
    sizes = terms.sizes(node)
    fixed = [result, *((_identity(op, factors, pair), pair) for pair in terms.diagonals)]
    return [
        _factor_vjp(op, [*fixed, *factors[:i], *factors[i + 1 :]], x, term, sizes)
        for i, (x, term) in enumerate(factors)
    ]


def _without_repeats(term: str, free: Iterator[str], diagonals: list[str]) -> str:
    """`term` with a free letter for each that stands there again; notes the pair in `diagonals`."""
    letters = ""
    for letter in term:
        fresh = next(free) if letter in letters else letter
        if fresh != letter:
            diagonals.append(letter + fresh)
        letters += fresh
    return letters


def _identity(op: Emitter, factors: Factors, pair: str) -> str:
    """The identity matrix whose rows are an axis that two letters stand for."""
    x, term = next((x, term) for x, term in factors if pair[1] in term)
    return unit_vectors(op, x, term.index(pair[1]))


def _factor_vjp(op: Emitter, factors: Factors, x: str, term: str, sizes: Mapping[str, Dim]) -> str:
    """The Einsum of `factors` in the shape of `x`, whose axes are those of `term`.

    A letter that stands in `x` alone, or that all others have at size 1, was summed over: there the
    cotangent is the same everywhere.
    """
    known = {letter for _, letters in factors for letter in letters}
    single = known - set().union(*(_long(op, *factor) for factor in factors))
    lost = [axis for axis, letter in enumerate(term) if letter not in known]
    kept = "".join(letter for letter in term if letter in known)
    equation = ",".join(letters for _, letters in factors) + "->" + kept
    grad = op.Einsum(*(tensor for tensor, _ in factors), equation=equation)
    if lost:
        grad = op.Unsqueeze(grad, lost)
    shape = tuple(sizes[letter] if letter in known - single else 1 for letter in term)
    grad = unbroadcast(op, grad, x, op.typed(grad, shape))
    return expand_like(op, grad, x) if lost or single.intersection(term) else grad


def _long(op: Emitter, tensor: str, letters: str) -> set[str]:
    """The letters along which a factor is not known to have size 1."""
    shape = op.shape(tensor) or (None,) * len(letters)
    return {letter for letter, dim in zip(letters, shape, strict=True) if dim != 1}


# -- products along one axis ---------------------------------------------------------------------


def unit_vectors(op: Emitter, x: str, axis: int) -> str:
    """The identity matrix of the size that `x` has along `axis`."""
    size = op.graph.known_shape(x)[axis]
    if isinstance(size, int):
        return str(op.EyeLike(op.ConstantOfShape([size, size])))
    length = op.Shape(x, start=axis, end=axis + 1)
    return str(op.EyeLike(op.ConstantOfShape(op.Concat(length, length, axis=0))))


def along(op: Emitter, matrix: str, ct: str, axis: int, rank: int) -> str:
    """The product of a `matrix` (size, length) with `ct` along `axis`, its axis of that length."""
    if axis == rank - 2:
        return str(op.MatMul(matrix, ct))
    if axis == rank - 1:
        return str(op.MatMul(ct, op.Transpose(matrix, perm=[1, 0])))
    perm = list(range(rank))
    perm[axis], perm[-2] = perm[-2], perm[axis]
    return str(op.Transpose(op.MatMul(matrix, op.Transpose(ct, perm=perm)), perm=perm))
