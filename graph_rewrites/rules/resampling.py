"""Pixels between pixels: Resize and GridSample. Both are linear in the picture.

A Resize treats each axis apart. Along one axis it is a matrix that the operator itself tells
(`contraction`): evaluators differ in the last word on where a pixel lies, and here the forward
and the backward graph always ask the same one.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from graph_rewrites.emit import Emitter
from graph_rewrites.errors import UnsupportedOperatorError
from graph_rewrites.node import Node
from graph_rewrites.rules.contraction import along, unit_vectors
from graph_rewrites.rules.table import Cotangents, vjp
from graph_rewrites.shapes import reshape_like, same_dim
from graph_rewrites.tensor_type import Dim

Taps = list[tuple[str, str | None]]
"""Pixels that make up each point, numbered from 1, and their weights; None for 1."""

_SAMPLING = (
    "antialias",
    "coordinate_transformation_mode",
    "cubic_coeff_a",
    "exclude_outside",
    "keep_aspect_ratio_policy",
    "mode",
    "nearest_mode",
)
"""The attributes of Resize that say how to read x between its pixels, whatever the axis.

The value beyond the edges is none of them: it adds a constant.
"""


@dataclass(frozen=True)
class Resampling:
    """What a Resize does to each axis.

    Attributes:
        node: the Resize.
        given: the axes that its roi, scales and sizes speak of, in their order.
        before: the shape of x.
        after: the shape of y.
        scales: scale of each axis in `given`, None where it is known at run time alone.
        roi: first and last position of each axis in `given`, in parts of x; None where it is not
            known. Empty where the whole of x is read.
    """

    node: Node
    given: tuple[int, ...]
    before: tuple[Dim, ...]
    after: tuple[Dim, ...]
    scales: tuple[float, ...] | None
    roi: tuple[tuple[float, float], ...] | None

    @classmethod
    def of(cls, node: Node) -> Resampling:
        """Read a Resize.

        Raises:
            UnsupportedOperatorError: it crops, and keeps the aspect ratio.
        """
        x = node.graph.known_shape(node.input(0))
        given = tuple(axis % len(x) for axis in node.attr("axes", range(len(x))))
        scales, roi = node.constant(node.input(2)), node.constant(node.input(1))
        if node.attr("coordinate_transformation_mode") != "tf_crop_and_resize":
            bounds: tuple[tuple[float, float], ...] | None = ()
        else:
            bounds = None if roi is None else tuple(map(tuple, roi.reshape(2, -1).T.tolist()))
        factors = None if scales is None or not scales.size else tuple(scales.tolist())
        read = cls(node, given, x, node.graph.known_shape(node.output), factors, bounds)
        if bounds != () and not read._stretches:
            raise UnsupportedOperatorError(
                f"{node} crops and keeps the aspect ratio at once, which has no rule; "
                "export the model with keep_aspect_ratio_policy 'stretch'"
            )
        return read

    @property
    def axes(self) -> list[int]:
        """The axes along which x is resampled, as far as it is known; a free batch never is."""
        return [axis for axis in self.given if self._cropped(axis) or self._scaled(axis)]

    def _cropped(self, axis: int) -> bool:
        if self.roi is None:
            return axis > 0
        return bool(self.roi) and self.roi[self.given.index(axis)] != (0.0, 1.0)

    def _scaled(self, axis: int) -> bool:
        if self.scales is not None:
            return self.scales[self.given.index(axis)] != 1.0
        before, after = self.before[axis], self.after[axis]
        symbolic_batch = axis == 0 and not (isinstance(before, int) and isinstance(after, int))
        return not symbolic_batch and not same_dim(before, after)

    @property
    def repeats(self) -> dict[int, int]:
        """How often each pixel comes along each of `axes`, where x is enlarged so; else empty."""
        mode = self.node.attr("coordinate_transformation_mode", "half_pixel")
        rounding = self.node.attr("nearest_mode", "round_prefer_floor")
        whole = (mode == "asymmetric" and rounding == "floor") or (
            mode in ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel")
            and rounding.startswith("round")
        )
        if self.node.attr("mode", "nearest") != "nearest" or not whole:
            return {}
        factors = {axis: self._factor(axis) for axis in self.axes}
        return {axis: int(f) for axis, f in factors.items() if f and f == int(f)}

    def _factor(self, axis: int) -> float:
        if self.scales is not None:
            return self.scales[self.given.index(axis)]
        before, after = self.before[axis], self.after[axis]
        return after / before if isinstance(before, int) and isinstance(after, int) else 0.0

    @property
    def _stretches(self) -> bool:
        return bool(self.node.attr("keep_aspect_ratio_policy", "stretch") == "stretch")

    def matrix(self, op: Emitter, axis: int) -> str:
        """(size, length): how much of each of the `length` pixels of y along `axis` is of x.

        It is the Resize of one line per unit vector, (size, 1, 1, size). The lines become whole
        pictures where the other axes have a say, and of these one line is read: it has the same
        numbers as the others.
        """
        x, shown = self.node.input(0), self._shown(axis)
        lead = max(2, 4 - len(shown))
        rank, at = lead + len(shown), lead + shown.index(axis)
        others = [i for i in range(1, rank) if i != at]
        lines = op.Unsqueeze(unit_vectors(op, x, axis), others)
        if len(shown) > 1:
            sizes = (op.Shape(x, start=i, end=i + 1) for i in shown)
            lines = op.Expand(lines, op.Concat([1] * lead, *sizes, axis=0))
        seen = self._resized(op, lines, shown, list(range(lead, rank)))
        if len(shown) > 1:
            seen = op.Slice(seen, [0] * len(others), [1] * len(others), others)
        return str(op.Squeeze(seen, others))

    def _shown(self, axis: int) -> list[int]:
        """The axes of x that have a say in how it is resampled along `axis`.

        They are all, where they take a common scale, or where the scale leaves the size of this
        axis as it is: the runtime looks at no scale unless some size changes.
        """
        idle = self.scales is not None and same_dim(self.before[axis], self.after[axis])
        return self.axes if (idle and self.roi == ()) or not self._stretches else [axis]

    def _resized(self, op: Emitter, lines: str, shown: Sequence[int], axes: list[int]) -> str:
        """Lines whose `axes` are resampled as those `shown` are in x."""
        _, roi, scales, sizes = (self.node.input(i) for i in range(4))
        order = [self.given.index(axis) for axis in shown]
        ends = [i + len(self.given) for i in order]
        settings = {name: self.node.attr(name) for name in _SAMPLING}
        return str(
            op.Resize(
                lines,
                None if self.roi == () else op.Gather(roi, [*order, *ends]),
                None if sizes else op.Gather(scales, order),
                op.Gather(sizes, order) if sizes else None,
                axes=axes,
                **{name: value for name, value in settings.items() if value is not None},
            )
        )


@vjp("Resize")
def resize_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Resize: A x along each axis  ->  Aᵀ ct; sums over windows where it only repeats pixels."""
    (ct,), resampling = cts, Resampling.of(node)
    rank, rest = len(resampling.before), [None for _ in node.inputs[1:]]
    repeats = resampling.repeats
    if repeats and list(repeats) == resampling.axes and 2 < rank < 6 and min(repeats) > 1:
        window = [repeats.get(axis, 1) for axis in range(2, rank)]
        mean = op.AveragePool(ct, kernel_shape=window, strides=window)
        return [op.Mul(mean, float(np.prod(window))), *rest]
    dx = str(ct)
    for axis in resampling.axes:
        dx = along(op, resampling.matrix(op, axis), dx, axis, rank)
    return [dx, *rest]


