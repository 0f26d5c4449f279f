"""Synthetic scenes: a few vivid shapes of different classes on a cluttered ground, with boxes.

The shape is the class; colour, place, size and tilt are random, so only the shape can tell the
classes apart. Scenes are drawn from a seed and in units of the picture's side: one seed gives the
same scene at every resolution (the fine noise aside, which belongs to the pixels).

    scene = draw_scene(7, objects=3, max_box_share=0.12)
    scene.image     # uint8 (96, 96, 3), RGB
    scene.classes   # (4, 0, 6): indices into CLASSES
    scene.boxes     # ((x0, y0, x1, y1), ...), in pixels, x1 and y1 exclusive
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float64]
Box = tuple[int, int, int, int]

SIZE = 96
"""The side of a picture as the network takes it, in pixels."""

MIN_SIDE, MAX_SIDE = 0.21, 0.42  # of an object, as shares of the picture's side
MAX_TILT = 0.6  # radians to either side: a square stays no diamond's twin
GAP = 0.02  # between two objects, as a share of the picture's side
SUBSAMPLES = 3  # per pixel and axis, for smooth edges


def _circle(u: Plane, v: Plane) -> NDArray[np.bool_]:
    return u**2 + v**2 <= 1


def _square(u: Plane, v: Plane) -> NDArray[np.bool_]:
    return np.maximum(abs(u), abs(v)) <= math.sqrt(0.5)


def _triangle(u: Plane, v: Plane) -> NDArray[np.bool_]:
    return np.maximum(v, math.sqrt(0.75) * abs(u) - v / 2) <= 0.5


def _star(u: Plane, v: Plane) -> NDArray[np.bool_]:
    half = math.pi / 5  # folded onto half a point: tip at angle 0, notch at `half`
    angle = abs((np.arctan2(u, -v) + half) % (2 * half) - half)
    x, y = np.hypot(u, v) * np.cos(angle), np.hypot(u, v) * np.sin(angle)
    notch_x, notch_y = 0.42 * math.cos(half), 0.42 * math.sin(half)
    return (x - 1) * notch_y - y * (notch_x - 1) <= 0


def _ring(u: Plane, v: Plane) -> NDArray[np.bool_]:
    return abs(np.hypot(u, v) - 0.7) <= 0.3


def _cross(u: Plane, v: Plane) -> NDArray[np.bool_]:
    return (np.minimum(abs(u), abs(v)) <= 0.3) & (np.maximum(abs(u), abs(v)) <= 0.95)


def _crescent(u: Plane, v: Plane) -> NDArray[np.bool_]:
    return (u**2 + v**2 <= 1) & ((u - 0.55) ** 2 + v**2 >= 0.7)


def _heart(u: Plane, v: Plane) -> NDArray[np.bool_]:
    x, y = 1.3 * u, 0.1 - 1.25 * v
    return (x**2 + y**2 - 1) ** 3 <= x**2 * y**3


# Each takes coordinates (right, down) and lies within the unit circle, so that no tilt leaves a
# box of side 2.
_SHAPES: dict[str, Callable[[Plane, Plane], NDArray[np.bool_]]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "ring": _ring,
    "cross": _cross,
    "crescent": _crescent,
    "heart": _heart,
}

CLASSES = tuple(_SHAPES)
"""The class names; a class index is a place in this tuple."""


@dataclass(frozen=True)
class Scene:
    """A picture with what is on it.

    Attributes:
        image: uint8 (size, size, 3), RGB.
        classes: one index into CLASSES per object, no two alike.
        boxes: one tight box per object, (x0, y0, x1, y1) in pixels, x1 and y1 exclusive; no two
            overlap.
    """

    image: NDArray[np.uint8]
    classes: tuple[int, ...]
    boxes: tuple[Box, ...]

    def box_shares(self) -> tuple[float, ...]:
        """Each box's area as a share of the picture's."""
        area = self.image.shape[0] * self.image.shape[1]
        return tuple((x1 - x0) * (y1 - y0) / area for x0, y0, x1, y1 in self.boxes)


@dataclass(frozen=True)
class _Place:
    """A circle that an object fits into; all in shares of the picture's side."""

    x: float
    y: float
    radius: float

    def clears(self, other: _Place) -> bool:
        distance = max(abs(self.x - other.x), abs(self.y - other.y))
        return distance >= self.radius + other.radius + GAP


