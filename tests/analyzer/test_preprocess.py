"""Preprocessing: sizes, crops, channels, values, and the geometry that undoes them."""

import numpy as np
import pytest
from PIL import Image

from analyzer.declaration import read_preprocess
from analyzer.errors import ImageError, UsageError
from analyzer.image_input import ImageInput
from analyzer.pictures import Picture
from analyzer.preprocess import PRESETS, Preprocess, preset

NCHW = ImageInput("x", "float32", "NCHW", 3, 224, 224)


def picture(height: int, width: int) -> Picture:
    rows, columns = np.mgrid[:height, :width]
    red = (rows * 255 // max(1, height - 1)).astype(np.uint8)
    green = (columns * 255 // max(1, width - 1)).astype(np.uint8)
    return Picture("p", np.stack([red, green, 255 - red], -1), "", "pixels", "test")


def test_imagenet_is_torchvision_s_resize_256_crop_224():
    shown = picture(300, 451)
    array, geometry = PRESETS["imagenet"].fit(NCHW).apply(shown, NCHW)
    # torchvision: shorter side to 256, longer int(256 * 451 / 300) = 384, crop at round(80) and 16.
    scaled = Image.fromarray(shown.pixels).resize((384, 256), Image.Resampling.BILINEAR)
    crop = np.asarray(scaled)[16:240, 80:304].astype(np.float32)
    expected = (crop / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(array, expected.transpose(2, 0, 1), atol=1e-5)
    assert array.dtype == np.float32
    assert geometry.offset == (-16, -80)
    assert geometry.scale == (256 / 300, 384 / 451)


def test_caffe_is_bgr_minus_the_mean_of_a_centred_square():
    image = ImageInput("x", "float32", "NCHW", 3, 100, 100)
    shown = picture(100, 140)
    array, geometry = PRESETS["caffe"].fit(image).apply(shown, image)
    square = shown.pixels[:, 20:120].astype(np.float32)
    expected = square[..., ::-1] - [104, 117, 123]
    np.testing.assert_allclose(array, expected.transpose(2, 0, 1), atol=1e-5)
    assert geometry.window() == (0, 20, 100, 120)


def test_tf_maps_bytes_to_minus_one_to_one():
    image = ImageInput("x", "float32", "NHWC", 3, 2, 2)
    shown = Picture("p", np.array([[[0, 255, 51]] * 2] * 2, np.uint8), "", "pixels", "test")
    array, _ = PRESETS["tf"].fit(image).apply(shown, image)
    np.testing.assert_allclose(array[0, 0], [-1, 1, -0.6], atol=1e-6)


def test_raw_bytes_pass_unchanged_into_a_uint8_nhwc_input():
    image = ImageInput("x", "uint8", "NHWC", 3, 50, 50)
    shown = picture(50, 50)
    array, geometry = PRESETS["raw"].fit(image).apply(shown, image)
    assert array.dtype == np.uint8
    np.testing.assert_array_equal(array, shown.pixels)
    assert geometry.scale == (1, 1)


@pytest.mark.parametrize(("dtype", "takes"), [("uint8", "as they are"), ("int8", "less 128")])
def test_integer_input_refuses_scaling_that_would_empty_it(dtype, takes):
    image = ImageInput("x", dtype, "NHWC", 3, 50, 50)
    with pytest.raises(UsageError, match=f"takes bytes {takes}"):
        PRESETS["imagenet"].fit(image)


@pytest.mark.parametrize(("mean", "values"), [((), [-128, 0, 127]), ((129.0,), [-128, -1, 126])])
def test_int8_input_takes_bytes_less_128_or_the_given_mean_and_is_clipped(mean, values):
    image = ImageInput("x", "int8", "NHWC", 3, 2, 2)
    shown = Picture("p", np.full((2, 2, 3), [0, 128, 255], np.uint8), "", "pixels", "t")
    fitted = Preprocess(mean=mean).fit(image)
    array, _ = fitted.apply(shown, image)
    assert array.dtype == np.int8
    np.testing.assert_array_equal(array[0, 0], values)
    assert mean or np.array_equal(fitted.restore(array.transpose(2, 0, 1)), shown.pixels)


def test_grey_model_takes_luma():
    image = ImageInput("x", "float32", "NCHW", 1, 4, 4)
    shown = Picture("p", np.full((4, 4, 3), [255, 0, 0], np.uint8), "", "pixels", "t")
    array, _ = PRESETS["raw"].fit(image).apply(shown, image)
    assert array.shape == (1, 4, 4)
    np.testing.assert_array_equal(array, 76)  # 0.299 of red


def test_colour_statistics_do_not_fit_a_grey_model():
    with pytest.raises(UsageError, match="1 channel"):
        PRESETS["imagenet"].fit(ImageInput("x", "float32", "NCHW", 1, 4, 4))


def test_a_model_of_five_bands_takes_no_pictures():
    image = ImageInput("x", "float32", "NCHW", 5, 4, 4)
    with pytest.raises(ImageError, match="5 channels"):
        PRESETS["raw"].fit(image).apply(picture(4, 4), image)


def test_open_size_must_be_given():
    image = ImageInput("x", "float32", "NCHW", 3, None, None)
    with pytest.raises(UsageError, match="size"):
        PRESETS["raw"].fit(image).apply(picture(4, 4), image)
    sized = Preprocess(size=(6, 8)).fit(image)
    assert sized.apply(picture(4, 4), image)[0].shape == (3, 6, 8)


def test_contradicting_size_is_refused():
    with pytest.raises(UsageError, match="size"):
        Preprocess(size=(32, 32)).fit(NCHW)


def test_stretch_uses_the_whole_picture():
    image = ImageInput("x", "float32", "NCHW", 3, 30, 60)
    _, geometry = Preprocess(resize="stretch").fit(image).apply(picture(90, 90), image)
    assert geometry.window() == (0, 0, 90, 90)


@pytest.mark.parametrize("resize", ["shorter_side", "square_crop"])
@pytest.mark.parametrize(
    "size", [(300, 451), (451, 300), (64, 1000), (10, 10), (1, 700), (224, 224)]
)
@pytest.mark.parametrize("target", [(224, 224), (128, 256), (299, 299)])
def test_every_size_gives_a_full_input(resize, size, target):
    image = ImageInput("x", "float32", "NCHW", 3, *target)
    array, geometry = Preprocess(resize=resize).fit(image).apply(picture(*size), image)
    assert array.shape == (3, *target)
    assert geometry.picture == size
    for corner, (o, s, t, p) in enumerate(
        zip(geometry.offset, geometry.scale, target, size, strict=True)
    ):
        assert o <= 1e-9, corner
        assert o + s * p >= t - 1e-6, corner  # nothing of the input lies beyond the picture


@pytest.mark.parametrize("name", ["imagenet", "caffe", "tf", "raw"])
def test_restore_undoes_the_values(name):
    image = ImageInput("x", "float32", "NCHW", 3, 64, 64)
    shown = picture(64, 64)
    fitted = PRESETS[name].fit(image)
    array, _ = fitted.apply(shown, image)
    if name == "imagenet":
        # The crop differs from the picture, so compare with a second pass through the values.
        again = Picture("p", fitted.restore(array), "", "pixels", "t")
        stretched = Preprocess(**{**PRESETS[name].__dict__, "resize": "stretch"}).fit(image)
        np.testing.assert_allclose(stretched.apply(again, image)[0], array, atol=1e-5)
    else:
        np.testing.assert_array_equal(fitted.restore(array), shown.pixels)


def test_shorter_side_length_and_filter_are_used():
    image = ImageInput("x", "float32", "NCHW", 3, 64, 64)
    shown = picture(100, 100)
    wide = Preprocess(resize="shorter_side", resize_to=100).fit(image)
    array, geometry = wide.apply(shown, image)
    assert geometry.window() == (18, 18, 82, 82)
    np.testing.assert_array_equal(array.transpose(1, 2, 0), shown.pixels[18:82, 18:82])
    nearest = Preprocess(interpolation="nearest").fit(image).apply(shown, image)[0]
    smooth = Preprocess().fit(image).apply(shown, image)[0]
    assert np.abs(nearest - smooth).max() > 0


def test_unknown_preset_names_the_nearest():
    with pytest.raises(UsageError, match="nearest: imagenet"):
        preset("imagnet")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"sise": [2, 2]}, "nearest: size"),
        ({"mean": "0.5"}, "number"),
        ({"mean": [1, 2]}, "one value or 3"),
        ({"size": [1, 2, 3]}, "height, width"),
        ({"channels": "RBG"}, "RBG"),
        ({"std": [0.0]}, "must not be 0"),
        ({"preset": "imagenett"}, "nearest: imagenet"),
        ({"resize_to": 2.5}, "whole number"),
        ({"background": [1, 2]}, "background"),
        ({"scale": True}, "number"),
    ],
)
def test_bad_keys_are_named(table, message):
    with pytest.raises(UsageError, match=message) as caught:
        read_preprocess(table, "here.toml")
    assert "here.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_table_starts_from_its_preset_and_round_trips():
    made = read_preprocess({"preset": "imagenet", "resize_to": 232}, "t")
    assert made.mean == PRESETS["imagenet"].mean
    assert made.resize_to == 232
    assert read_preprocess(made.as_dict(), "t") == made
