"""Set the bulk of a model's weights aside, and put it back.

Editing needs names, types and shapes of the weights but hardly ever their values. Carrying
100 MB through every import, shape inference, conversion and export is what makes ONNX tools slow;
a light model carries only the small tensors (shapes, axes, scales), the rest waits here.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path

import numpy as np
import onnx
from onnx.external_data_helper import ExternalDataInfo

from graph_rewrites.errors import ModelError

KEEP_BYTES = 1024
"""Tensors up to this size stay in the light model: shape inference reads them."""


def detach(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, onnx.TensorProto]]:
    """Return a light copy of `model` and its bulky initializers by name.

    The source is not touched; the returned tensors are the source's own, to be read only.
    """
    light = onnx.ModelProto()
    _copy_fields(model, light, skip="graph")
    _copy_fields(model.graph, light.graph, skip="initializer")
    bulk = {}
    for tensor in model.graph.initializer:
        if is_bulky(tensor):
            bulk[tensor.name] = tensor
            tensor = emptied(tensor)
        light.graph.initializer.append(tensor)
    return light, bulk


def values(tensor: onnx.TensorProto) -> np.ndarray:
    """The values of a stored tensor; such as were left in a file are read from there.

    Raises:
        ModelError: the file is not named by its absolute path, or does not hold them.
    """
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return onnx.numpy_helper.to_array(tensor)
    info = ExternalDataInfo(tensor)
    if not is_at_hand(tensor):
        raise ModelError(
            f"tensor {tensor.name!r} lies in external data that was not loaded; "
            "load it with onnx.load(path, load_external_data=True)"
        )
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    try:
        found = np.fromfile(info.location, dtype, prod(tensor.dims), offset=info.offset or 0)
        return found.reshape(tensor.dims)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"tensor {tensor.name!r}: {info.location} does not hold its values ({error}); "
            "load the model again"
        ) from error


def is_at_hand(tensor: onnx.TensorProto) -> bool:
    """Whether a tensor's values are in it, or in a file that is named by its absolute path."""
    outside = tensor.data_location == onnx.TensorProto.EXTERNAL
    return not outside or Path(ExternalDataInfo(tensor).location).is_absolute()


def is_bulky(tensor: onnx.TensorProto) -> bool:
    """Whether a tensor's values are set aside: it is large, or they lie in another file."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return True
    if tensor.HasField("raw_data") and prod(tensor.dims) > 8 * KEEP_BYTES:
        return True  # whatever its type; to measure every message would take longer than to rewrite
    return bool(tensor.ByteSize() > KEEP_BYTES)


def emptied(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """A tensor of the same name, type and shape that holds no values."""
    return onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)


def attach(light: onnx.ModelProto, bulk: Mapping[str, onnx.TensorProto]) -> onnx.ModelProto:
    """Fill the emptied initializers of `light` in place and return it."""
    for tensor in light.graph.initializer:
        full = bulk.get(tensor.name)
        if full is not None:
            tensor.CopyFrom(full)
    return light


def _copy_fields(
    source: onnx.ModelProto | onnx.GraphProto,
    target: onnx.ModelProto | onnx.GraphProto,
    *,
    skip: str,
) -> None:
    for field, value in source.ListFields():
        if field.name == skip:
            continue
        if hasattr(value, "MergeFrom"):  # repeated fields and messages
            getattr(target, field.name).MergeFrom(value)
        else:
            setattr(target, field.name, value)
