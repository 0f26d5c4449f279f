"""How a picture becomes a model's input: declared, stored and testable.

    value = (pixel * scale - mean) / std

with pixels 0 to 255 and one mean and std for each channel, in the order of `channels`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import numpy.typing as npt

from analyzer.errors import ImageError, UsageError, nearest
from analyzer.geometry import Geometry

if TYPE_CHECKING:
    from PIL import Image

    from analyzer.image_input import ImageInput
    from analyzer.pictures import Picture, Pixels

CHOICES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "resize": ("shorter_side", "square_crop", "stretch"),
        "interpolation": ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"),
        "channels": ("RGB", "BGR", "L"),
        "layout": ("NCHW", "NHWC"),
    }
)


@dataclass(frozen=True)
class Preprocess:
    """One declared preprocessing; what is None comes from the model.

    Attributes:
        size: (height, width) of the model's input.
        resize: "shorter_side" scales the shorter side to `resize_to` and crops the centre;
            "square_crop" crops the largest centred part of the input's aspect and scales it;
            "stretch" scales the whole picture and ignores its aspect.
        resize_to: Length of the shorter side for "shorter_side"; None is 256/224 of the input.
        interpolation: Pillow's filter of this name; it averages when it scales down.
        channels: "RGB", "BGR" or "L" (ITU-R 601 luma).
        layout: "NCHW" or "NHWC".
        dtype: The input's element type, as numpy spells it.
        scale: Factor on the pixels.
        mean: Subtracted after scaling: none, one, or one for each channel.
        std: Divides last: none, one, or one for each channel.
        background: RGB colour under transparent pixels.
    """

    size: tuple[int, int] | None = None
    resize: Literal["shorter_side", "square_crop", "stretch"] = "square_crop"
    resize_to: int | None = None
    interpolation: str = "bilinear"
    channels: Literal["RGB", "BGR", "L"] = "RGB"
    layout: Literal["NCHW", "NHWC"] | None = None
    dtype: str | None = None
    scale: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    background: tuple[int, int, int] = (255, 255, 255)

    def __post_init__(self) -> None:
        """Refuse what cannot be applied, naming the key."""
        for key, allowed in CHOICES.items():
            value = getattr(self, key)
            if value not in allowed and not (key == "layout" and value is None):
                raise UsageError(
                    f"preprocessing key {key!r}: {value!r} is none of {', '.join(allowed)}"
                )
        depth = len(self.channels)
        for key in ("mean", "std"):
            if len(getattr(self, key)) not in (0, 1, depth):
                raise UsageError(f"preprocessing key {key!r}: give one value or {depth}")
        if 0 in self.std or self.scale == 0:
            raise UsageError("preprocessing keys 'std' and 'scale' must not be 0")
        if self.size is not None and min(self.size) < 1:
            raise UsageError("preprocessing key 'size' must be positive")

    def as_dict(self) -> dict[str, object]:
        """Plain values, as TOML and JSON hold them; open keys left out."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
            if value is not None
        }

    def fit(self, image: "ImageInput") -> "Preprocess":
        """Fill what is open from the model's input, and refuse what contradicts it.

        Raises:
            UsageError: The channels do not fit the model.
        """
        if self.layout not in (None, image.layout):
            raise UsageError(f"preprocessing says layout {self.layout}, the model {image.layout}")
        channels = self.channels
        if image.channels == 1 and max(len(self.mean), len(self.std)) <= 1:
            channels = "L"
        if image.channels in (1, 3) and image.channels != len(channels):
            raise UsageError(
                f"preprocessing makes {channels} pictures, input {image.name!r} takes "
                f"{image.channels} channel(s); set channels, mean and std to fit"
            )
        byte = image.dtype == "int8" or image.dtype.startswith("uint")
        mean = self._byte_offset(image) if byte else self.mean
        fixed = (image.height, image.width)
        size = self.size
        for axis in (0, 1):
            if size is not None and fixed[axis] not in (None, size[axis]):
                raise UsageError(
                    f"preprocessing says size {list(size)}, input {image.name!r} has {list(fixed)}"
                )
        if fixed[0] is not None and fixed[1] is not None:
            size = (fixed[0], fixed[1])
        return replace(
            self, channels=channels, size=size, layout=image.layout, dtype=image.dtype, mean=mean
        )

    def _byte_offset(self, image: "ImageInput") -> tuple[float, ...]:
        """What to subtract from the bytes that an integer input takes.

        An int8 input takes bytes less 128, the convention of TensorFlow Lite, unless a mean says
        otherwise.
        """
        signed = image.dtype == "int8"
        if self.scale != 1 or any(self.std) or (any(self.mean) and not signed):
            raise UsageError(
                f"input {image.name!r} is {image.dtype} and takes bytes "
                f"{'less 128' if signed else 'as they are'}; use preset 'raw', without scale"
                f"{' and std' if signed else ', mean and std'}"
            )
        return (128.0,) if signed and not self.mean else self.mean

    def apply(
        self, picture: "Picture", image: "ImageInput"
    ) -> tuple[npt.NDArray[np.generic], Geometry]:
        """Make the input of one picture, without a batch axis.

        Args:
            picture: Upright RGB pixels.
            image: The model's input, to which this preprocessing was fitted.

        Returns:
            The array in the model's layout and dtype, and where it lies in the picture.

        Raises:
            ImageError: The model takes neither 1 nor 3 channels.
            UsageError: Model and preprocessing both leave the size open.
        """
        from PIL import Image

        if image.channels != len(self.channels):
            raise ImageError(
                f"{picture.name}: input {image.name!r} takes {image.channels} channels, "
                "a picture has 1 or 3; give a preprocessed array"
            )
        if self.size is None or self.dtype is None:
            raise UsageError(
                f"input {image.name!r} leaves height and width open; "
                "give size = [height, width] in the preprocessing"
            )
        upright = Image.fromarray(picture.pixels)
        resized, geometry = self._resize(upright, self.size)
        pixels = np.asarray(resized.convert("L") if self.channels == "L" else resized)
        pixels = pixels.reshape(*self.size, len(self.channels))
        if self.channels == "BGR":
            pixels = pixels[..., ::-1]
        values = self._normalise(pixels, np.dtype(self.dtype))
        if image.layout == "NCHW":
            values = values.transpose(2, 0, 1)
        return np.ascontiguousarray(values), geometry

    def _resize(
        self, picture: "Image.Image", size: tuple[int, int]
    ) -> tuple["Image.Image", Geometry]:
        from PIL.Image import Resampling

        how = Resampling[self.interpolation.upper()]
        (height, width), (across, down) = size, picture.size
        if self.resize == "shorter_side":
            tall, wide = self._covering((down, across), size)
            # Torchvision's rounding, so that published preprocessing is met to the pixel.
            top, left = round((tall - height) / 2), round((wide - width) / 2)
            scaled = picture.resize((wide, tall), how).crop((left, top, left + width, top + height))
            scale = (tall / down, wide / across)
            return scaled, Geometry((down, across), size, scale, (float(-top), float(-left)))
        box_h, box_w = (down, across)
        if self.resize == "square_crop":
            aspect = width / height
            box_w = max(1, min(across, round(down * aspect)))
            box_h = max(1, min(down, round(across / aspect)))
        top, left = (down - box_h) // 2, (across - box_w) // 2
        cropped = picture.crop((left, top, left + box_w, top + box_h))
        sy, sx = height / box_h, width / box_w
        geometry = Geometry((down, across), size, (sy, sx), (-top * sy, -left * sx))
        return cropped.resize((width, height), how), geometry

    def _covering(self, picture: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
        """Height and width after "shorter_side": the shorter exact, the longer rounded down."""
        cover = max(s / p for s, p in zip(size, picture, strict=True))
        short = self.resize_to or round(cover * min(picture) * 256 / 224)
        factor = max(cover, short / min(picture))
        # The small term keeps 255.99999 from becoming 255.
        tall, wide = (max(s, int(p * factor + 1e-6)) for s, p in zip(size, picture, strict=True))
        return tall, wide

    def _normalise(
        self, pixels: npt.NDArray[np.uint8], dtype: np.dtype[np.generic]
    ) -> npt.NDArray[np.generic]:
        if dtype == np.uint8:
            return pixels
        values = pixels.astype(np.float32) * np.float32(self.scale)
        if self.mean:
            values -= np.asarray(self.mean, np.float32)
        if self.std:
            values /= np.asarray(self.std, np.float32)
        if dtype.kind in "iu":
            limits = np.iinfo(dtype.name)
            values = np.rint(values).clip(limits.min, limits.max)
        return values.astype(dtype)

    def restore(self, values: npt.NDArray[np.generic]) -> "Pixels":
        """The picture behind an input, clipped to 0..255, for display.

        Args:
            values: (C, H, W) with 1 or 3 channels.

        Returns:
            (H, W, 3) RGB.
        """
        pixels = np.moveaxis(values.astype(np.float32), 0, -1)
        if self.std:
            pixels = pixels * np.asarray(self.std, np.float32)
        if self.mean:
            pixels = pixels + np.asarray(self.mean, np.float32)
        pixels = np.rint(pixels / np.float32(self.scale)).clip(0, 255).astype(np.uint8)
        if self.channels == "BGR":
            pixels = pixels[..., ::-1]
        return np.broadcast_to(pixels, (*pixels.shape[:2], 3)).copy()


PRESETS: Final[Mapping[str, Preprocess]] = MappingProxyType(
    {
        "imagenet": Preprocess(
            resize="shorter_side",
            scale=1 / 255,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        ),
        "caffe": Preprocess(channels="BGR", mean=(104.0, 117.0, 123.0)),
        "tf": Preprocess(scale=1 / 127.5, mean=(1.0,)),
        "raw": Preprocess(),
    }
)


def preset(name: object) -> Preprocess:
    """The preset of this name; an unknown one is a `UsageError` with the nearest names."""
    if not isinstance(name, str) or name not in PRESETS:
        raise UsageError(
            f"unknown preprocessing preset {name!r}; known: {', '.join(PRESETS)}"
            f"{nearest(str(name), PRESETS)}"
        )
    return PRESETS[name]
