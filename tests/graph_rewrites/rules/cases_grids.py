"""GridSample and AffineGrid. Linear in the picture; piecewise smooth, or flat, in the grid.

Random points lie on no kink, so that one check holds both inputs against differences.
"""

import itertools

import numpy as np

from graph_rewrites.testing import normal

from .harness import SIZES, Case, Fed

PICTURE, POINTS = ("N", 2, 4, 5), ("N", 3, 6, 2)
MODES = ("nearest", "linear", "cubic")
PADDINGS = ("zeros", "border", "reflection")


def off_the_kinks(shape, align):
    """Points up to two pixels beyond the edges, none at a pixel or half-way between two."""

    def draw(rng, points):
        sizes = np.array([SIZES.get(size, size) for size in shape[:1:-1]])
        part = rng.uniform(0.1, 0.4, points) + rng.choice([0.0, 0.5], points)
        at = rng.integers(-2, sizes + 1, points) + part
        last = sizes - 1
        return (2 * at - last) / np.maximum(last if align else sizes, 1)

    return draw


def sampled(shape, points, note, opset=21, **attrs):
    domains = [normal, off_the_kinks(shape, attrs.get("align_corners"))]
    return Case("GridSample", [shape, points], attrs, "smooth", domains, note, opset=opset)


def along(grid, note, **attrs):
    """Along a constant grid: as onnxruntime has it."""
    return Case("GridSample", [(2, 2, 4, 5), grid], attrs, "linear", note=note)


FIXED = np.random.default_rng(3).uniform(-1.6, 1.6, (2, 3, 6, 2)).astype(np.float32)
ON_PIXELS = np.array([[[[0, 0], [1, -1], [-1, 1]], [[1, 1], [0, 1], [-1, 0]]]] * 2, np.float32)

GRIDS = [
    *(
        sampled(
            PICTURE,
            POINTS,
            f"{mode}, {padding}, align_corners={align}",
            mode=mode,
            padding_mode=padding,
            align_corners=align,
        )
        for mode, padding, align in itertools.product(MODES, PADDINGS, (0, 1))
    ),
    *(
        sampled(shape, points, f"{mode}, {padding}, {note}", mode=mode, padding_mode=padding)
        for mode, padding in itertools.product(("nearest", "linear"), PADDINGS)
        for note, shape, points in [
            ("free pixels", ("N", 2, "H", "W"), ("N", "W", "H", 2)),
            ("a volume", ("N", 2, 3, 4, 2), ("N", 2, 3, 3, 3)),
            ("one row", ("N", 2, 1, 3), ("N", 3, 2, 2)),
        ]
    ),
    sampled(PICTURE, POINTS, "attributes omitted"),
    sampled(PICTURE, POINTS, "opset 18", 18, mode="bilinear"),
    sampled(PICTURE, POINTS, "cubic, opset 18", 18, mode="bicubic"),
    *(
        along(FIXED, f"constant grid, {mode}, {padding}", mode=mode, padding_mode=padding)
        for mode, padding in itertools.product(MODES, PADDINGS)
    ),
    *(
        along(40 * FIXED, f"far away, {mode}, {padding}", mode=mode, padding_mode=padding)
        for mode, padding in itertools.product(MODES, PADDINGS)
    ),
    *(
        along(ON_PIXELS, f"on the pixels, {mode}", mode=mode, align_corners=1)
        for mode in ("nearest", "linear")
    ),
]


def affine(theta, size, note, **attrs):
    return Case("AffineGrid", [theta, size], attrs, note=note)


FLAT, SOLID = np.array([2, 3, 4, 5]), np.array([2, 1, 3, 4, 2])
AFFINE = [
    *(
        affine((2, rank, rank + 1), size, f"{rank}-D, align_corners={align}", align_corners=align)
        for (rank, size), align in itertools.product([(2, FLAT), (3, SOLID)], (0, 1))
    ),
    affine((2, 2, 3), Fed(FLAT, dtype=np.int64), "run-time size"),
]

CASES = [*GRIDS, *AFFINE]
