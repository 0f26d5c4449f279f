"""Reductions over every kind of axes."""

import numpy as np

from graph_rewrites.testing import away_from, between, distinct, normal

from .harness import Case


def axes(*values):
    return np.array(values, np.int64)


def pairs(rng, shape):
    """Whole numbers, each twice: a maximum is shared by two at most."""
    return distinct(rng, shape) // 2


def with_zeros(rng, shape):
    """Normal values, the first rows of the last axes all zero."""
    values = rng.standard_normal(shape)
    values[:, 0] = 0.0
    return values


def rows_of_zeros(rng, shape):
    """Values away from zero, the first rows of the last axes all zero."""
    values = away_from(0.0, gap=0.3)(rng, shape)
    values[:, 0] = 0.0
    return values


def one_zero(rng, shape):
    """Values away from zero, but for one zero somewhere in each row of the last axis."""
    values = away_from(0.0, gap=0.3)(rng, shape)
    np.put_along_axis(values, rng.integers(0, shape[-1], (*shape[:-1], 1)), 0.0, axis=-1)
    return values


def two_zeros(rng, shape):
    """Values away from zero, but for two zeros in the first rows of the last axis."""
    values = away_from(0.0, gap=0.3)(rng, shape)
    values[:, 0, 1:3] = 0.0
    return values


SHAPE = ("N", 3, 4)
AXES = [
    ([axes(1)], {}, "one axis"),
    ([axes(1)], {"keepdims": 0}, "one axis dropped"),
    ([axes(-1)], {"keepdims": 0}, "axis -1 dropped"),
    ([axes(-1, -2)], {"keepdims": 0}, "axes -1 and -2 dropped"),
    ([axes(2, 1)], {"keepdims": 1}, "axes 2 and 1"),
    ([axes(0)], {"keepdims": 0}, "batch dropped"),
    ([], {}, "all"),
    ([], {"keepdims": 0}, "all dropped"),
    ([axes()], {"keepdims": 0}, "empty list: all dropped"),
    ([None], {"keepdims": 1}, "omitted axes: all"),
    ([axes()], {"noop_with_empty_axes": 1, "keepdims": 0}, "no axes, nothing done"),
]
REDUCTIONS = [
    ("ReduceSum", "linear", normal),
    ("ReduceMean", "linear", normal),
    ("ReduceMax", "piecewise", distinct),
    ("ReduceMin", "piecewise", distinct),
    ("ReduceL2", "smooth", normal),
    ("ReduceL1", "piecewise", away_from(0.0, gap=0.3)),
    ("ReduceSumSquare", "smooth", normal),
    ("ReduceLogSum", "smooth", between(0.3, 2.0)),
    ("ReduceLogSumExp", "smooth", normal),
    ("ReduceProd", "smooth", between(0.5, 1.5)),
]

CASES = [
    *(
        Case(op, [SHAPE, *given], attrs, kind, domain, note)
        for op, kind, domain in REDUCTIONS
        for given, attrs, note in AXES
    ),
    *(
        Case(op, [("N", 2, "H", "W"), axes(*reduced)], {"keepdims": keep}, kind, domain, note)
        for op, kind, domain in REDUCTIONS
        for reduced, keep, note in [
            ([2, 3], 1, "free pixels"),
            ([2, 3], 0, "free pixels dropped"),
            ([1], 0, "channels of free pixels"),
        ]
    ),
    Case("ReduceMax", [("N", 8), axes(1)], kind="piecewise", domain=pairs, note="ties of two"),
    Case("ReduceMin", [("N", 8), axes(1)], kind="piecewise", domain=pairs, note="ties of two"),
    Case("ReduceL2", [SHAPE, axes(2)], domain=with_zeros, note="a row of zeros"),
    Case(
        "ReduceL1", [SHAPE, axes(2)], domain=rows_of_zeros, kind="piecewise", note="a row of zeros"
    ),
    Case("ReduceSumSquare", [SHAPE, axes(2)], domain=with_zeros, note="a row of zeros"),
    Case("ReduceLogSum", [SHAPE, axes(2)], domain=between(50.0, 90.0), note="large terms"),
    Case("ReduceLogSumExp", [SHAPE, axes(2)], domain=between(-90.0, 90.0), note="large terms"),
    Case("ReduceProd", [SHAPE, axes(2)], domain=away_from(0.0, gap=0.3), note="of either sign"),
    Case("ReduceProd", [SHAPE, axes(2)], domain=one_zero, note="one zero in each row"),
    Case("ReduceProd", [SHAPE, axes(2)], domain=two_zeros, note="two zeros in the first rows"),
    *(
        Case(op, [("N", 3, 4)], attrs, kind="piecewise", domain=distinct)
        for op in ("ArgMax", "ArgMin")
        for attrs in ({}, {"axis": -1, "keepdims": 0}, {"axis": 1, "select_last_index": 1})
    ),
]
