"""Float64 operators for `onnx.reference`, where its own are wrong, rounded or too slow.

`onnx.reference` 1.23 crashes on a grouped ConvTranspose, pools and scatters element by element in
Python, and rounds Erf and DequantizeLinear to float32. The operators here are exact there, and loop
over the taps of a kernel, never over pixels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from onnx.reference.op_run import OpRun

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Sizes: TypeAlias = Sequence[int]
Attribute: TypeAlias = Any  # int, float, str or list of int, as the operator's schema says
Index: TypeAlias = Any  # what numpy indexes by; its own type for that is private


@dataclass(frozen=True)
class _Window:
    """A sliding window along one spatial axis of `size` rows, `begin` and `end` rows padded."""

    size: int
    kernel: int
    stride: int
    dilation: int
    begin: int
    end: int
    out: int

    @property
    def reach(self) -> int:
        """Rows from the first tap of the first window to the last tap of the last one."""
        return (self.out - 1) * self.stride + (self.kernel - 1) * self.dilation + 1

    def tap(self, index: int) -> slice:
        """What tap `index` of all windows reads, counted from the first padded row."""
        first = index * self.dilation
        return slice(first, first + (self.out - 1) * self.stride + 1, self.stride)

    def count(self, with_padding: bool) -> Array:
        """Taps (out,) of each window inside the input, or inside the padded input."""
        first, last = (0, self.begin + self.size + self.end)
        if not with_padding:
            first, last = self.begin, self.begin + self.size
        taps = np.arange(self.kernel) * self.dilation
        rows = np.arange(self.out)[:, None] * self.stride + taps
        taken: Array = ((rows >= first) & (rows < last)).sum(axis=1)
        return taken


def _windows(sizes: Sizes, kernel: Sizes, attributes: Mapping[str, Attribute]) -> list[_Window]:
    """One window per spatial axis, from the attributes of a convolution or a pool."""
    rank = len(sizes)
    strides, dilations = (attributes.get(k) or [1] * rank for k in ("strides", "dilations"))
    pads = attributes.get("pads") or [0] * 2 * rank
    auto, ceil = attributes.get("auto_pad") or "NOTSET", bool(attributes.get("ceil_mode"))
    windows = []
    for n, (size, k, s, d) in enumerate(zip(sizes, kernel, strides, dilations, strict=True)):
        reach, begin, end = (k - 1) * d + 1, pads[n], pads[n + rank]
        if auto == "VALID":
            begin = end = 0
        elif auto.startswith("SAME"):
            begin, end = _same(max((-(-size // s) - 1) * s + reach - size, 0), auto)
        free = size + begin + end - reach
        out = (-(-free // s) if ceil else free // s) + 1
        if ceil and (out - 1) * s >= size + begin:  # a window starts inside the input
            out -= 1
        windows.append(_Window(size, k, s, d, begin, end, out))
    return windows


def _same(total: int, auto: str) -> tuple[int, int]:
    """Rows of padding in front and behind; SAME_UPPER puts an odd one behind."""
    less, more = total // 2, total - total // 2
    return (less, more) if auto == "SAME_UPPER" else (more, less)


def _pad(x: Array, windows: list[_Window], value: float) -> Array:
    """The input x (N, C, *sizes) with `value` wherever a window reads outside it."""
    width = [(w.begin, max(w.reach - w.begin - w.size, 0)) for w in windows]
    return np.pad(x, [(0, 0), (0, 0), *width], constant_values=value)


def _taps(windows: list[_Window]) -> Iterator[tuple[Index, Index]]:
    """Each tap of the kernel in row-major order: its index in the weights, and in what it reads."""
    for tap in itertools.product(*(range(w.kernel) for w in windows)):
        yield (..., *tap), (..., *(w.tap(i) for w, i in zip(windows, tap, strict=True)))


def _grouped_product(w: Array, x: Array) -> Array:
    """Weights w (G, M, K) on x (N, G, K, *spatial) -> (N, G, M, *spatial)."""
    flat = np.ascontiguousarray(x).reshape(*x.shape[:3], -1)
    weights = np.ascontiguousarray(w)
    y: Array = weights * flat if w.shape[2] == 1 else weights @ flat  # depthwise: no matrix
    return y.reshape(*x.shape[:2], w.shape[1], *x.shape[3:])


def _plus_bias(y: Array, b: Array | None) -> tuple[Array]:
    return (y if b is None else y + b.reshape(-1, *[1] * (y.ndim - 2)),)


class Conv(OpRun):
    """y[m, o] = Σ over c and taps t of w[m, c, t] x[c, o·stride + t·dilation - begin]."""

    op_domain = ""

    def _run(
        self, x: Array, w: Array, b: Array | None = None, **attributes: Attribute
    ) -> tuple[Array]:
        group = attributes.get("group") or 1
        windows = _windows(x.shape[2:], w.shape[2:], attributes)
        padded = _pad(x, windows, 0.0)
        padded = padded.reshape(len(x), group, -1, *padded.shape[2:])
        weights = w.reshape(group, -1, *w.shape[1:])
        y: Any = 0.0
        for tap, read in _taps(windows):
            y = y + _grouped_product(weights[tap], padded[read])
        return _plus_bias(y.reshape(len(x), len(w), *y.shape[3:]), b)


class ConvTranspose(OpRun):
    """Conv's adjoint in x: every input value goes, weighted, to the places its taps would read."""

    op_domain = ""

    def _run(
        self, x: Array, w: Array, b: Array | None = None, **attributes: Attribute
    ) -> tuple[Array]:
        group = attributes.get("group") or 1
        windows = _transposed_windows(x.shape[2:], w.shape[2:], attributes)
        room = [max(t.reach, t.begin + t.size) for t in windows]
        y = np.zeros((len(x), group, w.shape[1], *room), np.result_type(x, w))
        grouped = x.reshape(len(x), group, -1, *x.shape[2:])
        weights = w.reshape(group, -1, *w.shape[1:]).swapaxes(1, 2)
        for tap, spread in _taps(windows):
            y[spread] += _grouped_product(weights[tap], grouped)
        inside: Index = (..., *(slice(t.begin, t.begin + t.size) for t in windows))
        kept = y[inside]
        return _plus_bias(kept.reshape(len(x), -1, *kept.shape[3:]), b)


