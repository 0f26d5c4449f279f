"""Say without them what attributes say that opset 21 lacks on an operator that it has.

`onnx.version_converter` steps over these and keeps them, and the model is invalid then. (Those of
Range and SpaceToDepth, the only others so far, it drops or refuses itself.)
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import onnx.shape_inference
from onnx import TensorProto

from graph_rewrites.canonical.functions import all_nodes, default_opset, describe
from graph_rewrites.errors import UnsupportedOperatorError

_YOUNG = {
    "Cast": "round_mode",
    "CastLike": "round_mode",
    "DequantizeLinear": "output_dtype",
    "QuantizeLinear": "precision",
}
"""The rounding is that of a type, float8e8m0, which opset 21 lacks as well: it says nothing."""


def drop_young_attributes(model: onnx.ModelProto) -> None:
    """Drop the attributes born after opset 21, in place; a Cast does what one of them did.

    Raises:
        UnsupportedOperatorError: a quantisation divides in another precision than its scale's.
    """
    found = [
        (node, attribute)
        for node in all_nodes(model.graph)
        for attribute in node.attribute
        if not node.domain and attribute.name == _YOUNG.get(node.op_type)
    ]
    if not found:
        return
    types = _element_types(model)
    casts: dict[str, onnx.NodeProto] = {}  # by the tensor that they read
    for node, attribute in found:
        scale = next(iter(node.input[1:2]), "")
        stays = attribute.i in (0, types.get(scale))
        if node.op_type == "QuantizeLinear" and not stays:
            raise UnsupportedOperatorError(
                f"operator {describe(node, default_opset(model))} divides in "
                f"{TensorProto.DataType.Name(attribute.i)}, which is not known to be the type of "
                f"its scale {scale!r}; quantise the model without 'precision'"
            )
        if node.op_type == "DequantizeLinear" and not stays:
            output, node.output[0] = node.output[0], f"{node.output[0]}/dequantized"
            cast = onnx.helper.make_node("Cast", list(node.output), [output], to=attribute.i)
            casts[node.output[0]] = cast
        node.attribute.remove(attribute)
    _insert(model.graph, casts)


def _element_types(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    declared = (*graph.value_info, *graph.input, *graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in declared}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def _insert(graph: onnx.GraphProto, casts: Mapping[str, onnx.NodeProto]) -> None:
    """Put each Cast right behind the node whose result it reads, in subgraphs too."""
    for at in reversed(range(len(graph.node))):
        node = graph.node[at]
        for attribute in node.attribute:
            for subgraph in (attribute.g, *attribute.graphs):
                _insert(subgraph, casts)
        if node.output and node.output[0] in casts:
            graph.node.insert(at + 1, casts[node.output[0]])
