"""Name an activation by its values.

Exporters spell one activation in many ways: GELU alone has a dozen orders of its five factors, with
a division or a multiplication, two forms and constants of 16 or 32 bits. All of them compute the
same function, so the function is what is compared: a formula of one variable that agrees with a
known activation at every sample is that activation, however it is written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import erf, log, pi, sqrt
from typing import TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray

_FAR, _NEAR = 1e6, 12.0
_TAILS = np.array([20.0, 50.0, 100.0, 300.0, 1e3, 1e4, 1e5, _FAR])
SAMPLES: Array = np.concatenate([-_TAILS[::-1], np.linspace(-_NEAR, _NEAR, 193), _TAILS])
"""Where formulas are compared, (S,): densely where activations bend, sparsely up to any bound."""

_TOLERANCE = 3e-4  # constants of 16 bits pass; the two forms of GELU are further apart
_ENOUGH = 8  # finite samples on either side of 0: a quantised formula is known in its range only


@dataclass(frozen=True)
class Named:
    """What a formula was found to be.

    Attributes:
        name: as people write it: "SiLU", "GELU", "ReLU6".
        kind: "relu", "clip" (a ReLU with an upper bound) or "smooth".
        bound: the upper bound of a "clip".
    """

    name: str
    kind: str = "smooth"
    bound: float | None = None


def name_of(y: Array) -> Named | None:
    """The activation whose values at `SAMPLES` are `y`; None where it is none we know.

    A ReLU must agree exactly, because its mask is read off its output; the others to 3e-4.

    Args:
        y: (S, C): one column per parameter set (the channels of a PReLU); not finite where the
            formula overflows or is not known.
    """
    known = np.isfinite(y).all(axis=1)
    if min((known & (SAMPLES < 0)).sum(), (known & (SAMPLES > 0)).sum()) < _ENOUGH:
        return None
    x, given = SAMPLES[known, None], y[known]
    top = float(given.max())
    if (given == np.clip(x, 0.0, top)).all():
        return _rectifier(top) if known.all() and top > 0.0 else None
    near = np.abs(given[np.abs(x[:, 0]) <= _NEAR]).max(axis=0, initial=0.0)
    size = np.maximum(np.abs(given), np.minimum(1.0, near))
    values = Values(y)
    with np.errstate(all="ignore"):
        for name, form in FORMS:
            if (np.abs(given - form(x, values)) <= _TOLERANCE * size).all():
                return Named(name)
    return None


def _rectifier(top: float) -> Named:
    return Named("ReLU", "relu") if top == _FAR else Named(f"ReLU{top:g}", "clip", top)


class Values:
    """The values of a formula, from which a parameter of it is read off."""

    def __init__(self, y: Array) -> None:
        self._y = y

    def __call__(self, x: float) -> Array:
        """The formula at the sample `x`, (C,)."""
        row: Array = self._y[np.searchsorted(SAMPLES, x)]
        return row

    def last_zero(self) -> Array:
        """The greatest sample, (C,), where the formula is 0; NaN where that is none above 0."""
        last: Array = np.where(self._y == 0.0, SAMPLES[:, None], 0.0).max(axis=0)
        last[last <= 0.0] = np.nan
        return last


Form = Callable[[Array, Values], Array]
"""The values of an activation at x (S, 1), its parameters read off the formula's own values."""


def _sigmoid(x: Array) -> Array:
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def _softplus(x: Array) -> Array:
    values: Array = np.logaddexp(0.0, x)
    return values


def _elu(x: Array, alpha: float | Array, width: float | Array = 1.0) -> Array:
    values: Array = np.where(x > 0.0, x, alpha * np.expm1(np.minimum(x, 0.0) / width))
    return values


def _swish(x: Array, y: Values) -> Array:
    p = y(1.0)
    beta = np.log(p / (1.0 - p))
    values: Array = x * _sigmoid(np.where(beta > 1e-3, beta, np.nan) * x)
    return values


def _hard_sigmoid(x: Array, y: Values) -> Array:
    middle = y(0.0)
    slope = (y(0.125) - middle) / 0.125
    values: Array = np.clip(
        slope * x + np.where((middle > 0.0) & (middle < 1.0), middle, np.nan), 0.0, 1.0
    )
    return values


def _hard_swish(x: Array, y: Values) -> Array:
    """Any multiple of it: the division by 6 may have gone into the next weights."""
    times = 1.5 * y(1.0)
    values: Array = times * x * np.clip(x / 6.0 + 0.5, 0.0, 1.0)
    return values


def _leaky_relu(x: Array, y: Values) -> Array:
    """With an upper bound or without."""
    slope = -y(-1.0)
    one = (np.ptp(slope) == 0.0) & (np.abs(slope) != 1.0)  # neither the identity nor |x|
    values: Array = np.where(x > 0.0, np.fmin(x, y(_FAR)), np.where(one, slope, np.nan) * x)
    return values


def _prelu(x: Array, y: Values) -> Array:
    slope = -y(-1.0)
    values: Array = np.where(x > 0.0, x, np.where(np.ptp(slope) > 0.0, slope, np.nan) * x)
    return values


def _soft_shrink(x: Array, y: Values) -> Array:
    threshold = _NEAR - y(_NEAR)
    values: Array = np.sign(x) * np.maximum(
        np.abs(x) - np.where(threshold > 0.0, threshold, np.nan), 0.0
    )
    return values


def _softplus_of(x: Array, y: Values) -> Array:
    beta = log(2.0) / y(0.0)
    return _softplus(beta * x) / beta


FORMS: tuple[tuple[str, Form], ...] = (
    ("SiLU", lambda x, y: x * _sigmoid(x)),
    ("QuickGELU", lambda x, y: x * _sigmoid(1.702 * x)),
    ("Swish", _swish),
    ("GELU", lambda x, y: 0.5 * x * (1.0 + np.vectorize(erf)(x / sqrt(2.0)))),
    ("GELU", lambda x, y: 0.5 * x * (1.0 + np.tanh(sqrt(2.0 / pi) * (x + 0.044715 * x**3)))),
    ("HardSwish", _hard_swish),
    ("HardSigmoid", _hard_sigmoid),
    ("Hardtanh", lambda x, y: np.clip(x, -1.0, 1.0)),
    ("Mish", lambda x, y: x * np.tanh(_softplus(x))),
    ("Sigmoid", lambda x, y: _sigmoid(x)),
    ("LogSigmoid", lambda x, y: -_softplus(-x)),
    ("Tanh", lambda x, y: np.tanh(x)),
    ("Tanhshrink", lambda x, y: x - np.tanh(x)),
    ("Softsign", lambda x, y: x / (1.0 + np.abs(x))),
    ("Softplus", _softplus_of),
    ("Squareplus", lambda x, y: 0.5 * (x + np.hypot(x, 2.0 * y(0.0)))),
    ("LeakyReLU", _leaky_relu),
    ("PReLU", _prelu),
    ("ELU", lambda x, y: _elu(x, y(-1.0) / np.expm1(-1.0))),
    ("CELU", lambda x, y: _elu(x, -y(-_FAR), -y(-_FAR))),
    ("SELU", lambda x, y: 1.0507009873554805 * _elu(x, 1.6732632423543772)),
    ("ThresholdedReLU", lambda x, y: np.where(x > y.last_zero(), x, y.last_zero() * 0.0)),
    ("Hardshrink", lambda x, y: np.where(np.abs(x) > y.last_zero(), x, y.last_zero() * 0.0)),
    ("Softshrink", _soft_shrink),
)
"""The activations that networks use, and how each is computed; the first that agrees is it."""