def _transposed_windows(
    sizes: Sizes, kernel: Sizes, attributes: Mapping[str, Attribute]
) -> list[_Window]:
    """The windows of the convolution that the ConvTranspose is the adjoint of."""
    rank = len(sizes)
    strides, dilations = (attributes.get(k) or [1] * rank for k in ("strides", "dilations"))
    extra = attributes.get("output_padding") or [0] * rank
    pads = attributes.get("pads") or [0] * 2 * rank
    auto = attributes.get("auto_pad") or "NOTSET"
    wanted = attributes.get("output_shape")
    if not wanted and auto.startswith("SAME"):
        wanted = [size * s for size, s in zip(sizes, strides, strict=True)]
    windows = []
    for n, (size, k, s, d) in enumerate(zip(sizes, kernel, strides, dilations, strict=True)):
        full = (size - 1) * s + (k - 1) * d + 1 + extra[n]
        begin, end = pads[n], pads[n + rank]
        if wanted:
            begin, end = _same(max(full - wanted[n], 0), auto)
        out = wanted[n] if wanted else full - begin - end
        windows.append(_Window(out, k, s, d, begin, end, size))
    return windows


class MaxPool(OpRun):
    """Maxima and, where asked for, the flat index of the first one in row-major order."""

    op_domain = ""

    def _run(self, x: Array, **attributes: Attribute) -> tuple[Array, ...]:
        windows = _windows(x.shape[2:], attributes["kernel_shape"], attributes)
        least = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
        padded, places = _pad(x, windows, least), _pad(_places(x, attributes), windows, -1)
        best = np.full((*x.shape[:2], *(w.out for w in windows)), least, x.dtype)
        index = np.full(best.shape, -1)
        for _, read in _taps(windows):
            better = (padded[read] > best) | ((index < 0) & (places[read] >= 0))
            best = np.where(better, padded[read], best)
            index = np.where(better, places[read], index)
        return (best, index)[: len(self.output)]


def _places(x: Array, attributes: Mapping[str, Attribute]) -> Array:
    """Flat position of every element of x; storage_order 1 counts the spatial axes in reverse."""
    if not attributes.get("storage_order"):
        return np.arange(x.size).reshape(x.shape)
    reverse = np.arange(x.size).reshape(*x.shape[:2], *x.shape[:1:-1])
    return reverse.transpose(0, 1, *range(x.ndim - 1, 1, -1))


class AveragePool(OpRun):
    """Means over the taps inside the input, or inside its padding with count_include_pad."""

    op_domain = ""

    def _run(self, x: Array, **attributes: Attribute) -> tuple[Array]:
        windows = _windows(x.shape[2:], attributes["kernel_shape"], attributes)
        padded = _pad(x, windows, 0.0)
        total: Any = 0.0
        for _, read in _taps(windows):
            total = total + padded[read]
        count: Any = 1
        for window in windows:
            count = np.multiply.outer(count, window.count(bool(attributes["count_include_pad"])))
        return (total / count,)


