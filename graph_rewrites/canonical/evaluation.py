"""Compute a tensor now, by `onnx.reference`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator


def evaluate(
    nodes: Sequence[onnx.NodeProto], feeds: Mapping[str, np.ndarray], tensor: str, opset: int
) -> np.ndarray:
    """The value of `tensor`, which the sorted `nodes` compute from `feeds`.

    Raises:
        Exception: whatever the reference raises on operators or values that it does not take.
    """
    untyped = onnx.helper.make_empty_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes, "part", [untyped(name) for name in feeds], [untyped(tensor)]
    )
    opsets = [onnx.helper.make_opsetid("", opset)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    with np.errstate(all="ignore"):
        (value,) = ReferenceEvaluator(model).run(None, dict(feeds))
    return np.asarray(value)