@vjp("GridSample")
def grid_sample_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """GridSample: Σ w x over the pixels around each point  ->  w ct added up at these pixels.

    The pixels are counted from 1; what lies beyond the edges is added to number 0 and dropped.

    Raises:
        UnsupportedOperatorError: the interpolation is cubic.
    """
    (ct,), x = cts, node.input(0)
    mode = node.attr("mode", "linear")
    if mode not in _INTERPOLATIONS:
        raise UnsupportedOperatorError(
            f"{node} interpolates by {mode!r}, which has no rule; export the model with bilinear "
            "or nearest sampling, or choose a later layer"
        )
    pixels, weights = zip(*_INTERPOLATIONS[mode](op, node), strict=True)
    lines = op.Reshape(ct, [0, 0, -1])
    parts = [lines if w is None else op.Mul(lines, op.Reshape(w, [0, 1, -1])) for w in weights]
    updates = op.Concat(*parts, axis=2)
    indices = op.Concat(*(op.Reshape(pixel, [0, 1, -1]) for pixel in pixels), axis=2)
    indices = op.Expand(op.Cast(indices, to=TensorProto.INT64), op.Shape(updates))
    count = op.Add(op.ReduceProd(op.Shape(x, start=2)), [1])
    zeros = op.ConstantOfShape(op.Concat(op.Shape(ct, end=2), count, axis=0))
    sums = op.ScatterElements(zeros, indices, updates, axis=2, reduction="add")
    return [reshape_like(op, op.Slice(sums, [1], [np.iinfo(np.int64).max], [2]), x), None]


