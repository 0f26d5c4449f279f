"""Operators that take elements from somewhere, or put them there. All are linear."""

import numpy as np

from graph_rewrites.testing import distinct, normal

from .harness import Case, Fed


def ints(*values):
    return np.array(values, np.int64)


def linear(op, inputs, attrs=None, note="", **more):
    return Case(op, inputs, attrs or {}, "linear", note=note, **more)


GATHERED = [
    *(
        linear("Gather", [("N", 4, 3), indices], attrs, note)
        for indices, attrs, note in [
            (ints(0, 2), {"axis": 1}, "two"),
            (ints(1, 1, 3, 1), {"axis": 1}, "repeated"),
            (ints(-1, 0, -4), {"axis": 1}, "negative indices"),
            (ints(2, 0), {"axis": -1}, "axis -1"),
            (np.array(1, np.int64), {"axis": 1}, "scalar index"),
            (np.array(-1, np.int32), {"axis": 2}, "int32 index"),
            (ints([0, 1], [1, 2]), {"axis": 2}, "matrix of indices"),
            (ints(0, 0), {}, "axis omitted"),
            (Fed([3, -2, 3], dtype=np.int64), {"axis": 1}, "run-time indices"),
            (Fed([[0, 0], [2, 1]], dtype=np.int64), {"axis": -2}, "run-time matrix"),
        ]
    ),
    linear("Gather", [(12,), Fed([[0, 1], [6, 7]], dtype=np.int64)], {"axis": 0}, "of a vector"),
    linear("Gather", [("N", 2, "H", "W"), ints(1)], {"axis": 1}, "free pixels"),
]

TAKEN = [
    linear(
        "Gather",
        [Fed(shape=("N", 4), dtype=np.uint8), ints(2, 2)],
        {"axis": 1},
        note="integers",
        wrt=(0,),
    ),
    linear("GatherElements", [(3, 4), ints([0, 2, 1, 0], [1, 1, 0, 2])], note="axis omitted"),
    linear("GatherElements", [(3, 4), ints([0, 3], [-1, -4], [2, 2])], {"axis": 1}, "repeated"),
    linear("GatherElements", [(2, 3, 2), ints([[2, 0]])], {"axis": -2}, "fewer"),
    linear(
        "GatherElements",
        [("L", 4), Fed([[0, 0, -1]], dtype=np.int32)],
        {"axis": 1},
        "run-time indices, free axis",
    ),
    linear("GatherND", [("N", 3, 2), ints([0, 1], [0, -1])], note="slices"),
    linear("GatherND", [("N", 3, 2), ints([0, 1, 1], [0, 1, 1], [-1, 0, 0])], note="repeated"),
    linear("GatherND", [(3, 4, 2), ints([[1], [0]], [[2], [2]])], note="rows"),
    *(
        linear("GatherND", [(2, 3, 4), indices], {"batch_dims": dims}, f"batch_dims {dims}, {note}")
        for note, dims, indices in [
            ("slices", 1, ints([1], [-1])),
            ("elements", 1, ints([[1, 3], [1, 3]], [[2, 0], [0, -1]])),
            ("two", 2, ints([[0], [1], [1]], [[3], [-2], [0]])),
            ("run-time", 1, Fed([[2], [0]], dtype=np.int64)),
        ]
    ),
    linear("GatherND", [(2, 3, "W"), ints([1], [0])], {"batch_dims": 1}, "free axis"),
    *(
        linear("Compress", [("N", 3, 4), condition], attrs, note)
        for note, condition, attrs in [
            ("axis 1", np.array([1, 0, 1], bool), {"axis": 1}),
            ("axis -1, short", np.array([0, 1], bool), {"axis": -1}),
            ("flattened", np.array([0, 1, 1, 0, 0, 1], bool), {}),
            ("nothing", np.array([0, 0, 0], bool), {"axis": 1}),
            ("run-time", Fed([True, False, True, True], dtype=bool), {"axis": 2}),
        ]
    ),
]


def top(shape, k, note, **attrs):
    return Case("TopK", [shape, k], attrs, "piecewise", distinct, note, outputs=["v", "i"])


CHOSEN = [
    top(("N", 6), ints(3), "largest"),
    top(("N", 6), ints(2), "smallest", largest=0),
    top(("N", 4, 3), ints(2), "axis 1", axis=1),
    top(("N", 6), ints(4), "unsorted", sorted=0),
    top(("N", "H", 2), ints(3), "free axis", axis=-2),
    top(("N", 5), ints(5), "all"),
    top(("N", 5), Fed([2], dtype=np.int64), "run-time k"),
]

