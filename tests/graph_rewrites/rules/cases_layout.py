"""Operators that move numbers. All are linear; on integers they carry the dequantised values'."""

import numpy as np

from graph_rewrites.testing import away_from

from .harness import Case, Fed


def ints(*values):
    return np.array(values, np.int64)


def linear(op, inputs, attrs=None, note="", **more):
    return Case(op, inputs, attrs or {}, "linear", note=note, **more)


def quantised(op, shape, inputs=(), attrs=None, note="integers", **more):
    given = [Fed(shape=shape, dtype=np.uint8), *inputs]
    return linear(op, given, attrs, note, wrt=(0,), **more)


PASSED = [
    linear("Identity", [("N", 3)]),
    linear("Dropout", [("N", 3)], note="ratio omitted"),
    linear("Dropout", [("N", 3), np.array(0.9, np.float32)], {"seed": 3}, note="ratio"),
    linear("Dropout", [("N", 3), None, np.array(False)], note="training mode off"),
    linear("Dropout", [("N", 3)], note="with its mask", outputs=2),
]

RESHAPED = [
    *(
        linear("Reshape", [("N", 4, 3), shape], attrs, note)
        for shape, attrs, note in [
            (ints(-1, 12), {}, "flattened"),
            (ints(0, 2, 2, 3), {}, "0 copies a size"),
            (ints(0, 2, -1), {}, "0 and -1"),
            (ints(-1), {}, "to rank 1, batch merged"),
            (ints(-1, 1, 6, 2), {"allowzero": 1}, "allowzero"),
            (Fed([-1, 2, 6], dtype=np.int64), {}, "shape at run time"),
        ]
    ),
    linear("Reshape", [("N", 2, "H", "W"), ints(0, 2, -1)], note="two free axes merged"),
    linear("Reshape", [("N", "H", "W"), ints(0, 1, 0, -1)], note="every axis free"),
    *(linear("Flatten", [("N", 2, 3, 4)], {"axis": axis}) for axis in (0, 1, 2, 3, 4, -1, -3)),
    linear("Flatten", [("N", 2, "H", "W")], note="free pixels"),
    linear("Squeeze", [("N", 1, 3, 1), ints(1)], note="axis 1"),
    linear("Squeeze", [("N", 1, 3, 1), ints(-1, 1)], note="axes -1 and 1"),
    linear("Squeeze", [(1, 3, 1)], note="axes omitted"),
    linear("Unsqueeze", [("N", 3), ints(0)], note="axis 0"),
    linear("Unsqueeze", [("N", 3), ints(-1, 1)], note="axes -1 and 1"),
    linear("Unsqueeze", [("N", "H"), ints(2, 3)], note="behind free axes"),
    *(linear("Transpose", [("N", 3, 4)], {"perm": p}) for p in ([0, 2, 1], [1, 2, 0], [2, 0, 1])),
    linear("Transpose", [("N", 3, 4)], note="perm omitted"),
    linear("Transpose", [("N", "H", "W", 3)], {"perm": [0, 3, 1, 2]}, note="free pixels"),
    linear("Transpose", [("N", 2, 3, 2, 2)], {"perm": [0, 2, 1, 3, 4]}, note="channel shuffle"),
]

JOINED = [
    linear("Concat", [("N", 2, 3), ("N", 1, 3), ("N", 4, 3)], {"axis": 1}),
    linear("Concat", [("N", 2, 3), ("N", 2, 1)], {"axis": -1}),
    linear("Concat", [("N", 3)], {"axis": 1}, note="one input"),
    linear("Concat", [("N", 3), np.ones((2, 3), np.float32)], {"axis": 0}, note="free axis"),
    linear("Concat", [("N", 2, "H"), ("N", 2, "W"), ("N", 2, 1)], {"axis": -1}, note="free sizes"),
    linear("Concat", [("N", 2, "H", "W"), ("N", 3, "H", "W")], {"axis": 1}, note="free pixels"),
    linear("Split", [("N", 6)], {"axis": 1, "num_outputs": 2}, "halves", outputs=2),
    linear("Split", [("N", 7)], {"axis": -1, "num_outputs": 3}, "uneven", outputs=3),
    linear("Split", [("N", 6), ints(1, 3, 2)], {"axis": 1}, "sizes", outputs=3),
    linear("Split", [(6, "L"), ints(2, 4)], note="axis omitted", outputs=2),
    linear("Split", [("N", 4, "H", "W")], {"axis": 1, "num_outputs": 2}, "free pixels", outputs=2),
    linear("Split", [("N", 3)], {"axis": 1, "num_outputs": 1}, "one output"),
]

