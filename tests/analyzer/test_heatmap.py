"""Heatmaps: normalised, put back where the model looked, coloured readably."""

import numpy as np
import pytest

from analyzer.colour import colourise
from analyzer.geometry import Geometry
from analyzer.heatmap import blend, emphasise, normalise, place, signed_rgb
from analyzer.image_input import ImageInput
from analyzer.pictures import Picture
from analyzer.preprocess import Preprocess


def test_each_map_is_divided_by_its_own_maximum():
    maps = np.array([[[0.0, 2.0]], [[0.0, 0.0]], [[-1.0, 0.5]]], np.float32)
    np.testing.assert_array_equal(normalise(maps), [[[0, 1]], [[0, 0]], [[0, 1]]])


def test_what_is_not_a_number_counts_as_zero():
    maps = np.array([[[np.nan, 2.0, np.inf]]], np.float32)
    np.testing.assert_array_equal(normalise(maps), [[[0, 1, 0]]])


def test_identity_geometry_changes_nothing():
    field = np.random.default_rng(0).random((12, 9), np.float32)
    np.testing.assert_allclose(place(field, Geometry.identity((12, 9))), field, atol=1e-6)


@pytest.mark.parametrize("resize", ["shorter_side", "square_crop", "stretch"])
@pytest.mark.parametrize("size", [(300, 451), (480, 200), (40, 31), (1000, 1000)])
def test_a_mark_in_the_picture_comes_back_where_it_was(resize, size):
    """Draw a blob, preprocess it, put the input back: the centre of mass must not move."""
    image = ImageInput("x", "float32", "NCHW", 1, 96, 128)
    rows, columns = np.mgrid[: size[0], : size[1]]
    centre = (0.55 * size[0], 0.45 * size[1])
    width = 0.04 * min(size)
    blob = np.exp(-((rows + 0.5 - centre[0]) ** 2 + (columns + 0.5 - centre[1]) ** 2) / width**2)
    pixels = np.repeat(np.rint(blob * 255).astype(np.uint8)[..., None], 3, -1)
    made = Preprocess(resize=resize).fit(image)
    array, geometry = made.apply(Picture("p", pixels, "", "pixels", "t"), image)
    back = place(array[0], geometry)
    assert back.shape == size
    for axis, (position, expected) in enumerate(zip((rows, columns), centre, strict=True)):
        found = (back * (position + 0.5)).sum() / back.sum()
        assert abs(found - expected) < 0.01 * size[axis] + 0.3


def test_no_heat_outside_the_crop():
    geometry = Geometry((100, 200), (50, 50), (0.5, 0.5), (0.0, -25.0))
    placed = place(np.ones((50, 50), np.float32), geometry)
    assert placed[:, 50:150].min() == pytest.approx(1)
    assert placed[:, :50].max() == 0
    assert placed[:, 150:].max() == 0
    grey = place(np.ones((50, 50), np.float32), geometry, outside=0.5)
    assert grey[0, 0] == 0.5


def test_smaller_originals_average_the_map():
    """Every other column is hot: a tenth of the size must show the mean, not one of the columns."""
    field = np.zeros((100, 100), np.float32)
    field[:, ::2] = 1
    geometry = Geometry((10, 10), (100, 100), (10.0, 10.0), (0.0, 0.0))
    np.testing.assert_allclose(place(field, geometry)[1:-1, 1:-1], 0.5, atol=0.02)


def test_colour_map_rises_in_luminance():
    table = colourise(np.linspace(0, 1, 256, dtype=np.float32)).astype(float)
    luminance = (table / 255) ** 2.2 @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) >= -0.002).all()
    assert luminance[-1] - luminance[0] > 0.8
    # Without red-green vision what is left is lightness and blue-yellow: no two far ends alike.
    assert np.abs(table[0] - table[-1]).sum() > 500


def test_blend_leaves_the_picture_where_there_is_no_heat():
    pixels = np.full((2, 2, 3), 90, np.uint8)
    heat = np.array([[0, 1], [0, 0]], np.float32)
    mixed = blend(pixels, heat)
    np.testing.assert_array_equal(mixed[0, 0], 90)
    np.testing.assert_array_equal(mixed[1], 90)
    assert np.abs(mixed[0, 1].astype(int) - 90).sum() > 100


def test_emphasis_shows_more_than_the_largest_pixel():
    heat = np.linspace(0, 0.1, 1000, dtype=np.float32).reshape(20, 50)
    heat[3, 3] = 1
    shown = emphasise(heat)
    assert 0.9 < np.median(shown) * 2 < 1.1
    assert shown.max() == 1
    lonely = np.zeros((20, 20), np.float32)
    lonely[2, 2] = 0.5
    assert emphasise(lonely)[2, 2] == 1
    assert emphasise(np.zeros((4, 4), np.float32)).max() == 0


def test_signed_rgb_keeps_zero_and_sign():
    values = np.zeros((3, 20, 20), np.float32)
    values[0, 0, 0], values[2, 1, 1] = 3, -3
    shown = signed_rgb(values, clip_percent=100)
    np.testing.assert_array_equal(shown[0, 0], [1, 0, 0])
    np.testing.assert_array_equal(shown[1, 1], [0, 0, -1])
    assert shown[5, 5].tolist() == [0, 0, 0]
    assert signed_rgb(np.zeros((1, 4, 4), np.float32)).max() == 0


def test_sparse_signed_map_is_still_shown():
    """When 99.5 % of the values are zero the percentile is zero too."""
    values = np.zeros((3, 100, 100), np.float32)
    values[1, 50, 50] = 1
    assert signed_rgb(values)[50, 50, 1] == 1
