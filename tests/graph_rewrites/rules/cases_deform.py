"""DeformConv: linear in picture, weights, bias and mask; piecewise linear in the offsets."""

import numpy as np

from graph_rewrites.testing import normal

from .harness import Case, Fed


def off_the_pixels(rng, shape):
    """Offsets of up to two pixels, none of them whole: there a slope jumps."""
    return rng.integers(-2, 2, shape) + rng.uniform(0.1, 0.9, shape)


def deform(x, w, windows, note, *, bias=None, masked=False, groups=1, **attrs):
    """`windows`: how many there are along each axis."""
    taps = groups * w[2] * w[3]
    inputs = [x, w, ("N", 2 * taps, *windows), bias, ("N", taps, *windows) if masked else None]
    while inputs[-1] is None:
        inputs.pop()
    attrs = {**attrs, **({"offset_group": groups} if groups > 1 else {})}
    return Case("DeformConv", inputs, attrs, "smooth", [normal, normal, off_the_pixels], note)


WEIGHTS = np.random.default_rng(7).standard_normal((3, 2, 3, 2)).astype(np.float32)
CASES = [
    deform(("N", 2, 5, 4), (3, 2, 3, 2), (3, 3), "plain"),
    deform(("N", 2, 5, 4), (3, 2, 3, 3), (5, 4), "padded", pads=[1, 1, 1, 1]),
    deform(("N", 2, 5, 4), (3, 2, 3, 2), (3, 3), "bias and mask", bias=(3,), masked=True),
    deform(("N", 2, 5, 4), (3, 2, 3, 2), (3, 3), "mask", masked=True),
    deform(
        ("N", 2, 6, 7),
        (3, 2, 3, 2),
        (3, 4),
        "strides, pads, dilations",
        strides=[2, 2],
        pads=[1, 2, 2, 0],
        dilations=[2, 1],
        kernel_shape=[3, 2],
    ),
    deform(("N", 4, 4, 4), (2, 2, 2, 2), (3, 3), "groups", group=2, masked=True),
    deform(("N", 4, 4, 4), (2, 4, 2, 2), (3, 3), "offset groups", groups=2, masked=True),
    deform(("N", 4, 4, 4), (4, 1, 2, 2), (3, 3), "all groups", group=4, groups=2, bias=(4,)),
    deform(("N", "C", "H", "W"), (3, 4, 3, 3), ("H", "W"), "free picture", pads=[1, 1, 1, 1]),
    Case(
        "DeformConv",
        [("N", 2, 5, 4), WEIGHTS, Fed(shape=("N", 12, 3, 3)), np.ones(3, np.float32)],
        {},
        "smooth",
        [normal, normal, off_the_pixels],
        "constant weights",
    ),
]