REDUCTIONS = ({}, {"reduction": "none"}, {"reduction": "add"})
PUT = [
    *(
        linear("ScatterElements", [*inputs], {**reduction, **attrs}, f"{reduction}, {note}")
        for reduction in REDUCTIONS
        for note, inputs, attrs in [
            ("axis omitted", [("L", 3), ints([1, 0, 2]), (1, 3)], {}),
            ("axis 1", [(2, 5), ints([1, -1], [0, 2]), (2, 2)], {"axis": 1}),
            ("fewer", [("L", 5), ints([4, 2]), (1, 2)], {"axis": -1}),
            ("run-time", [(2, 4), Fed([[3], [-4]], dtype=np.int64), (2, 1)], {"axis": 1}),
        ]
    ),
    linear(
        "ScatterElements",
        [(2, 5), ints([1, 1], [0, -5]), (2, 2)],
        {"axis": 1, "reduction": "add"},
        note="added twice",
    ),
    *(
        linear("ScatterND", [*inputs], reduction, f"{reduction}, {note}")
        for reduction in REDUCTIONS
        for note, inputs in [
            ("slices", [("L", 3, 2), ints([0], [2]), (2, 3, 2)]),
            ("elements", [("L", 3), ints([0, 1], [-1, -1], [2, 0]), (3,)]),
            ("a matrix of slices", [(3, 4, "W"), ints([[0, 1], [2, 3]]), (1, 2, "W")]),
            ("run-time", [(4, 2), Fed([[3], [1]], dtype=np.int64), (2, 2)]),
        ]
    ),
    linear(
        "ScatterND",
        [(4, 2), ints([3], [1], [3]), (3, 2)],
        {"reduction": "add"},
        note="added twice",
    ),
]


def at_halves(rng, shape):
    """Different values, none of them nearer than a half to a whole number."""
    return distinct(rng, shape) + 0.5


def with_zeros(*places):
    """Normal values, but for zeros at these flat positions."""

    def draw(rng, shape):
        values = rng.standard_normal(shape)
        values.flat[[place for place in places if place < values.size]] = 0.0
        return values

    return draw


JOINED = [
    *(
        Case(op, inputs, {"reduction": how, **attrs}, kind, domain, f"{how}, {note}")
        for how, kind, domain in [
            ("mul", "linear", normal),
            ("max", "piecewise", [distinct, normal, at_halves]),
            ("min", "piecewise", [distinct, normal, at_halves]),
        ]
        for op, note, inputs, attrs in [
            ("ScatterElements", "axis omitted", [("L", 3), ints([1, 0, 2]), (1, 3)], {}),
            ("ScatterElements", "axis 1", [(2, 5), ints([1, -1], [0, 2]), (2, 2)], {"axis": 1}),
            ("ScatterElements", "twice", [(2, 5), ints([1, 1], [0, -5]), (2, 2)], {"axis": 1}),
            (
                "ScatterElements",
                "run-time",
                [(2, 4), Fed([[3], [-4]], dtype=np.int64), (2, 1)],
                {"axis": 1},
            ),
            ("ScatterND", "slices", [("L", 3, 2), ints([0], [2]), (2, 3, 2)], {}),
            ("ScatterND", "elements", [("L", 3), ints([0, 1], [-1, -1]), (2,)], {}),
            ("ScatterND", "twice", [(4, 2), ints([3], [1], [3]), (3, 2)], {}),
            ("ScatterND", "run-time", [(4, 2), Fed([[3], [1]], dtype=np.int64), (2, 2)], {}),
        ]
    ),
    *(
        Case(
            "ScatterElements",
            [(2, 3), ints([1, 1], [0, 2]), (2, 2)],
            {"axis": 1, "reduction": "mul"},
            "linear",
            [with_zeros(*old), normal, with_zeros(*new)],
            note,
        )
        for note, old, new in [
            ("mul, zero data", (1, 3), ()),
            ("mul, zero update", (), (0, 2)),
            ("mul, two zeros", (1,), (1,)),
            ("mul, zero updates", (), (0, 1)),
        ]
    ),
]

SUMMED = [
    *(
        linear("CumSum", [("N", 3, 4), np.array(axis)], attrs, f"axis {axis}, {attrs}")
        for axis in (1, -1)
        for attrs in (
            {},
            {"exclusive": 1},
            {"reverse": 1},
            {"exclusive": 1, "reverse": 1},
        )
    ),
    linear("CumSum", [("N", "H"), Fed(1, dtype=np.int32)], note="run-time axis"),
    *(
        linear("Trilu", [shape, *k], attrs, f"{attrs}, {note}")
        for attrs in ({}, {"upper": 1}, {"upper": 0})
        for note, shape, k in [
            ("k omitted", ("N", 3, 4), []),
            ("k = 1", ("N", 3, 4), [np.array(1)]),
            ("k = -1", (4, 3), [np.array(-1)]),
            ("run-time k", ("H", "W"), [Fed(2, dtype=np.int64)]),
        ]
    ),
]

CASES = [*GATHERED, *TAKEN, *CHOSEN, *PUT, *JOINED, *SUMMED]
