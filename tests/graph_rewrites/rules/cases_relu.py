"""Cases of Relu and Clip under the rule "gradient"; the two others have tests of their own."""

from __future__ import annotations

import numpy as np

from graph_rewrites.testing import away_from

from .harness import Case


def bound(value: float) -> np.ndarray:
    return np.array(value, np.float32)


CASES = [
    Case("Relu", [("N", 5)], kind="piecewise", domain=away_from(0.0, gap=0.3)),
    Case(
        "Relu",
        [("N", 3, "H", "W")],
        kind="piecewise",
        domain=away_from(0.0, gap=0.3),
        note="symbolic size",
    ),
    Case(
        "Clip",
        [("N", 5), bound(0.0), bound(6.0)],
        kind="piecewise",
        domain=away_from(0.0, 6.0, gap=0.3, scale=5),
        note="ReLU6",
    ),
    Case(
        "Clip",
        [("N", 5), bound(-1.0), bound(1.0)],
        kind="piecewise",
        domain=away_from(-1.0, 1.0, gap=0.3, scale=3),
        note="hard tanh",
    ),
    Case(
        "Clip",
        [("N", 5), bound(0.0), None],
        kind="piecewise",
        domain=away_from(0.0, gap=0.3),
        note="no upper bound",
    ),
    Case(
        "Clip",
        [("N", 5), None, bound(0.5)],
        kind="piecewise",
        domain=away_from(0.5, gap=0.3),
        note="no lower bound",
    ),
    Case("Clip", [("N", 5)], kind="piecewise", note="no bound at all"),
]
