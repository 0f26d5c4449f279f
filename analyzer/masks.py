"""Masks: read, and carried from the picture into the model's input."""

from typing import Any

import numpy as np
import numpy.typing as npt

from analyzer.errors import UsageError
from analyzer.geometry import Geometry
from analyzer.heatmap import place
from analyzer.pictures import Picture, PictureSource, read_picture

Weights = npt.NDArray[np.float32]
_BLACK = (0, 0, 0)


def read_mask(source: PictureSource, picture: Picture) -> tuple[str, Weights]:
    """A mask's name, and its weights (H, W) on the picture.

    Args:
        source: A picture or an array of integers or booleans, where everything above 0 counts as 1,
            or an array of floats, taken as they are.
        picture: The upright picture that it belongs to.

    Raises:
        UsageError: It has another size than the picture, or no weight at all.
        ImageError: It does not decode.
    """
    name = "mask"
    if isinstance(source, np.ndarray) and source.ndim == 2 and source.dtype.kind in "biuf":
        weights = source.astype(np.float32)
        if source.dtype.kind != "f":
            weights = (weights > 0).astype(np.float32)
    else:
        read = read_picture(source, _BLACK)
        name, weights = read.name, (read.pixels.max(axis=2) > 0).astype(np.float32)
    if weights.shape != picture.size:
        raise UsageError(
            f"{name}: a mask of {_size(weights.shape)} pixels does not fit {picture.name} of "
            f"{_size(picture.size)}; draw it on the upright picture"
        )
    if not np.isfinite(weights).all() or not weights.any():
        raise UsageError(f"{name}: the mask is empty or not finite; mark what is explained")
    return name, weights


def place_mask(weights: Weights, geometry: Geometry, name: str) -> Weights:
    """The mask in the model's input, (H, W): cropped and resized as the picture was.

    Raises:
        UsageError: The model sees nothing of it.
    """
    placed = place(weights, geometry.inverse())
    if not placed.any():
        raise UsageError(
            f"{name}: the mask lies wholly outside the part of the picture that the model sees; "
            "give another resize in the preprocessing, or another mask"
        )
    return placed


def _size(shape: tuple[Any, ...]) -> str:
    return " × ".join(map(str, shape))