class ScatterElements(OpRun):
    """Updates written or added at `indices` along one axis."""

    op_domain = ""

    def _run(
        self, data: Array, indices: Array, updates: Array, **attributes: Attribute
    ) -> tuple[Array]:
        axis = attributes["axis"] % data.ndim
        places = list(np.ogrid[tuple(slice(0, size) for size in indices.shape)])
        places[axis] = np.where(indices < 0, indices + data.shape[axis], indices)
        out = data.copy()
        how = attributes.get("reduction") or "none"
        if how == "none":
            out[tuple(places)] = updates
        else:
            ufunc = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}[how]
            ufunc.at(out, tuple(places), updates)
        return (out,)


_erf = np.vectorize(math.erf, otypes=[np.float64])


class Erf(OpRun):
    """The error function, in double."""

    op_domain = ""

    def _run(self, x: Array) -> tuple[Array]:
        return (_erf(x),)


class Gelu(OpRun):
    """x·Φ(x), or the approximation by tanh."""

    op_domain = ""

    def _run(self, x: Array, **attributes: Attribute) -> tuple[Array]:
        if attributes.get("approximate") == "tanh":
            inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
            return (0.5 * x * (1 + np.tanh(inner)),)
        return (0.5 * x * (1 + _erf(x / math.sqrt(2))),)


def _along(value: Array, x: Array, attributes: Mapping[str, Attribute]) -> Array:
    """A scale or zero point, as float64, in a shape that broadcasts against x."""
    wide = value.astype(np.float64)
    axis = attributes.get("axis", 1) % max(x.ndim, 1)
    block = attributes.get("block_size") or 0
    if block:
        return np.repeat(wide, block, axis=axis).take(range(x.shape[axis]), axis=axis)
    return wide.reshape([-1 if n == axis else 1 for n in range(x.ndim)]) if wide.size > 1 else wide


class LRN(OpRun):
    """x / (bias + alpha / size · the sum of squares over neighbouring channels)^beta.

    The one of `onnx.reference` 1.23 walks along the batch instead of the channels.
    """

    op_domain = ""

    def _run(self, x: Array, **attributes: Attribute) -> tuple[Array]:
        size = attributes["size"]
        lead = (size - 1) // 2
        around = [(0, 0)] * x.ndim
        around[1] = (lead, size - 1 - lead)
        squares = np.pad(x * x, around)
        total = sum(squares[:, i : i + x.shape[1]] for i in range(size))
        base = attributes["bias"] + attributes["alpha"] / size * total
        return (x / base ** attributes["beta"],)


class DequantizeLinear(OpRun):
    """(x - zero point)·scale, in double, of integers or of unrounded steps."""

    op_domain = ""

    def _run(
        self, x: Array, scale: Array, zero: Array | None = None, **attributes: Attribute
    ) -> tuple[Array]:
        shifted = x.astype(np.float64) - (0.0 if zero is None else _along(zero, x, attributes))
        return (shifted * _along(scale, x, attributes),)


def unrounded_quantize(sites: Mapping[str, tuple[float, float]]) -> type[OpRun]:
    """A QuantizeLinear without rounding, so that it has a derivative.

    Args:
        sites: outputs of the QuantizeLinear nodes at which a ReLU's mask is read, each with the
            least and greatest quantised value that the mask stops at; what would round to the
            greatest is taken there. Elsewhere nothing is clamped, as the straight-through
            estimator has it.
    """

    class QuantizeLinear(OpRun):
        """x/scale + zero point, in double."""

        op_domain = ""

        def _run(
            self, x: Array, scale: Array, zero: Array | None = None, **attributes: Attribute
        ) -> tuple[Array]:
            steps = x / _along(scale, x, attributes)
            steps = steps + (0.0 if zero is None else _along(zero, x, attributes))
            least, greatest = sites.get(self.onnx_node.output[0], (-np.inf, np.inf))
            return (np.where(steps > greatest - 0.5, greatest, np.maximum(steps, least)),)

    return QuantizeLinear


EXACT: tuple[type[OpRun], ...] = (
    AveragePool,
    Conv,
    ConvTranspose,
    DequantizeLinear,
    Erf,
    Gelu,
    LRN,
    MaxPool,
    ScatterElements,
)
