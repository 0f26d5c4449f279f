"""What the demo network is for: scenes in which it is known where an explanation must point.

A centred Gaussian and a random map, which know nothing of the network, must fail every bar.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest

import analyzer
from analyzer.catalog import demo_model
from models.scenes import SIZE, Box, Scene, draw_scene

Map = npt.NDArray[np.float32]
SCENES = 200


@cache
def _scenes(stream: int, objects: int | tuple[int, int], share: float) -> list[Scene]:
    return [
        draw_scene((stream, index), objects=objects, max_box_share=share) for index in range(SCENES)
    ]


def _cases(scenes: list[Scene]) -> list[tuple[Scene, int, Box]]:
    return [
        (scene, target, box)
        for scene in scenes
        for target, box in zip(scene.classes, scene.boxes, strict=True)
    ]


def _explain(cases: list[tuple[Scene, int, Box]], method: str) -> Map:
    """One map a case, (cases, ...), by the public door."""
    explainer = analyzer.load(demo_model())
    images = [scene.image for scene, _, _ in cases]
    return explainer.explain(images, method, target=[target for _, target, _ in cases]).values


def _centred_gaussian(count: int) -> Map:
    at = np.arange(SIZE, dtype=np.float32) - (SIZE - 1) / 2
    bell = np.exp(-(at**2) / (2 * (SIZE / 6) ** 2))
    return np.broadcast_to(bell[:, None] * bell, (count, SIZE, SIZE))


def _random(count: int) -> Map:
    return np.random.default_rng(5).random((count, SIZE, SIZE), np.float32)


BLIND: list[Callable[[int], Map]] = [_centred_gaussian, _random]


def _peaks_inside(maps: Map, cases: list[tuple[Scene, int, Box]]) -> float:
    hits = 0
    for values, (_, _, (x0, y0, x1, y1)) in zip(maps, cases, strict=True):
        row, column = np.unravel_index(values.argmax(), values.shape)
        hits += bool(values.max() > 0 and x0 <= column < x1 and y0 <= row < y1)
    return hits / len(cases)


def _shares(maps: Map, cases: list[tuple[Scene, int, Box]]) -> Map:
    """The share of sum |map| that lies in the box, for maps (cases, 3, H, W)."""
    weight = abs(maps).sum(1)
    inside = [
        values[y0:y1, x0:x1].sum()
        for values, (_, _, (x0, y0, x1, y1)) in zip(weight, cases, strict=True)
    ]
    return np.array(inside) / weight.sum((1, 2))


@pytest.fixture(scope="module")
def crowded() -> list[tuple[Scene, int, Box]]:
    """Scenes of two to four objects."""
    return _cases(_scenes(4001, (2, 4), 1.0))


@pytest.fixture(scope="module")
def small() -> list[tuple[Scene, int, Box]]:
    """Scenes of three objects, no box above 12 % of the picture."""
    return _cases(_scenes(4002, 3, 0.12))


@pytest.fixture(scope="module")
def guided(small: list[tuple[Scene, int, Box]]) -> Map:
    """Guided backpropagation of the small cases."""
    return _explain(small, "guided_backprop")


def test_grad_cam_peaks_in_the_box_of_its_class(crowded: list[tuple[Scene, int, Box]]) -> None:
    assert _peaks_inside(_explain(crowded, "grad_cam"), crowded) >= 0.9


@pytest.mark.parametrize("draw", BLIND)
def test_a_blind_map_does_not(
    crowded: list[tuple[Scene, int, Box]], draw: Callable[[int], Map]
) -> None:
    assert _peaks_inside(draw(len(crowded)), crowded) < 0.3


def test_guided_grad_cam_holds_to_the_box(small: list[tuple[Scene, int, Box]], guided: Map) -> None:
    gain = _shares(_explain(small, "guided_grad_cam"), small) / _shares(guided, small)
    assert np.median(gain) >= 1.5


@pytest.mark.parametrize("draw", BLIND)
def test_guided_backprop_times_a_blind_map_does_not(
    small: list[tuple[Scene, int, Box]], guided: Map, draw: Callable[[int], Map]
) -> None:
    gain = _shares(guided * draw(len(small))[:, None], small) / _shares(guided, small)
    assert np.median(gain) < 1.2
