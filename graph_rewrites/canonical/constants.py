"""Lift Constant nodes to initializers, where weights, shapes and bounds are looked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
from onnx import TensorProto

from graph_rewrites import weights


def lift_constants(model: onnx.ModelProto, bulk: dict[str, TensorProto]) -> None:
    """Turn the main graph's Constant nodes into initializers of the same name, in place.

    Bulky values go to `bulk`. A constant that is a graph output itself stays a node.
    """
    outputs = {value.name for value in model.graph.output}
    kept = []
    for node in model.graph.node:
        lifted = constant_value(node) if not node.domain and node.op_type == "Constant" else None
        if lifted is None or node.output[0] in outputs:
            kept.append(node)
            continue
        lifted.name = node.output[0]
        lifted.doc_string = node.doc_string
        lifted.metadata_props.extend(node.metadata_props)
        if weights.is_bulky(lifted):
            bulk[lifted.name] = lifted
            lifted = weights.emptied(lifted)
        model.graph.initializer.append(lifted)
    if len(kept) < len(model.graph.node):
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
        del model.graph.node[:]
        model.graph.node.extend(nodes)


def constant_value(node: onnx.NodeProto) -> TensorProto | None:
    """What a Constant node holds; None where it holds none of the standard forms."""
    for attribute in node.attribute:
        if attribute.name in _FORMS:
            value = _FORMS[attribute.name](onnx.helper.get_attribute_value(attribute))
            return value if isinstance(value, TensorProto) else onnx.numpy_helper.from_array(value)
    return None


def _copy(tensor: TensorProto) -> TensorProto:
    copy = TensorProto()
    copy.CopyFrom(tensor)
    return copy


def _dense(sparse: onnx.SparseTensorProto) -> np.ndarray:
    """A sparse tensor written out. Indices are linear, or one row of coordinates per value."""
    values = onnx.numpy_helper.to_array(sparse.values)
    indices = onnx.numpy_helper.to_array(sparse.indices)
    dense = np.zeros(tuple(sparse.dims), values.dtype)
    if indices.ndim == 1:
        dense.reshape(-1)[indices] = values
    else:
        dense[tuple(indices.T)] = values
    return dense


_FORMS: Mapping[str, Callable[[Any], np.ndarray | TensorProto]] = {
    "value": _copy,
    "sparse_value": _dense,
    "value_int": lambda value: np.array(value, np.int64),
    "value_ints": lambda values: np.array(values, np.int64),
    "value_float": lambda value: np.array(value, np.float32),
    "value_floats": lambda values: np.array(values, np.float32),
    "value_string": lambda value: np.array(value.decode(), object),
    "value_strings": lambda values: np.array([value.decode() for value in values], object),
}