def _nearest(op: Emitter, node: Node) -> Taps:
    """The pixel nearest to each point: what a picture of the pixels' numbers shows there."""
    shape = op.Shape(node.input(0), start=2)
    numbers = op.Add(_counted(op, op.ReduceProd(shape, keepdims=0)), 1.0)
    return [(_seen(op, node, op.Reshape(numbers, shape)), None)]


def _linear(op: Emitter, node: Node) -> Taps:
    """The 2ᵈ pixels around each point and their weights, products over the axes."""
    sides = []
    for axis in range(2, op.rank(node.input(0))):
        size = op.Cast(op.Shape(node.input(0), start=axis, end=axis + 1), to=TensorProto.FLOAT)
        at = _coordinate(op, node, axis, size)
        first = op.Floor(at)
        part = op.Sub(at, first)
        sides.append([(first, op.Sub(1.0, part), size), (op.Add(first, 1.0), part, size)])
    return [_corner(op, corner) for corner in itertools.product(*sides)]


def _corner(op: Emitter, sides: Sequence[tuple[str, str, str]]) -> tuple[str, str]:
    """Number and weight of the pixel at (coordinate, weight, size) along each axis."""
    number, weight, size = sides[0]
    inside = _within(op, number, size)
    for at, part, size in sides[1:]:
        number, weight = op.Add(op.Mul(number, size), at), op.Mul(weight, part)
        inside = op.And(inside, _within(op, at, size))
    return str(op.Where(inside, op.Add(number, 1.0), 0.0)), weight


def _within(op: Emitter, at: str, size: str) -> str:
    return str(op.And(op.GreaterOrEqual(at, 0.0), op.Less(at, size)))


def _coordinate(op: Emitter, node: Node, axis: int, size: str) -> str:
    """Where each point lies along `axis`, (N, 1, *points), in pixels.

    With zeros beyond the edges, by the definition: -1 and 1 are the centres of the outermost pixels
    (align_corners) or their outer edges. Else it is what a picture of the coordinates shows there:
    it has been led back inside by then.
    """
    x, grid = node.inputs
    if node.attr("padding_mode", "zeros") != "zeros":
        line = _counted(op, op.Squeeze(op.Shape(x, start=axis, end=axis + 1), [0]))
        behind = list(range(1, op.rank(x) - axis))
        column = op.Unsqueeze(line, behind) if behind else line
        return _seen(op, node, op.Expand(column, op.Shape(x, start=2)))
    last = op.Sub(size, 1.0)
    reach = last if node.attr("align_corners", 0) else size
    component = op.constant([op.rank(x) - 1 - axis], np.int64)
    given = op.Unsqueeze(op.Squeeze(op.Gather(grid, component, axis=-1), [-1]), [1])
    return str(op.Mul(op.Add(op.Mul(given, reach), last), 0.5))


def _counted(op: Emitter, count: str) -> str:
    """0, 1, … below the scalar `count`, as float32: exact for pictures of 16 million pixels."""
    numbers = op.Range(op.constant(0, np.int64), count, op.constant(1, np.int64))
    return str(op.Cast(numbers, to=TensorProto.FLOAT))


def _seen(op: Emitter, node: Node, plane: str) -> str:
    """What the points of `node` show of one `plane`, the same for all images: (N, 1, *points)."""
    grid, rank = node.input(1), op.rank(node.input(0))
    images = op.Concat(op.Shape(grid, end=1), [1] * (rank - 1), axis=0)
    picture = op.Expand(op.Unsqueeze(plane, [0, 1]), images)
    names = ("align_corners", "mode", "padding_mode")
    given = {name: node.attr(name) for name in names if node.attr(name) is not None}
    return str(op.GridSample(picture, grid, **given))


_INTERPOLATIONS = {"nearest": _nearest, "linear": _linear, "bilinear": _linear}