LAST = np.iinfo(np.int64).max
CUT = [
    *(
        linear("Slice", [("N", 6, 5), *bounds], note=note)
        for bounds, note in [
            ([ints(1), ints(4), ints(1)], "one axis"),
            ([ints(0), ints(1), ints(-1)], "axis -1"),
            ([ints(-4, 1), ints(-1, LAST), ints(1, 2), ints(1, 1)], "negative bounds, to the end"),
            ([ints(-99), ints(99), ints(1)], "bounds beyond the ends"),
            ([ints(0, 2), ints(LAST, 5)], "axes omitted"),
            ([ints(0, 2), ints(LAST, 6), None, ints(1, 3)], "axes omitted, steps given"),
            ([ints(0), ints(6), ints(1), ints(2)], "step 2"),
            ([ints(1, 4), ints(6, 0), ints(1, 2), ints(3, -2)], "steps 3 and -2"),
            ([ints(-1), ints(-LAST), ints(1), ints(-1)], "reversed"),
            ([ints(5), ints(1), ints(1), ints(-3)], "step -3"),
            ([ints(0), ints(1), ints(0)], "the first image"),
            ([np.array([1], np.int32), np.array([4], np.int32), np.array([1], np.int32)], "int32"),
            ([Fed([1], dtype=np.int64), Fed([3], dtype=np.int64), ints(1)], "run-time bounds"),
            ([ints(1), Fed([-1], dtype=np.int64), ints(1), ints(1)], "run-time end"),
            ([ints(2), ints(4), Fed([1], dtype=np.int64)], "run-time axes"),
        ]
    ),
    linear("Slice", [("N", 2, "H", "W"), ints(1), ints(2), ints(1)], note="beside free pixels"),
    linear("Slice", [("N", 2, "H", "W"), ints(1, 0), ints(-1, 4), ints(2, 3)], note="free pixels"),
]

PADDED = [
    *(
        linear("Pad", [("N", 3, 4), *given], attrs, note)
        for given, attrs, note in [
            ([ints(0, 1, 2, 0, 0, 3)], {}, "zeros"),
            ([ints(0, 1, 2, 0, 0, 3), np.array(5.0, np.float32)], {"mode": "constant"}, "fives"),
            ([ints(0, -1, 0, 0, 0, -2)], {}, "cropped"),
            ([ints(0, -1, 2, 0, 1, -3)], {}, "padded and cropped"),
            ([ints(1, 2), None, ints(2)], {}, "axes"),
            ([ints(1, -1, 2, 0), np.array(2.0, np.float32), ints(-1, -2)], {}, "negative axes"),
            ([ints(1, 0, 0, 2, 0, 0)], {}, "along the batch"),
            ([Fed([0, 1, 2, 0, -1, 3], dtype=np.int64)], {}, "run-time pads"),
        ]
    ),
    linear("Pad", [("N", 2, "H", "W"), ints(0, 0, 1, 2, 0, 0, 3, -1)], note="free pixels"),
]

REPEATED = [
    linear("Pad", [("N", 3, 4, 5), pads, *more], {"mode": mode}, f"{mode}, {note}")
    for mode in ("reflect", "edge", "wrap")
    for note, pads, more in [
        ("all round", ints(0, 0, 1, 2, 0, 0, 3, 1), []),
        ("one side", ints(0, 0, 0, 0, 0, 0, 0, 2), []),
        ("channels", ints(0, 2, 0, 0, 0, 1, 0, 0), []),
        ("axes", ints(1, 2, 1, 3), [None, ints(2, 3)]),
        ("negative axes", ints(1, 2, 3, 0), [None, ints(-1, -3)]),
        ("run-time pads", Fed([0, 0, 1, 2, 0, 0, 3, 1], dtype=np.int64), []),
        ("run-time pads and axes", Fed([1, 2], dtype=np.int64), [None, Fed([3], dtype=np.int64)]),
    ]
]
REPEATED += [
    linear("Pad", [("N", 2, "H", "W"), pads], {"mode": mode}, f"{mode}, free pixels")
    for mode, pads in [
        ("reflect", ints(0, 0, 3, 3, 0, 0, 3, 3)),
        ("edge", ints(0, 0, 9, 3, 0, 0, 3, 0)),
        ("wrap", ints(0, 0, 3, 3, 0, 0, 3, 5)),
    ]
]

