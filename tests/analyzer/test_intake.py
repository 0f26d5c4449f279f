"""Images in: pictures, lists of pictures, and arrays that were preprocessed elsewhere."""

import numpy as np
import pytest
from PIL import Image

from analyzer.errors import ImageError, UsageError
from analyzer.image_input import ImageInput
from analyzer.intake import take_in
from analyzer.preprocess import PRESETS

NCHW = ImageInput("x", "float32", "NCHW", 3, 16, 20)
NHWC = ImageInput("x", "uint8", "NHWC", 3, 16, 20)
TF = PRESETS["tf"].fit(NCHW)
RAW = PRESETS["raw"].fit(NHWC)


def test_one_picture_and_a_list(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (40, 30), (9, 8, 7)).save(path)
    one = take_in(path, TF, NCHW)
    assert one.values.shape == (1, 3, 16, 20)
    assert (one.listed, one.prepared_here) == (False, True)
    many = take_in([str(path), Image.open(path), np.zeros((5, 5, 3), np.uint8)], TF, NCHW)
    assert many.values.shape == (3, 3, 16, 20)
    assert many.listed
    assert [p.name for p in many.pictures] == ["a.png", "a.png", "image"]
    np.testing.assert_array_equal(many.values[0], one.values[0])
    np.testing.assert_array_equal(many.values[1], one.values[0])


def test_a_preprocessed_batch_passes_through():
    values = np.random.default_rng(0).uniform(-1, 1, (2, 3, 16, 20)).astype(np.float32)
    found = take_in(values, TF, NCHW)
    np.testing.assert_array_equal(found.values, values)
    assert not found.prepared_here
    assert found.geometry[0].window() == (0, 0, 16, 20)
    np.testing.assert_allclose(
        found.pictures[1].pixels, (values[1].transpose(1, 2, 0) + 1) * 127.5, atol=0.51
    )
    assert found.pictures[0].sha256 != found.pictures[1].sha256
    wider = take_in(values.astype(np.float64), TF, NCHW)
    assert wider.values.dtype == np.float32


def test_a_batch_of_bytes_in_the_model_s_layout():
    values = np.random.default_rng(0).integers(0, 256, (2, 16, 20, 3), np.uint8)
    found = take_in(values, RAW, NHWC)
    np.testing.assert_array_equal(found.values, values)
    np.testing.assert_array_equal(found.pictures[0].pixels, values[0])


def test_other_bands_are_shown_grey():
    image = ImageInput("x", "float32", "NCHW", 5, 4, 4)
    values = np.arange(80, dtype=np.float32).reshape(1, 5, 4, 4)
    shown = take_in(values, PRESETS["raw"].fit(image), image).pictures[0].pixels
    assert shown.shape == (4, 4, 3)
    assert (shown.min(), shown.max()) == (0, 255)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((1, 16, 20, 3), np.float32), "does not fit"),
        (np.zeros((1, 1, 16, 20), np.float32), "does not fit"),
        (np.zeros((1, 3, 16, 21), np.float32), "does not fit"),
        (np.zeros((0, 3, 16, 20), np.float32), "does not fit"),
        (np.zeros((1, 3, 16, 20), np.uint8), "takes float32"),
        (np.zeros((3, 16, 20), np.float32), "is no picture"),
    ],
)
def test_arrays_that_do_not_fit(array, message):
    with pytest.raises(ImageError, match=message):
        take_in(array, TF, NCHW)


def test_floats_are_no_bytes():
    with pytest.raises(ImageError, match="takes uint8"):
        take_in(np.zeros((1, 16, 20, 3), np.float32), RAW, NHWC)


def test_no_images_at_all():
    with pytest.raises(UsageError, match="no images"):
        take_in([], TF, NCHW)
