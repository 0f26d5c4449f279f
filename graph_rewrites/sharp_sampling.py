"""Float64 reading between pixels for `onnx.reference`, beside the operators of `sharp_ops`.

The GridSample of `onnx.reference` 1.23 rounds its weights to float32, knows no older spelling of
the modes, and at the border leads points back inside before cubic interpolation, where the runtime
and PyTorch lead pixels. Its DeformConv is built on it, its AffineGrid knows float32 alone. Its
Resize rounds the weights of cubic interpolation.
"""

from __future__ import annotations

import itertools

import numpy as np
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_resize import Resize as ReferenceResize

from graph_rewrites.sharp_ops import Array, Attribute, Index


class GridSample(OpRun):
    """x (N, C, *sizes) at the points of grid (N, *points, axes), the last axis first."""

    op_domain = ""

    def _run(self, x: Array, grid: Array, **attributes: Attribute) -> tuple[Array]:
        align = bool(attributes.get("align_corners"))
        sizes = np.array(x.shape[2:])
        given = grid.reshape(len(grid), -1, len(sizes))[..., ::-1]
        at = (given * (sizes - align) + sizes - 1) / 2
        mode, padding = attributes.get("mode"), attributes.get("padding_mode")
        y = _read(x, at, mode or "linear", padding or "zeros", align)
        return (y.reshape(*x.shape[:2], *grid.shape[1:-1]),)


class AffineGrid(OpRun):
    """The points (x, y, 1) or (x, y, z, 1) of a picture of some size, times theta's rows."""

    op_domain = ""

    def _run(self, theta: Array, size: Array, **attributes: Attribute) -> tuple[Array]:
        sizes, align = [int(n) for n in size[2:]], bool(attributes.get("align_corners"))
        reach = np.maximum(np.array(sizes) - align, 1).reshape(-1, *[1] * len(sizes))
        at = (2 * np.indices(sizes) + (not align)) / reach - 1
        points = np.concatenate([at[::-1], np.ones((1, *at.shape[1:]))])
        return (np.einsum("nik,k...->n...i", theta, points),)


class DeformConv(OpRun):
    """y = W (mask · read) + b; each point lies `offset` away from where Conv reads."""

    op_domain = ""

    def _run(
        self,
        x: Array,
        w: Array,
        offset: Array,
        b: Array | None = None,
        mask: Array | None = None,
        **attributes: Attribute,
    ) -> tuple[Array]:
        rank, taps, windows = w.ndim - 2, int(np.prod(w.shape[2:])), offset.shape[2:]
        groups, group = attributes.get("offset_group") or 1, attributes.get("group") or 1
        strides, dilations = (attributes.get(k) or [1] * rank for k in ("strides", "dilations"))
        pads = attributes.get("pads") or [0] * 2 * rank
        at = offset.reshape(len(x) * groups, taps, rank, -1).transpose(0, 1, 3, 2).copy()
        places, steps = (np.indices(t).reshape(rank, -1) for t in (w.shape[2:], windows))
        for n in range(rank):
            first = places[n][:, None] * dilations[n] - pads[n]
            at[..., n] += first + steps[n] * strides[n]
        picture = x.reshape(len(at), -1, *x.shape[2:])
        read = _read(picture, at.reshape(len(at), -1, rank), "linear", "zeros", False)
        if mask is not None:
            read = read * mask.reshape(len(at), 1, -1)
        columns = read.reshape(len(x), group, w[0].size, -1)
        y = w.reshape(group, -1, w[0].size) @ columns
        y = y.reshape(len(x), len(w), *windows)
        return (y if b is None else y + b.reshape(-1, *[1] * rank),)


class Resize(ReferenceResize):
    """That of the reference, its attributes no float32 numbers, which round what they meet."""

    op_domain = ""

    def _run(self, *inputs: Attribute, **attributes: Attribute) -> tuple[Array]:
        exact: dict[str, Attribute] = {
            name: float(value) if isinstance(value, np.floating) else value
            for name, value in attributes.items()
        }
        (y,) = super()._run(*inputs, **exact)
        return (np.asarray(y),)


def _read(x: Array, at: Array, mode: str, padding: str, align: bool) -> Array:
    """Pictures x (N, C, *sizes) at the coordinates `at` (N, P, axes), in pixels -> (N, C, P)."""
    low = np.round(at) if mode == "nearest" else np.floor(at)
    tables = [_weights(mode, t) for t in np.moveaxis(at - low, -1, 0)]
    images, y = np.arange(len(x))[:, None], np.zeros((*x.shape[:2], at.shape[1]))
    for taps in itertools.product(*tables):
        places, part = [], np.ones(at.shape[:2])
        for n, (offset, weight) in enumerate(taps):
            place, size = low[..., n].astype(int) + offset, x.shape[2 + n]
            beyond = (place < 0) | (place >= size)
            part = part * np.where(beyond & (padding == "zeros"), 0.0, weight)
            places.append(_led_back(place, size, padding, align))
        here: Index = (images, slice(None), *places)
        seen = x[here]  # (N, P, C)
        y = y + seen.swapaxes(1, 2) * part[:, None]
    return y


def _weights(mode: str, t: Array) -> list[tuple[int, Array]]:
    """The pixels read, counted from the one below, and their weights at distance `t` from it."""
    if mode == "nearest":
        return [(0, np.ones_like(t))]
    if mode.endswith("linear"):
        return [(0, 1 - t), (1, t)]
    return [(offset, _cubic(np.abs(t - offset))) for offset in (-1, 0, 1, 2)]


def _cubic(far: Array, a: float = -0.75) -> Array:
    """The weight of a pixel at some distance in cubic interpolation."""
    near = (a + 2) * far**3 - (a + 3) * far**2 + 1
    return np.where(far <= 1, near, a * (far**3 - 5 * far**2 + 8 * far - 4))


def _led_back(place: Array, size: int, padding: str, align: bool) -> Array:
    """Pixels of a line of `size` for those beyond its ends."""
    if padding == "reflection":
        period = max(2 * (size - align), 1)
        there = place % period
        back: Array = np.minimum(there, period - (not align) - there)
    else:
        back = np.clip(place, 0, size - 1)
    return back


SAMPLING: tuple[type[OpRun], ...] = (AffineGrid, DeformConv, GridSample, Resize)