BLOCKS = [
    *(
        linear("DepthToSpace", [shape], {"blocksize": size, **mode}, f"{size}, {mode}, {note}")
        for mode in ({}, {"mode": "DCR"}, {"mode": "CRD"})
        for note, shape, size in [
            ("channels", ("N", 12, 2, 3), 2),
            ("one channel", ("N", 9, 2, 3), 3),
            ("free pixels", ("N", 8, "H", "W"), 2),
        ]
    ),
    linear("SpaceToDepth", [("N", 3, 4, 6)], {"blocksize": 2}),
    linear("SpaceToDepth", [("N", 2, "H", "W")], {"blocksize": 1}, note="blocks of one"),
    linear("SpaceToDepth", [("N", 2, 3, "W")], {"blocksize": 3}, note="a free width"),
    *(
        linear("Col2Im", [shape, ints(*image), ints(*block)], attrs, note)
        for note, shape, image, block, attrs in [
            ("apart", ("N", 8, 6), (4, 6), (2, 2), {"strides": [2, 2]}),
            ("overlapping", ("N", 12, 10), (3, 6), (2, 2), {}),
            ("padded", ("N", 6, 16), (4, 4), (2, 3), {"pads": [1, 0, 0, 2]}),
            ("dilated", ("N", 4, 12), (6, 6), (2, 2), {"dilations": [3, 2], "strides": [1, 1]}),
            ("a line", ("N", 6, 4), (9,), (3,), {"strides": [2]}),
            ("a volume", ("N", 8, 12), (3, 4, 3), (2, 2, 2), {}),
        ]
    ),
    linear("Col2Im", [("N", 8, 6), Fed([4, 6], dtype=np.int64), ints(2, 2)], {"strides": [2, 2]}),
]

TURNED = [
    linear("ReverseSequence", [(4, 3, 2), ints(1, 4, 3)], note="axes omitted"),
    linear(
        "ReverseSequence",
        [(3, 5, 2), Fed([1, 5, 3], dtype=np.int64)],
        {"batch_axis": 0, "time_axis": 1},
    ),
]

COPIED = [
    linear("Expand", [("N", 1, 3), ints(1, 4, 1)], note="axis 1"),
    linear("Expand", [("N", 3), ints(2, 1, 3)], note="a new axis"),
    linear("Expand", [(3, 1), ints(3, 4)], note="fixed"),
    linear("Expand", [("N", 3), ints(3, 3)], note="free batch, 1 or 3, to 3"),
    linear("Expand", [("N", 1, 1, 1), Fed([1, 2, 4, 5], dtype=np.int64)], note="run-time shape"),
    linear("Expand", [(), ints(2, 3)], note="scalar"),
    linear("Tile", [("N", 2, 3), ints(1, 3, 2)], note="two axes"),
    linear("Tile", [("N", 3), ints(2, 1)], note="the batch"),
    linear("Tile", [("L",), ints(3)], note="a free vector"),
    linear("Tile", [("N", 2, "H", "W"), ints(1, 1, 2, 2)], note="free pixels"),
    linear("Tile", [("N", 3), Fed([1, 2], dtype=np.int64)], note="run-time repeats"),
]

INTEGERS = [
    quantised("Identity", ("N", 3)),
    quantised("Reshape", ("N", 4), [ints(0, 2, 2)]),
    quantised("Flatten", ("N", 2, 3)),
    quantised("Squeeze", ("N", 1, 3), [ints(1)]),
    quantised("Unsqueeze", ("N", 3), [ints(1)]),
    quantised("Transpose", ("N", 2, 3), attrs={"perm": [0, 2, 1]}),
    linear(
        "Concat",
        [Fed(shape=("N", 2), dtype=np.uint8), Fed(shape=("N", 3), dtype=np.uint8)],
        {"axis": 1},
        note="integers",
        wrt=(0, 1),
    ),
    quantised("Split", ("N", 4), attrs={"axis": 1, "num_outputs": 2}, outputs=2),
    quantised("Slice", ("N", 4), [ints(1), ints(3), ints(1)]),
    quantised("Slice", ("N", 4), [ints(0), ints(4), ints(1), ints(2)], note="integers, step 2"),
    quantised("Pad", ("N", 3), [ints(0, 1, 0, 2)]),
    quantised("Expand", ("N", 1), [ints(1, 3)]),
    quantised("Tile", ("N", 2), [ints(1, 2)]),
]

BOXES = [[0, 0, 4, 4], [1, 1, 5, 5], [6, 6, 9, 9], [0, 5, 3, 9]]
ZEROS = [
    Case(
        "NonMaxSuppression",
        [Fed([BOXES]), Fed([[[0.9, 0.7, 0.8, 0.2]]]), ints(3), np.array([0.3], np.float32)],
    ),
    # nothing to move along: these read no floats, and the rows only say that they have a rule
    Case("OneHot", [Fed([0, 2], dtype=np.int64), np.array(3), np.array([0.0, 1.0], np.float32)]),
    Case("ConstantOfShape", [Fed([2, 3], dtype=np.int64)]),
    Case("Range", [Fed(value, dtype=np.int64) for value in (0, 6, 2)]),
    Case("Shape", [("N", 3)]),
    Case("Size", [("N", 3)]),
    Case("EyeLike", [(3, 4)]),
    Case("NonZero", [("N", 3)], domain=away_from(0.0)),
]

CASES = [
    *PASSED,
    *RESHAPED,
    *JOINED,
    *CUT,
    *PADDED,
    *REPEATED,
    *BLOCKS,
    *TURNED,
    *COPIED,
    *INTEGERS,
    *ZEROS,
]
