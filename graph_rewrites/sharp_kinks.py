"""Operators with a kink, held to the linear piece on which a point puts each element.

In a network of hundreds of layers some ReLU turns between x and any x + h·d that rounding leaves
apart. Held to the pieces at x, the network is smooth and has the same derivative there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from graph_rewrites.sharp_ops import Array, MaxPool

Held: TypeAlias = Callable[[Array], Array]


def hold(node: onnx.NodeProto, reads: Mapping[str, Array], results: Sequence[Array]) -> Held | None:
    """What `node` makes of its first input near the point where it computed `results`.

    None where it has no such kinks; indices and sizes may be clipped too, and stay integers.
    """
    known = len(results) == 1 and results[0].dtype.kind == "f"
    holder = _HOLDERS.get(node.op_type) if known else None
    return holder(node, reads[node.input[0]], results[0]) if holder is not None else None


def _rectified(node: onnx.NodeProto, x: Array, y: Array) -> Held:
    passed = x > 0  # a bit each: a deep network has hundreds of these
    return lambda value: np.where(passed, value, 0.0)


def _homogeneous(node: onnx.NodeProto, x: Array, y: Array) -> Held:
    slope = np.divide(y, x, out=np.zeros_like(y), where=x != 0)
    return lambda value: value * slope


def _clipped(node: onnx.NodeProto, x: Array, y: Array) -> Held:
    inside, bounds = x == y, y.astype(np.float32)  # whose bounds are of that type
    return lambda value: np.where(inside, value, bounds)


def _largest(node: onnx.NodeProto, x: Array, y: Array) -> Held:
    both = onnx.NodeProto()
    both.CopyFrom(node)
    both.output.append(f"{node.output[0]}/places")
    for attribute in node.attribute:
        if attribute.name == "storage_order":  # of the places, which are read row by row below
            both.attribute.remove(attribute)
    _, places = ReferenceEvaluator(both, new_ops=[MaxPool]).run(None, {node.input[0]: x})
    return lambda value: value.reshape(-1)[places]


_HOLDERS: Mapping[str, Callable[[onnx.NodeProto, Array, Array], Held]] = MappingProxyType(
    {
        "Clip": _clipped,
        "LeakyRelu": _homogeneous,
        "MaxPool": _largest,
        "PRelu": _homogeneous,
        "Relu": _rectified,
    }
)
