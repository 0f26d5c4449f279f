"""The scenes on which the demo network is trained and measured."""

import hashlib
from itertools import combinations

import numpy as np
import pytest

from models.scenes import CLASSES, SIZE, Box, Scene, draw_scene

PINNED_CLASSES = ["circle", "crescent", "heart"]
PINNED_BOXES = ((62, 2, 86, 26), (52, 31, 79, 61), (22, 20, 43, 42))
PINNED_MEAN = (170.14, 173.16, 191.76)


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _scenes(count: int, **options: object) -> list[Scene]:
    return [draw_scene((77, index), **options) for index in range(count)]  # type: ignore[arg-type]


def test_one_seed_gives_one_scene() -> None:
    first, second = draw_scene((3, 5)), draw_scene((3, 5))
    assert np.array_equal(first.image, second.image)
    assert (first.classes, first.boxes) == (second.classes, second.boxes)


def test_other_seeds_give_other_scenes() -> None:
    pictures = {hashlib.sha256(scene.image.tobytes()).hexdigest() for scene in _scenes(50)}
    assert len(pictures) == 50


def test_global_randomness_is_neither_used_nor_touched() -> None:
    np.random.seed(1)
    before = np.random.get_state()[1].copy()  # type: ignore[index]
    first = draw_scene(8)
    assert np.array_equal(before, np.random.get_state()[1])  # type: ignore[index]
    np.random.seed(2)
    assert np.array_equal(first.image, draw_scene(8).image)


def test_the_picture_is_that_of_the_seed() -> None:
    """Pins the stream: a change here asks for a newly trained network."""
    scene = draw_scene(7, objects=3, max_box_share=0.12)
    assert [CLASSES[index] for index in scene.classes] == PINNED_CLASSES
    assert scene.boxes == PINNED_BOXES
    assert scene.image.mean((0, 1)) == pytest.approx(PINNED_MEAN, abs=0.05)


@pytest.mark.parametrize("size", [64, SIZE, 131])
def test_what_a_scene_promises(size: int) -> None:
    for scene in _scenes(25, size=size):
        assert scene.image.shape == (size, size, 3)
        assert scene.image.dtype == np.uint8
        assert 1 <= len(scene.boxes) == len(set(scene.classes)) <= 4
        assert all(0 <= index < len(CLASSES) for index in scene.classes)
        assert all(0 <= x0 < x1 <= size and 0 <= y0 < y1 <= size for x0, y0, x1, y1 in scene.boxes)
        assert not any(_overlap(a, b) for a, b in combinations(scene.boxes, 2))


@pytest.mark.parametrize("size", [64, SIZE, 384])
@pytest.mark.parametrize("share", [0.06, 0.12])
def test_boxes_keep_to_their_share(size: int, share: float) -> None:
    for scene in _scenes(40 if size < 200 else 6, objects=3, size=size, max_box_share=share):
        assert len(scene.boxes) == 3
        assert max(scene.box_shares()) <= share


def test_box_shares_are_areas() -> None:
    scene = Scene(np.zeros((100, 100, 3), np.uint8), (0, 1), ((0, 0, 10, 20), (50, 50, 100, 100)))
    assert scene.box_shares() == (0.02, 0.25)


def test_counts_and_classes_all_occur() -> None:
    scenes = _scenes(200)
    assert {len(scene.classes) for scene in scenes} == {1, 2, 3, 4}
    assert {index for scene in scenes for index in scene.classes} == set(range(len(CLASSES)))
    assert {len(scene.classes) for scene in _scenes(60, objects=(2, 3))} == {2, 3}


def test_the_box_holds_the_object_and_touches_it() -> None:
    """Vivid paint fills a good part of the box and reaches each of its sides."""
    for scene in _scenes(12, objects=1, size=256):
        values = scene.image.astype(int)
        colourful = values.max(-1) - values.min(-1)
        ((x0, y0, x1, y1),) = scene.boxes
        inside = colourful[y0:y1, x0:x1]
        vivid = inside > 120
        assert vivid.mean() > 0.25
        for edge in (vivid[:6], vivid[-6:], vivid[:, :6], vivid[:, -6:]):
            assert edge.any()


def test_colour_does_not_tell_the_class() -> None:
    """The mean colours of any two classes lie close, against the spread within each."""
    colours: list[list[np.ndarray]] = [[] for _ in CLASSES]
    for scene in _scenes(200):
        for index, (x0, y0, x1, y1) in zip(scene.classes, scene.boxes, strict=True):
            colours[index].append(scene.image[y0:y1, x0:x1].mean((0, 1)))
    means = np.array([np.mean(of_class, 0) for of_class in colours])
    spread = np.mean([np.std(of_class, 0) for of_class in colours])
    assert np.ptp(means, 0).max() < 1.5 * spread


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"objects": 0}, "objects=0"),
        ({"objects": 5}, "objects=5"),
        ({"objects": (3, 2)}, r"objects=\(3, 2\)"),
        ({"size": 63}, "size=63"),
        ({"max_box_share": 0.05}, "max_box_share=0.05"),
    ],
)
def test_arguments_out_of_range(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        draw_scene(0, **options)  # type: ignore[arg-type]
