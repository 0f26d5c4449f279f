"""Where the model's input lies in the original picture."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Geometry:
    """The affine map from a picture (upright, EXIF applied) to the model's input.

    Coordinates are measured from the top left corner of the top left pixel, so that pixel i covers
    [i, i + 1]: `input = scale * picture + offset`, for (y, x) each.

    Attributes:
        picture: (height, width) of the upright original.
        input: (height, width) of the model's input.
        scale: Input pixels per picture pixel.
        offset: Position of the picture's corner in the input; negative where it was cropped away.
    """

    picture: tuple[int, int]
    input: tuple[int, int]
    scale: tuple[float, float]
    offset: tuple[float, float]

    @classmethod
    def identity(cls, size: tuple[int, int]) -> "Geometry":
        """The picture is the input itself: an array that was preprocessed elsewhere."""
        return cls(size, size, (1.0, 1.0), (0.0, 0.0))

    def inverse(self) -> "Geometry":
        """The way back: the input as the picture, and the picture as the input."""
        (sy, sx), (oy, ox) = self.scale, self.offset
        return Geometry(self.input, self.picture, (1 / sy, 1 / sx), (-oy / sy, -ox / sx))

    def window(self) -> tuple[float, float, float, float]:
        """What the input shows of the picture: (top, left, bottom, right) in picture pixels."""
        (top, bottom), (left, right) = (
            (max(0.0, -o / s), min(float(size), (extent - o) / s))
            for size, extent, s, o in zip(
                self.picture, self.input, self.scale, self.offset, strict=True
            )
        )
        return top, left, bottom, right
