"""Of equal maxima the first, in row-major order, gets the whole cotangent."""

import itertools

import numpy as np
import pytest

from graph_rewrites.operator_model import backward, retyped
from graph_rewrites.rules import DEFAULT_RULES

from .harness import Case, Fed, onnxruntime


def first_maxima(x: np.ndarray, ct: np.ndarray, kernel: int, stride: int, pad: int) -> np.ndarray:
    """Max-pool's gradient, window by window."""
    grad = np.zeros(x.shape, np.float32)
    for n, c, i, j in itertools.product(*map(range, ct.shape)):
        rows = range(max(0, i * stride - pad), min(x.shape[2], i * stride - pad + kernel))
        columns = range(max(0, j * stride - pad), min(x.shape[3], j * stride - pad + kernel))
        places = list(itertools.product(rows, columns))
        best = max(places, key=lambda place: (x[n, c, *place], -places.index(place)))
        grad[n, c, *best] += ct[n, c, i, j]
    return grad


def gradient(case: Case, x: np.ndarray, ct: np.ndarray) -> np.ndarray:
    rule = DEFAULT_RULES.get(case.op)
    assert rule is not None
    model = retyped(case.model(), (), 1)
    with_rule = backward(model, rule.fn, (0,), {"y0": ct.shape})
    return onnxruntime(with_rule)({"x0": x, "ct/y0": ct})[-1]


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
@pytest.mark.parametrize(
    ("kernel", "stride", "pad", "ceil", "out"), [(2, 2, 0, 0, 3), (3, 2, 1, 0, 4), (3, 2, 0, 1, 3)]
)
def test_max_pool_takes_the_first(kernel, stride, pad, ceil, out, dtype) -> None:
    rng = np.random.default_rng(5)
    x = rng.integers(0, 3, (2, 3, 7, 7)).astype(dtype)
    ct = rng.standard_normal((2, 3, out, out)).astype(np.float32)
    attrs = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
    shape = Fed(shape=("N", 3, "H", "W"), dtype=dtype)
    case = Case("MaxPool", [shape], {**attrs, "ceil_mode": ceil})
    expected = first_maxima(x, ct, kernel, stride, pad)
    np.testing.assert_allclose(gradient(case, x, ct), expected, rtol=1e-6)


def test_global_max_pool_takes_the_first() -> None:
    rng = np.random.default_rng(5)
    x = rng.integers(0, 3, (2, 3, 4, 4)).astype(np.float32)
    ct = rng.standard_normal((2, 3, 1, 1)).astype(np.float32)
    case = Case("GlobalMaxPool", [("N", 3, "H", "W")])
    np.testing.assert_array_equal(gradient(case, x, ct), first_maxima(x, ct, 4, 4, 0))
