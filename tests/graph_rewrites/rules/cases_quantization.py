"""Cases of Cast, QuantizeLinear and DequantizeLinear: the straight-through estimator."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from .harness import Case, Fed


def f32(*values: float) -> np.ndarray:
    return np.array(values if len(values) > 1 else values[0], np.float32)


CASES = [
    Case("Cast", [("N", 4)], {"to": TensorProto.FLOAT16}, twin="Identity"),
    Case("QuantizeLinear", [("N", 4), f32(0.1), np.array(128, np.uint8)], twin="Identity"),
    Case("QuantizeLinear", [("N", 4), f32(0.1)], twin="Identity", note="no zero point: uint8 0"),
    Case(
        "DequantizeLinear",
        [Fed(shape=("N", 4), dtype=np.uint8), f32(1.0), np.array(3, np.uint8)],
        twin="Identity",
        wrt=(0,),
        note="a step of 1; other scales in test_quantized",
    ),
]
