"""Operators that move numbers about, where `onnx.reference` 1.23 does not take all that ONNX does.

It refuses negative pads, which crop, the depth of a OneHot as a vector of one, and a GatherElements
along more than 64 elements. Its GlobalMaxPool is right for pictures only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_one_hot import OneHot as ReferenceOneHot

from graph_rewrites.sharp_ops import Array


class Pad(OpRun):
    """Grow each axis by its positive pads, then cut off the negative ones."""

    op_domain = ""

    def _run(
        self,
        x: Array,
        pads: Array,
        value: Array | None = None,
        axes: Array | None = None,
        mode: str = "constant",
    ) -> tuple[Array]:
        grown, crops = [(0, 0)] * x.ndim, [slice(None)] * x.ndim
        named = range(x.ndim) if axes is None else [int(axis) % x.ndim for axis in axes]
        for axis, (begin, end) in zip(named, pads.reshape(2, -1).T.tolist(), strict=True):
            grown[axis] = (max(begin, 0), max(end, 0))
            crops[axis] = slice(max(-begin, 0), min(end, 0) or None)
        fill = {"constant_values": 0.0 if value is None else value} if mode == "constant" else {}
        pad: Any = np.pad  # its overloads know modes by literals only
        return (pad(x, grown, mode=mode, **fill)[tuple(crops)],)


class OneHot(ReferenceOneHot):
    """That of the reference, with its depth as a number."""

    op_domain = ""

    def _run(
        self, indices: Array, depth: Array, values: Array, axis: int | None = None
    ) -> tuple[Array]:
        (y,) = super()._run(indices, int(depth.item()), values, axis)  # type: ignore[no-untyped-call]
        return (np.asarray(y),)


class GatherElements(OpRun):
    """One element of `axis` per index; along the other axes the indices may be fewer."""

    op_domain = ""

    def _run(self, x: Array, indices: Array, axis: int | None = None) -> tuple[Array]:
        axis = (axis or 0) % x.ndim
        part = x[tuple(slice(None if i == axis else n) for i, n in enumerate(indices.shape))]
        return (np.take_along_axis(part, indices, axis),)


class GlobalMaxPool(OpRun):
    """The greatest number of each channel, whatever the rank."""

    op_domain = ""

    def _run(self, x: Array) -> tuple[Array]:
        return (x.max(axis=tuple(range(2, x.ndim)), keepdims=True),)


LAYOUT: tuple[type[OpRun], ...] = (GatherElements, GlobalMaxPool, OneHot, Pad)
