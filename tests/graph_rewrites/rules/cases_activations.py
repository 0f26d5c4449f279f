"""Smooth, leaky and thresholded activations, softmax."""

import numpy as np

from graph_rewrites.testing import away_from, between, distinct, normal

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
    *(
        Case(op, [shape], domain=domain, note=note)
        for op in ("Mish", "Softsign")
        for shape, domain, note in [
            (("N", 5), away_from(0.0), ""),
            (("N", 2, "H", "W"), away_from(0.0), "free pixels"),
            (("N", 5), between(-8.0, -0.1), "below"),
            (("N", 20), between(0.1, 60.0), "far above"),
            (("N", 20), away_from(0.0, scale=30.0), "far out"),
        ]
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
        Case("Selu", [shape], attrs, domain=OFF_ZERO, note=note)
        for shape, attrs, note in [
            (("N", 20), {}, ""),
            (("N", 2, "H", "W"), {}, "free pixels"),
            (("N", 20), {"alpha": 0.3}, ""),
            (("N", 20), {"gamma": 2.0}, ""),
            (("N", 20), {"alpha": -0.5, "gamma": 0.7}, ""),
            (("N", 20), {"alpha": 1.5, "gamma": -0.7}, ""),
            (("N", 20), {"alpha": -1.5, "gamma": -0.7}, ""),
            (("N", 20), {"alpha": 0.0}, ""),
            (("N", 20), {"gamma": 0.0}, ""),
        ]
    ),
    *(
        Case("Celu", [shape], attrs, domain=OFF_ZERO, note=note)
        for shape, attrs, note in [
            (("N", 20), {}, ""),
            (("N", 2, "H", "W"), {}, "free pixels"),
            (("N", 20), {"alpha": 0.3}, ""),
            (("N", 20), {"alpha": 2.0}, ""),
            (("N", 20), {"alpha": -0.8}, ""),
        ]
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

THRESHOLDED = [
    *(
        Case("ThresholdedRelu", [shape], attrs, "piecewise", away_from(kink, gap=0.3), note)
        for shape, attrs, kink, note in [
            (("N", 20), {}, 1.0, ""),
            (("N", 2, "H", "W"), {}, 1.0, "free pixels"),
            (("N", 20), {"alpha": 0.0}, 0.0, ""),
            (("N", 20), {"alpha": 2.5}, 2.5, ""),
            (("N", 20), {"alpha": -0.75}, -0.75, ""),
        ]
    ),
    *(
        Case("Shrink", [shape], attrs, "piecewise", away_from(-kink, kink, gap=0.3), note)
        for shape, attrs, kink, note in [
            (("N", 20), {}, 0.5, ""),
            (("N", 2, "H", "W"), {}, 0.5, "free pixels"),
            (("N", 20), {"lambd": 1.5, "bias": 1.5}, 1.5, "soft"),
            (("N", 20), {"lambd": 1.5, "bias": -0.5}, 1.5, "negative bias"),
            (("N", 20), {"lambd": -1.5}, 1.5, "nothing is cut"),
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

HARDMAX = [
    Case("Hardmax", [("N", 3, 4)], attrs, "piecewise", distinct)
    for attrs in ({}, {"axis": 1}, {"axis": 0})
]

CASES = [*SMOOTH, *LEAKY, *THRESHOLDED, *SLOPES, *SOFTMAX, *HARDMAX]
