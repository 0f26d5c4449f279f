"""Replace calls of functions by their bodies: local ones, and operators that opset 21 lacks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import onnx
import onnx.inliner

from graph_rewrites.errors import ModelError, UnsupportedOperatorError

# What tf2onnx leaves of TensorFlow, and how it goes away.
_UNTRANSLATED = {
    "StatefulPartitionedCall": ", but a call of a function compiled by XLA, as Keras's grouped "
    "convolutions are; export the model under tf.config.run_functions_eagerly(True)",
    "Erfc": ", but half of TensorFlow's exact GELU; export the model with gelu(approximate=True), "
    "or give tf2onnx a handler that writes 1 - Erf(x)",
}
_LAYOUTS = frozenset({"com.microsoft.nchwc", "com.ms.internal.nhwc"})
"""Domains of operators that the runtime's optimiser makes for the machine that it runs on."""


def inline_local_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Put the bodies of the model's own functions in place of the nodes that call them.

    The version converter would drop the functions and keep the calls.

    Raises:
        ModelError: the functions cannot be inlined.
    """
    if not model.functions:
        return model
    try:
        return onnx.inliner.inline_local_functions(model)
    except RuntimeError as error:
        raise ModelError(
            f"the model's local functions cannot be inlined ({_line(error)}); export the model "
            "without local functions"
        ) from error


def expand_young_operators(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Express operators that were born after `opset` by older ones, as their standard bodies say.

    Raises:
        UnsupportedOperatorError: one of them has no such body.
    """
    version = default_opset(model)
    young: dict[str, onnx.NodeProto] = {}
    for node in all_nodes(model.graph):
        if not node.domain and not onnx.defs.has(node.op_type, opset, ""):
            young.setdefault(node.op_type, node)
    for op_type, node in young.items():
        if not has_body(op_type, version):
            raise UnsupportedOperatorError(
                f"operator {describe(node, version)} does not exist in opset {opset} and has no "
                f"standard body; export the model with opset {opset} or below"
            )
    return expand_operators(model, list(young)) if young else model


def expand_operators(model: onnx.ModelProto, op_types: Sequence[str]) -> onnx.ModelProto:
    """Put their standard bodies in place of the operators named.

    Raises:
        UnsupportedOperatorError: the bodies cannot be put there.
    """
    try:
        return onnx.inliner.inline_selected_functions(
            _spelled_out(model, op_types), [("", op_type) for op_type in op_types], False, True
        )
    except RuntimeError as error:
        raise UnsupportedOperatorError(
            f"the standard bodies of {', '.join(op_types)} of opset {default_opset(model)} cannot "
            f"be put in their place ({_line(error)}); export the model with opset 21 or below"
        ) from error


def has_body(op_type: str, version: int) -> bool:
    """Whether the standard defines an operator of the default domain by a body of others."""
    if not onnx.defs.has(op_type, version, ""):
        return False
    schema: Any = onnx.defs.get_schema(op_type, version, "")  # onnx's stubs lack these properties
    return bool(schema.has_function or schema.has_context_dependent_function)


def require_known_operators(model: onnx.ModelProto) -> None:
    """Check that every node of the default domain names an operator of the model's opset.

    Raises:
        UnsupportedOperatorError: one does not.
    """
    version = default_opset(model)
    for node in model.graph.node:
        if node.domain in _LAYOUTS:
            raise UnsupportedOperatorError(
                f"operator {describe(node, version)} belongs to one machine's memory layout; save "
                "the optimised model again with the runtime's optimisation level EXTENDED or below"
            )
        if not node.domain and not _exists(node.op_type, version):
            raise UnsupportedOperatorError(
                f"operator {describe(node, version)} is no ONNX operator of that opset"
                + _UNTRANSLATED.get(
                    node.op_type, "; give it the domain that it belongs to if it is a custom one"
                )
            )


def _exists(op_type: str, version: int) -> bool:
    return (
        onnx.defs.has(op_type, version, "")
        and not onnx.defs.get_schema(op_type, version, "").deprecated
    )


def default_opset(model: onnx.ModelProto) -> int:
    """The version of the default operator set that the model declares.

    Raises:
        ModelError: it declares none.
    """
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            return int(entry.version)
    raise ModelError(
        "the model does not say which ONNX operator set it uses (no opset_import of the default "
        "domain); it was not written completely: export it again"
    )


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph and of its subgraphs, at any depth."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for subgraph in (attribute.g, *attribute.graphs):
                yield from all_nodes(subgraph)


def describe(node: onnx.NodeProto, opset: int | None = None) -> str:
    """How an error names a node: operator, name, output, and operator set if given."""
    domain = f"{node.domain}." if node.domain else ""
    name = f"node {node.name!r}, " if node.name else ""
    output = next((output for output in node.output if output), "")
    version = f", opset {opset}" if opset else ""
    return f"{domain}{node.op_type} ({name}output {output!r}{version})"


def _spelled_out(model: onnx.ModelProto, op_types: Collection[str]) -> onnx.ModelProto:
    """A copy that says what the inliner does not look up by itself.

    That is the initializers' types, and of the operators named each attribute's default.
    """
    told = onnx.ModelProto()
    told.CopyFrom(model)
    known = {value.name for value in (*told.graph.value_info, *told.graph.input)}
    told.graph.value_info.extend(
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in told.graph.initializer
        if tensor.name not in known
    )
    for node in all_nodes(told.graph):
        if node.op_type in op_types and not node.domain:
            given = {attribute.name for attribute in node.attribute}
            schema = onnx.defs.get_schema(node.op_type, default_opset(told), "")
            node.attribute.extend(
                attribute.default_value
                for name, attribute in schema.attributes.items()
                if attribute.default_value.name and name not in given
            )
    return told


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
