"""Pictures in: files, PIL images and arrays become upright RGB pixels, or a one-line error.

Files are attacker-controlled: only common formats are tried, size is checked before decoding, and
whatever a decoder raises becomes an `ImageError`.
"""

import hashlib
import io
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from analyzer.errors import ImageError

if TYPE_CHECKING:
    from PIL import Image

FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
MAX_FILE_BYTES: Final = 512 * 2**20
MAX_PIXELS: Final = 89_478_485  # Pillow's own line between a large photograph and a bomb

_stderr_lock = threading.Lock()

Pixels: TypeAlias = npt.NDArray[np.uint8]
PictureSource: TypeAlias = "str | os.PathLike[str] | Image.Image | npt.NDArray[np.generic]"


@dataclass(frozen=True, eq=False)
class Picture:
    """One decoded picture and how it came to be.

    Attributes:
        name: File name without its folders, or "image" for pictures without a file.
        pixels: (H, W, 3) RGB, upright, transparency composited.
        sha256: Of the file's bytes, or of the pixels given; `hashed` says which.
        hashed: "file" or "pixels".
        kind: What it was before conversion, such as "PNG RGBA" or "array (300, 451, 3)".
        orientation: The EXIF orientation that was undone, 1 to 8; 1 is upright.
        notes: What a reader should know: further frames, a damaged EXIF block, a reduced bit depth.
    """

    name: str
    pixels: Pixels
    sha256: str
    hashed: str
    kind: str
    orientation: int = 1
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.pixels.shape[0], self.pixels.shape[1]


def read_picture(source: PictureSource, background: tuple[int, int, int]) -> Picture:
    """Decode one picture.

    Args:
        source: A path, a PIL image, or a uint8 array (H, W) or (H, W, 1 | 3 | 4) in RGB order.
        background: RGB colour under transparent pixels.

    Raises:
        ImageError: It is missing, too large, damaged, or of another kind.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, background)
    if isinstance(source, str | os.PathLike):
        return _from_file(Path(source), background)
    if hasattr(source, "getexif"):
        return _from_pil(source, background)
    raise ImageError(
        f"a picture must be a path, a PIL image or a uint8 array, not {type(source).__name__}"
    )


def _from_file(path: Path, background: tuple[int, int, int]) -> Picture:
    data = _read_bytes(path)
    with warnings.catch_warnings(record=True) as heard:
        # Pillow warns about damaged metadata; that belongs into the record, not onto the terminal.
        warnings.simplefilter("always")
        try:
            picture = _decode(data, path.name, background)
        except ImageError:
            raise
        except Exception as error:  # decoders raise nearly everything, SyntaxError included
            raise ImageError(
                f"{path}: does not decode ({_reason(error)}); "
                f"give an intact {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file"
            ) from error
    notes = tuple(dict.fromkeys(_brief(w.message) for w in heard))
    return Picture(
        path.name,
        picture.pixels,
        hashlib.sha256(data).hexdigest(),
        "file",
        picture.kind,
        picture.orientation,
        picture.notes + notes,
    )


def _read_bytes(path: Path) -> bytes:
    try:
        if not path.is_file():
            what = "is a folder, not a picture" if path.is_dir() else "no such file"
            raise ImageError(f"{path}: {what}")
        if (size := path.stat().st_size) > MAX_FILE_BYTES:
            raise ImageError(
                f"{path}: {size} bytes, more than the {MAX_FILE_BYTES} allowed for a picture"
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: cannot be read ({_brief(error)})") from error


def _decode(data: bytes, name: str, background: tuple[int, int, int]) -> Picture:
    from PIL import Image

    quiet = _silence_stderr() if data[:2] in (b"II", b"MM") else nullcontext()
    with quiet, Image.open(io.BytesIO(data), formats=FORMATS) as image:
        _refuse_bomb(image.size, name)
        image.load()
        return _from_pil(image, background, name)


@contextmanager
def _silence_stderr() -> Iterator[None]:
    """Keep libtiff quiet: it writes a line for each odd tag straight to the process's stderr."""
    with _stderr_lock, open(os.devnull, "wb") as sink:
        kept = os.dup(2)
        try:
            os.dup2(sink.fileno(), 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _reason(error: Exception) -> str:
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "not recognised, or damaged"
    if isinstance(error, Image.DecompressionBombError):
        return f"it claims more than the {MAX_PIXELS} pixels allowed"
    return f"{type(error).__name__}: {_brief(error)}"


def _refuse_bomb(size: tuple[int, int], name: str) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{name}: {width} x {height} pixels, more than the {MAX_PIXELS} allowed; scale it down"
        )


