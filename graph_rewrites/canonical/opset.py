"""Bring a model to operator set 18 to 21: there every operator that we emit exists and has kernels.

`onnx.version_converter` does the work, apart from the operators that it renames (`forerunners`).
It drops metadata, doc strings of values and quantization annotations: so only the nodes that a
version step really changed, and the constants that go with them, are taken from what it returns.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx
import onnx.version_converter

from graph_rewrites.canonical.forerunners import release, succeed
from graph_rewrites.canonical.functions import (
    default_opset,
    expand_young_operators,
    require_known_operators,
)
from graph_rewrites.canonical.inference_mode import refuse_old_training
from graph_rewrites.canonical.young_attributes import drop_young_attributes
from graph_rewrites.errors import ModelError

LOWEST, HIGHEST, IR_VERSION = 18, 21, 10


def convert_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return `model` in opset 18 to 21 and IR 10; the argument may be changed.

    Raises:
        UnsupportedOperatorError: an operator is unknown, or cannot be expressed in opset 21.
        ModelError: the converter fails.
    """
    version = default_opset(model)
    newest = onnx.defs.onnx_opset_version()
    if version > newest:
        raise ModelError(
            f"the model has opset {version}, but the installed onnx knows {newest} at most; "
            "upgrade onnx or export the model with an older opset"
        )
    require_known_operators(model)
    refuse_old_training(model, version)
    model.ir_version = max(model.ir_version, IR_VERSION)
    if version > HIGHEST:
        model = expand_young_operators(model, HIGHEST)
        drop_young_attributes(model)
        model = _convert(model, HIGHEST)
    elif version < (lowest := HIGHEST if _quantises_early(model) else LOWEST):
        model = _convert(model, lowest)
    model.ir_version = IR_VERSION
    return model


def _quantises_early(model: onnx.ModelProto) -> bool:
    """Whether quantisation is the runtime's own, as 16 bits are before opset 21 has them."""
    own = {node.op_type for node in model.graph.node if node.domain == "com.microsoft"}
    return not own.isdisjoint({"QuantizeLinear", "DequantizeLinear"})


def _convert(model: onnx.ModelProto, target: int) -> onnx.ModelProto:
    version = default_opset(model)
    succeed(model, version)
    try:
        converted = onnx.version_converter.convert_version(model, target)
    except (RuntimeError, onnx.version_converter.ConvertError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(
            f"the model cannot be converted from opset {version} to {target}: {reason}; "
            f"export it with opset {LOWEST} to {HIGHEST}"
        ) from error
    _merge(model, converted, version, target)
    release(model)
    return model


def _merge(model: onnx.ModelProto, converted: onnx.ModelProto, version: int, target: int) -> None:
    """Take the converted nodes and new constants into `model`, and leave all else as it was."""
    source = {next(filter(None, node.output), ""): node for node in model.graph.node}
    nodes = []
    for node in converted.graph.node:
        original = source.get(next(filter(None, node.output), ""))
        if original is not None:
            node = _settled(original, node, version, target)
        nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    known = {tensor.name for tensor in model.graph.initializer}
    model.graph.initializer.extend(t for t in converted.graph.initializer if t.name not in known)
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = target


def _settled(
    original: onnx.NodeProto, node: onnx.NodeProto, version: int, target: int
) -> onnx.NodeProto:
    """The node to keep: the original where its operator stayed the same, else with its metadata."""
    same = original.op_type == node.op_type and list(original.input) == list(node.input)
    if same and not _has_subgraph(original.attribute) and _unchanged(original, version, target):
        return original
    del node.metadata_props[:]
    node.metadata_props.extend(original.metadata_props)
    node.doc_string = original.doc_string
    return node


def _unchanged(node: onnx.NodeProto, version: int, target: int) -> bool:
    """Whether both operator sets mean the same operator by this node."""
    if node.domain:
        return True
    then, now = (onnx.defs.get_schema(node.op_type, v, "") for v in (version, target))
    return bool(then.since_version == now.since_version)


def _has_subgraph(attributes: Iterable[onnx.AttributeProto]) -> bool:
    return any(a.HasField("g") or a.graphs for a in attributes)
