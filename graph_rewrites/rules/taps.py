"""Points between pixels: the pixels that make up each point, and how much of each.

What a picture x shows at a point p is Σ weight(p) · x[pixel] over the pixels around p. That is
linear in x, and its adjoint adds weight · ct up at the pixels. Moving p along an axis changes it by
the same sum with the slopes of the weights. Pictures are (M, C, pixels), points (M, P), T pixels
each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from graph_rewrites.emit import Emitter

Padding = Callable[[Emitter, str, str], str]
"""Leads pixels that lie beyond the ends of a line of some size back inside."""

_A = -0.75
"""The slope of cubic interpolation one pixel away, as ONNX and PyTorch have it."""


@dataclass(frozen=True)
class Interpolation:
    """How a line is read at k + t with 0 ≤ t < 1, k a whole number.

    Attributes:
        first: the pixels read are k + first, k + first + 1, …
        weights: (degree + 1, T), their weights as polynomials in t, the highest power first.
    """

    first: int
    weights: NDArray[np.float32]


LINEAR = Interpolation(0, np.array([[-1, 1], [1, 0]], np.float32))
CUBIC = Interpolation(
    -1,
    np.array(
        [
            [_A, _A + 2, -_A - 2, -_A],
            [-2 * _A, -_A - 3, 2 * _A + 3, _A],
            [_A, 0, -_A, 0],
            [0, 1, 0, 0],
        ],
        np.float32,
    ),
)


@dataclass(frozen=True)
class Taps:
    """The pixels that make up each of some points.

    Attributes:
        pixels: (M, P, T), int64: the pixels, counted in row-major order, all inside the picture.
        weights: (M, P, T): how much of each; 0 where nothing is read.
        slopes: for each axis (M, P, T): the derivative of the weights along it.
    """

    pixels: str
    weights: str
    slopes: tuple[str, ...]

    @classmethod
    def around(
        cls, op: Emitter, how: Interpolation, at: str, size: str, padding: str = "zeros"
    ) -> Taps:
        """The pixels around the coordinates `at` (M, P) on a line of `size` pixels (int64, (1,)).

        Args:
            op: where to emit.
            how: the interpolation.
            at: coordinates in pixels.
            size: length of the line.
            padding: what lies beyond the ends: "zeros", the "border" pixel again, or the line
                reflected at its outermost "edges" or at the "centres" of its outermost pixels.
        """
        low = op.Floor(at)
        t = op.Unsqueeze(op.Sub(at, low), [-1])
        terms, count = how.weights.shape
        powers = np.arange(terms, dtype=np.float32)[::-1]
        weights = op.MatMul(op.Pow(t, powers), how.weights)
        slope = op.Pow(t, np.maximum(powers - 1, 0))
        slopes = op.MatMul(slope, powers[:, None] * how.weights)
        reach = list(range(how.first, how.first + count))
        pixels = op.Add(op.Cast(op.Unsqueeze(low, [-1]), to=TensorProto.INT64), reach)
        if padding != "zeros":
            return cls(_BEYOND[padding](op, pixels, size), weights, (slopes,))
        inside = op.And(op.GreaterOrEqual(pixels, [0]), op.Less(pixels, size))
        kept, weights, slopes = (
            op.Where(inside, t, nothing)
            for t, nothing in ((pixels, [0]), (weights, 0.0), (slopes, 0.0))
        )
        return cls(kept, weights, (slopes,))

    def across(self, op: Emitter, other: Taps, size: str) -> Taps:
        """The product with the taps along the next axis, which has `size` pixels: T · T' each."""
        rows = op.Unsqueeze(op.Mul(self.pixels, size), [3])
        pixels = op.Reshape(op.Add(rows, op.Unsqueeze(other.pixels, [2])), [0, 0, -1])
        slopes = [_outer(op, slope, other.weights) for slope in self.slopes]
        slopes += [_outer(op, self.weights, slope) for slope in other.slopes]
        return Taps(pixels, _outer(op, self.weights, other.weights), tuple(slopes))


def gathered(op: Emitter, picture: str, pixels: str) -> str:
    """(M, C, P, T): the `pixels` (M, P, T) of each channel of a `picture` (M, C, pixels)."""
    flat = op.Reshape(pixels, [0, 1, -1])
    indices = op.Expand(flat, op.Concat(op.Shape(picture, end=2), [1], axis=0))
    shape = op.Concat(op.Shape(picture, end=2), op.Shape(pixels, start=1), axis=0)
    return str(op.Reshape(op.GatherElements(picture, indices, axis=2), shape))


def scattered(op: Emitter, updates: str, pixels: str, picture: str) -> str:
    """Zeros in the shape of `picture` (M, C, pixels), with `updates` (M, C, P, T) added.

    Args:
        op: where to emit.
        updates: what to add.
        pixels: where, (M, 1, P, T), or (M, C, P, T) for each channel elsewhere.
        picture: a tensor in the shape of the result.
    """
    # No ScatterND: the runtime adds to one element from several threads at once, and loses some.
    indices = op.Reshape(op.Expand(pixels, op.Shape(updates)), [0, 0, -1])
    zeros = op.ConstantOfShape(op.Shape(picture))
    flat = op.Reshape(updates, [0, 0, -1])
    return str(op.ScatterElements(zeros, indices, flat, axis=2, reduction="add"))


def counted(op: Emitter, count: str, to: int = TensorProto.FLOAT) -> str:
    """0, 1, … below `count` (int64, one element); exact in float32 up to 16 million."""
    scalar = op.Squeeze(count)
    numbers = op.Range(op.constant(0, np.int64), scalar, op.constant(1, np.int64))
    return str(numbers if to == TensorProto.INT64 else op.Cast(numbers, to=to))


def _outer(op: Emitter, a: str, b: str) -> str:
    """(M, P, T) times (M, P, T') -> (M, P, T · T')."""
    return str(op.Reshape(op.Mul(op.Unsqueeze(a, [3]), op.Unsqueeze(b, [2])), [0, 0, -1]))


def _border(op: Emitter, pixels: str, size: str) -> str:
    return str(op.Max(op.Min(pixels, op.Sub(size, [1])), [0]))


def _reflected(shared: int) -> Padding:
    """Reflection of a line, `shared` of whose outermost pixels are their own images."""

    def reflect(op: Emitter, pixels: str, size: str) -> str:
        period = op.Max(op.Sub(op.Mul(size, [2]), [2 * shared]), [1])
        there = op.Mod(pixels, period)  # floored: never negative
        back = op.Sub(op.Sub(period, [1 - shared]), there)
        return str(op.Min(there, back))

    return reflect


_BEYOND = {"border": _border, "edges": _reflected(0), "centres": _reflected(1)}