def _from_pil(
    image: "Image.Image", background: tuple[int, int, int], name: str | None = None
) -> Picture:
    """An open PIL image; its pixels are hashed as they are before any conversion."""
    label = name or Path(str(getattr(image, "filename", "") or "image")).name
    _refuse_bomb(image.size, label)
    notes = []
    if (frames := int(getattr(image, "n_frames", 1))) > 1:
        notes.append(f"first of {frames} frames")
    try:
        digest = hashlib.sha256(repr((image.mode, image.size)).encode() + image.tobytes())
        orientation, note = _orientation(image)
        rgb, more = _to_rgb(image, background)
        pixels = np.asarray(_upright(rgb, orientation))
    except ImageError:
        raise
    except Exception as error:
        if name is not None:
            raise
        raise ImageError(f"{label}: cannot be converted to RGB ({_brief(error)})") from error
    kind = f"{image.format or 'PIL'} {image.mode}"
    notes += note + more
    return Picture(label, pixels, digest.hexdigest(), "pixels", kind, orientation, tuple(notes))


def _orientation(image: "Image.Image") -> tuple[int, list[str]]:
    """EXIF orientation; a damaged EXIF block does not spoil a good picture."""
    try:
        value = int(image.getexif().get(0x0112, 1))
    except Exception:
        return 1, ["EXIF block unreadable, orientation taken as upright"]
    return (value, []) if 1 <= value <= 8 else (1, [f"EXIF orientation {value} ignored"])


def _upright(image: "Image.Image", orientation: int) -> "Image.Image":
    from PIL.Image import Transpose

    undo = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return image.transpose(undo[orientation]) if orientation in undo else image


def _to_rgb(
    image: "Image.Image", background: tuple[int, int, int]
) -> tuple["Image.Image", list[str]]:
    """Any Pillow mode as RGB: deep modes scaled, never clipped; transparency over `background`."""
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        grey, note = _eight_bits(np.asarray(image), image.mode)
        return Image.fromarray(grey).convert("RGB"), [note]
    if image.mode in ("La", "RGBa"):
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, (*background, 255))
        rgb = Image.alpha_composite(canvas, image.convert("RGBA")).convert("RGB")
        return rgb, [f"transparency composited over RGB {background}"]
    notes = ["CMYK converted without a colour profile"] if image.mode == "CMYK" else []
    return image.convert("RGB"), notes


def _eight_bits(values: npt.NDArray[np.generic], mode: str) -> tuple[Pixels, str]:
    deep = values.astype(np.float64)
    low, high = float(deep.min()), float(deep.max())
    if not 0 <= low <= high <= 65535:
        raise ImageError(
            f"a picture of mode {mode} holds values from {low:g} to {high:g}; "
            "rescale it to 0..255 or 0..65535"
        )
    # I;16 declares its range; I and F do not: the smallest usual range that holds the values.
    if mode.startswith("I;16") or high > 255:
        top = 65535.0
    else:
        top = 1.0 if mode == "F" and high <= 1 else 255.0
    return np.rint(deep * (255.0 / top)).astype(np.uint8), f"{mode}: 0..{top:g} scaled to 8 bits"


def _from_array(array: npt.NDArray[np.generic], background: tuple[int, int, int]) -> Picture:
    from PIL import Image

    shape = array.shape
    drawable = array.ndim == 2 or (array.ndim == 3 and shape[-1] in (1, 3, 4))
    if array.dtype != np.uint8 or not drawable or 0 in shape:
        raise ImageError(
            f"array {shape} of {array.dtype} is no picture: give uint8 (H, W, 3) in RGB order, "
            "or a preprocessed batch with four axes in the model's layout"
        )
    if array.ndim == 3 and shape[-1] == 1:
        array = array[..., 0]
    rgb, notes = _to_rgb(Image.fromarray(np.ascontiguousarray(array, dtype=np.uint8)), background)
    digest = sha256_of(array)
    return Picture("image", np.asarray(rgb), digest, "pixels", f"array {shape}", notes=tuple(notes))


def sha256_of(array: npt.NDArray[np.generic]) -> str:
    """The hash of an array's type, shape and values."""
    head = f"{array.dtype.str} {array.shape} ".encode()
    return hashlib.sha256(head + array.tobytes()).hexdigest()


def _brief(error: object) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 160 else text[:157] + "..."
