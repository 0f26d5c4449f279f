"""Trigonometric and hyperbolic functions and their inverses."""

from graph_rewrites.testing import between, normal

from .harness import Case

INSIDE = between(-0.9, 0.9)

CASES = [
    *(
        Case(op, [shape], domain=domain, note=note)
        for op, domain in [
            ("Sin", between(-4.0, 4.0)),
            ("Cos", between(-4.0, 4.0)),
            ("Tan", between(-1.2, 1.2)),
            ("Asin", INSIDE),
            ("Acos", INSIDE),
            ("Atan", normal),
            ("Sinh", normal),
            ("Cosh", normal),
            ("Asinh", normal),
            ("Acosh", between(1.1, 5.0)),
            ("Atanh", INSIDE),
        ]
        for shape, note in [(("N", 5), ""), (("N", 2, "H", "W"), "free pixels"), ((), "scalar")]
    ),
    *(
        Case(op, [("N", 5)], domain=between(-80.0, 80.0), note="far out")
        for op in ("Atan", "Asinh")
    ),
    Case("Acosh", [("N", 5)], domain=between(50.0, 500.0), note="far out"),
    *(
        Case(op, [("N", 5)], domain=between(0.9, 0.97), note="near the pole")
        for op in ("Asin", "Acos", "Atanh")
    ),
]
