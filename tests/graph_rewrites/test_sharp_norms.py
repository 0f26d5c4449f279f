"""The float64 norms are what the runtime computes."""

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from graph_rewrites.sharp_norms import NORMS

from .rules.harness import onnxruntime

NODES = [
    *(f"GlobalLpPool<p = {p}>" for p in (1, 2, 3)),
    *(f"LpNormalization<p = {p}, axis = {axis}>" for p in (1, 2) for axis in (0, 1, -1)),
    "GlobalLpPool",
    "LpNormalization",
    "LpPool<kernel_shape = [2, 2]>",
    *(
        f"LpPool<p = {p}, {window}>"
        for p in (1, 2, 3)
        for window in (
            "kernel_shape = [3, 2], strides = [2, 1], pads = [1, 0, 1, 1]",
            "kernel_shape = [2, 3], dilations = [2, 1], pads = [0, 2, 1, 0]",
            "kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1",
        )
    ),
]


@pytest.mark.parametrize("node", NODES)
def test_norms_are_those_of_the_runtime(node: str) -> None:
    text = f"(float[2, 3, 7, 6] x) => (float[A, B, C, D] y) {{ y = {node}(x) }}"
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": 21]> g {text}')
    x = np.random.default_rng(0).standard_normal((2, 3, 7, 6))
    x[0, 0] = 0.0
    (expected,) = onnxruntime(model)({"x": x.astype(np.float32)})
    (actual,) = ReferenceEvaluator(model, new_ops=list(NORMS)).run(None, {"x": x})
    assert actual.dtype == np.float64
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_a_vector_of_zeros_stays_zero() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["": 21]> g (double[2] x) => (double[2] y) '
        "{ y = LpNormalization(x) }"
    )
    (y,) = ReferenceEvaluator(model, new_ops=list(NORMS)).run(None, {"x": np.zeros(2)})
    np.testing.assert_array_equal(y, [0.0, 0.0])
