"""Decoding: every kind of picture becomes upright RGB, every broken one a single line."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from analyzer import pictures
from analyzer.errors import ImageError
from analyzer.pictures import read_picture

WHITE = (255, 255, 255)


def gradient(mode="RGB", size=(8, 6)):
    values = np.arange(size[0] * size[1] * 3, dtype=np.uint8).reshape(size[1], size[0], 3)
    return Image.fromarray(values).convert(mode)


def test_png_file_keeps_its_pixels(tmp_path):
    path = tmp_path / "a.png"
    gradient().save(path)
    found = read_picture(path, WHITE)
    np.testing.assert_array_equal(found.pixels, np.asarray(gradient()))
    assert (found.name, found.hashed, found.kind, found.orientation) == (
        "a.png",
        "file",
        "PNG RGB",
        1,
    )
    assert len(found.sha256) == 64
    assert found.size == (6, 8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone_and_recorded(tmp_path, orientation):
    upright = np.zeros((4, 6, 3), np.uint8)
    upright[0, 0] = 255
    stored = Image.fromarray(upright)
    # The stored pixels are what a viewer must turn back: apply the inverse of each orientation.
    inverse = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    if orientation in inverse:
        stored = stored.transpose(inverse[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "t.png"
    stored.save(path, exif=exif)
    found = read_picture(path, WHITE)
    np.testing.assert_array_equal(found.pixels, upright)
    assert found.orientation == orientation


def test_transparency_lies_over_the_background():
    image = Image.new("RGBA", (2, 1), (200, 0, 0, 0))
    image.putpixel((1, 0), (200, 0, 0, 255))
    found = read_picture(image, (10, 20, 30))
    np.testing.assert_array_equal(found.pixels, [[[10, 20, 30], [200, 0, 0]]])
    assert "composited" in found.notes[0]


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "La"]
)
def test_every_mode_becomes_rgb(mode):
    image = gradient("LA").convert("La") if mode == "La" else gradient(mode)
    found = read_picture(image, WHITE)
    assert found.pixels.shape == (6, 8, 3)
    assert found.pixels.dtype == np.uint8


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    path = tmp_path / "deep.png"
    Image.fromarray(values).save(path)
    found = read_picture(path, WHITE)
    np.testing.assert_array_equal(found.pixels[0, :, 0], [0, 1, 128, 255])
    assert "scaled to 8 bits" in " ".join(found.notes)


def test_float_picture_of_unknown_range_is_refused():
    image = Image.fromarray(np.array([[-3.0, 1.0]], np.float32))
    with pytest.raises(ImageError, match="rescale"):
        read_picture(image, WHITE)
    ones = read_picture(Image.fromarray(np.array([[0.0, 1.0]], np.float32)), WHITE)
    np.testing.assert_array_equal(ones.pixels[0, :, 0], [0, 255])


def test_first_frame_of_an_animation(tmp_path):
    path = tmp_path / "a.gif"
    frames = [Image.new("RGB", (3, 3), colour) for colour in ("red", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    found = read_picture(path, WHITE)
    np.testing.assert_array_equal(found.pixels[0, 0], [255, 0, 0])
    assert "first of 2 frames" in found.notes


def test_arrays(tmp_path):
    values = np.asarray(gradient())
    np.testing.assert_array_equal(read_picture(values, WHITE).pixels, values)
    grey = read_picture(values[..., 0], WHITE).pixels
    np.testing.assert_array_equal(grey, np.repeat(values[..., :1], 3, -1))
    np.testing.assert_array_equal(read_picture(values[..., :1], WHITE).pixels, grey)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((3, 5, 6), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros(4, np.uint8),
    ],
)
def test_arrays_that_are_no_pictures(array):
    with pytest.raises(ImageError, match="is no picture"):
        read_picture(array, WHITE)


def test_an_image_in_hand_is_not_changed_and_hashes_like_its_pixels(tmp_path):
    image = gradient("RGBA")
    before = image.tobytes()
    first = read_picture(image, WHITE)
    assert image.tobytes() == before
    assert image.mode == "RGBA"
    assert read_picture(image.copy(), WHITE).sha256 == first.sha256
    assert first.hashed == "pixels"


def broken_files():
    png = io.BytesIO()
    gradient(size=(64, 64)).save(png, "PNG")
    jpeg = io.BytesIO()
    gradient(size=(64, 64)).save(jpeg, "JPEG")
    yield "empty.png", b""
    yield "text.jpg", b"this is no picture"
    yield "cut.png", png.getvalue()[:80]
    yield "cut.jpg", jpeg.getvalue()[: len(jpeg.getvalue()) // 2]
    yield "eps.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"


@pytest.mark.parametrize(("name", "data"), list(broken_files()))
def test_broken_files_are_one_line(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(ImageError) as caught:
        read_picture(path, WHITE)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(ImageError, match="no such file"):
        read_picture(tmp_path / "none.png", WHITE)
    with pytest.raises(ImageError, match="folder"):
        read_picture(tmp_path, WHITE)
    with pytest.raises(ImageError):
        read_picture("bad\0name.png", WHITE)
    with pytest.raises(ImageError, match="not int"):
        read_picture(7, WHITE)


def test_bombs_are_refused_before_decoding(tmp_path, monkeypatch):
    path = tmp_path / "bomb.png"
    gradient(size=(40, 40)).save(path)
    monkeypatch.setattr(pictures, "MAX_PIXELS", 1000)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(ImageError, match="40 x 40 pixels"):
        read_picture(path, WHITE)


def test_large_files_are_refused_before_reading(tmp_path, monkeypatch):
    path = tmp_path / "large.png"
    gradient().save(path)
    monkeypatch.setattr(pictures, "MAX_FILE_BYTES", 10)
    with pytest.raises(ImageError, match="bytes"):
        read_picture(path, WHITE)


@pytest.mark.shared
@pytest.mark.parametrize("folder", ["pngsuite", "png_crashers", "image_rs_bad", "pillow"])
def test_bad_inputs_decode_or_are_one_line(shared, folder, capfd):
    outcomes = {"decoded": 0, "refused": 0}
    for path in sorted((shared / "corpora" / folder).iterdir()):
        try:
            found = read_picture(path, WHITE)
        except ImageError as error:
            outcomes["refused"] += 1
            assert "\n" not in str(error)
            assert len(str(error)) < 500
        else:
            outcomes["decoded"] += 1
            assert found.pixels.ndim == 3
            assert found.pixels.shape[-1] == 3
    assert outcomes["refused"] > 0
    assert capfd.readouterr() == ("", "")  # libtiff likes to talk


@pytest.mark.shared
def test_good_png_kinds_all_decode_and_the_broken_do_not(shared):
    for path in sorted((shared / "corpora" / "pngsuite").glob("*.png")):
        # Pillow does not read the checksum of xcsn0g01's image data, which is intact otherwise.
        if path.name.startswith("x") and path.name != "xcsn0g01.png":
            with pytest.raises(ImageError):
                read_picture(path, WHITE)
        else:
            assert min(read_picture(path, WHITE).size) > 0


@pytest.mark.shared
def test_one_landscape_in_eight_orientations_is_one_picture(shared):
    folder = shared / "corpora" / "exif_orientation"
    upright = read_picture(folder / "Landscape_1.jpg", WHITE).pixels.astype(float)
    for orientation in range(2, 9):
        found = read_picture(folder / f"Landscape_{orientation}.jpg", WHITE)
        assert found.orientation == orientation
        assert found.pixels.shape == upright.shape
        assert np.abs(found.pixels - upright).mean() < 6  # JPEG recompression


def test_pillow_s_warnings_become_notes(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    gradient().save(path)
    real = Image.open

    def warning_open(*args, **kwargs):
        warnings.warn("odd chunk", UserWarning, stacklevel=1)
        return real(*args, **kwargs)

    monkeypatch.setattr(Image, "open", warning_open)
    assert "odd chunk" in read_picture(path, WHITE).notes