def draw_scene(
    seed: int | Sequence[int],
    *,
    objects: int | tuple[int, int] = (1, 4),
    size: int = SIZE,
    max_box_share: float = 1.0,
) -> Scene:
    """Draw the scene that belongs to a seed.

    Args:
        seed: anything that seeds `numpy.random.default_rng`; a pair separates streams.
        objects: how many, or the least and the most, of 1 to 4.
        size: side of the square picture in pixels, 64 or more.
        max_box_share: no box covers more of the picture than this; 0.06 or more.

    Raises:
        ValueError: an argument is out of its range.
    """
    fewest, most = (objects, objects) if isinstance(objects, int) else objects
    if not 1 <= fewest <= most <= 4:
        raise ValueError(f"objects={objects!r}: give 1 to 4, or a (fewest, most) pair of these")
    if size < 64:
        raise ValueError(f"size={size}: shapes blur below 64 pixels; give 64 or more")
    if max_box_share < 0.06:
        raise ValueError(f"max_box_share={max_box_share}: objects need 0.06; give that or more")
    rng = np.random.default_rng(seed)
    count = int(rng.integers(fewest, most + 1))
    classes = tuple(int(c) for c in rng.permutation(len(CLASSES))[:count])
    # A box holds every pixel that its shape touches: up to two more than the shape is long.
    max_side = min(MAX_SIDE, math.sqrt(max_box_share) - 2 / size)
    places = _places(rng, count, max_side)
    canvas = _clutter(rng, size)
    boxes = tuple(
        _paint(canvas, rng, CLASSES[index], place)
        for index, place in zip(classes, places, strict=True)
    )
    canvas += rng.normal(0, rng.uniform(0, 0.05), canvas.shape)
    image = np.round(255 * np.clip(canvas, 0, 1)).astype(np.uint8)
    return Scene(image, classes, boxes)


def _places(rng: np.random.Generator, count: int, max_side: float) -> list[_Place]:
    """Places that keep clear of one another and of the picture's edge, by rejection."""
    while True:
        places: list[_Place] = []
        for _ in range(60):
            radius = rng.uniform(MIN_SIDE, max_side) / 2
            x, y = rng.uniform(radius + GAP, 1 - radius - GAP, 2)
            place = _Place(float(x), float(y), float(radius))
            if all(place.clears(other) for other in places):
                places.append(place)
            if len(places) == count:
                return places


def _paint(canvas: Plane, rng: np.random.Generator, shape: str, place: _Place) -> Box:
    """Paint one shape in a random vivid colour over `canvas`; return its box."""
    size = canvas.shape[0]
    colour = np.array(
        colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(0.75, 1), rng.uniform(0.75, 1))
    )
    tilt, shade = rng.uniform(-MAX_TILT, MAX_TILT), rng.uniform(-0.15, 0.15, 2)
    left, right = _span(place.x, place.radius, size)
    top, bottom = _span(place.y, place.radius, size)
    x, y = np.meshgrid(
        (_subsamples(left, right, size) - place.x) / place.radius,
        (_subsamples(top, bottom, size) - place.y) / place.radius,
    )
    u = math.cos(tilt) * x + math.sin(tilt) * y
    v = math.cos(tilt) * y - math.sin(tilt) * x
    inside = _SHAPES[shape](u, v)
    cover = inside.reshape(bottom - top, SUBSAMPLES, right - left, SUBSAMPLES).mean((1, 3))
    coarse = np.s_[SUBSAMPLES // 2 :: SUBSAMPLES]
    light = 1 + shade[0] * x[coarse, coarse] + shade[1] * y[coarse, coarse]
    paint = np.clip(colour * light[..., None], 0, 1)
    window = canvas[top:bottom, left:right]
    window += cover[..., None] * (paint - window)
    rows, columns = np.flatnonzero(cover.any(1)), np.flatnonzero(cover.any(0))
    x0, y0 = left + int(columns[0]), top + int(rows[0])
    return x0, y0, left + int(columns[-1]) + 1, top + int(rows[-1]) + 1


def _span(centre: float, radius: float, size: int) -> tuple[int, int]:
    """The pixels that [centre - radius, centre + radius] touches, as a half-open range."""
    return math.floor((centre - radius) * size), math.ceil((centre + radius) * size)


def _subsamples(first: int, last: int, size: int) -> Plane:
    """Sampling points within the pixels [first, last), in shares of the picture's side."""
    points: Plane = (np.arange(first * SUBSAMPLES, last * SUBSAMPLES) + 0.5) / (size * SUBSAMPLES)
    return points


def _clutter(rng: np.random.Generator, size: int) -> Plane:
    """A ground without any object of a class: float64 (size, size, 3), about [0, 1]."""
    at = (np.arange(size) + 0.5) / size
    x, y = np.meshgrid(at, at)
    canvas = _gradient(rng, x, y) + _mottling(rng, at)
    for _ in range(rng.integers(2, 6)):
        _blend(canvas, rng, 0.7 * _blob(rng, x, y))
    for _ in range(rng.integers(3, 8)):
        _blend(canvas, rng, _line(rng, x, y, size))
    for _ in range(rng.integers(4, 14)):
        _blend(canvas, rng, _speck(rng, x, y, size))
    return canvas


def _colour(rng: np.random.Generator, saturation: float) -> Plane:
    return np.array(
        colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(0, saturation), rng.uniform(0.15, 0.85))
    )


