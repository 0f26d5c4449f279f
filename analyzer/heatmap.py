"""From maps to pictures: normalise, put back onto the original picture, colour, blend."""

import math

import numpy as np
import numpy.typing as npt

from analyzer.colour import colourise
from analyzer.geometry import Geometry
from analyzer.pictures import Pixels

Floats = npt.NDArray[np.float32]


def normalise(maps: Floats) -> Floats:
    """Maps (..., H, W) without negative values, each divided by its own maximum.

    An all-zero map stays zero. What is not a number counts as zero.
    """
    finite = np.nan_to_num(np.maximum(maps, 0), nan=0.0, posinf=0.0)
    top = finite.max(axis=(-2, -1), keepdims=True)
    scaled: Floats = np.divide(finite, top, out=np.zeros_like(finite), where=top > 0)
    return scaled


def place(field: Floats, geometry: Geometry, outside: float = 0.0) -> Floats:
    """Put a field on the model's input back onto the original picture.

    Bilinear with half-pixel centres; averaging where the original is smaller than the input.

    Args:
        field: (h, w), the model input's size.
        geometry: Where the input lies in the picture.
        outside: The value where the model did not look, because the picture was cropped.

    Returns:
        (H, W), the original picture's size.
    """
    from PIL import Image

    top, left, bottom, right = (math.ceil(round(v - 0.5, 6)) for v in geometry.window())
    (sy, sx), (oy, ox) = geometry.scale, geometry.offset
    # Pixels count by their centre, so that the region may reach half a pixel beyond the input.
    margin = 1 + math.ceil(max(sy, sx))
    padded = np.pad(field.astype(np.float32), margin, mode="edge")
    box = (
        left * sx + ox + margin,
        top * sy + oy + margin,
        right * sx + ox + margin,
        bottom * sy + oy + margin,
    )
    placed = np.full(geometry.picture, outside, np.float32)
    if bottom > top and right > left:
        part = Image.fromarray(padded).resize(
            (right - left, bottom - top), Image.Resampling.BILINEAR, box=box
        )
        placed[top:bottom, left:right] = np.asarray(part)
    return placed


def emphasise(heat: Floats, clip_percent: float = 99.0) -> Floats:
    """Heat for display where single pixels carry the map: the top percentile is shown in full.

    Divided by its own maximum alone, a map of single pixels would show only the few largest.
    """
    limit = float(np.percentile(heat, clip_percent)) or float(heat.max())
    return np.clip(heat / limit, 0, 1) if limit > 0 else heat


def blend(pixels: Pixels, heat: Floats, strength: float = 0.75) -> Pixels:
    """Colour the heat over a picture; where there is no heat the picture stays as it is.

    Args:
        pixels: (H, W, 3) RGB.
        heat: (H, W) in [0, 1].
        strength: Opacity of the colour at full heat.
    """
    opacity = strength * np.clip(heat, 0, 1)[..., None]
    mixed = pixels * (1 - opacity) + colourise(heat) * opacity
    blended: Pixels = np.rint(mixed).astype(np.uint8)
    return blended


def signed_rgb(values: Floats, clip_percent: float = 99.5) -> Floats:
    """A signed map as RGB in [-1, 1].

    Args:
        values: (C, H, W), channels in RGB order; any other number than 3 is summed to grey.
        clip_percent: Percentile of |values| shown at full contrast: outliers would hide the rest.

    Returns:
        (H, W, 3).
    """
    finite = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    if len(finite) != 3:
        finite = np.repeat(finite.sum(axis=0, keepdims=True), 3, axis=0)
    magnitude = np.abs(finite)
    limit = float(np.percentile(magnitude, clip_percent)) or float(magnitude.max())
    scaled = finite / limit if limit > 0 else finite
    return np.moveaxis(np.clip(scaled, -1, 1), 0, -1).astype(np.float32)
