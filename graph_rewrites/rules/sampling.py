"""Random draws.

They take from their input a shape, or the odds of an outcome that does not move a little when the
odds do.
"""

from __future__ import annotations

from graph_rewrites.rules.table import zero

LIKE = zero("RandomNormalLike", "RandomUniformLike")
"""Of the input they read the shape."""

OUTCOMES = zero("Bernoulli", "Multinomial")
"""Piecewise constant in the odds."""
