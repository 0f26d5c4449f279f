"""Grad-CAM inside the graph."""

from __future__ import annotations

from collections.abc import Sequence

from graph_rewrites.emit import Emitter
from graph_rewrites.layers import FeatureMap


def spread(op: Emitter, values: str, feature_map: FeatureMap) -> str:
    """Lay tokens out on their grid: (R, L, C) becomes (R, h, w, C), without the leading tokens.

    Args:
        op: the emitter.
        values: features or cotangent of `feature_map`, R rows.
        feature_map: what they belong to; a map that is no grid of tokens stays as it is.
    """
    if feature_map.tokens is None:
        return values
    height, width, lead = feature_map.tokens
    axis = 3 - feature_map.channel_axis
    if feature_map.shape[axis] != height * width:
        values = op.Slice(values, [lead], [lead + height * width], [axis])
    return str(op.Reshape(values, [0, -1, height, width] if axis == 2 else [0, height, width, -1]))


def grad_cam(op: Emitter, features: str, cotangent: str, channel_axis: int, rank: int) -> str:
    """ReLU(Σ_k α_k A^k) with α_k the mean of ∂S/∂A^k over the positions.

    Selvaraju et al. 2017 (arXiv 1610.02391), equations 1 and 2; the map stays raw, it is not
    normalised.

    Args:
        op: the emitter.
        features: A, the layer's feature maps, (R, …) with `rank` dimensions.
        cotangent: ∂S/∂A, shaped like A.
        channel_axis: the axis of k.
        rank: number of dimensions of A.

    Returns:
        The map on the layer's own grid, (R, h, w).
    """
    positions = [axis for axis in range(1, rank) if axis != channel_axis]
    weights = op.ReduceMean(cotangent, positions, keepdims=1)
    return str(op.Relu(op.ReduceSum(op.Mul(weights, features), [channel_axis], keepdims=0)))


def upsample(op: Emitter, grid: str, image: str, spatial_axes: Sequence[int]) -> str:
    """Resize a map (R, h, w) bilinearly, half-pixel, to the height and width of `image`."""
    shape = op.shape(image) or ()
    dims = [shape[axis] for axis in spatial_axes]
    fixed = [d for d in dims if isinstance(d, int)]
    size = fixed if len(fixed) == len(dims) else op.Gather(op.Shape(image), list(spatial_axes))
    one = op.Unsqueeze(grid, [1])
    wide = op.Resize(
        one,
        None,
        None,
        size,
        mode="linear",
        coordinate_transformation_mode="half_pixel",
        axes=list(range(2, 2 + len(dims))),
    )
    return str(op.Squeeze(wide, [1]))
