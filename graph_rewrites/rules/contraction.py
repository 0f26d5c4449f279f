"""Sums over shared axes: Einsum, and products along one axis of a tensor.

An operator that is linear along one axis is a matrix there, and its adjoint is the product with
that matrix. What the matrix is, the operator itself says best: applied to the unit vectors, with
the same attributes and in the same runtime. Nothing of it is written down twice, and a runtime
works it out once, when it loads a model of fixed size.
"""

from __future__ import annotations

import itertools
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graph_rewrites.emit import Emitter
from graph_rewrites.errors import UnsupportedOperatorError
from graph_rewrites.node import Node
from graph_rewrites.rules.table import Cotangents, vjp
from graph_rewrites.shapes import expand_like, unbroadcast
from graph_rewrites.tensor_type import Dim

Factors = Sequence[tuple[str, str]]
"""Tensors with the letters of their axes."""


@dataclass(frozen=True)
class Subscripts:
    """An Einsum equation without "…": one letter per axis.

    Attributes:
        inputs: the letters of each input.
        output: the letters of the output.
    """

    inputs: tuple[str, ...]
    output: str

    @classmethod
    def of(cls, node: Node) -> Subscripts:
        """Read the equation of `node`; without an arrow the output has the single letters, sorted.

        Raises:
            UnsupportedOperatorError: a letter stands twice in one term: a diagonal.
        """
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
        inputs = [term.replace("...", dots) for term in terms]
        if any(len(set(term)) < len(term) for term in inputs):
            raise UnsupportedOperatorError(
                f"{node} takes a diagonal: a letter stands twice in one term of {equation!r}; "
                "export the model with the diagonal written as Gather, or choose a later layer"
            )
        return cls(tuple(inputs), output.replace("...", dots))

    @property
    def spare(self) -> str:
        """A letter that no term has."""
        return next(c for c in string.ascii_letters if c not in "".join(self.inputs))

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
    return [
        _factor_vjp(op, [result, *factors[:i], *factors[i + 1 :]], x, term, sizes)
        for i, (x, term) in enumerate(factors)
    ]


def _factor_vjp(op: Emitter, factors: Factors, x: str, term: str, sizes: Mapping[str, Dim]) -> str:
    """The Einsum of `factors` in the shape of `x`, whose axes are those of `term`.

    A letter that stands in `x` alone was summed over: there the cotangent is the same everywhere.
    """
    known = {letter for _, letters in factors for letter in letters}
    lost = [axis for axis, letter in enumerate(term) if letter not in known]
    kept = "".join(letter for letter in term if letter in known)
    equation = ",".join(letters for _, letters in factors) + "->" + kept
    grad = op.Einsum(*(tensor for tensor, _ in factors), equation=equation)
    if lost:
        grad = op.Unsqueeze(grad, lost)
    shape = tuple(sizes[letter] if letter in known else 1 for letter in term)
    grad = unbroadcast(op, grad, x, op.typed(grad, shape))
    return expand_like(op, grad, x) if lost else grad


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
