"""From whatever a caller calls an image to the arrays that the model takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from analyzer.errors import ImageError, UsageError
from analyzer.geometry import Geometry
from analyzer.image_input import ImageInput
from analyzer.pictures import Picture, PictureSource, Pixels, read_picture, sha256_of
from analyzer.preprocess import Preprocess

Images: TypeAlias = "PictureSource | Sequence[PictureSource]"


@dataclass(frozen=True, eq=False)
class Intake:
    """N images, ready for the model.

    Attributes:
        values: (N, …) in the model's layout and dtype.
        pictures: The upright originals; for preprocessed arrays what they show.
        geometry: Where the input lies in each original.
        listed: They were given as a list, or as an array with a batch axis.
        prepared_here: Pictures were preprocessed; False for an array passed through.
    """

    values: npt.NDArray[np.generic]
    pictures: tuple[Picture, ...]
    geometry: tuple[Geometry, ...]
    listed: bool
    prepared_here: bool


def take_in(images: Images, preprocess: Preprocess, image: ImageInput) -> Intake:
    """Prepare images.

    Args:
        images: A picture, a list of pictures, or a preprocessed array in the model's layout.
        preprocess: Fitted to the model's input.
        image: The model's input.

    Raises:
        ImageError: A picture or array that cannot be used.
        UsageError: No image at all.
    """
    if isinstance(images, np.ndarray) and images.ndim == 4:
        return _pass_through(images, preprocess, image)
    listed = isinstance(images, Sequence) and not isinstance(images, str)
    sources: Sequence[PictureSource] = images if listed else [images]  # type: ignore[list-item, assignment]
    if not sources:
        raise UsageError("no images were given")
    pictures = tuple(read_picture(source, preprocess.background) for source in sources)
    made = [preprocess.apply(picture, image) for picture in pictures]
    values = np.stack([array for array, _ in made])
    return Intake(values, pictures, tuple(g for _, g in made), listed, prepared_here=True)


def _pass_through(
    values: npt.NDArray[np.generic], preprocess: Preprocess, image: ImageInput
) -> Intake:
    """A batch that was preprocessed elsewhere; only its type may change, among floats."""
    fitting = [
        got == want or want is None
        for got, want in zip(values.shape[1:], _expected(image), strict=True)
    ]
    if not all(fitting) or 0 in values.shape:
        raise ImageError(
            f"array {values.shape} does not fit input {image.name!r}: "
            f"{image.layout} with {_expected(image)} behind the batch is needed"
        )
    wanted = np.dtype(image.dtype)
    both_float = values.dtype.kind == "f" and wanted.kind == "f"
    if values.dtype != wanted and not both_float:
        raise ImageError(
            f"array of {values.dtype}, input {image.name!r} takes {wanted}; "
            "a preprocessed array must have the model's type"
        )
    values = np.ascontiguousarray(values, dtype=wanted)
    first = values if image.layout == "NCHW" else values.transpose(0, 3, 1, 2)
    pictures = tuple(
        Picture(f"image-{i}", _shown(one, preprocess), sha256_of(one), "pixels", _kind(one))
        for i, one in enumerate(first)
    )
    geometry = tuple(Geometry.identity(picture.size) for picture in pictures)
    return Intake(values, pictures, geometry, listed=True, prepared_here=False)


def _expected(image: ImageInput) -> tuple[int | None, ...]:
    spatial = (image.height, image.width)
    return (image.channels, *spatial) if image.layout == "NCHW" else (*spatial, image.channels)


def _kind(values: npt.NDArray[np.generic]) -> str:
    return f"preprocessed {values.dtype} {values.shape}"


def _shown(values: npt.NDArray[np.generic], preprocess: Preprocess) -> Pixels:
    """What a preprocessed (C, H, W) array shows, to draw on: undone, or grey for other bands."""
    if len(values) == len(preprocess.channels):
        return preprocess.restore(values)
    grey = values.astype(np.float32).mean(axis=0)
    low, high = float(grey.min()), float(grey.max())
    scaled = (grey - low) * (255 / (high - low)) if high > low else np.zeros_like(grey)
    return np.repeat(np.rint(scaled).astype(np.uint8)[..., None], 3, axis=-1)
