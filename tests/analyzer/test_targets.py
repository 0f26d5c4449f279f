"""Targets: indices, names, lists, and every way to get them wrong."""

import numpy as np
import pytest

from analyzer.errors import UsageError
from analyzer.targets import Classes, nest

LABELS = (
    "background",
    "tench, Tinca tinca",
    "tabby, tabby cat",
    "tiger cat",
    "crane",
    "crane",
    "7",
)
CLASSES = Classes(7, LABELS)


@pytest.mark.parametrize(
    ("target", "images", "expected"),
    [
        (None, 2, [[-1], [-1]]),
        (3, 2, [[3], [3]]),
        ("tiger cat", 1, [[3]]),
        (np.int64(2), 1, [[2]]),
        ([3], 1, [[3]]),
        ([1, 2, 3], 1, [[1, 2, 3]]),
        ([1, "tiger cat"], 2, [[1], [3]]),
        ([[1, 2], [3, 0]], 2, [[1, 2], [3, 0]]),
        ([[1, 2]], 1, [[1, 2]]),
        ([[1], [2]], 2, [[1], [2]]),
        ((None, 4), 2, [[-1], [4]]),
        (np.array([1, 2]), 2, [[1], [2]]),
        (np.array([[1, 2], [0, 3]]), 2, [[1, 2], [0, 3]]),
        (np.array(5), 3, [[5], [5], [5]]),
        (-1, 1, [[-1]]),
    ],
)
def test_shapes(target, images, expected):
    found = [[CLASSES.index(one) for one in row] for row in nest(target, images)]
    assert found == expected


@pytest.mark.parametrize(
    ("target", "images"),
    [
        ([1, 2, 3], 2),
        ([], 1),
        ([[]], 1),
        ([[1, 2]], 2),
        ([[1, 2], [3]], 2),
        ([1, [2]], 2),
        (np.zeros((1, 1, 1), int), 1),
        (np.array([1.0]), 1),
    ],
)
def test_lengths_that_do_not_fit(target, images):
    with pytest.raises(UsageError, match="target"):
        nest(target, images)


@pytest.mark.parametrize("bad", [7, -2, 10**12])
def test_index_out_of_range_names_the_range(bad):
    with pytest.raises(UsageError, match="0 to 6"):
        CLASSES.index(bad)


@pytest.mark.parametrize("bad", [True, 1.5, object()])
def test_other_types(bad):
    with pytest.raises(UsageError, match="neither"):
        CLASSES.index(bad)


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("tiger cat", 3),
        ("TIGER CAT", 3),
        (" tiger cat ", 3),
        ("tinca TINCA", 1),
        ("tabby", 2),
        ("3", 3),
        ("7", 6),  # a label wins over an index
        ("-1", -1),
        ("tench, Tinca tinca", 1),
    ],
)
def test_names(name, index):
    assert CLASSES.index(name) == index


def test_unknown_name_suggests():
    with pytest.raises(UsageError, match="unknown class 'tigre cat'; nearest: tiger cat"):
        CLASSES.index("tigre cat")


def test_part_of_a_name_suggests():
    with pytest.raises(UsageError, match="tiger cat"):
        CLASSES.index("tiger")


def test_ambiguous_name_lists_the_indices():
    with pytest.raises(UsageError, match=r"2 classes \(4, 5\)"):
        CLASSES.index("crane")


def test_name_without_labels():
    with pytest.raises(UsageError, match="no class names"):
        Classes(7).index("tabby")


def test_unknown_class_count_accepts_any_index():
    assert Classes(None).index(99999) == 99999
    with pytest.raises(UsageError, match="out of range"):
        Classes(None).index(-2)


def test_labels_for_display():
    assert CLASSES.label(3) == "tiger cat"
    assert CLASSES.label(99) == "99"
    assert Classes(3).label(1) == "1"
