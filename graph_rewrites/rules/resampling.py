"""Resize, which is linear in the picture.

It treats each axis apart. Along one axis it is a matrix that the operator itself tells
(`contraction`): evaluators differ in the last word on where a pixel lies, and here the forward
and the backward graph always ask the same one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graph_rewrites.emit import Emitter
from graph_rewrites.errors import UnsupportedOperatorError
from graph_rewrites.node import Node
from graph_rewrites.rules.contraction import along, unit_vectors
from graph_rewrites.rules.table import Cotangents, vjp
from graph_rewrites.shapes import same_dim
from graph_rewrites.tensor_type import Dim

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