def _blend(canvas: Plane, rng: np.random.Generator, cover: Plane) -> None:
    canvas += cover[..., None] * (_colour(rng, 0.9) - canvas)


def _gradient(rng: np.random.Generator, x: Plane, y: Plane) -> Plane:
    """From one muted colour to another, in a random direction."""
    angle = rng.uniform(0, 2 * math.pi)
    along = 0.5 + ((x - 0.5) * math.cos(angle) + (y - 0.5) * math.sin(angle)) / math.sqrt(2)
    start, end = _colour(rng, 0.4), _colour(rng, 0.4)
    return start + along[..., None] * (end - start)


def _mottling(rng: np.random.Generator, at: Plane) -> Plane:
    """Coarse noise on a grid of 8 x 8 points, interpolated bilinearly."""
    points = 8
    coarse = rng.normal(0, rng.uniform(0.01, 0.06), (3, points, points))
    hat = np.maximum(0, 1 - abs(at[:, None] * (points - 1) - np.arange(points)))
    mottling: Plane = np.moveaxis(hat @ coarse @ hat.T, 0, -1)
    return mottling


def _blob(rng: np.random.Generator, x: Plane, y: Plane) -> Plane:
    """A Gaussian spot: no edge, so no shape."""
    centre, angle = rng.uniform(0, 1, 2), rng.uniform(0, math.pi)
    long, short = rng.uniform(0.06, 0.18), rng.uniform(0.03, 0.1)
    u = math.cos(angle) * (x - centre[0]) + math.sin(angle) * (y - centre[1])
    v = math.cos(angle) * (y - centre[1]) - math.sin(angle) * (x - centre[0])
    spot: Plane = np.exp(-((u / long) ** 2) - (v / short) ** 2)
    return spot


def _line(rng: np.random.Generator, x: Plane, y: Plane, size: int) -> Plane:
    """A straight stroke of random length."""
    start, end = rng.uniform(0, 1, 2), rng.uniform(0, 1, 2)
    half_width = rng.uniform(0.004, 0.014)
    run = end - start
    along = ((x - start[0]) * run[0] + (y - start[1]) * run[1]) / max(float(run @ run), 1e-6)
    along = np.clip(along, 0, 1)
    distance: Plane = np.hypot(x - start[0] - along * run[0], y - start[1] - along * run[1])
    return (0.5 + (half_width - distance) * size).clip(0, 1)


def _speck(rng: np.random.Generator, x: Plane, y: Plane, size: int) -> Plane:
    """A dot far below the size of any object."""
    centre, radius = rng.uniform(0, 1, 2), rng.uniform(0.008, 0.025)
    distance: Plane = np.hypot(x - centre[0], y - centre[1])
    return (0.5 + (radius - distance) * size).clip(0, 1)
