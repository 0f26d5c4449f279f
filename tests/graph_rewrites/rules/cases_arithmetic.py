"""Element-wise arithmetic, broadcast both ways, and the steps that pass nothing back."""

import numpy as np

from graph_rewrites.testing import away_from, between, distinct, normal

from .harness import Case, Fed

POSITIVE = between(0.3, 2.0)
NONZERO = away_from(0.0, gap=0.3)


def whole(rng, shape):
    """Few whole numbers, so that two inputs often tie."""
    return rng.integers(-2, 2, shape).astype(np.float64)


def off_steps(rng, shape):
    """Away from the whole numbers and from the halves between them."""
    return rng.integers(-3, 3, shape) + rng.uniform(0.1, 0.4, shape)


def constant(*shape):
    return np.linspace(0.5, 2.0, int(np.prod(shape)), dtype=np.float32).reshape(shape)


BROADCASTS = [
    ([("N", 3, 4), ("N", 3, 4)], "same shape"),
    ([("N", 3, 4), ("N", 1, 4)], "b along axis 1"),
    ([("N", 1, 4), ("N", 3, 1)], "both, crosswise"),
    ([("N", 3, 4), (4,)], "b of lower rank"),
    ([(1,), ("N", 3, 4)], "a of lower rank"),
    ([("N", 3, 4), ()], "b a scalar"),
    ([("N", 3, 4), (1, 3, 4)], "free batch against 1"),
    ([(1, 1, 4), ("N", 3, 4)], "1 against free batch, and axis 1"),
    ([("N", 4), (3, 4)], "free batch, 1 or 3, against 3"),
    ([("N", 2, "H", "W"), (2, 1, 1)], "per channel on free pixels"),
    ([("N", 2, 1, 1), ("N", 2, "H", "W")], "per image and channel on free pixels"),
    ([("N", 1, "H", 1), ("N", 2, 1, "W")], "free pixels, crosswise"),
    ([("N", 3, 4), constant(3, 1)], "constant b"),
    ([constant(1, 3, 1), ("N", 3, 4)], "constant a"),
]

BINARY = [
    Case(op, inputs, kind=kind, domain=domain, note=note)
    for op, kind, domain in [
        ("Add", "linear", normal),
        ("Sub", "linear", normal),
        ("Mul", "linear", normal),
        ("Div", "smooth", [normal, NONZERO]),
        ("Pow", "smooth", POSITIVE),
        ("Sum", "linear", normal),
        ("Mean", "linear", normal),
    ]
    for inputs, note in BROADCASTS
] + [
    Case(
        op,
        inputs,
        kind="piecewise",
        domain=[distinct, lambda r, s: distinct(r, s) + 0.5],
        note=note,
    )
    for op in ("Max", "Min")
    for inputs, note in BROADCASTS
    if not any(isinstance(given, np.ndarray) for given in inputs)
]

MANY = [
    Case("Sum", [("N", 3)], kind="linear", note="one term"),
    Case("Sum", [("N", 3, 4), (4,), ("N", 1, 1), ()], kind="linear", note="four terms"),
    Case("Mean", [("N", 3)], kind="linear", note="one term"),
    Case("Mean", [("N", 3, 4), (4,), ("N", 1, 1), ()], kind="linear", note="four terms"),
    *(
        Case(op, inputs, kind="piecewise", domain=domain, note=note)
        for op in ("Max", "Min")
        for inputs, domain, note in [
            ([("N", 5)], distinct, "one input"),
            ([("N", 5), ("N", 5)], whole, "ties of two"),
            ([("N", 5), np.zeros(5, np.float32)], whole, "ties with a constant"),
            (
                [("N", 3, 4), (4,), ("N", 1, 1)],
                [distinct, lambda r, s: distinct(r, s) + 0.3, lambda r, s: distinct(r, s) - 0.3],
                "three of different rank",
            ),
        ]
    ),
]

UNARY = [
    Case("Neg", [("N", 5)], kind="linear"),
    Case("Abs", [("N", 5)], kind="piecewise", domain=away_from(0.0, gap=0.3)),
    Case("Abs", [("N", 5)], kind="piecewise", domain=whole, note="with zeros"),
    Case("Exp", [("N", 5)]),
    Case("Log", [("N", 5)], domain=POSITIVE),
    Case("Sqrt", [("N", 5)], domain=POSITIVE),
    Case("Reciprocal", [("N", 5)], domain=NONZERO),
    Case("Erf", [("N", 5)]),
    Case("Erf", [()], note="scalar"),
]

POWERS = [
    *(
        Case("Pow", [("N", 5), np.array(p, np.float32)], domain=domain, note=f"to the {p:g}")
        for p, domain in [
            (2.0, normal),
            (3.0, whole),
            (1.0, whole),
            (0.0, whole),
            (-1.0, NONZERO),
            (-2.0, NONZERO),
            (0.5, POSITIVE),
        ]
    ),
    Case("Pow", [("N", 4), np.array([0, 1, 2, 3], np.float32)], domain=whole, note="at zeros"),
    Case("Pow", [("N", 3), np.array(2, np.int64)], note="integer exponent"),
    Case("Pow", [("N", 3), Fed([1, 2, 3], dtype=np.int32)], note="integer exponents, run time"),
    Case("Pow", [np.array(2.0, np.float32), ("N", 3)], note="exponent only"),
]

CHOICES = [
    Case("Where", inputs, kind="linear", note=note)
    for inputs, note in [
        ([Fed([True, False, True, False], dtype=bool), ("N", 4), ("N", 4)], "condition per column"),
        ([Fed([[[True], [False]]], dtype=bool), ("N", 2, 4), ()], "scalar b"),
        ([Fed([[True], [False]], dtype=bool), (4,), ("N", 2, 4)], "a of lower rank"),
        ([Fed([[True, False, True]], dtype=bool), (1,), ()], "the condition is the widest"),
        ([np.array([True, False]), ("N", 1), ("N", 2)], "constant condition"),
        ([np.array([True, False]), ("N", 2), np.zeros((), np.float32)], "constant b"),
    ]
]

STEPS = [
    *(Case(op, [("N", 5)], domain=off_steps) for op in ("Floor", "Ceil", "Round")),
    Case("Sign", [("N", 5)], domain=away_from(0.0)),
    Case("IsNaN", [("N", 5)]),
    Case("IsInf", [("N", 5)]),
    *(
        Case(op, [("N", 5), ("N", 1)])
        for op in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
    ),
]

# nothing to move along: these read no floats, and the rows only say that they have a rule
LOGIC = [
    *(Case(op, [Fed([True, False], dtype=bool)] * 2) for op in ("And", "Or", "Xor")),
    Case("Not", [Fed([True, False], dtype=bool)]),
]

# dividends between the multiples of the divisor; a broadcast one is summed back
MODULO = [
    Case(
        "Mod",
        inputs,
        {"fmod": 1},
        "piecewise",
        lambda rng, shape: 2.0 * rng.integers(-3, 3, shape) + rng.uniform(0.5, 1.5, shape),
        note=note,
        wrt=(0,),
    )
    for inputs, note in [
        ([("N", 5), np.array(2.0, np.float32)], "constant divisor"),
        ([("N", 2, "H", "W"), np.array(-2.0, np.float32)], "negative divisor, free pixels"),
        ([(4,), Fed([[2.0], [-2.0], [1e9]])], "dividend of lower rank"),
        ([("N", 1, 4), Fed([[2.0], [4.0]])], "dividend along axis 1"),
    ]
]

CASES = [*MODULO, *BINARY, *MANY, *UNARY, *POWERS, *CHOICES, *STEPS, *LOGIC]
