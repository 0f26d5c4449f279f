"""Pooling: linear, or piecewise linear on whole numbers that all differ."""

import itertools

import numpy as np

from graph_rewrites.testing import between, distinct

from .harness import Case, Fed

PLANE = ("N", 3, 8, 7)
FREE = ("N", 3, "H", "W")


def max_pool(note: str, x: tuple = PLANE, outputs: int = 1, opset: int = 21, **attrs) -> Case:
    attrs.setdefault("kernel_shape", [3, 3])
    return Case("MaxPool", [x], attrs, "piecewise", distinct, note, outputs=outputs, opset=opset)


def average_pool(note: str, x: tuple = PLANE, opset: int = 21, **attrs) -> Case:
    attrs.setdefault("kernel_shape", [3, 3])
    return Case("AveragePool", [x], attrs, "linear", note=note, opset=opset)


def lp_pool(note: str, x: tuple = PLANE, **attrs) -> Case:
    """The sum of positive values, which is linear; other norms are in test_norms.py."""
    attrs = {"kernel_shape": [3, 3], "p": 1, **attrs}
    return Case("LpPool", [x], attrs, "linear", between(2.0, 4.0), note)


def small(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Different whole numbers in each plane, within 8 bits."""
    planes = [distinct(rng, shape[2:]) for _ in range(shape[0] * shape[1])]
    return np.stack(planes).reshape(shape)


MAX_POOL = [
    max_pool("disjoint", kernel_shape=[2, 2], strides=[2, 2]),
    max_pool("overlap", strides=[2, 2], pads=[1, 1, 1, 1]),
    max_pool("stride 1"),
    max_pool("stride beyond kernel", kernel_shape=[2, 2], strides=[3, 3]),
    max_pool("ceil", strides=[2, 2], ceil_mode=1),
    max_pool(
        "ceil with a window in the padding",
        kernel_shape=[2, 2],
        strides=[3, 3],
        ceil_mode=1,
        pads=[0, 0, 1, 1],
    ),
    max_pool("ceil padded", strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1, opset=18),
    max_pool("dilated", dilations=[2, 2]),
    max_pool(
        "dilated padded ceil", dilations=[2, 1], strides=[2, 3], pads=[2, 1, 1, 2], ceil_mode=1
    ),
    max_pool("asymmetric", strides=[2, 2], pads=[0, 1, 2, 0]),
    max_pool("storage order", strides=[2, 2], storage_order=1, outputs=2),
    max_pool("indices read too", strides=[2, 2], outputs=2),
    max_pool("1-D", x=("N", 3, 9), kernel_shape=[3], strides=[2], pads=[1, 0]),
    max_pool(
        "3-D",
        x=("N", 2, 4, 5, 4),
        kernel_shape=[2, 3, 2],
        strides=[2, 1, 2],
        pads=[0, 1, 0, 1, 1, 0],
    ),
    max_pool("free size", x=FREE, strides=[2, 2], pads=[1, 1, 1, 1]),
    max_pool("free size ceil", x=FREE, strides=[2, 2], ceil_mode=1),
    max_pool("free channels", x=("N", "L", 5, 5), kernel_shape=[2, 2]),
    max_pool("fixed batch", x=(2, 3, 6, 6), strides=[2, 2]),
    Case(
        "MaxPool",
        [Fed(shape=("N", 2, 5, 6), dtype=np.uint8)],
        {"kernel_shape": [3, 3], "strides": [2, 2]},
        "piecewise",
        small,
        "uint8",
        wrt=(0,),
    ),
    Case(
        "MaxPool",
        [Fed(shape=("N", 2, 5, 6), dtype=np.int8)],
        {"kernel_shape": [2, 2], "pads": [1, 0, 0, 1]},
        "piecewise",
        small,
        "int8",
        wrt=(0,),
    ),
]

CORNERS = list(itertools.product((0, 1), (0, 1)))
AVERAGE_POOL = [
    average_pool("every second pixel", kernel_shape=[1, 1], strides=[2, 1]),
    average_pool("disjoint", kernel_shape=[2, 2], strides=[2, 2]),
    average_pool("identity", kernel_shape=[1, 1]),
    average_pool("stride 1"),
    average_pool("stride beyond kernel", kernel_shape=[2, 2], strides=[3, 4]),
    average_pool("count defaults to the input", pads=[1, 1, 1, 1]),
    average_pool("1-D", x=("N", 3, 9), kernel_shape=[4], strides=[3], pads=[2, 1]),
    average_pool(
        "1-D ceil", x=("N", 3, 10), kernel_shape=[3], strides=[2], pads=[0, 1], ceil_mode=1
    ),
    average_pool(
        "3-D",
        x=("N", 2, 4, 5, 4),
        kernel_shape=[2, 3, 2],
        strides=[2, 1, 2],
        pads=[0, 1, 0, 1, 1, 0],
    ),
    average_pool(
        "3-D ceil",
        x=("N", 2, 4, 5, 4),
        kernel_shape=[2, 3, 2],
        strides=[2, 2, 3],
        pads=[0, 1, 0, 1, 1, 0],
        ceil_mode=1,
        count_include_pad=1,
    ),
    average_pool("free channels", x=("N", "L", 5, 5), kernel_shape=[2, 2]),
    average_pool("dilated", dilations=[2, 2]),
    average_pool("dilated free size", x=FREE, dilations=[2, 1], strides=[2, 2], pads=[1, 2, 1, 0]),
]
AVERAGE_POOL += [
    average_pool(
        f"{label} include {include} ceil {ceil} opset {opset}",
        x=x,
        opset=opset,
        pads=pads,
        strides=strides,
        count_include_pad=include,
        ceil_mode=ceil,
    )
    for (label, x, pads, strides), (include, ceil), opset in itertools.product(
        [
            ("even pads", PLANE, [1, 1, 1, 1], [2, 2]),
            ("no pads", PLANE, [0, 0, 0, 0], [2, 3]),
            ("uneven pads", PLANE, [0, 1, 2, 0], [2, 3]),
            ("free size", FREE, [1, 1, 1, 1], [2, 2]),
            ("free size uneven", FREE, [2, 0, 0, 1], [3, 2]),
        ],
        CORNERS,
        (18, 21),
    )
]
AVERAGE_POOL += [
    average_pool(
        f"ceil with a window in the padding include {include} {label}",
        x=x,
        kernel_shape=[2, 3],
        strides=[3, 4],
        pads=[0, 1, 1, 2],
        ceil_mode=1,
        count_include_pad=include,
    )
    for include, (label, x) in itertools.product((0, 1), [("fixed", PLANE), ("free", FREE)])
]
AVERAGE_POOL += [
    average_pool(
        f"dilated include {include} ceil {ceil}",
        dilations=[2, 2],
        strides=[2, 3],
        pads=[2, 1, 1, 2],
        count_include_pad=include,
        ceil_mode=ceil,
    )
    for include, ceil in CORNERS
]

GLOBAL = [
    Case(op, [shape], {}, kind, distinct, note, opset=opset)
    for op, kind in [("GlobalAveragePool", "linear"), ("GlobalMaxPool", "piecewise")]
    for note, shape, opset in [
        ("1-D", ("N", 3, 6), 21),
        ("2-D", ("N", 3, 5, 4), 18),
        ("3-D", ("N", 3, 3, 2, 4), 21),
        ("one position", ("N", 3, 1, 1), 21),
        ("free size", FREE, 21),
        ("one free axis", ("N", 3, "H", 4), 21),
    ]
]

LP_POOL = [
    lp_pool("stride 1"),
    lp_pool("disjoint", kernel_shape=[2, 2], strides=[2, 2]),
    lp_pool("stride beyond kernel", kernel_shape=[2, 2], strides=[3, 4]),
    lp_pool("padded", strides=[2, 2], pads=[1, 1, 1, 1]),
    lp_pool("asymmetric", strides=[2, 2], pads=[0, 1, 2, 0]),
    lp_pool("dilated", dilations=[2, 2], strides=[1, 2], pads=[2, 1, 1, 2]),
    lp_pool("ceil", strides=[2, 2], ceil_mode=1),
    lp_pool("1-D", x=("N", 3, 9), kernel_shape=[4], strides=[3], pads=[2, 1]),
    lp_pool("3-D", x=("N", 2, 4, 5, 4), kernel_shape=[2, 3, 2], strides=[2, 1, 2]),
    lp_pool("free size", x=FREE, strides=[2, 2], pads=[1, 1, 1, 1]),
    lp_pool("free size ceil", x=FREE, strides=[2, 2], ceil_mode=1),
    *(
        Case("GlobalLpPool", [shape], {"p": 1}, "linear", between(2.0, 4.0), note)
        for note, shape in [("1-D", ("N", 3, 6)), ("2-D", ("N", 3, 5, 4)), ("free size", FREE)]
    ),
]


def tops(shape: tuple[int, ...], kernel: tuple[int, ...]) -> np.ndarray:
    """Flat indices in an unpooled map: a different corner of each window's for each channel."""
    sizes = (*shape[:2], *np.multiply(shape[2:], kernel))
    places = np.indices(shape)
    places[2:] = [
        place * k + (places[1] + axis) % k
        for axis, (place, k) in enumerate(zip(places[2:], kernel, strict=True))
    ]
    return np.ravel_multi_index(tuple(places), sizes)


def max_unpool(note: str, x: tuple[int, ...], *shape: Fed | np.ndarray, **attrs: list) -> Case:
    indices = Fed(tops(x, attrs["kernel_shape"]), dtype=np.int64)
    return Case("MaxUnpool", [x, indices, *shape], attrs, "linear", note=note)


def sizes(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


MAX_UNPOOL = [
    max_unpool("1-D", (2, 3, 4), kernel_shape=[2], strides=[2]),
    max_unpool("2-D", (3, 2, 2, 3), kernel_shape=[2, 3], strides=[2, 3]),
    max_unpool("3-D", (2, 1, 2, 1, 2), kernel_shape=[2, 2, 2], strides=[2, 2, 2]),
    max_unpool("stride 1", (2, 2, 4), kernel_shape=[1]),
    max_unpool(
        "shape given",
        (2, 1, 2, 2),
        sizes(2, 1, 4, 4),
        kernel_shape=[2, 2],
        strides=[2, 2],
        pads=[0, 0, 0, 0],
    ),
]

CASES = MAX_POOL + AVERAGE_POOL + GLOBAL + LP_POOL + MAX_UNPOOL
