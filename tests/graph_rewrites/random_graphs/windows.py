"""Steps of random networks: convolutions and pools."""

from __future__ import annotations

from typing import Any

import numpy as np

from .draft import IMAGE, Dims, Draft, Tensor, step

SPATIAL = (3, 4)


def _windows(d: Draft, sizes: Dims, dilated: bool) -> tuple[dict[str, Any], Dims]:
    """Attributes of a window over axes of these sizes, and the sizes of what it makes."""
    kernel = [d.integer(1, min(3, n)) for n in sizes]
    strides = [d.integer(1, 2) for _ in sizes]
    dilations = [
        d.integer(1, 1 + int(dilated and 2 * k - 1 <= n))
        for k, n in zip(kernel, sizes, strict=True)
    ]
    begin, end = ([d.integer(0, k - 1) for k in kernel] for _ in range(2))
    out = tuple(
        (n + b + e - (k - 1) * gap - 1) // s + 1
        for n, k, s, gap, b, e in zip(sizes, kernel, strides, dilations, begin, end, strict=True)
    )
    given: dict[str, Any] = {"kernel_shape": kernel, "strides": strides, "pads": [*begin, *end]}
    return given | ({"dilations": dilations} if dilated else {}), out


@step("Conv", ranks=SPATIAL, often=6)
def _conv(d: Draft, op: str, x: Tensor) -> Any:
    window, out = _windows(d, x.dims[1:], dilated=True)
    channels = x.dims[0]
    group = d.pick([g for g in (1, 2, channels) if channels % g == 0])
    made = group * d.integer(1, 2) if group > 1 else d.integer(1, 4)
    w = d.weight(made, channels // group, *window["kernel_shape"], scale=0.6)
    bias = [d.weight(made)] if d.chance() else []
    return Tensor(d.node(op, x, w, *bias, group=group, **window), (made, *out))


@step("ConvTranspose", ranks=SPATIAL, when=lambda dims: max(dims) <= 7, often=2)
def _conv_transpose(d: Draft, op: str, x: Tensor) -> Any:
    sizes = x.dims[1:]
    kernel, strides = [d.integer(1, 3) for _ in sizes], [d.integer(1, 2) for _ in sizes]
    extra = [d.integer(0, s - 1) for s in strides]
    begin, end = ([d.integer(0, (k - 1) // 2) for k in kernel] for _ in range(2))
    made = d.integer(1, 3)
    w = d.weight(x.dims[0], made, *kernel, scale=0.6)
    y = d.node(op, x, w, strides=strides, output_padding=extra, pads=[*begin, *end])
    spans = zip(sizes, kernel, strides, extra, begin, end, strict=True)
    out = tuple((n - 1) * s + k + o - b - e for n, k, s, o, b, e in spans)
    return Tensor(y, (made, *out))


@step("MaxPool", "AveragePool", "LpPool", ranks=SPATIAL, often=2)
def _pool(d: Draft, op: str, x: Tensor) -> Any:
    since = {"MaxPool": 10, "AveragePool": 19, "LpPool": 18}[op]
    window, out = _windows(d, x.dims[1:], dilated=d.opset >= since)
    if op == "AveragePool":
        # The runtime joins a Pad to the pads of such a pool, and refuses one beyond the kernel.
        window["count_include_pad"] = d.integer(0, 1) * (not x.name.startswith("Pad_"))
    return Tensor(d.node(op, x, **window), (x.dims[0], *out))


@step("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", ranks=SPATIAL)
def _global_pool(d: Draft, op: str, x: Tensor) -> Any:
    pooled = Tensor(d.node(op, x), (x.dims[0], *[1] * (x.rank - 2)))
    if d.chance():
        return pooled
    return d.node("Mul", x, d.node("Sigmoid", pooled))  # squeeze and excite


@step("MaxUnpool", ranks=IMAGE, when=lambda dims: dims[1] % 2 == dims[2] % 2 == 0, often=2)
def _max_unpool(d: Draft, op: str, x: Tensor) -> Any:
    window = {"kernel_shape": [2, 2], "strides": [2, 2]}
    top, places = d.node("MaxPool", d.uneven(x), outputs=2, **window)  # as for Hardmax
    back = d.node(op, d.node("Neg", top), places, **window)
    return back


@step("Resize", ranks=IMAGE, when=lambda dims: max(dims) <= 7, often=3)
def _resize(d: Draft, op: str, x: Tensor) -> Any:
    channels, *sizes = x.dims
    if d.opset < 11:
        grown = d.node(op, x, scales=[1.0, 1.0, 2.0, 2.0], mode=d.pick(["nearest", "linear"]))
        return Tensor(grown, (channels, *(2 * n for n in sizes)))
    mode = d.pick(["nearest", "linear", "cubic"])
    where = d.pick(["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"])
    out = [d.integer(2, 7) for _ in sizes]
    # Not m/n itself: what the product rounds to, the runtime and shape inference disagree about.
    scales = [1.0, 1.0, *((m + 0.2) / n for m, n in zip(out, sizes, strict=True))]
    given = {"mode": mode, "coordinate_transformation_mode": where}
    scaled = d.node(op, x, d.constant(np.empty(0, np.float32)), d.constant(scales), **given)
    return Tensor(scaled, (channels, *out))


@step("GridSample", ranks=IMAGE, when=lambda dims: min(dims[1:]) > 1, often=2)
def _grid_sample(d: Draft, op: str, x: Tensor) -> Any:
    """On a fixed grid, or on one that the picture bends."""
    grid = d.node(
        "Expand", d.weight(1, 3, 4, 2, scale=0.5), d.node("Concat", *_batch(d, x), axis=0)
    )
    if d.chance():
        shift = d.node("ReduceMean", x, axes=[1, 2, 3], keepdims=1)
        grid = d.node("Add", grid, d.node("Mul", d.node("Tanh", shift), d.constant(0.1)))
    padding = d.pick(["zeros", "border", "reflection"])
    made = d.node(op, x, grid, padding_mode=padding, align_corners=d.integer(0, 1))
    return Tensor(made, (x.dims[0], 3, 4))


def _batch(d: Draft, x: Tensor) -> list[str]:
    """The parts of the shape (N, 3, 4, 2)."""
    size = d.node("Gather", d.node("Shape", x), indices=[0], axis=0)
    return [size, d.constant([3, 4, 2])]


@step("DepthToSpace", ranks=IMAGE, when=lambda dims: dims[0] % 4 == 0, often=3)
def _depth_to_space(d: Draft, op: str, x: Tensor) -> Any:
    mode = {"mode": d.pick(["DCR", "CRD"])} if d.opset >= 11 else {}
    channels, height, width = x.dims
    made = d.node(op, x, blocksize=2, **mode)
    return Tensor(made, (channels // 4, 2 * height, 2 * width))


@step("SpaceToDepth", ranks=IMAGE, when=lambda dims: dims[1] % 2 == dims[2] % 2 == 0)
def _space_to_depth(d: Draft, op: str, x: Tensor) -> Any:
    channels, height, width = x.dims
    return Tensor(d.node(op, x, blocksize=2), (channels * 4, height // 2, width // 2))


@step("Col2Im", ranks=(3,), when=lambda dims: dims[0] % 4 == 0, often=8)
def _col2im(d: Draft, op: str, x: Tensor) -> Any:
    blocks = d.node("MatMul", x, d.weight(x.dims[1], 4))
    sized = d.node("Reshape", blocks, shape=[0, x.dims[0], 4])  # behind a Compress no size is known
    made = d.node(op, sized, image_shape=[3, 3], block_shape=[2, 2])
    return Tensor(made, (x.dims[0] // 4, 3, 3))


@step("DeformConv", ranks=IMAGE, when=lambda dims: min(dims[1:]) >= 3, often=3)
def _deform_conv(d: Draft, op: str, x: Tensor) -> Any:
    made = d.integer(1, 3)
    window = {"kernel_shape": [2, 2], "pads": [0, 0, 0, 0]}
    bend = d.node("Conv", x, d.weight(8, x.dims[0], 2, 2, scale=0.1), d.weight(8, scale=0.3))
    y = d.node(op, x, d.weight(made, x.dims[0], 2, 2), bend, **window)
    return Tensor(y, (made, x.dims[1] - 1, x.dims[2] - 1))


@step("RoiAlign", ranks=IMAGE, when=lambda dims: min(dims[1:]) >= 4, often=3)
def _roi_align(d: Draft, op: str, x: Tensor) -> Any:
    """What a box of the first image shows, added to all of them."""
    box = d.constant(np.array([[0.4, 0.3, 3.3, 2.8]], np.float32))
    part = d.node(op, x, box, d.constant([0]), output_height=2, output_width=2)
    return d.node("Add", x, d.node("GlobalAveragePool", part))
