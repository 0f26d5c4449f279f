"""Smooth and leaky activations, softmax."""

import numpy as np

from graph_rewrites.testing import away_from, between, normal

from .harness import Case

OFF_ZERO = away_from(0.0, gap=0.3)

SMOOTH = [
    *(Case(op, [("N", 5)]) for op in ("Sigmoid", "Tanh", "Softplus")),
    *(Case(op, [("N", 2, "H", "W")], note="free pixels") for op in ("Sigmoid", "Tanh", "Softplus")),
    Case("Sigmoid", [("N", 5)], domain=between(-8.0, 8.0), note="far out"),
    Case("Softplus", [("N", 5)], domain=between(-80.0, 80.0), note="far out"),
    Case("Gelu", [("N", 5)]),
    Case("Gelu", [("N", 5)], {"approximate": "none"}),
    Case("Gelu", [("N", 5)], {"approximate": "tanh"}),
    Case("Gelu", [("N", 5)], {"approximate": "none"}, domain=between(-9.0, 9.0), note="far out"),
    Case(
        "Gelu", [("N", 5)], {"approximate": "tanh"}, domain=between(-9.0, 9.0), note="tanh far out"
    ),
    Case("HardSwish", [("N", 20)], domain=away_from(-3.0, 3.0)),
    Case("HardSwish", [("N", 2, "H", "W")], domain=away_from(-3.0, 3.0), note="free pixels"),
]

LEAKY = [
    *(
        Case("LeakyRelu", [("N", 20)], attrs, kind="piecewise", domain=OFF_ZERO)
        for attrs in ({}, {"alpha": 0.2}, {"alpha": 0.0}, {"alpha": 1.5}, {"alpha": -0.5})
    ),
    *(
        Case("Elu", [("N", 20)], attrs, domain=OFF_ZERO)
        for attrs in ({}, {"alpha": 0.3}, {"alpha": 2.0}, {"alpha": -0.5})
    ),
    *(
        Case("HardSigmoid", [("N", 20)], attrs, kind="piecewise", domain=domain)
        for attrs, domain in [
            ({}, away_from(-2.5, 2.5, gap=0.3)),
            ({"alpha": 0.5, "beta": 0.25}, away_from(-0.5, 1.5, gap=0.3)),
            ({"alpha": 1 / 6}, away_from(-3.0, 3.0, gap=0.3)),
            ({"alpha": -0.5}, away_from(-1.0, 1.0, gap=0.3)),
        ]
    ),
]

SLOPES = [
    Case("PRelu", [("N", 3, 4), slope], kind="piecewise", domain=[OFF_ZERO, normal], note=note)
    for slope, note in [
        (np.array([[0.25], [0.0], [-0.5]], np.float32), "constant slope per channel"),
        ((3, 1), "slope per channel"),
        ((1,), "one slope"),
        (("N", 3, 4), "slope per element"),
        ((1, 3, 4), "one slope for the batch"),
    ]
]

SOFTMAX = [
    Case(op, [("N", 3, 4)], attrs)
    for op in ("Softmax", "LogSoftmax")
    for attrs in ({}, {"axis": 1}, {"axis": 2}, {"axis": -2}, {"axis": 0})
] + [
    Case(op, [("N", 2, "H", "W")], {"axis": 1}, note="free pixels")
    for op in ("Softmax", "LogSoftmax")
]

CASES = [*SMOOTH, *LEAKY, *SLOPES, *SOFTMAX]
