"""Resize in every mode, by scales and by sizes. It is linear in the picture."""

import itertools

import numpy as np

from .harness import Case, Fed

PICTURE = ("N", 2, 5, 7)
COORDINATES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
)


def ints(*values):
    return np.array(values, np.int64)


def floats(*values):
    return np.array(values, np.float32)


def resize(shape, note, *, roi=None, scales=None, sizes=None, **attrs):
    return Case("Resize", [shape, roi, scales, sizes], attrs, "linear", note=note, wrt=(0,))


SAMPLED = [
    resize(
        PICTURE,
        f"{mode}, {at}, {name}",
        scales=floats(1, 1, *scales),
        mode=mode,
        coordinate_transformation_mode=at,
    )
    for mode, at, (name, scales) in itertools.product(
        ("nearest", "linear", "cubic"),
        COORDINATES,
        [("larger", (2.0, 1.5)), ("smaller", (0.6, 0.45)), ("both", (2.4, 0.6))],
    )
]
NEAREST = [
    resize(
        ("N", 2, 4, "W"),
        f"{rounding}, {at}, {scale}",
        scales=floats(1, 1, scale, scale),
        coordinate_transformation_mode=at,
        nearest_mode=rounding,
    )
    for rounding, at, scale in itertools.product(
        ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"),
        (*COORDINATES[:3], "asymmetric"),
        (2, 3),
    )
]
SMOOTHED = [
    resize(
        PICTURE,
        f"antialias, {mode}, {at}, exclude_outside={outside}",
        scales=floats(1, 1, 0.4, 0.6),
        mode=mode,
        coordinate_transformation_mode=at,
        antialias=1,
        exclude_outside=outside,
    )
    for mode, at, outside in itertools.product(("linear", "cubic"), COORDINATES, (0, 1))
]
CROPPED = [
    resize(
        PICTURE,
        f"crop, {mode}, {name}",
        roi=roi,
        scales=floats(1, 1, 1.4, 0.6),
        mode=mode,
        coordinate_transformation_mode="tf_crop_and_resize",
        extrapolation_value=3.0,
    )
    for mode, (name, roi) in itertools.product(
        ("nearest", "linear", "cubic"),
        [
            ("inside", floats(0, 0, 0.1, 0.2, 1, 1, 0.8, 0.9)),
            ("beyond", floats(0, 0, -0.3, 0.2, 1, 1, 0.8, 1.4)),
            ("flipped", floats(0, 0, 0.9, 0, 1, 1, 0.2, 1)),
            ("whole", floats(0, 0, 0, 0, 1, 1, 1, 1)),
        ],
    )
]
CROPPED += [
    resize(
        PICTURE,
        f"crop to size, {mode}, {note}",
        roi=roi,
        sizes=ints(*sizes),
        axes=[2, 3],
        mode=mode,
        coordinate_transformation_mode="tf_crop_and_resize",
    )
    for mode in ("nearest", "linear", "cubic")
    for note, sizes, roi in [
        ("smaller", (4, 3), floats(0.1, 0.2, 0.7, 1.2)),
        ("of one pixel", (1, 9), floats(0.1, 0.2, 0.7, 1.2)),
        ("unchanged", (5, 7), floats(0.1, 0.2, 0.7, 1.2)),
        ("at run time", (5, 4), Fed([0.1, -0.2, 0.8, 0.9])),
        ("unchanged at run time", (5, 7), Fed([0.1, -0.2, 0.8, 0.9])),
    ]
]
CROPPED += [
    resize(
        shape,
        f"crop at run time, {mode}, {note}",
        roi=Fed([0, 0, 0.1, -0.2, 1, 1, 0.8, 0.9]),
        mode=mode,
        coordinate_transformation_mode="tf_crop_and_resize",
        **given,
    )
    for mode in ("nearest", "linear", "cubic")
    for note, shape, given in [
        # with fixed pixels ONNX infers a wrong shape of the output: that of the whole picture
        ("all axes, free pixels", ("N", 2, "H", "W"), {"scales": floats(1, 1, 1.4, 0.6)}),
        ("all axes, scales of 1", PICTURE, {"scales": floats(1, 1, 1, 1)}),
        ("run-time scales", PICTURE, {"scales": Fed([1.0, 1.0, 0.7, 1.5])}),
    ]
]
RUN_TIME = Fed([8, 4], dtype=np.int64)
SIZED = [
    *(
        resize(shape, f"{mode}, {name}", sizes=sizes, axes=axes, mode=mode)
        for mode, (name, shape, sizes, axes) in itertools.product(
            ("nearest", "linear", "cubic"),
            [
                ("sizes", PICTURE, ints(10, 3), [2, 3]),
                ("negative axes", PICTURE, ints(9, 6), [-1, -2]),
                ("one axis", PICTURE, ints(9), [3]),
                ("free pixels", ("N", 2, "H", "W"), ints(9, 4), [2, 3]),
                ("run-time sizes", PICTURE, RUN_TIME, [2, 3]),
                ("run-time sizes, free pixels", ("N", 2, "H", "W"), RUN_TIME, [2, 3]),
            ],
        )
    ),
    resize(("N", 3, 4, 2), "channels last", sizes=ints(6, 9), axes=[1, 2], mode="linear"),
    resize(("N", 3, 4, 2), "channels last, doubled", scales=floats(1, 2, 2, 1)),
    resize(("N", 2, 5), "a line", scales=floats(1, 1, 1.7), mode="linear"),
    resize(("N", 2, 5), "a line, doubled", scales=floats(1, 1, 2)),
    resize(("N", 2, 3, 4, 5), "a volume", scales=floats(1, 1, 1.5, 0.8, 2), mode="linear"),
    resize(("N", 2, 3, 2, 2), "a volume, doubled", scales=floats(1, 1, 2, 2, 2)),
    resize(("N", 6), "a table", scales=floats(1, 1.5), mode="linear"),
    resize((5, 6), "a matrix", scales=floats(1.5, 2), mode="cubic"),
    resize(("N", 2, 3, 4), "doubled and tripled", sizes=ints(6, 12), axes=[2, 3]),
    resize(("N", 2, 3, 4), "doubled along one axis", sizes=ints(6, 4), axes=[2, 3]),
    resize(("N", 2, 3, 4), "channels, too", scales=floats(1, 2, 2, 1.5)),
    resize(("N", "H", "W", 2), "free pixels last", scales=floats(1, 1.5, 2, 1)),
    resize(
        ("N", 2, "H", "W"),
        "run-time scales",
        scales=Fed([1.0, 1.0, 1.5, 0.7]),
        mode="linear",
        cubic_coeff_a=-0.5,
    ),
    *(
        resize(PICTURE, f"a={a}, outside={outside}", scales=floats(1, 1, 1.6, 0.7), **more)
        for a, outside in itertools.product((-0.5, -0.75), (0, 1))
        for more in [{"mode": "cubic", "cubic_coeff_a": a, "exclude_outside": outside}]
    ),
]
UNCHANGED = [
    resize(PICTURE, "scales of 1", scales=floats(1, 1, 1, 1), mode="linear"),
    resize(PICTURE, "the same sizes", sizes=ints(5, 7), axes=[2, 3], mode="cubic"),
    resize(PICTURE, "scales too small to tell", scales=floats(1, 1, 1.15, 1.1), mode="linear"),
    *(
        resize(PICTURE, f"{mode}, one scale too small to tell", scales=scales, mode=mode)
        for mode, scales in [
            ("nearest", floats(1, 1, 1.15, 2)),
            ("linear", floats(1, 1, 1.6, 1.1)),
            ("cubic", floats(1, 1, 1.15, 2)),
        ]
    ),
]
POLICIES = [
    resize(
        ("N", 2, 5, 7),
        f"{policy}, {mode}, {at}, {sizes}",
        sizes=ints(*sizes),
        mode=mode,
        axes=[2, 3],
        keep_aspect_ratio_policy=policy,
        coordinate_transformation_mode=at,
    )
    for policy, mode, at, sizes in itertools.product(
        ("not_larger", "not_smaller"),
        ("nearest", "linear", "cubic"),
        ("half_pixel", "align_corners"),
        [(8, 8), (3, 12)],
    )
] + [
    resize(
        ("N", 2, "H", "W"),
        f"{policy}, free pixels",
        sizes=ints(4, 9),
        mode="linear",
        axes=[3, 2],
        keep_aspect_ratio_policy=policy,
    )
    for policy in ("not_larger", "not_smaller")
]

CASES = [*SAMPLED, *NEAREST, *SMOOTHED, *CROPPED, *SIZED, *UNCHANGED, *POLICIES]
