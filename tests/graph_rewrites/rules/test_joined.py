"""Scatter by max and min: what is equal shares the cotangent evenly, as PyTorch's amax does."""

import numpy as np
import pytest

from graph_rewrites.operator_model import backward, retyped
from graph_rewrites.rules import DEFAULT_RULES

from .harness import Case, onnxruntime

PLACES = {
    "ScatterElements": np.array([1, 1, 3], np.int64),
    "ScatterND": np.array([[1], [1], [3]], np.int64),
}


@pytest.mark.parametrize("op", PLACES)
@pytest.mark.parametrize(("reduction", "sign"), [("max", 1.0), ("min", -1.0)])
def test_equal_ones_share(op: str, reduction: str, sign: float) -> None:
    case = Case(op, [(4,), PLACES[op], (3,)], {"reduction": reduction})
    rule = DEFAULT_RULES.get(op)
    assert rule is not None and rule.fn is not None
    run = onnxruntime(backward(retyped(case.model(), (), 1), rule.fn, (0, 2), {"y0": (4,)}))
    x, updates = (sign * np.array(t, np.float32) for t in ([5, 2, 5, 7], [2, 2, 1]))
    ct = np.array([1, 12, 3, 4], np.float32)
    _, dx, taken = run({"x0": x, "x2": updates, "ct/y0": ct})
    np.testing.assert_allclose(dx, [1, 4, 3, 4], rtol=1e-6)
    np.testing.assert_allclose(taken, [4, 4, 0], rtol=1e-6)
