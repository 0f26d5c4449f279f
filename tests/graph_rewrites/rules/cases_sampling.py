"""Random draws, at odds that leave them no choice: only then can two runs be compared."""

from graph_rewrites.testing import between

from .harness import Case

CASES = [
    Case("RandomNormalLike", [("N", 3)], {"scale": 1e-30, "mean": 2.0}, "piecewise"),
    Case("RandomUniformLike", [("N", 3)], {"low": 2.0, "high": 2.0}, "piecewise"),
    Case("Bernoulli", [("N", 3)], {"seed": 1.0}, "piecewise", between(-9.0, -8.0)),
    Case("Multinomial", [("N", 1)], {"sample_size": 4, "seed": 1.0}, "piecewise"),
]
