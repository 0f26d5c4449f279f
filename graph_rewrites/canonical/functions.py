"""Replace calls of functions by their bodies: local ones, and operators that opset 21 lacks."""

from __future__ import annotations

from typing import Any

import onnx
import onnx.inliner

from graph_rewrites.errors import ModelError, UnsupportedOperatorError

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
    for node in model.graph.node:
        if not node.domain and not onnx.defs.has(node.op_type, opset, ""):
            young.setdefault(node.op_type, node)
    for op_type, node in young.items():
        if not _has_body(onnx.defs.get_schema(op_type, version, "")):
            raise UnsupportedOperatorError(
                f"operator {describe(node)} of opset {version} does not exist in opset {opset} and "
                f"has no standard body; export the model with opset {opset} or below"
            )
    if not young:
        return model
    try:
        return onnx.inliner.inline_selected_functions(
            _with_typed_initializers(model), [("", op) for op in young], False, True
        )
    except RuntimeError as error:
        raise UnsupportedOperatorError(
            f"operators {', '.join(young)} of opset {version} cannot be expressed in opset {opset} "
            f"({_line(error)}); export the model with opset {opset} or below"
        ) from error


def require_known_operators(model: onnx.ModelProto) -> None:
    """Check that every node of the default domain names an operator of the model's opset.

    Raises:
        UnsupportedOperatorError: one does not.
    """
    version = default_opset(model)
    for node in model.graph.node:
        if node.domain in _LAYOUTS:
            raise UnsupportedOperatorError(
                f"operator {describe(node)} belongs to one machine's memory layout; save the "
                "optimised model again with the runtime's optimisation level EXTENDED or below"
            )
        if not node.domain and not _exists(node.op_type, version):
            raise UnsupportedOperatorError(
                f"operator {describe(node)} is no ONNX operator of opset {version}; if it is a "
                "custom one, give it the domain that it belongs to"
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


def describe(node: onnx.NodeProto) -> str:
    """How an error names a node: operator, name and first output."""
    domain = f"{node.domain}." if node.domain else ""
    name = f"node {node.name!r}, " if node.name else ""
    output = next((output for output in node.output if output), "")
    return f"{domain}{node.op_type} ({name}output {output!r})"


def _has_body(schema: Any) -> bool:  # noqa: ANN401 - onnx's stubs lack these properties
    return bool(schema.has_function or schema.has_context_dependent_function)


def _with_typed_initializers(model: onnx.ModelProto) -> onnx.ModelProto:
    """Declare the initializers' types among the inner values, where the inliner looks for them."""
    typed = onnx.ModelProto()
    typed.CopyFrom(model)
    known = {value.name for value in (*typed.graph.value_info, *typed.graph.input)}
    typed.graph.value_info.extend(
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in typed.graph.initializer
        if tensor.name not in known
    )
    return typed


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
