"""What an ONNX file declares: operator sets, graph inputs, and the types of tensors."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, MutableSequence
from typing import TypeVar

import onnx

from graph_rewrites.errors import ModelError
from graph_rewrites.tensor_type import TensorType

_Proto = TypeVar("_Proto")


def normalise(model: onnx.ModelProto) -> None:
    """Spell the default domain "" everywhere and drop initializers from the inputs, in place.

    An STFT says that it is one-sided, where that is by default: shape inference takes it for
    two-sided else.
    """
    domains = {entry.domain for entry in model.opset_import}
    for entry in list(model.opset_import):
        if entry.domain == "ai.onnx":
            if "" in domains:
                model.opset_import.remove(entry)
            else:
                entry.domain = ""
    for node in model.graph.node:
        if node.domain == "ai.onnx":
            node.domain = ""
        if node.op_type == "STFT" and not any(a.name == "onesided" for a in node.attribute):
            node.attribute.append(onnx.helper.make_attribute("onesided", 1))
    initialised = {tensor.name for tensor in model.graph.initializer}
    keep(model.graph.input, lambda value: value.name not in initialised)


def infer_types(model: onnx.ModelProto, foreign: Collection[str]) -> dict[str, TensorType]:
    """The types of all tensors, from the inputs, the initializers and the nodes.

    Args:
        model: a model with sorted nodes; what it declares for inner tensors is dropped from it.
        foreign: outputs of custom operators: only for these the declarations count.

    Raises:
        ModelError: shape inference finds a contradiction.
    """
    keep(model.graph.value_info, lambda value: value.name in foreign)
    try:
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError) as error:
        raise ModelError(f"shape inference fails on this model: {error}") from error
    graph = model.graph
    types = {v.name: TensorType.of(v) for v in (*graph.value_info, *graph.input, *graph.output)}
    for tensor in graph.initializer:
        types[tensor.name] = TensorType(tensor.data_type, tuple(tensor.dims))
    return types


def update_types(
    graph: onnx.GraphProto, types: Mapping[str, TensorType], foreign: Collection[str]
) -> None:
    """Bring what `graph` declares for inner tensors up to the known `types`, in place.

    A declaration that says no less than is known stays as it is, and so does one of a `foreign`
    tensor, the output of a custom operator.
    """
    keep(graph.value_info, lambda value: value.name in foreign or value.name in types)
    for value in graph.value_info:
        known = types.get(value.name, TensorType())
        if known.shape is not None and not TensorType.of(value).admits(known):
            value.type.CopyFrom(known.declare(value.name).type)
        elif known.shape is None and value.name not in foreign and known.elem_type:
            value.type.tensor_type.ClearField("shape")


def keep(repeated: MutableSequence[_Proto], wanted: Callable[[_Proto], bool]) -> None:
    """Drop from a repeated field, in place, what is not `wanted`."""
    kept = [copy.deepcopy(item) for item in repeated if wanted(item)]
    if len(kept) != len(repeated):
        del repeated[:]
        repeated.extend(kept)
